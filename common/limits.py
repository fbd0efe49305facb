"""What a run would need and what this machine has: what cannot fit is refused before anything is written."""

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from common.errors import UsageError

LARGEST = 2**63 - 1  # of whole numbers; larger ones fit into no array
COPIES = 5  # of a network at most: itself, its gradient, Adam's two moments, a target
PASSES = 6  # of a network in an update, whose hidden units are kept for the way back
LAYER = 2_000  # bytes of Python objects for a layer
ROW = 2_000  # bytes of Python objects for a row of an environment
OPEN_FILES = 64  # beside the one that each seed keeps open


def most_threads() -> int:
    """A run that began on a larger machine may go on here, but threads cost memory and there is a limit to them."""
    return max(256, 4 * (os.cpu_count() or 1))


def check_seeds(n_seeds: int) -> None:
    """Raise UsageError where a process cannot train so many seeds: each keeps its folder's lock open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and n_seeds > (most := max(1, soft - OPEN_FILES)):
        raise UsageError(
            f"--num_runs: {n_seeds} seeds in a process, and its limit of open files (ulimit -n) allows {most}; "
            "train fewer at once, or share them out among more ranks"
        )


def check(config: Any, n_seeds: int, env: Any = None) -> None:
    """Raise UsageError where memory does not suffice for n_seeds seeds of `config`.

    Without an environment the smallest one is assumed: this is a lower bound. With one, its networks are made already,
    and counted by check_networks.
    """
    N, O, A = (env.n_agents, env.n_obs, env.n_act) if env is not None else (1, 1, 1)
    needs = {flags: n_seeds * size for flags, size in _needs(config, N, O, A)}
    if env is not None:
        needs = {flags: size for flags, size in needs.items() if not flags.startswith("--hid")}
    _refuse(needs, f"{n_seeds} seed{'s' * (n_seeds > 1)}", config.device)


def check_networks(hidden: Sequence[int], made: int, more: int, device: torch.device | str) -> None:
    """Raise UsageError where no memory is left for networks of `more` parameters, beside those of `made` that exist."""
    largest = max(hidden, default=0)
    flags = f"hidden layers (--l {len(hidden)} of --hid {largest})"
    _refuse({flags: 4 * (COPIES * more + (COPIES - 1) * made)}, "all seeds and agents", device)


def _needs(config: Any, N: int, O: int, A: int) -> Iterator[tuple[str, int]]:
    """Bytes of a seed, by the flags that ask for them; what a Config does not have takes none."""
    hid, l, batch, updates, size, steps, rollout = (
        value if isinstance(value := getattr(config, name, 0), int) else 0
        for name in ("hid", "l", "batch_size", "updates", "replay_size", "replay_steps", "rollout")
    )
    row = 4 * (2 * O + A + 2)
    parameters = hid * (O + 2) + max(0, l - 1) * hid * (hid + 1)
    # a policy and a value at least, without targets
    yield f"--hid {hid} --l {l}", 2 * N * (COPIES - 1) * 4 * parameters + l * LAYER
    yield f"--batch_size {batch} --updates {updates}", N * batch * updates * (row + 16)  # and indices, twice
    yield f"--batch_size {batch} --hid {hid} --l {l}", N * batch * 4 * PASSES * hid * l
    yield f"--rollout {rollout} --hid {hid} --l {l}", N * rollout * (3 * row + 4 * PASSES * hid * l)
    made = config.epochs * config.steps_per_epoch  # more is never filled
    size, steps = min(size, made), min(steps, made)
    if steps:  # of whole episodes: float16, an observation once, legal actions; of each its last one, and a table's row
        yield f"--replay_steps {steps}", N * steps * (2 * O + A + 6)
        yield f"--replay_size {size}", size * (N * (2 * O + A) + 24)
    else:
        yield f"--replay_size {size}", N * size * row
    yield f"--num_test_episodes {config.num_test_episodes}", config.num_test_episodes * (ROW + 4 * N * O)


def _refuse(needs: dict[str, int], whose: str, device: torch.device | str) -> None:
    """Raise UsageError where the sum of `needs` is more than is free; it names the largest."""
    free, largest = free_memory(device), max(needs, key=lambda flags: needs[flags])
    if sum(needs.values()) > free:
        raise UsageError(
            f"{largest}: some {gib(needs[largest])} of memory for {whose}, and {gib(free)} are free on {device}; "
            "give smaller numbers"
        )


def gib(size: int) -> str:
    return f"{Decimal(size) / 2**30:.3g} GiB"  # a float ends at 1e308


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process may still take: what is free, within the limits that were set for it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _meminfo()
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        free = min(free, max(0, soft - used))
    return min([free, *cgroup_limits()])


def _meminfo() -> int:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cgroup_limits(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Limits of memory of the groups that this process is in, of either version of cgroups; what is "max" is none."""
    found = []
    with contextlib.suppress(OSError):  # no Linux, or hidden
        for line in process.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top, name = (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
            folder = top / place.lstrip("/")
            for path in (folder, *folder.parents):
                if path.is_relative_to(top) and (path / name).is_file():
                    text = (path / name).read_text().strip()
                    found += [int(text)] if text.isdecimal() else []
    return found
