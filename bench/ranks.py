"""Throughput of all ranks of this host together: one rank a core, and more ranks than cores."""

import argparse
import importlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.clock import compiled, spread
from bench.training import marked
from common.ranks import Ranks, own_cores

CORES = len(own_cores())
MPIRUN = Path(sys.executable).with_name("mpirun")
PASSED_ON = ("hid", "batch_size", "update_after")
BLOCKS = {"i2q_ddpg": 12, "iddpg": 30}  # of 50 updates: each rank trains for several of the turns of common/turns.py


def rank_rows(name: str, args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Updates per second of all ranks together, by their number, in turns; over those of the first number."""
    if not MPIRUN.exists():
        say(f"bench: ranks: not measured, as there is no {MPIRUN}: pip install mpi4py mpich")
        return
    rates = np.array([[_rate(name, size, args) for size in args.rank_sizes] for _ in range(args.rank_rounds)])
    for size, rate in zip(args.rank_sizes, rates.T):
        yield {
            "algorithm": name,
            "cores": CORES,
            "ranks": size,
            "updates_per_s": spread(rate),
            "of_first": spread(rate / rates[:, 0]),
        }


def _rate(name: str, size: int, args: argparse.Namespace) -> float:
    """Updates per second of `size` ranks together, while all of them train."""
    with tempfile.TemporaryDirectory() as folder:
        settings = json.dumps({key: getattr(args, key) for key in PASSED_ON} | {"blocks": args.rank_blocks[name]})
        command = [MPIRUN, "-np", size, sys.executable, "-m", "bench.ranks", name, settings, folder]
        subprocess.run([*map(str, command)], cwd=Path(__file__).parents[1], check=True, stdout=subprocess.DEVNULL)
        return together([json.loads(path.read_text()) for path in Path(folder).iterdir()])


def together(ended: Sequence[Sequence[float]]) -> float:
    """Updates per second of several ranks, from when each update of each ended, while all of them were at it; NaN if
    they never were."""
    start, end = max(own[0] for own in ended), min(own[-1] for own in ended)
    return sum(start < at <= end for own in ended for at in own) / (end - start) if end > start else math.nan


def main(name: str, settings: str, folder: str) -> None:
    """One rank: train a seed, and leave when each update ended, those of the first block aside."""
    ranks = Ranks.detect()
    torch.set_num_threads(1)
    args = argparse.Namespace(device="cpu", **json.loads(settings))
    args.kernels = compiled(lambda _: None, ranks.threads)  # without a compiler slower, and just as comparable
    module = importlib.import_module(name)
    marks = marked(module, args, ranks, {"num_test_episodes": 1, "test_ep_len": 1})
    ended = marks.ended[module.defaults("2x3HalfCheetah", "own")["updates"] :]
    Path(folder, f"{ranks.rank}.json").write_text(json.dumps(ended))
    ranks.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
