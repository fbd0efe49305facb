"""Run folders of the programs that train several learners."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UsageError
from common.flags import parse
from common.layout import PROGRESS, read_config
from games import matrix_games, value_factorization
from games.matrix_games import Config
from games.shared import Seed


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


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UsageError, match="give another --exp_name or --data_dir"):
        seed_of(tmp_path / "data").begin()


@pytest.mark.parametrize("program", [matrix_games, value_factorization])
def test_a_game_that_there_is_not_is_refused_and_not_trained(program, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["program", "--env", "nosuch"])
    with pytest.raises(UsageError, match=r"^--env 'nosuch': known are (trees, two-optima|qplex-game, qtran-game); "):
        parse(program.Config, program.defaults, program.__doc__, "program")
