"""Run folders of the programs that train several learners."""

import fcntl
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT

from common.errors import UsageError
from common.flags import parse
from common.layout import PROGRESS, read_config
from games import matrix_games, value_factorization
from games.matrix_games import Config
from games.shared import Seed, run_folders, unfinished


def seed_of(data_dir: Path, **flags) -> Seed:
    return Seed.of(Config(exp_name="x", data_dir=str(data_dir), **flags), "iql", 3)


def test_asking_whether_a_seed_is_finished_writes_nothing(data_dir):
    assert not seed_of(data_dir).finished()
    assert not data_dir.exists()
    seed = seed_of(data_dir)
    seed.begin()
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    assert not seed.finished()
    assert before == {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}


def test_a_seed_is_finished_when_its_rows_are_there(data_dir):
    seed = seed_of(data_dir)
    seed.begin()
    (seed.folder / PROGRESS).write_text("Epoch\n1\n")
    assert seed_of(data_dir, num_runs=9).finished()  # how many seeds a command trains is no setting of a seed
    assert seed.folder == data_dir / "x_iql" / "x_iql_s3"


def test_a_seed_names_the_libraries_and_the_commit_that_made_it(data_dir, monkeypatch):
    for at, commits in (("ab4a135", ["ab4a135"]), ("", [])):
        monkeypatch.setattr("games.shared.commit", lambda at=at: at)
        seed_of(data_dir).begin()
        config = read_config(data_dir / "x_iql" / "x_iql_s3")
        assert (config["commits"], config["versions"]["numpy"]) == (commits, np.__version__)


def test_a_folder_of_other_settings_is_refused(data_dir):
    seed_of(data_dir, alpha=0.1).begin()
    with pytest.raises(UsageError, match=r"holds a run with alpha 0\.1, not 0\.2; give another --exp_name"):
        seed_of(data_dir, alpha=0.2).finished()


def test_a_seed_that_another_process_trains_is_refused_and_left_as_it_is(data_dir):
    with unfinished([seed_of(data_dir)]) as first:
        assert [seed.folder for seed in first] == [data_dir / "x_iql" / "x_iql_s3"]
        before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
        text = rf"x_iql_s3: process {os.getpid()} on \S+ is training in this folder; wait for it or give another"
        with pytest.raises(UsageError, match=text), unfinished([seed_of(data_dir)]):
            pass
        assert before == {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    with unfinished([seed_of(data_dir)]) as again:
        assert len(again) == 1


def test_a_seed_that_another_process_finished_while_its_lock_was_taken_is_not_trained_again(data_dir, monkeypatch):
    seed, flock = seed_of(data_dir), fcntl.flock
    seed.begin()

    def late(*args):
        (seed.folder / PROGRESS).write_text("Epoch\n1\n")
        flock(*args)

    monkeypatch.setattr("fcntl.flock", late)
    with unfinished([seed]) as todo:
        assert todo == []


def test_finished_seeds_are_not_locked_so_that_they_may_lie_where_nothing_can_be_written(data_dir):
    seed = seed_of(data_dir)
    seed.begin()
    (seed.folder / PROGRESS).write_text("Epoch\n1\n")
    with unfinished([seed]) as todo:
        assert todo == []
    assert not (seed.folder / ".lock").exists()


@pytest.mark.parametrize("program", ["matrix_games", "value_factorization"])
@pytest.mark.parametrize("rank", [0, 1])
def test_several_ranks_are_refused_in_one_line_of_the_first_of_them(program, rank, tmp_path):
    command = [sys.executable, "-m", f"games.{program}", "--data_dir", str(tmp_path / "data")]
    env = {**os.environ, "PMI_SIZE": "2", "PMI_RANK": str(rank)}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)
    line = f"{program}: started as one of 2 processes, but one process trains all seeds: leave out mpirun\n"
    assert (ended.returncode, ended.stderr) == (2, "" if rank else line)
    assert not (tmp_path / "data").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UsageError, match="give another --exp_name or --data_dir"):
        seed_of(tmp_path / "data").begin()


def test_a_full_disk_ends_in_one_line_and_leaves_no_half_table(tmp_path):
    size = ["--env", "two-optima", "--games", "400", "--steps", "100", "--num_runs", "1", "--learners", "iql"]
    done = subprocess.run(
        [sys.executable, "-m", "games.matrix_games", *size, "--data_dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )  # fmt: skip
    (folder,) = (path.parent for path in tmp_path.rglob("config.json"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert re.match(rf"matrix_games: .*File too large: '{folder}/games.txt'; .* rerun the command\n", done.stderr)
    assert {path.name for path in folder.iterdir()} == {"config.json", ".lock"}


def test_run_folders_are_found_once_and_a_folder_without_one_is_named(tmp_path):
    for name in ("b", "a"):
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / "config.json").touch()
    assert run_folders([f"{tmp_path}/x/b", f"{tmp_path}/x"]) == [tmp_path / "x" / "b", tmp_path / "x" / "a"]
    with pytest.raises(UsageError, match=f"no run folder, one with a config.json, in {tmp_path}/y$"):
        run_folders([f"{tmp_path}/x", f"{tmp_path}/y"])


@pytest.mark.parametrize("program", [matrix_games, value_factorization])
def test_a_game_that_there_is_not_is_refused_and_not_trained(program, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["program", "--env", "nosuch"])
    with pytest.raises(UsageError, match=r"^--env 'nosuch': known are (trees, two-optima|qplex-game, qtran-game); "):
        parse(program.Config, program.defaults, program.__doc__, "program")
