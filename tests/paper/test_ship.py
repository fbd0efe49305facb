"""Finished runs go to results/, and nothing that is there is lost."""

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import GAME, write_experiment

from paper import ship

NAME = f"iddpg_{GAME}"


@pytest.fixture
def command(tmp_path, capsys):
    """command(*words): exit status, lines of stdout, stderr."""

    def command(*words: str) -> tuple[int, list[str], str]:
        status = ship.main([*words, "--data_dir", str(tmp_path / "data"), "--to", str(tmp_path / "results")])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    return command


def write(root: Path, seed: int, returns: list[float], **config: Any) -> Path:
    return write_experiment(root, NAME, seed, returns, **{"steps_per_epoch": 10_000, "epochs": 3, **config})


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_finished_run_is_shipped_without_checkpoint_and_policy(tmp_path, command):
    run = write(tmp_path / "data", 0, [1, 2, 3])
    write(tmp_path / "data", 1, [1, 2, 3])
    (run / "ideal_values.txt").write_text("values")
    (run / "policy.safetensors").write_bytes(b"1")
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "3.json").write_text("{}")
    row = f"| `{NAME}` | 0-1 | 30,000 | `python iddpg.py --env {GAME} --epochs 3 --num_runs 2` |"
    assert command() == (0, [f"{NAME}_s0: shipped", f"{NAME}_s1: shipped", row], "")
    names = [f"{NAME}_s0/config.json", f"{NAME}_s0/ideal_values.txt", f"{NAME}_s0/progress.txt"]
    assert files(tmp_path / "results" / NAME) == [*names, f"{NAME}_s1/config.json", f"{NAME}_s1/progress.txt"]
    for name in names:
        assert (tmp_path / "results" / NAME / name).read_bytes() == (tmp_path / "data" / NAME / name).read_bytes()
    assert command() == (0, [f"{NAME}_s0: there already", f"{NAME}_s1: there already"], "")


def test_a_table_that_was_made_later_is_added(tmp_path, command):
    run = write(tmp_path / "data", 0, [1, 2, 3])
    command()
    held = tmp_path / "results" / NAME / f"{NAME}_s0" / "trap.txt"
    for text in ("later", "later, and longer"):
        (run / "trap.txt").write_text(text)
        assert command()[1][0] == f"{NAME}_s0: shipped"
        assert held.read_text() == text
    for text in ("later, and", "others, all of them"):  # nothing that is there is lost
        (run / "trap.txt").write_text(text)
        assert command()[1] == [f"{NAME}_s0: there already"]
        assert held.read_text() == "later, and longer"


def test_a_copy_of_a_run_is_no_run(tmp_path, command):
    run = write(tmp_path / "data", 0, [1, 2, 3])
    shutil.copytree(run, run.with_name(f"{NAME}_s0_old"))
    shutil.copytree(run, run.with_name("backup"))
    row = f"| `{NAME}` | 0 | 30,000 | `python iddpg.py --env {GAME} --epochs 3` |"
    assert command() == (0, [f"{NAME}_s0: shipped", row], "")
    assert [path.name for path in (tmp_path / "results" / NAME).iterdir()] == [run.name]


def test_each_block_of_seeds_has_its_command(tmp_path, command):
    for seed in (0, 2, 3):
        write(tmp_path / "data", seed, [1, 2, 3])
    what = f"30,000 | `python iddpg.py --env {GAME} --epochs 3"
    rows = [f"| `{NAME}` | 0 | {what}` |", f"| `{NAME}` | 2-3 | {what} --seed 2 --num_runs 2` |"]
    assert command()[1][3:] == rows


def test_what_cannot_be_shipped_is_one_line_and_status_1(tmp_path, command):
    run = write(tmp_path / "data", 0, [1, 2, 3])
    (run / "progress.txt").write_text("AverageTestEpRet\n1\n")
    why = f"{run / 'progress.txt'}: has no column TotalEnvInteracts, so its length is unknown"
    assert command() == (1, [], f"ship: {why}\n")
    (tmp_path / "results").write_text("a file")
    write(tmp_path / "data", 1, [1, 2, 3])
    status, out, err = command(NAME)
    assert (status, out, err.count("\n")) == (1, [], 2)
    assert "not a directory" in err


def test_an_unfinished_run_is_shipped_only_if_asked_for(tmp_path, command):
    write(tmp_path / "data", 4, [1, 2])
    assert command() == (0, [f"{NAME}_s4: at step 20,000 of 30,000"], "")
    assert not (tmp_path / "results").exists()
    row = f"| `{NAME}` | 4 | 20,000 | `python iddpg.py --env {GAME} --epochs 2 --seed 4` |"
    assert command(NAME, "--unfinished") == (0, [f"{NAME}_s4: shipped", row], "")


def test_a_run_that_is_being_trained_or_has_no_row_is_left(tmp_path, command):
    run, other = write(tmp_path / "data", 0, [1, 2, 3]), write(tmp_path / "data", 1, [1])
    (other / "progress.txt").write_text("")
    with open(run / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command("--unfinished")[1] == [
            f"{NAME}_s0: being trained",
            f"{NAME}_s1: {other / 'progress.txt'} has no row yet",
        ]
    assert not (tmp_path / "results").exists()


def test_a_run_is_replaced_by_its_continuation_and_never_by_a_shorter_one(tmp_path, command):
    short = write(tmp_path / "results", 0, [1, 2])
    write(tmp_path / "data", 0, [1, 2, 3])
    assert command()[1][0] == f"{NAME}_s0: shipped"
    assert len((short / "progress.txt").read_text().splitlines()) == 4
    write(tmp_path / "results", 1, [1, 2, 3])
    shorter = write(tmp_path / "data", 1, [1, 2], epochs=2)
    assert command()[1][1] == f"{NAME}_s1: there already"
    (shorter / "trap.txt").write_text("a table that results/ lacks")
    assert command()[1][1] == f"{NAME}_s1: shipped"
    assert len((tmp_path / "results" / NAME / f"{NAME}_s1" / "progress.txt").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("returns", "config", "why"),
    [
        ([1, 5, 3], {}, "has another AverageTestEpRet at the same steps; move one of the runs away"),
        ([1, 2, 3], {"gamma": 0.9}, "is a run with gamma 0.99, not 0.9; move one of them away"),
    ],
)
def test_another_run_is_left_as_it_is_and_named(tmp_path, command, returns, config, why):
    held = write(tmp_path / "results", 0, [1, 2], gamma=0.99)
    before = (held / "progress.txt").read_bytes()
    write(tmp_path / "data", 0, returns, **{"gamma": 0.99, **config})
    write(tmp_path / "data", 1, [1, 2, 3])
    status, out, err = command()
    assert (status, err) == (1, f"ship: {held}: {why}\n")
    assert out[0] == f"{NAME}_s1: shipped"
    assert (held / "progress.txt").read_bytes() == before


def test_a_run_trained_with_uncommitted_changes_is_refused(tmp_path, command):
    run = write(tmp_path / "data", 0, [1, 2, 3], commits=["ab4a135-dirty", "ab4a136"])
    why = "was trained with changes that are in no commit (ab4a135-dirty); commit them, train again"
    assert command() == (1, [], f"ship: {run}: {why}\n")
    assert not (tmp_path / "results").exists()


def test_experiments_of_no_table_are_shipped_by_name_and_without_a_command(tmp_path, command):
    write_experiment(tmp_path / "data", "mine", 2, [1, 2, 3], steps_per_epoch=10_000)
    assert command() == (0, [], "")
    assert command("mine") == (0, ["mine_s2: shipped", "| `mine` | 2 | 30,000 | `...` |"], "")
    with pytest.raises(SystemExit) as end:
        command("my")
    assert end.value.code == 2


def test_time_may_differ(tmp_path, command):
    held = write(tmp_path / "results", 0, [1, 2])
    held.joinpath("progress.txt").write_text(held.joinpath("progress.txt").read_text().replace("\t1\n", "\t7\n"))
    write(tmp_path / "data", 0, [1, 2, 3])
    assert command()[1][0] == f"{NAME}_s0: shipped"
    assert json.loads((held / "config.json").read_text())["seed"] == 0
