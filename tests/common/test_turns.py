"""Ranks that are more than their host's cores take turns."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common import turns
from common.turns import Turns

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = Path(sys.executable).with_name("mpirun")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI", "SLURM", "MPI", "HYDRA"))}
# notes when it has a turn of the file argv[1] at argv[2] places, n times; argv[4] seconds of waiting are enough
RANK = """
import sys, time
from common import turns
turns.TURN, turns.PATIENCE = 0.0, float(sys.argv[4])
mine = turns.Turns(open(sys.argv[1], "r+b"), int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    mine.take()
    began = time.monotonic()
    time.sleep(0.01)
    print(began, time.monotonic(), flush=True)
"""


def rank(file: Path, places: int, times: int, patience: float = 60) -> subprocess.Popen:
    argv = [sys.executable, "-c", RANK, file, places, times, patience]
    return subprocess.Popen([*map(str, argv)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def turns_of(process: subprocess.Popen) -> list[tuple[float, float]]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [(float(line.split()[0]), float(line.split()[1])) for line in out.splitlines()]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "turns"
    path.touch()
    return path


@pytest.mark.parametrize("places", [1, 2])
def test_no_more_ranks_than_places_have_a_turn_at_once_and_all_get_theirs(file, places):
    found = [turns_of(process) for process in [rank(file, places, 10) for _ in range(4)]]
    assert [len(own) for own in found] == [10] * 4
    spans = [span for own in found for span in own]
    at_once = [sum(a <= began < b for a, b in spans) for began, _ in spans]
    assert max(at_once) <= places


def test_a_turn_lasts_until_it_is_given_back_or_its_time_is_over(file, monkeypatch):
    mine = Turns(file.open("r+b"), 1)
    mine.take()
    other = rank(file, 1, 1)
    mine.take()  # still the same turn
    time.sleep(0.2)
    assert other.poll() is None
    given = time.monotonic()
    mine.give()
    ((began, _),) = turns_of(other)
    assert began > given
    monkeypatch.setattr(turns, "TURN", 0.0)
    mine.take()
    other = rank(file, 1, 1)
    while other.poll() is None:
        mine.take()
    assert len(turns_of(other)) == 1


def test_a_rank_that_is_killed_gives_its_turn_back(file):
    killed = rank(file, 1, 10**6)
    assert killed.stdout and killed.stdout.readline()
    killed.kill()
    killed.communicate()
    assert len(turns_of(rank(file, 1, 1))) == 1


def test_a_rank_that_hangs_is_not_waited_for_forever(file):
    mine = Turns(file.open("r+b"), 1)
    mine.take()
    assert len(turns_of(rank(file, 1, 3, patience=0.05))) == 3


def test_alone_there_is_nothing_to_take():
    mine = Turns()
    mine.take()
    mine.give()


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside this python")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_take_turns_where_they_are_more_than_the_cores(size, tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2]
    code = f"import os; os.sched_setaffinity(0, {cores}); from common.ranks import Ranks; r = Ranks.detect(); "
    code += "r.turns.take(); print(r.turns.places)"
    command = [MPIRUN, "-np", str(size), sys.executable, "-c", code]
    env = {**ENVIRONMENT, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    places = len(cores) if size > len(cores) else 0
    assert "".join(done.stdout.split()) == str(places) * size  # the launcher may mix its ranks' lines
    assert list(tmp_path.iterdir()) == []  # neither the file nor anything else is left
