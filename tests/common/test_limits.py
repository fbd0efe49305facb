"""What this machine cannot hold is refused with the number and the limit, and nothing is left of it on the disk."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.checks import TINY

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from common import limits
from common.errors import UsageError
from common.replay import Replay
from common.runs import main

REPLAYING = [i2q_ddpg, iddpg, d3g, i2q_expectile, mbpo_baseline]
GAME = {"env": "DifferentialGame-2", "exp_name": "x", "epochs": 1, "hid": 8, "batch_size": 5, "updates": 3}
MEMORY = r"some [\d.e+]+ GiB of memory for \d+ seeds?, and [\d.e+]+ GiB are free on cpu; give smaller numbers"


def refused(module: ModuleType, flags: dict[str, Any], monkeypatch: Any, capfd: Any, tmp_path: Path) -> str:
    """The one line that the program ends with. Nothing may be left where it ran."""
    fields = module.Config.__dataclass_fields__
    argv = [f"--{name}={value}" for name, value in {**TINY, **GAME, **flags}.items() if name in fields]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *argv])
    with pytest.raises(SystemExit) as end:
        main(module.Config, module.defaults, module.train, module.__doc__)
    err = capfd.readouterr().err
    assert end.value.code == 2, err
    assert err.count("\n") == 1 and err.startswith(f"{module.__name__}.py: "), err
    assert not list(tmp_path.iterdir())
    return err.removeprefix(f"{module.__name__}.py: ").rstrip("\n")


HUGE = {
    "batch_size": (10**12, rf"--batch_size {10**12} --hid 8 --l 2: {MEMORY}"),
    "updates": (10**10, rf"--batch_size 5 --updates {10**10}: {MEMORY}"),
    "hid": (10**9, rf"--hid {10**9} --l 2: {MEMORY}"),
    "l": (10**9, rf"--hid 8 --l {10**9}: {MEMORY}"),
    "num_test_episodes": (10**9, rf"--num_test_episodes {10**9}: {MEMORY}"),
    "num_runs": (10**9, rf"--num_runs: {10**9} seeds in a process, and its limit of open files \(ulimit -n\) .*"),
    "threads": (10**6, r"--threads 1000000: must be within 0 \.\. \d+; .*"),
}


@pytest.mark.parametrize("module", REPLAYING, ids=lambda module: module.__name__)
@pytest.mark.parametrize("flag", HUGE)
def test_a_number_that_is_too_large_is_named_with_the_limit(monkeypatch, capfd, tmp_path, module, flag):
    value, line = HUGE[flag]
    assert re.fullmatch(line, refused(module, {flag: value}, monkeypatch, capfd, tmp_path))


OTHERS = {
    "hid": (200_000, rf"--hid 200000 --l 2: {MEMORY}"),
    "threads": (10**20, rf"--threads {10**20}: must be within 0 .. \d+; .*"),
    "batch_size": ("1e12", r".*--batch_size.*1e12.*"),
    "max_ep_len": (10**13, r"an episode of \d+ steps \(--max_ep_len, --test_ep_len\): Unable to allocate .*"),
    "test_ep_len": (10**18, r"an episode of \d+ steps \(--max_ep_len, --test_ep_len\): .*"),
    "epochs": (10**400, r"--epochs 1[0 ]+: must be 9223372036854775807 at most; .*"),
    "data_dir": ("a" * 3000, r"a{60}\.\.\.: a name of 3000 bytes, where \d+ are allowed; give a shorter --data_dir .*"),
    "exp_name": ("b" * 300, r"b{60}\.\.\.: a name of 303 bytes, where \d+ are allowed; .*or --exp_name"),
    "replay_size": (10**15, r"--replay_size 1000000000000000: .* GiB .*"),
}


@pytest.mark.parametrize("flag", OTHERS)
def test_other_numbers_and_names_too(monkeypatch, capfd, tmp_path, flag):
    value, line = OTHERS[flag]
    assert re.fullmatch(line, refused(i2q_ddpg, {flag: value}, monkeypatch, capfd, tmp_path))


def test_a_path_that_is_too_long_as_a_whole(monkeypatch, capfd, tmp_path):
    line = refused(iddpg, {"data_dir": "/".join(["c" * 200] * 21)}, monkeypatch, capfd, tmp_path)
    assert re.fullmatch(r"(c|/){60}\.\.\.: a path of \d+ bytes, where \d+ are allowed; give a shorter --data_dir", line)


@pytest.mark.parametrize("flag", ["rollout", "hid", "threads"])
def test_ippos_rollout_counts_as_well(monkeypatch, capfd, tmp_path, flag):
    flags = {"steps_per_epoch": 10**12, "rollout": 10**12} if flag == "rollout" else {flag: 10**9, "rollout": 60}
    line = refused(ippo, flags, monkeypatch, capfd, tmp_path)
    assert re.fullmatch(rf"--threads .*|--rollout {10**12} --hid 8 --l 2: {MEMORY}|--hid {10**9} --l 2: {MEMORY}", line)


def test_what_only_the_environments_sizes_make_too_large_is_refused_too(monkeypatch, capfd, tmp_path):
    """Nearly all that is free, if there were one agent that sees one number; here five see five."""
    game = {"env": "DifferentialGame-5"}
    batch = int(0.8 * limits.free_memory() / (36 + 4 * 6 * 8 * 2))
    line = refused(iddpg, {**game, "batch_size": batch, "updates": 1}, monkeypatch, capfd, tmp_path)
    assert re.fullmatch(rf"--batch_size {batch} --(updates 1|hid 8 --l 2): {MEMORY}", line)
    hid = int((0.5 * limits.free_memory() / 32) ** 0.5)
    line = refused(iddpg, {**game, "hid": hid, "batch_size": 1}, monkeypatch, capfd, tmp_path)
    assert re.fullmatch(rf"hidden layers \(--l 2 of --hid {hid}\): some .* are free on cpu; give smaller numbers", line)


def test_the_settings_that_the_paper_used_are_far_below_what_a_laptop_has(monkeypatch):
    """Humanoid, the largest task, with five seeds in a process, in 8 GiB."""
    monkeypatch.setattr(limits, "free_memory", lambda device: 8 * 2**30)

    class Humanoid:
        n_agents, n_obs, n_act = 2, 376, 9

    for module in (*REPLAYING, ippo):
        limits.check(module.Config(env="9|8Humanoid", epochs=50), 1)
        limits.check(module.Config(env="9|8Humanoid", epochs=50), 1, Humanoid)


def test_a_process_may_not_take_more_than_its_limit_of_addresses():
    """A real limit, set from within a process of its own."""
    code = (
        "import resource; from common.limits import free_memory\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY)); print(free_memory())"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 2**28


def test_seeds_are_as_many_as_files_may_be_open(monkeypatch, capfd, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert " allows 136; " in refused(iddpg, {"num_runs": 137}, monkeypatch, capfd, tmp_path)
        limits.check_seeds(136)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limits_of_control_groups_are_read_up_to_the_root(tmp_path):
    process, root = tmp_path / "cgroup", tmp_path / "fs"
    process.write_text("3:cpu,memory2:/no\n4:memory:/jobs/7\n0::/slice/job\n")
    for name, text in {
        "memory/jobs/7/memory.limit_in_bytes": "9223372036854771712",
        "memory/jobs/memory.limit_in_bytes": "5000",
        "slice/job/memory.max": "max",
        "slice/memory.max": "7000",
        "memory.max": "8000",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    assert sorted(limits.cgroup_limits(process, root)) == [5000, 7000, 8000, 9223372036854771712]
    assert limits.cgroup_limits(tmp_path / "none", root) == []


def test_free_memory_is_what_the_kernel_says_at_most():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < limits.free_memory() <= 1024 * int(lines["MemTotal"].split()[0])


def test_the_replay_is_refused_as_a_mistake_of_the_users():
    with pytest.raises(UsageError, match="--replay_size"):
        Replay([0], 1, 1, 1, size=10**18)


def test_as_many_threads_as_there_are_cores_are_never_refused():
    assert limits.most_threads() >= len(os.sched_getaffinity(0))
    assert np.all([iddpg.Config(threads=n).threads == n for n in (0, 1, limits.most_threads())])
