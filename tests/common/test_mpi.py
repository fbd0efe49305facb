"""Real `mpirun -np 2` runs: seeds over ranks, their stops, and launchers that do not fit."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import GAME, assert_same, folder, rows

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = Path(sys.executable).with_name("mpirun")
# products that threads would share if there were several, and enough of them for a signal to come in time
FLAGS = {**GAME, "hid": 64, "batch_size": 64, "updates": 100, "threads": 0, "pi_lr": 1e-4}  # no policy saturates
FLAGS |= {"test_ep_len": 10_000}  # epochs so long that a checkpoint is seen before the next but one removes it
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI", "SLURM", "MPI", "HYDRA"))}

pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside this python")


def launch(tmp_path: Path, flags: dict[str, Any], *launcher: Any, **env: str) -> subprocess.Popen:
    argv = [f"--{name}={value}" for name, value in {"data_dir": tmp_path / "data", **flags}.items()]
    command = [*map(str, launcher), sys.executable, str(ROOT / "i2q_ddpg.py"), *argv]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=tmp_path, env={**ENVIRONMENT, **env}, stdout=pipe, stderr=pipe, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_two_ranks_stopped_killed_and_started_again_leave_the_folders_of_one_process(tmp_path):
    two = [MPIRUN, "-np", 2]
    process = launch(tmp_path, FLAGS, *two)
    for seed in range(2):
        wait_for(folder(tmp_path, seed) / "checkpoint" / "40.json", process)
    process.send_signal(signal.SIGINT)
    status, _, err = finished(process)
    assert status == 130
    assert sorted(re.findall(r"\[s\d\] stopped by SIGINT", err)) == ["[s0] stopped by SIGINT", "[s1] stopped by SIGINT"]
    assert err.count("again to stop at once") == 1  # rank 0 speaks for both
    assert err.count(f"to resume: {MPIRUN} -np 2 {sys.executable} ") == 1
    assert "Traceback" not in err

    process = launch(tmp_path, FLAGS, *two)
    for seed in range(2):
        wait_for(folder(tmp_path, seed) / "checkpoint" / "80.json", process)
    process.kill()  # the launcher: its ranks die with it
    process.communicate()

    status, out, err = finished(launch(tmp_path, FLAGS, *two))
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if "[s" in line]
    assert lines and all(
        re.fullmatch(r"\[s[01]\] (resuming from step .*|epoch \d/3  step .* left|finished already: .*)", line)
        for line in lines
    )
    assert out.count("mean return of the last test episodes") == 1

    together = {**FLAGS, "data_dir": tmp_path / "together", "num_runs": 2, "threads": 1}
    assert finished(launch(tmp_path, together))[0] == 0
    for seed in range(2):
        assert_same(folder(tmp_path, seed, "together"), folder(tmp_path, seed))


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset to take cores away with")
def test_ranks_that_take_turns_at_one_core_stop_when_told_and_leave_the_folders_of_one_process(tmp_path):
    core = next(iter(os.sched_getaffinity(0)))
    crowded = ["taskset", "-c", core, MPIRUN, "-np", 2]
    process = launch(tmp_path, FLAGS, *crowded)
    wait_for(folder(tmp_path, 0) / "checkpoint" / "40.json", process)
    process.send_signal(signal.SIGINT)  # while one of them waits for its turn
    status, _, err = finished(process)
    assert status == 130
    assert "Traceback" not in err
    assert finished(launch(tmp_path, FLAGS, *crowded))[0] == 0

    together = {**FLAGS, "data_dir": tmp_path / "together", "num_runs": 2, "threads": 1}
    assert finished(launch(tmp_path, together))[0] == 0
    for seed in range(2):
        assert_same(folder(tmp_path, seed, "together"), folder(tmp_path, seed))


POISON = """
import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv


class Poisoned(ParallelEnv):
    possible_agents = ["a", "b"]

    def observation_space(self, agent):
        return Box(-9, 9, (1,))

    def action_space(self, agent):
        return Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        self.t, self.agents, self.bad = 0, ["a", "b"], seed == {seed}
        return self.seen(), {{agent: {{}} for agent in self.agents}}

    def seen(self):
        return {{agent: np.full(1, np.nan if self.bad and self.t == 5 else 0.5, np.float32) for agent in self.agents}}

    def step(self, actions):
        self.t += 1
        no = dict.fromkeys(self.agents, False)
        return self.seen(), dict.fromkeys(self.agents, 0.5), no, no, {{agent: {{}} for agent in self.agents}}
"""


def test_a_rank_that_fails_or_is_refused_speaks_for_itself_and_the_other_finishes(tmp_path):
    import numpy as np

    third = np.random.Generator(np.random.PCG64(1)).integers(2**31, size=3)[2]  # seed 1's third episode starts from it
    (tmp_path / "poison.py").write_text(POISON.format(seed=third))
    flags = {**GAME, "env": "poison:Poisoned"}
    status, out, err = finished(launch(tmp_path, flags, MPIRUN, "-np", 2, PYTHONPATH=str(tmp_path)))
    assert status == 1
    assert re.fullmatch(r"\[s1\] failed: step 35: observation is not finite: nan, agent 0, number 0 .*\n", err)
    assert "[s0] epoch 3/3" in out
    assert re.search(r"\n +0 +120 +\S+\n +1 +0 +nan  unfinished\n", out)

    with open(folder(tmp_path, 1) / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        flags["epochs"] = 4
        status, out, err = finished(launch(tmp_path, flags, MPIRUN, "-np", 2, PYTHONPATH=str(tmp_path)))
    assert status == 2
    assert re.fullmatch(rf"i2q_ddpg.py: {folder(tmp_path, 1)}: .* is training in this folder; .*\n", err)
    assert [row["Epoch"] for row in rows(folder(tmp_path, 0))] == ["1", "2", "3", "4"]


def test_a_mistake_is_said_by_one_rank(tmp_path):
    status, out, err = finished(launch(tmp_path, {**FLAGS, "gamma": 2}, MPIRUN, "-np", 2))
    assert (status, out) == (2, "")
    assert err == "i2q_ddpg.py: --gamma 2.0: must be within 0 .. 1; --help explains the flags\n"


def test_ranks_share_the_cores_of_their_host(tmp_path):
    # one write a line: a line and its end written apart may have another rank's line between them
    code = "import os; from common.ranks import Ranks; r = Ranks.detect(); "
    code += "os.write(1, f'{r.rank} {r.size} {r.threads}\\n'.encode())"
    out = subprocess.check_output(
        [MPIRUN, "-np", "2", sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, text=True
    )
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert sorted(out.splitlines()) == [f"0 2 {share}", f"1 2 {share}"]


@pytest.fixture
def hosts(tmp_path):
    """A host file of two network namespaces, a remote shell to reach them, and what runs a command in the first."""
    spaces, cable = [f"i2q-{os.getpid()}-{side}" for side in "ab"], [f"i2q{side}{os.getpid()}" for side in "ab"]
    addresses = ["10.83.0.1", "10.83.0.2"]

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare") or not ip("netns", "add", spaces[0]):
        pytest.skip("no network namespaces: needs root and iproute2")
    try:
        assert ip("netns", "add", spaces[1])
        assert ip("link", "add", cable[0], "netns", spaces[0], "type", "veth", "peer", cable[1], "netns", spaces[1])
        for space, end, address in zip(spaces, cable, addresses):
            assert ip("-n", space, "addr", "add", f"{address}/24", "dev", end)
            assert ip("-n", space, "link", "set", end, "up") and ip("-n", space, "link", "set", "lo", "up")
        shell = tmp_path / "remote_shell"
        cases = "".join(f"{address}) space={space};; " for address, space in zip(addresses, spaces))
        shell.write_text(
            f"#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\ncase $1 in {cases}esac; shift\n"
            'exec ip netns exec $space unshare --uts bash -c "hostname $space; $*"\n'
        )
        shell.chmod(0o755)
        (tmp_path / "hosts").write_text("".join(f"{address}:1\n" for address in addresses))
        yield tmp_path / "hosts", shell, ["ip", "netns", "exec", spaces[0]]
    finally:
        for space in spaces:
            ip("netns", "delete", space)


def test_seeds_are_shared_out_among_two_hosts(tmp_path, hosts):
    host_file, shell, first = hosts
    launcher = [*first, MPIRUN, "-launcher", "ssh", "-launcher-exec", shell, "-f", host_file, "-np", 2]
    status, out, err = finished(launch(tmp_path, FLAGS, *launcher))
    assert (status, err) == (0, "")
    for seed in range(2):
        assert len(rows(folder(tmp_path, seed))) == 3
    here, there = [(folder(tmp_path, seed) / ".lock").read_text().split(" on ")[1] for seed in range(2)]
    assert here != there == f"{first[-1][:-1]}b\n"
    assert re.search(r"mean \S+ +IQM", out)
    share = json.loads((folder(tmp_path, 1) / "config.json").read_text())["threads"]
    assert share == len(os.sched_getaffinity(0))  # of its own host, whose cores it has for itself


@pytest.mark.parametrize("rank", [0, 3])
def test_a_launcher_of_another_mpi_is_refused(tmp_path, rank):
    """Every process of it would take itself for rank 0 of 1, and train seed 0."""
    foreign = {"OMPI_COMM_WORLD_SIZE": "5", "OMPI_COMM_WORLD_RANK": str(rank)}
    status, out, err = finished(launch(tmp_path, FLAGS, **foreign))
    assert (status, out) == (2, "")
    line = r"i2q_ddpg.py: the launcher started 5 processes, but MPI counts 1 \(MPICH.*\): .* use the mpirun .*\n"
    assert re.fullmatch(line if rank == 0 else "", err)
    assert not folder(tmp_path).exists()
