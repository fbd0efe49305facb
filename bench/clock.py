"""Contestants timed in turns, and matrix products to compare them with."""

import argparse
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from common.fast import kernels, packing
from common.nets import MLP

Work = Callable[[int], None]  # does what is measured so many times
Key = TypeVar("Key")


def compiled(say: Callable[[str], None], threads: int = 1) -> kernels.Kernels | None:
    """The kernels, which a run has where there is a compiler; `say` hears why there are none."""
    try:
        found = kernels.load()
    except RuntimeError as error:
        say(f"bench: not compiled: {error}")
        return None
    found.threads(threads)
    return found


class Clock:
    """Times contestants in turns."""

    def __init__(self, device: str, rounds: int, seconds: float):
        self.rounds, self.seconds = rounds, seconds  # each contestant works for at least so long a round
        self.wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def once(self, work: Work, n: int) -> float:
        """Seconds that one of n takes."""
        self.wait()
        start = time.perf_counter()
        work(n)
        self.wait()
        return (time.perf_counter() - start) / n

    def turns(self, contestants: Mapping[Key, Work], period: int = 1) -> dict[Key, np.ndarray]:
        """Seconds of each contestant, by round. Where every `period`-th turn of a work is longer, all kinds count."""
        counts: dict[Key, int] = {}
        taken = {key: np.zeros(self.rounds) for key in contestants}
        for key, work in contestants.items():
            work(1)  # loads, allocates, compiles
            counts[key] = period * max(1, math.ceil(self.seconds / self.once(work, 1) / period))
        for k in range(self.rounds):
            for key, work in contestants.items():
                work(1)  # brings its data back into the caches
                taken[key][k] = self.once(work, counts[key])
        return taken


def spread(values: np.ndarray | Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(map(float, values)), "min": float(min(values)), "max": float(max(values))}


def products(args: argparse.Namespace) -> dict[str, tuple[float, Work]]:
    """Matrix products by library and shape: FLOPs, and the work. A large square one, and a hidden layer's."""
    found: dict[str, tuple[float, Work]] = {}
    side = args.square
    for m, n in ((side, side), (args.batch_size, args.hid)):
        a, w = torch.randn(m, n, device=args.device), torch.randn(n, n, device=args.device)
        c, size = torch.empty(m, n, device=args.device), f"{m} x {n} x {n}"
        found[f"torch.mm {size}"] = 2 * m * n * n, repeat(lambda a=a, w=w, c=c: torch.mm(a, w.t(), out=c))
        if args.device != "cpu":
            continue
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):  # private to PyTorch: may go
            packed, linear = torch.ops.mkldnn._reorder_linear_weight(w, m), torch.ops.mkldnn._linear_pointwise
            linear(a, packed, None, "none", [], "")
            work = repeat(lambda a=a, packed=packed, linear=linear: linear(a, packed, None, "none", [], ""))
            found[f"oneDNN {size}"] = 2 * m * n * n, work
        if args.kernels:
            layer, x = MLP([n, n], torch.randn(1, 1, packing.length([n, n]))), torch.randn(1, 1, m, n)
            layer.kernels = args.kernels
            found[f"mlp.cpp {size}"] = 2 * m * n * n, repeat(lambda layer=layer, x=x: layer(x))
    return found


def repeat(call: Callable[[], Any]) -> Work:
    def work(n: int) -> None:
        for _ in range(n):
            call()

    return work


class Peaks:
    """FLOP/s of the products, measured beside all else."""

    def __init__(self, args: argparse.Namespace):
        self.products = products(args)
        self.seen: list[dict[str, np.ndarray]] = []  # a group after another: product -> FLOP/s by round

    def works(self) -> dict[str, Work]:
        return {name: torch.no_grad()(work) for name, (_, work) in self.products.items()}

    def add(self, taken: dict[Any, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """FLOP/s of torch.mm's best and of the best of all, by round, of the group just measured."""
        self.seen.append({name: self.products[name][0] / taken[name] for name in self.products})
        best = np.max([*self.seen[-1].values()], 0)
        return np.max([rate for name, rate in self.seen[-1].items() if name.startswith("torch.mm")], 0), best

    def rows(self) -> list[dict[str, Any]]:
        """Over all groups, in GFLOP/s, and the medians of the first and the last group."""
        return [
            {
                "product": name,
                "gflops": spread(np.concatenate([group[name] for group in self.seen]) / 1e9),
                "before": float(np.median(self.seen[0][name])) / 1e9,
                "after": float(np.median(self.seen[-1][name])) / 1e9,
            }
            for name in self.products
        ]
