"""Runs as a user meets them: what they leave, how they stop and go on, and what they refuse.

Most are driven through the program's own `main` within this process, signals included; a few are real processes.
"""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from helpers.folders import GAME, TINY, assert_same, folder, rows
from pettingzoo import ParallelEnv
from safetensors.numpy import load_file

import i2q_ddpg
import iddpg
import ippo
from common import checkpoint, runs
from common.checkpoint import Checkpoints
from common.folder import Folder
from common.log import Log
from common.provenance import commit
from common.replay import Replay
from common.run import Run

ROOT = Path(__file__).resolve().parents[2]


def argv_of(program: str, flags: dict[str, Any]) -> list[str]:
    return [program, *(f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture
def start(monkeypatch, tmp_path, capfd):
    """start(**flags) runs i2q_ddpg's main here: its status, and what it printed to stdout and stderr."""

    def start(algorithm: Any = i2q_ddpg, train: Any = None, **flags: Any) -> tuple[int, str, str]:
        flags = {"data_dir": tmp_path / "data", **flags}
        monkeypatch.setattr(sys, "argv", argv_of(f"{algorithm.__name__}.py", flags))
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            runs.main(algorithm.Config, algorithm.defaults, train or algorithm.train, algorithm.__doc__)
        out, err = capfd.readouterr()
        return end.value.code, out, err  # pyright: ignore[reportReturnType]

    return start


@pytest.fixture
def at_step(monkeypatch):
    """at_step(k, action) has a running process do `action` during environment step k, once."""

    def at_step(k: int, action: Any) -> None:
        check = Run.check

        def patched(self: Run, step: int, **arrays: np.ndarray) -> None:
            if step == k and "action" in arrays:
                monkeypatch.setattr(Run, "check", check)
                action()
            check(self, step, **arrays)

        monkeypatch.setattr(Run, "check", patched)

    return at_step


# Stopping and going on


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Iterator[Path]:
    """The uninterrupted runs that stopped ones are compared with, made when first asked for."""
    return tmp_path_factory.mktemp("straight")


def reference(start: Any, straight: Path, name: str, **flags: Any) -> Path:
    if not folder(straight, name=name).exists():
        assert start(data_dir=straight / "data", **{**flags, "exp_name": name})[0] == 0
    return folder(straight, name=name)


STOPS = {
    "in warm-up": [12],
    "with the last uniform step": [25],
    "in mid-episode between blocks of updates": [47],
    "at a block of updates": [50],
    "at an epoch's end with its test": [80],
    "a step before the end": [119],
    "twice in a row": [63, 64],
    "at the first step and late": [1, 107],
}


@pytest.mark.parametrize("steps", STOPS.values(), ids=STOPS)
@pytest.mark.parametrize("size", [1000, 33])  # 33: wraps three times, must be a multiple of the files' 8
def test_a_run_stopped_and_resumed_equals_one_never_stopped(
    start, at_step, tmp_path, straight, monkeypatch, steps, size
):
    monkeypatch.setattr(checkpoint, "CHUNK", 8)
    flags = {**GAME, "replay_size": size}
    whole = reference(start, straight, f"size{size}", **flags)
    for step in steps:
        at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        status, _, err = start(**{**flags, "exp_name": f"size{size}"})
        assert status == 143
        assert f"[s0] stopped by SIGTERM, saved at step {step}" in err
    assert start(**{**flags, "exp_name": f"size{size}"})[0] == 0
    assert_same(whole, folder(tmp_path, name=f"size{size}"))


@pytest.mark.parametrize("env", ["2x3HalfCheetah", "3x1Hopper"])
def test_a_robot_goes_on_exactly(start, at_step, tmp_path, straight, env):
    flags = {**TINY, "env": env, "start_steps": 15, "epochs": 2, "max_ep_len": 30}
    whole = reference(start, straight, env, **flags)
    for step in (9, 53):
        at_step(step, lambda: signal.raise_signal(signal.SIGINT))
        assert start(**{**flags, "exp_name": env})[0] == 130
    assert start(**{**flags, "exp_name": env})[0] == 0
    assert_same(whole, folder(tmp_path, name=env))


def test_the_baseline_goes_on_exactly_too(start, at_step, tmp_path, straight):
    whole = reference(start, straight, "baseline", algorithm=iddpg, **GAME)
    at_step(47, lambda: signal.raise_signal(signal.SIGHUP))
    for status in (129, 0):
        assert start(iddpg, **{**GAME, "exp_name": "baseline"})[0] == status
    assert_same(whole, folder(tmp_path, name="baseline"))


def test_a_longer_run_equals_one_that_was_asked_for_at_once(start, tmp_path, straight):
    whole = reference(start, straight, "x", **GAME)
    assert start(**{**GAME, "epochs": 1})[0] == 0
    assert start(**GAME)[0] == 0
    assert_same(whole, folder(tmp_path))


def test_seeds_go_on_exactly_in_another_grouping(start, at_step, tmp_path, straight):
    whole = reference(start, straight, "x", **GAME)
    at_step(47, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(**GAME, num_runs=2)[0] == 143
    status, out, _ = start(**GAME, seed=1, num_runs=1)
    assert status == 0
    assert "[s1] epoch 3/3" in out and "[s0]" not in out
    status, out, _ = start(**GAME, num_runs=3)
    assert status == 0
    assert "seeds [2] at step 0, seeds [0] at step 47" in out  # one line says it
    assert out.count("one group after another") == 1
    assert f"[s1] finished already: {folder(tmp_path, 1)}" in out
    assert_same(whole, folder(tmp_path, 0))
    assert start(**GAME, num_runs=3, data_dir=tmp_path / "together")[0] == 0
    for seed in (1, 2):
        assert_same(folder(tmp_path, seed, "together"), folder(tmp_path, seed))


def test_seeds_whose_last_checkpoints_differ_go_on_together_from_a_common_one(start, tmp_path, straight):
    """As after a kill -9 between the checkpoints of two seeds of a group."""
    assert start(**{**GAME, "epochs": 2}, num_runs=2)[0] == 0
    (folder(tmp_path, 1) / "checkpoint" / "80.json").unlink()
    status, out, _ = start(**GAME, num_runs=2)
    assert status == 0
    assert "one group after another" not in out
    assert "not all seeds were saved at step 80: seeds [0] go back to step 40 with the others" in out
    assert_same(reference(start, straight, "x", **GAME), folder(tmp_path))
    assert [row["Epoch"] for row in rows(folder(tmp_path))] == ["1", "2", "3"]


class Kept:
    """A part of a run that saves this."""

    def __init__(self, what: Any):
        self.what, self.loaded = what, None

    def state_dict(self, row: int) -> dict[str, Any]:
        return self.what

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.loaded = state


def tracking(part: Any, name: str = "mine"):
    """iddpg's train, whose run tracks one more part."""

    def train(cfg: Any, run: Run) -> None:
        track = run.track
        run.track = lambda **parts: track(**parts, **{name: part})
        iddpg.train(cfg, run)

    return train


def test_a_part_without_a_state_does_not_stop_a_run_from_going_on(start):
    part = Kept({})
    for epochs in (1, 2):
        assert start(iddpg, tracking(part), **{**GAME, "epochs": epochs})[0] == 0
    assert part.loaded == {}


def test_a_part_that_cannot_be_saved_is_named_in_a_line(start, tmp_path):
    status, _, err = start(iddpg, tracking(Kept({"past": {"rows": [np.ones(2)]}})), **GAME)
    assert status == 2
    assert err.count("\n") == 1
    assert "mine.past.rows: cannot be saved in a checkpoint" in err
    assert not folder(tmp_path).exists()


def test_a_second_replay_is_refused_as_its_transitions_would_not_be_saved(start, tmp_path):
    status, _, err = start(iddpg, tracking(Replay([0], 2, 2, 1, 100), "good"), **GAME)
    assert status == 2
    assert "run.track(good=...): the transitions of one replay are saved" in err
    assert not folder(tmp_path).exists()


def test_a_flag_that_a_run_did_not_have_is_said_so(start, tmp_path):
    assert start(**{**GAME, "epochs": 1})[0] == 0
    path = folder(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    del config["lam"]
    path.write_text(json.dumps({**config, "mine": 3}))
    err = start(**GAME)[2]
    assert "holds a run with no lam, which is 1.0 here, mine 3, which is unknown here; give the flags" in err


def test_a_seed_that_is_ahead_never_goes_back_to_where_others_start(start, at_step, tmp_path):
    """Its first checkpoint is that of step 0, where a new seed stands, too."""
    flags = {**GAME, "save_freq": 2}
    assert start(**{**flags, "epochs": 2})[0] == 0
    status, out, _ = start(**flags, num_runs=2)
    assert status == 0
    assert "seeds [1] at step 0, seeds [0] at step 80" in out
    assert "[s0] epoch 1/3" not in out
    begun = {**GAME, "exp_name": "y"}
    at_step(30, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(**begun)[0] == 143
    at_step(5, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(**begun, num_runs=2)[0] == 143  # seed 1 alone had begun
    assert "seeds [1] at step 5, seeds [0] at step 30" in start(**begun, num_runs=2)[1]


def test_a_time_is_that_of_its_own_seed(start, tmp_path, monkeypatch):
    """Also where seeds were trained apart, and go on together."""
    with monkeypatch.context() as patch:
        patch.setattr(Log, "time", lambda self, row: 1000.0)
        assert start(**{**GAME, "epochs": 1})[0] == 0
    assert start(**{**GAME, "epochs": 1}, seed=1)[0] == 0
    assert start(**GAME, num_runs=2)[0] == 0
    assert all(float(row["Time"]) >= 1000 for row in rows(folder(tmp_path, 0)))
    assert all(float(row["Time"]) < 1000 for row in rows(folder(tmp_path, 1)))


class Drifting(ParallelEnv):
    """One agent whose game never repeats itself, and never ends."""

    def __init__(self) -> None:
        self.possible_agents, self.agents, self.seen = ["a"], [], 0

    def observation_space(self, agent: str) -> Box:
        return Box(-9, 9, (1,))

    action_space = observation_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = ["a"]
        return self.see(), {"a": {}}

    def see(self) -> dict[str, np.ndarray]:
        self.seen += 1
        return {"a": np.full(1, self.seen / 1000, np.float32)}

    def step(self, actions: Any) -> Any:
        return self.see(), {"a": 1.0}, {"a": False}, {"a": False}, {"a": {}}


@pytest.mark.parametrize("algorithm", [iddpg, ippo])
def test_where_a_game_cannot_be_repeated_the_episode_that_was_cut_off_counts_nowhere(
    start, at_step, tmp_path, monkeypatch, algorithm
):
    monkeypatch.setitem(sys.modules, "drifting_module", module := types.ModuleType("drifting_module"))
    module.Drifting = Drifting  # pyright: ignore[reportAttributeAccessIssue]
    flags = {name: TINY[name] for name in ("steps_per_epoch", "num_test_episodes", "test_ep_len", "epochs", "threads")}
    flags |= {"env": "drifting_module:Drifting", "exp_name": "x", "max_ep_len": 20, "hid": 4}
    at_step(30, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(algorithm, **flags)[0] == 143
    ended = []
    if algorithm is ippo:
        update = ippo.update

        def patched(a, steps, cfg):
            ended.append(steps.ended.clone())
            return update(a, steps, cfg)

        monkeypatch.setattr(ippo, "update", patched)
    status, _, err = start(algorithm, **flags)
    assert status == 0
    assert "starts a new episode" in err
    assert {row["EpLen"] for row in rows(folder(tmp_path))} == {"20"}
    if algorithm is ippo:
        assert np.flatnonzero(ended[0][0, 0].numpy()).tolist() == [19, 29]  # counted from 0; the second is the break


def test_a_run_goes_on_with_the_threads_that_it_began_with(start, at_step, tmp_path, monkeypatch):
    """The order of sums, and so the last bits, depend on how many there are."""
    counts: list[int] = []
    monkeypatch.setattr(runs.torch, "set_num_threads", counts.append)
    at_step(47, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(**{**GAME, "compile": "off", "threads": 3})[0] == 143
    assert start(**{**GAME, "compile": "off", "threads": 0}, num_runs=2)[0] == 0
    assert start(**{**GAME, "compile": "off", "threads": 2, "epochs": 4})[0] == 0
    assert counts == [3, len(os.sched_getaffinity(0)), 3, 2]  # seed 1 is new, and first: it stands at step 0
    assert json.loads((folder(tmp_path) / "config.json").read_text())["threads"] == 2


@pytest.mark.parametrize(("kernels", "groups"), [("off", [("off", 2), ("off", 3)]), ("on", [("off", 3), ("on", 2)])])
def test_seeds_that_began_with_other_threads_or_kernels_go_on_each_with_its_own(
    start, at_step, tmp_path, monkeypatch, kernels, groups
):
    for seed, threads in enumerate((3, 2)):
        at_step(47, lambda: signal.raise_signal(signal.SIGTERM))
        assert start(**{**GAME, "compile": "off", "threads": threads}, seed=seed)[0] == 143
    config = folder(tmp_path, 1) / "config.json"
    config.write_text(config.read_text().replace('"compile": "off"', f'"compile": "{kernels}"'))
    computed: list[tuple[str, int]] = []

    def compiled(config: Any, began: str, threads: int) -> tuple[str, None]:
        computed.append((began, threads))
        return began, None

    monkeypatch.setattr(runs, "_compile", compiled)
    status, out, _ = start(**{**GAME, "threads": 0}, num_runs=2)
    assert (status, computed) == (0, groups)
    assert "these seeds began with other kernels or threads and train one group after another: seeds [" in out
    assert [json.loads((folder(tmp_path, s) / "config.json").read_text())["threads"] for s in range(2)] == [3, 2]


def test_a_finished_run_is_not_run_again(start, tmp_path):
    flags = {**GAME, "epochs": 1}
    assert start(**flags)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in folder(tmp_path).rglob("*") if path.name != ".lock"}
    status, out, _ = start(**flags)
    assert status == 0
    assert "[s0] finished already" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_log_without_its_checkpoint_is_never_overwritten(start, tmp_path):
    assert start(**{**GAME, "epochs": 1})[0] == 0
    for path in (folder(tmp_path) / "checkpoint").iterdir():
        path.unlink()
    log = (folder(tmp_path) / "progress.txt").read_text()
    assert start(**{**GAME, "epochs": 1})[0] == 0  # nothing is missing from it
    status, _, err = start(**GAME)
    assert status == 2
    assert re.fullmatch(r"i2q_ddpg.py: \S+x_s0: its checkpoint is gone, so it cannot resume from epoch 1; .*\n", err)
    assert (folder(tmp_path) / "progress.txt").read_text() == log


def test_every_row_is_on_disk_before_the_checkpoint_that_counts_it(start, tmp_path, monkeypatch):
    """Else a power cut after the last checkpoint would leave a finished run without its last rows."""
    sync, synced = os.fsync, []

    def noted(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        synced.append((path.name, len(path.read_text().splitlines()) if path.name.endswith("progress.txt") else 0))
        sync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    assert start(**GAME)[0] == 0
    logs = [(name, lines) for name, lines in synced if "progress.txt" in name or name == ".120.json.tmp"]
    assert logs[-2:] == [("progress.txt", 4), (".120.json.tmp", 0)]


def test_a_log_that_lost_or_gained_rows_is_set_back_to_its_checkpoint(start, at_step, tmp_path, straight):
    at_step(95, lambda: signal.raise_signal(signal.SIGTERM))
    assert start(**GAME)[0] == 143
    path = folder(tmp_path) / "progress.txt"
    for change in (lambda text: text[:-7], lambda text: text + "3\t0.1\n"):
        path.write_text(change(path.read_text()))
    assert start(**GAME)[0] == 0
    assert_same(reference(start, straight, "x", **GAME), folder(tmp_path))


def test_a_second_signal_ends_at_once_and_damages_nothing(start, at_step, tmp_path, straight, monkeypatch):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("common.signals.ECHO", 0)
    at_step(55, twice)
    status, _, err = start(**GAME)
    assert status == 130
    assert "saving after this step; press again to stop at once" in err
    assert "stopped by SIGINT\n" in err
    assert Checkpoints(folder(tmp_path) / "checkpoint").steps() == [0, 40]
    assert start(**GAME)[0] == 0
    assert_same(reference(start, straight, "x", **GAME), folder(tmp_path))


def test_a_signal_that_comes_twice_at_once_is_one(start, at_step, tmp_path):
    def twice() -> None:  # from the scheduler, and from the launcher that it told too
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    at_step(55, twice)
    status, _, err = start(**GAME)
    assert status == 143 and "saved at step 55" in err
    assert Checkpoints(folder(tmp_path) / "checkpoint").steps()[-1] == 55


def test_a_signal_before_training_ends_at_once(start, tmp_path):
    def train(cfg: Any, run: Run) -> None:
        signal.raise_signal(signal.SIGTERM)

    status, _, err = start(train=train, **GAME)
    assert status == 143
    assert err.startswith("stopped by SIGTERM\nto resume: ")


def test_signals_belong_to_their_owner_again_afterwards(start):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert start(**{**GAME, "epochs": 1})[0] == 0
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# Real processes


def launch(tmp_path: Path, flags: dict[str, Any], **kwargs: Any) -> subprocess.Popen:
    command = [sys.executable, *argv_of(str(ROOT / "i2q_ddpg.py"), {"data_dir": tmp_path / "data", **flags})]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_process_that_is_killed_with_9_loses_only_what_came_after_its_last_checkpoint(start, tmp_path, straight):
    flags = {**GAME, "replay_size": 33, "exp_name": "killed"}
    whole = reference(start, straight, "killed", **flags)
    process = launch(tmp_path, flags)
    wait_for(folder(tmp_path, name="killed") / "checkpoint" / "40.json", process)
    process.kill()
    process.communicate()
    assert start(**flags)[0] == 0
    assert_same(whole, folder(tmp_path, name="killed"))
    assert not list((tmp_path / "data").rglob("*.tmp"))


SMALL = {  # commands that print as they go, and a file that each leaves
    "i2q_ddpg.py --env DifferentialGame-1 --epochs 2 --steps_per_epoch 50 --hid 8 --compile off": "progress.txt",
    "-m games.matrix_games --learners iql --layers 2 --games 2 --steps 200 --num_runs 2": "progress.txt",
    "-m games.value_factorization --learners iql --updates 20 --score_every 10 --num_runs 2": "progress.txt",
    "-m games.theorems --games 2 --states 3 --steps 300 --out {}/t.png": "t.png",
    "plot.py results/iddpg_DifferentialGame-3 --out {}/t.png": "t.png",
    "sweep.py iddpg.py --env DifferentialGame-1 --epochs 2 --steps_per_epoch 50 --hid 8 --compile off": "iddpg.png",
    "-m paper.run_all --only two-optima_iql --jobs 1": "progress.txt",
}


@pytest.mark.parametrize("command", SMALL)
def test_a_program_whose_reader_has_left_goes_on_to_its_end(tmp_path, command):
    """As in `i2q_ddpg.py ... | head -1`."""
    argv = command.format(tmp_path).split()
    where = [] if "{}" in command else ["--data_dir", str(tmp_path / "data")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, *argv, *where],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob(SMALL[command]))


def test_ctrl_c_saves_and_prints_the_command_that_goes_on(tmp_path):
    flags = {"data_dir": tmp_path / "data", **GAME, "epochs": 10_000}
    process = launch(tmp_path, flags)
    wait_for(folder(tmp_path) / "checkpoint" / "40.json", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    note, saved, command = err.strip().splitlines()
    assert note == "SIGINT: saving after this step; press again to stop at once"
    assert re.fullmatch(r"\[s0\] stopped by SIGINT, saved at step \d+", saved)
    assert command == f"to resume: {sys.executable} {' '.join(argv_of(str(ROOT / 'i2q_ddpg.py'), flags))}"


def test_two_processes_in_one_folder_are_refused_and_mpi_is_not_imported_without_a_launcher(start, tmp_path):
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print('mpi4py' in sys.modules, file=sys.stderr)\n"
    )
    argv = argv_of(str(ROOT / "i2q_ddpg.py"), {**GAME, "epochs": 10_000, "data_dir": tmp_path / "data"})
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI", "SLURM"))}
    first = subprocess.Popen(
        [sys.executable, "-c", code, *argv], cwd=ROOT, env=clean, stderr=subprocess.PIPE, text=True
    )
    wait_for(folder(tmp_path) / "checkpoint" / "40.json", first)
    status, _, err = start(**GAME)
    assert status == 2
    line = rf"i2q_ddpg.py: {folder(tmp_path)}: process {first.pid} on \S+ is training in this folder; .*--exp_name\n"
    assert re.fullmatch(line, err)
    first.terminate()
    _, err = first.communicate(timeout=300)
    assert first.returncode == 143
    assert err.strip().endswith("False")


def test_a_run_that_another_rank_starts_meanwhile_is_not_taken_for_one_without_a_config(tmp_path, monkeypatch):
    config = iddpg.Config(data_dir=str(tmp_path), exp_name="x")
    theirs = Folder(config, "iddpg", 1)
    lexists = os.path.lexists

    def slow(path: Path) -> bool:
        found = lexists(path)
        theirs.begin("")
        theirs.checkpoints.save(0, {})
        return found

    theirs.path.mkdir(parents=True)
    monkeypatch.setattr("common.folder.refuse_strays", lambda path: monkeypatch.setattr("os.path.lexists", slow))
    assert Folder(config, "iddpg", 1).conflict() == ""


def test_who_only_looks_whether_a_folder_is_locked_stops_nobody(start, tmp_path, monkeypatch):
    path = folder(tmp_path) / ".lock"
    path.parent.mkdir(parents=True)
    looking = open(path, "w")  # noqa: SIM115
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda seconds: looking.close())
    assert start(**{**GAME, "epochs": 1})[0] == 0


def test_on_a_terminal_there_is_a_bar_with_speed_and_time_left(tmp_path):
    flags = {**GAME, "data_dir": tmp_path / "data"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, *argv_of(str(ROOT / "i2q_ddpg.py"), flags)])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # rows, columns
    text = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            break
        text += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert re.search(r"100%\|█+\| 120/120 \[\d\d:\d\d<00:00, +[\d.]+ steps/s\]", text.decode())


# Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["80.json", "80.safetensors", "replay_000008.safetensors"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(start, tmp_path, straight, monkeypatch, name):
    monkeypatch.setattr(checkpoint, "CHUNK", 8)
    assert start(**{**GAME, "epochs": 2})[0] == 0
    flip(folder(tmp_path) / "checkpoint" / name)
    status, _, err = start(**GAME)
    assert status == 0
    warning = rf"\[s0\] WARNING: the checkpoint of step 80 is damaged \(.*{name}: .*\); using that of step 40\n"
    assert re.fullmatch(warning, err)
    assert_same(reference(start, straight, "x", **GAME), folder(tmp_path))


def test_where_every_checkpoint_is_damaged_nothing_is_touched(start, tmp_path):
    assert start(**{**GAME, "epochs": 2})[0] == 0
    for path in (folder(tmp_path) / "checkpoint").glob("*.json"):
        flip(path)
    before = {path: path.read_bytes() for path in folder(tmp_path).rglob("*") if path.is_file()}
    status, _, err = start(**GAME)
    assert status == 2
    assert err.count("\n") == 1
    assert "step 40 is damaged" in err and "step 80 is damaged" in err and "move" in err
    assert {path: path.read_bytes() for path in before if path.name != ".lock"} == {
        path: data for path, data in before.items() if path.name != ".lock"
    }


@pytest.mark.parametrize("name", ["progress.txt", "policy.safetensors", "checkpoint/80.safetensors"])
def test_a_full_disk_is_said_in_a_line_and_costs_nothing_that_was_saved(
    start, at_step, tmp_path, straight, monkeypatch, name
):
    fsync, written = os.fsync, {Path(name).name, f".{Path(name).name}.tmp"}

    def full() -> None:
        monkeypatch.setattr(os, "fsync", refuse)

    def refuse(fd: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{fd}")).name in written:
            raise OSError(28, "No space left on device")
        fsync(fd)

    at_step(60, full)
    status, _, err = start(**GAME)
    assert status == 1
    assert re.fullmatch(rf"i2q_ddpg.py: \[Errno 28\] No space left on device: '.*/x_s0/{name}'; .*\n", err)
    monkeypatch.setattr(os, "fsync", fsync)
    assert not list((tmp_path / "data").rglob("*.tmp"))
    assert start(**GAME)[0] == 0
    assert_same(reference(start, straight, "x", **GAME), folder(tmp_path))


# Mistakes

REFUSED = {
    "--env 3x3HalfCheetah": r"--env '3x3HalfCheetah': HalfCheetah has 6 joints, no split '3x3'; known: .*",
    "--env Foo": r"--env 'Foo': no such environment; known: DifferentialGame-1, .*2x3HalfCheetah, .*module:factory",
    "--env 2x3halfcheetah": r"--env '2x3halfcheetah': no such environment; did you mean 2x3HalfCheetah\? known: .*",
    "--env DiferentialGame-3": r"--env '.*': no such environment; did you mean DifferentialGame-3\? known: .*",
    "--env DifferentialGame-9": r"--env 'DifferentialGame-9': no such game; known: .*",
    "--env FocusFire-3": r"--env 'FocusFire-3': a task of the discrete learners; use python smac/iql.py or .*",
    "--env smax:3m": r"--env 'smax:3m': a task of the discrete learners; use python smac/iql.py or .*",
    "--env no_such_module:make": r"--env 'no_such_module:make': No module named 'no_such_module'; must be .*",
    "--env": r"argument --env: expected one argument; --help explains the flags",
    "--obs bogus": r"invalid choice 'bogus' for argument '--obs'.*'own', 'farama', 'full'.*",
    "--rule 3": r"invalid choice '3' for argument '--rule'.*",
    "--bogus 3": r"Unrecognized options: --bogus.*",
    "--gama 0.9": r"Unrecognized options: --gama, 0.9; perhaps you meant --gamma; --help explains the flags",
    "--epochs 1e3": r"--epochs '1e3': must be a whole number; --help explains the flags",
    "--gamma x": r"--gamma 'x': must be a number; --help explains the flags",
    "--epochs 0": r"--epochs 0: must be 1 or more; .*",
    "--gamma 2": r"--gamma 2.0: must be within 0 .. 1; .*",
    "--lam nan": r"--lam nan: must be finite, 0 or more; .*",
    "--act_noise inf": r"--act_noise inf: must be finite, 0 or more; .*",
    "--seed -1": r"--seed -1: must be within 0 .. 4294967295; .*",
    "--device tpu": r"--device 'tpu': known are cpu, cuda and cuda:<number>; .*",
    "--device cuda:77": r"--device cuda:77: this PyTorch sees \d+ CUDA devices; give --device cpu",
    "--exp_name a/b": r"--exp_name 'a/b': is a folder below --data_dir; .*",
    "--data_dir /proc/none": r"--data_dir '/proc/none': cannot write there \(.*\); give another --data_dir",
    f"--data_dir {__file__}": r"--data_dir '.*': cannot write there \(.*\); give another --data_dir",
    "--replay_size 1000000000000000": r"--replay_size 1000000000000000: .* GiB .*",
}


@pytest.mark.parametrize("flags", REFUSED, ids=str)
def test_a_mistake_ends_in_one_line_that_names_the_value(monkeypatch, capfd, tmp_path, flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["i2q_ddpg.py", *flags.split()])
    with pytest.raises(SystemExit) as end:
        runs.main(i2q_ddpg.Config, i2q_ddpg.defaults, i2q_ddpg.train, i2q_ddpg.__doc__)
    assert end.value.code == 2
    assert re.fullmatch(rf"i2q_ddpg.py: {REFUSED[flags]}\n", capfd.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_mistake_of_a_real_process_is_one_line_without_a_traceback(tmp_path):
    process = launch(tmp_path, {**GAME, "gamma": -1})
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "i2q_ddpg.py: --gamma -1.0: must be within 0 .. 1; --help explains the flags\n"


def test_help_explains_every_flag_with_the_tasks_own_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["i2q_ddpg.py", "--env", "DifferentialGame-3", "--help"])
    with pytest.raises(SystemExit) as end:
        runs.main(i2q_ddpg.Config, i2q_ddpg.defaults, i2q_ddpg.train, i2q_ddpg.__doc__)
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "Ranks are independent runs" in " ".join(out.split())
    for name in i2q_ddpg.Config.__dataclass_fields__:
        assert re.search(rf"--{name}\b", out), name
    assert re.search(r"--update_after INT .*50000", " ".join(out.split()))


def test_dashes_do_for_underscores(start, tmp_path):
    assert start(**{name.replace("_", "-"): value for name, value in {**GAME, "epochs": 1}.items()})[0] == 0
    assert rows(folder(tmp_path))


def test_a_folder_of_another_configuration_is_refused_with_both_values(start, tmp_path):
    assert start(**{**GAME, "epochs": 1}, lam=0.5, seed=1)[0] == 0
    before = {path: path.read_bytes() for path in folder(tmp_path, 1).rglob("*") if path.is_file()}
    status, _, err = start(**{**GAME, "steps_per_epoch": 50}, lam=0.7, num_runs=2)
    assert status == 2
    text = "holds a run with lam 0.5, not 0.7, steps_per_epoch 40, not 50; give the flags of that run, or another"
    assert err == f"i2q_ddpg.py: {folder(tmp_path, 1)}: {text} --exp_name\n"
    assert not folder(tmp_path, 0).exists()  # nor does seed 0 start in an experiment that it does not belong to
    assert {path: path.read_bytes() for path in before} == before
    # of another algorithm or task that alone: the rest follows from it
    text = f"{folder(tmp_path, 1)}: holds a run with {{}}; give the flags of that run, or another --exp_name\n"
    assert start(iddpg, **GAME, seed=1)[2] == "iddpg.py: " + text.format("algorithm 'i2q_ddpg', not 'iddpg'")
    moved = {**GAME, "env": "2x3HalfCheetah"}
    assert start(**moved, seed=1)[2] == "i2q_ddpg.py: " + text.format("env 'DifferentialGame-2', not '2x3HalfCheetah'")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_cannot_be_read_is_refused(start, tmp_path, text):
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "config.json").write_text(text)
    status, _, err = start(**GAME)
    assert status == 2
    assert err.startswith(f"i2q_ddpg.py: {folder(tmp_path)}/config.json: not readable as JSON")


def test_a_mistaken_environment_can_be_corrected_under_the_same_name(start):
    assert start(**{**GAME, "env": "no_such_module:make"})[0] == 2
    assert start(**{**GAME, "epochs": 1})[0] == 0


# What is not finite


class Poisoned(ParallelEnv):
    """Two agents in a box; from the episode whose seed `poison` picks on, something is not a number."""

    def __init__(self) -> None:
        self.possible_agents, self.agents = ["a", "b"], []

    def observation_space(self, agent: str) -> Box:
        return Box(-9, 9, (2,))

    def action_space(self, agent: str) -> Box:
        return Box(-1, 1, (1,))

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.rng, self.t, self.agents = np.random.default_rng(seed), 0, list(self.possible_agents)
        return self.see("first"), {agent: {} for agent in self.agents}

    def see(self, when: str) -> dict[str, np.ndarray]:
        bad = Poisoned.poison(self, when)
        return {agent: np.array([bad, self.t], np.float32) for agent in self.agents}

    def step(self, actions: Any) -> Any:
        self.t += 1
        rew = Poisoned.poison(self, "reward")
        no = dict.fromkeys(self.agents, False)
        return self.see("next"), dict.fromkeys(self.agents, rew), no, no, {agent: {} for agent in self.agents}

    poison: Any = staticmethod(lambda env, what: 0.5)


@pytest.fixture
def poisoned(monkeypatch):
    """poisoned(what, value) plants `value` into row 1's training, in its third episode."""
    monkeypatch.setitem(sys.modules, "poisoned_module", types.ModuleType("poisoned_module"))
    made: list[Poisoned] = []

    def make() -> Poisoned:
        made.append(Poisoned())
        return made[-1]

    sys.modules["poisoned_module"].make = make  # pyright: ignore[reportAttributeAccessIssue]

    def plant(what: str, value: float) -> None:
        def poison(env: Poisoned, when: str) -> float:
            seed_1 = len(made) > 1 and env is made[1]
            if when == "first":
                env.episodes = getattr(env, "episodes", 0) + 1  # pyright: ignore
            return value if seed_1 and when == what and getattr(env, "episodes", 0) == 4 else 0.5

        monkeypatch.setattr(Poisoned, "poison", staticmethod(poison))

    return plant


@pytest.mark.parametrize(("what", "value"), [("next", np.nan), ("reward", -np.inf), ("first", np.inf)])
def test_a_seed_with_a_number_that_is_not_finite_is_named_and_the_others_finish(start, tmp_path, poisoned, what, value):
    poisoned(what, value)
    status, out, err = start(**{**TINY, "env": "poisoned_module:make", "start_steps": 0}, num_runs=3)
    name = "reward" if what == "reward" else "observation"
    assert re.fullmatch(rf"\[s1\] failed: step \d+: {name} is not finite: {value}.*\n", err)
    assert status == 1
    assert "[s0] epoch 3/3" in out and "[s2] epoch 3/3" in out and "[s1] epoch 3/3" not in out
    for seed in (0, 1, 2):
        assert_finite(folder(tmp_path, seed))
    assert re.search(r"\n +1 +40 +\S+ +unfinished\n", out)


def assert_finite(path: Path) -> None:
    checkpoints = Checkpoints(path / "checkpoint")
    for step in checkpoints.steps():
        arrays, _ = checkpoint.flatten(checkpoints.load(step))
        assert all(np.isfinite(array).all() for array in arrays.values())
    assert all(np.isfinite(array).all() for array in load_file(path / "policy.safetensors").values())


def test_a_diverged_update_fails_its_seed_and_is_never_saved(start, tmp_path, monkeypatch):
    update, count = i2q_ddpg.update, []

    def diverging(agents: Any, batch: Any, cfg: Any) -> Any:  # compiled, it would be recorded and not run again
        result = update(agents, batch, cfg)
        count.append(1)
        if len(count) == 6 and len(batch.obs) == 2:  # the last update before the first test; losses still look well
            agents.q.flat.detach()[1, 0, 0] = np.inf
        return result

    monkeypatch.setattr(i2q_ddpg, "update", diverging)
    status, _, err = start(**{**GAME, "start_steps": 1000, "compile": "off"}, num_runs=2)
    assert status == 1
    words = "q.flat is not finite: the update diverged; start over with smaller learning rates"
    assert re.fullmatch(rf"\[s1\] failed: step 40: {words} .*\n", err)
    assert_finite(folder(tmp_path, 0))
    assert_finite(folder(tmp_path, 1))
    assert Checkpoints(folder(tmp_path, 1) / "checkpoint").steps() == [0]


@pytest.fixture
def seed_1_diverges(monkeypatch):
    """From step 80 on the values of seed 1 pass what any return can be; all its numbers stay finite."""
    update, count = i2q_ddpg.update, []

    def diverging(agents: Any, batch: Any, cfg: Any) -> Any:  # compiled, it would be recorded and not run again
        count.append(len(batch.obs) == 2)
        if sum(count) == 8:  # of the second epoch
            agents.q.flat.detach()[1] *= 1e4
            agents.q_targ.flat.detach()[1] *= 1e4
            agents.qss_targ.flat.detach()[1] *= 1e4
        return update(agents, batch, cfg)

    monkeypatch.setattr(i2q_ddpg, "update", diverging)


def test_values_beyond_any_return_are_warned_of_once(start, seed_1_diverges):
    status, _, err = start(**GAME, num_runs=2, compile="off")
    assert status == 0
    words = r"the mean QVals of a batch is .*, but no return can exceed .* over 1 - gamma\)"
    assert re.fullmatch(rf"\[s1\] WARNING: step 80: {words}; training diverges\n", err)


def test_with_stop_on_divergence_such_a_seed_ends_and_the_others_finish(start, tmp_path, seed_1_diverges):
    status, out, err = start(**GAME, num_runs=2, compile="off", stop_on_divergence=True)
    assert status == 1
    assert re.fullmatch(r"\[s1\] failed: step 80: the mean QVals .*\n", err)
    assert [len(rows(folder(tmp_path, seed))) for seed in (0, 1)] == [3, 1]
    assert re.search(r"^ +1 +40 .*unfinished$", out, re.M)


def test_a_saturated_policy_is_warned_of_once(start, monkeypatch):
    update = i2q_ddpg.update

    def saturating(agents: Any, batch: Any, cfg: Any) -> Any:  # compiled, it would be recorded and not run again
        result = update(agents, batch, cfg)
        agents.pi.biases[-1][-1, 1] = 50.0  # the last seed's second agent
        return result

    monkeypatch.setattr(i2q_ddpg, "update", saturating)
    status, _, err = start(**GAME, num_runs=2, compile="off")
    assert status == 0
    words = "every action of agent 1 was at the same limit in all states of the tests; a saturated tanh passes no "
    assert err == f"[s1] WARNING: step 40: {words}gradient on, so this may last (docs/trap.md)\n"


def test_a_loss_that_is_not_finite_is_named(start, monkeypatch):
    update = i2q_ddpg.update

    def diverging(agents: Any, batch: Any, cfg: Any) -> Any:  # compiled, it would be recorded and not run again
        result = update(agents, batch, cfg)
        result["LossQ"] = result["LossQ"] * np.nan
        return result

    monkeypatch.setattr(i2q_ddpg, "update", diverging)
    status, _, err = start(**GAME)
    assert status == 1
    assert re.fullmatch(r"\[s0\] failed: step 40: LossQ is nan: the update diverged; .*\n", err)


DIAGNOSTICS = {
    "a mean over everything": (
        lambda x: {"LossQ": x.mean()},
        r"'LossQ' of shape \(\): must be \(S, N\), here 1 seeds .*",
    ),
    "a mean over agents": (lambda x: {"LossQ": x.mean(-1)}, r"'LossQ' of shape \(1,\): must be \(S, N\), .*"),
    "no mean": (lambda x: {"LossPi": x, "LossQ": x[..., None]}, r"'LossQ' of shape \(1, 2, 1\): must be \(S, N\), .*"),
    "a number": (lambda x: {"LossQ": 3.0}, r"'LossQ' as a float: must be a dict of diagnostics .*"),
    "nothing": (lambda x: None, r"a NoneType: must be a dict of diagnostics .*"),
    "a column of every run": (lambda x: {"Time": x}, r"a diagnostic called 'Time', which is a column of .*; rename it"),
    "a tab in a name": (lambda x: {"Loss\tQ": x}, r"a diagnostic called 'Loss\\tQ', which is no name of .*; rename it"),
}


@pytest.mark.parametrize(("wrong", "line"), DIAGNOSTICS.values(), ids=DIAGNOSTICS)
def test_diagnostics_that_are_no_columns_are_refused_by_name(start, monkeypatch, wrong, line):
    update = i2q_ddpg.update
    monkeypatch.setattr(i2q_ddpg, "update", lambda *args: wrong(update(*args)["LossQ"]))
    status, out, err = start(**GAME)
    assert (status, "curve:" in out) == (2, False)
    assert re.fullmatch(rf"i2q_ddpg.py: update returns {line}\n", err), err


def test_an_error_within_training_is_shown_whole_and_not_taken_for_a_mistake(start, monkeypatch):
    monkeypatch.setattr(i2q_ddpg, "update", lambda *args: np.zeros(3) + np.zeros(2))
    status, out, err = start(**GAME)
    assert status == 1
    assert "unfinished" in out and "curve:" not in out  # there is nothing to draw yet
    assert err.startswith("[s0] step 20: ValueError, a bug in the program:\nTraceback")
    assert "could not be broadcast" in err


# The log


def test_the_log_has_spinning_ups_columns_from_its_first_row_on(start, tmp_path):
    status, out, _ = start(**{**GAME, "update_after": 60}, num_runs=2)  # no update in the first epoch
    assert status == 0
    table = rows(folder(tmp_path))
    assert list(table[0]) == [
        *("Epoch", "AverageEpRet", "StdEpRet", "MaxEpRet", "MinEpRet", "EpLen"),
        *("AverageTestEpRet", "StdTestEpRet", "MaxTestEpRet", "MinTestEpRet", "TestEpLen"),
        *("TestStuck", "TotalEnvInteracts"),
        *("LossPi", "LossQ", "LossQss", "LossF", "QVals", "Time"),
    ]
    assert [row["LossQ"] == "nan" for row in table] == [True, False, False]
    assert [(row["Epoch"], row["TotalEnvInteracts"]) for row in table] == [("1", "40"), ("2", "80"), ("3", "120")]
    assert [row["EpLen"] for row in table] == ["15", "15", "15"]
    lines = [line for line in out.splitlines() if line.startswith("[s")]
    assert [line[:16] for line in lines] == [f"[s{s}] epoch {e}/3  " for e in (1, 2, 3) for s in (0, 1)]
    assert all(
        re.search(r"step \d+  train \S+  test \S+ \+- \S+  .*\d+ steps/s  \d:\d\d:\d\d left$", line) for line in lines
    )


def test_an_epoch_without_an_episodes_end_or_an_update_has_nan_there(start, tmp_path):
    flags = {**GAME, "steps_per_epoch": 4, "update_after": 5, "update_every": 7, "epochs": 4}
    assert start(**flags)[0] == 0
    table = rows(folder(tmp_path))
    assert [row["LossQ"] == "nan" for row in table] == [True, False, True, False]
    assert [row["EpLen"] for row in table] == ["nan", "nan", "nan", "15"]


def test_the_last_lines_give_each_seed_and_mean_iqm_and_spread(start, tmp_path):
    _, out, _ = start(**{**GAME, "epochs": 1}, num_runs=5)
    title, header, *seeds, summary, hint = out.splitlines()[-9:]
    assert title == "x: mean return of the last test episodes"
    assert header.split() == ["seed", "steps", "return"]
    scores = np.array([float(rows(folder(tmp_path, seed))[-1]["AverageTestEpRet"]) for seed in range(5)])
    assert [line.split() for line in seeds] == [[str(s), "40", f"{score:.2f}"] for s, score in enumerate(scores)]
    low, high, iqm = scores.min(), scores.max(), np.sort(scores)[1:-1].mean()
    expected = (
        f"mean {scores.mean():.2f}   IQM {iqm:.2f}   std {scores.std(ddof=1):.2f}   min {low:.2f}   max {high:.2f}"
    )
    assert summary == expected
    assert hint == f"curve: python plot.py {tmp_path}/data/x"


def test_the_command_that_is_offered_is_quoted_for_a_folder_with_a_space(start, tmp_path):
    _, out, _ = start(**{**GAME, "epochs": 1}, data_dir=tmp_path / "my data")
    assert out.splitlines()[-1] == f"curve: python plot.py '{tmp_path}/my data/x'"


def test_tensorboard_gets_the_rows_and_keeps_them_over_a_resume(start, at_step, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    at_step(95, lambda: signal.raise_signal(signal.SIGTERM))
    for status in (143, 0):
        assert start(**GAME, tensorboard=True)[0] == status
    events = EventAccumulator(str(folder(tmp_path) / "tensorboard"))
    events.Reload()
    written = [(event.step, f"{event.value:.5g}") for event in events.Scalars("AverageTestEpRet")]
    expected = [(40 * (k + 1), f"{float(row['AverageTestEpRet']):.5g}") for k, row in enumerate(rows(folder(tmp_path)))]
    assert written == expected


def test_tensorboard_that_is_not_installed_is_said_before_training(start, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = start(**GAME, tensorboard=True)
    assert (status, err) == (2, "i2q_ddpg.py: --tensorboard: it is not installed; pip install tensorboard\n")
    assert not folder(tmp_path).exists()


def test_config_json_holds_every_flag_and_what_made_it(start, tmp_path):
    assert start(**{**GAME, "epochs": 1}, seed=3)[0] == 0
    config = json.loads((folder(tmp_path, 3) / "config.json").read_text())
    assert set(i2q_ddpg.Config.__dataclass_fields__) <= set(config)
    assert (config["algorithm"], config["seed"], config["rule"], config["uniform_every"]) == ("i2q_ddpg", 3, "2", 4)
    imported = {name for name in ("torch", "numpy", "gymnasium", "mujoco", "jaxmarl", "jax") if name in sys.modules}
    assert set(config["versions"]) == imported | {"i2q_ddpg.py"} and imported >= {"torch", "numpy"}


def test_config_json_names_the_commit_of_every_sitting(start, at_step, tmp_path, monkeypatch):
    def sitting(at: str, status: int) -> list[str]:
        monkeypatch.setattr("common.folder.commit", lambda: at)
        assert start(**GAME)[0] == status
        return json.loads((folder(tmp_path) / "config.json").read_text())["commits"]

    for step, at, commits in ((50, "one", ["one"]), (60, "one", ["one"]), (70, "", ["one"])):
        at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        assert sitting(at, 143) == commits
    assert sitting("two-dirty", 0) == ["one", "two-dirty"]


def test_config_json_lists_the_versions_of_every_sitting_and_a_change_is_said(start, at_step, tmp_path, monkeypatch):
    def sitting(torch: str, status: int) -> tuple[str, str]:
        monkeypatch.setattr("common.folder.versions", lambda: {"torch": torch, "numpy": "2.4.0"})
        ended, _, err = start(**GAME)
        assert ended == status
        config = json.loads((folder(tmp_path) / "config.json").read_text())
        assert config["versions"]["numpy"] == "2.4.0"
        return config["versions"]["torch"], err

    for step, torch, listed in ((50, "2.12.0", "2.12.0"), (60, "2.13.0", "2.12.0, 2.13.0")):
        at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        versions, err = sitting(torch, 143)
        assert versions == listed
        assert ("[s0] WARNING: trained with torch 2.12.0 and now 2.13.0:" in err) == (torch == "2.13.0")
    versions, err = sitting("2.13.0", 0)
    assert versions == "2.12.0, 2.13.0" and "WARNING" not in err


def test_a_program_that_was_edited_is_said_where_its_run_goes_on_or_is_finished(start, at_step, tmp_path, monkeypatch):
    """It went on with another loss without a word."""
    monkeypatch.chdir(tmp_path)
    at_step(50, lambda: signal.raise_signal(signal.SIGTERM))
    said = []
    for text, status in (("", 143), ("1\n", 0), ("1\n", 0), ("", 0)):
        (tmp_path / "i2q_ddpg.py").write_text(text)
        ended, out, err = start(**GAME)
        assert ended == status
        said.append(([line for line in out.splitlines() if "finished already" in line], "WARNING" in err))
    assert json.loads((folder(tmp_path) / "config.json").read_text())["versions"]["i2q_ddpg.py"] == "e69de29, d00491f"
    where, more = f": {folder(tmp_path)}", "; give a larger --epochs to extend it"
    same = f"[s0] finished already{where}{more}"
    other = f"[s0] finished already with another i2q_ddpg.py{where}{more} or, to train anew, another --exp_name"
    assert said == [([], False), ([], True), ([same], False), ([other], False)]


def test_a_commit_is_dirty_where_a_tracked_file_was_changed_and_empty_without_git(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr("common.provenance.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit.__wrapped__() == ""
    git("init", "-q")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-q", "-m", "a")
    git("tag", "v1")
    (tmp_path / "untracked.py").write_text("1")
    assert commit.__wrapped__() == git("rev-parse", "--short=7", "HEAD")
    (tmp_path / "a.py").write_text("2")
    assert commit.__wrapped__() == git("rev-parse", "--short=7", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit.__wrapped__() == ""
