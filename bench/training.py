"""Training as a run does it: an algorithm's own loop, the share of its updates, and that of its tests."""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.clock import spread
from common.console import Once
from common.folder import Folder
from common.ranks import Ranks
from common.run import Process, Run
from common.signals import Signals

ENV = "2x3HalfCheetah"
AGAIN = 3  # times that a test is played


@dataclass
class Marks:
    """When things happened in a run, in seconds of a clock that all processes of a host share."""

    steps: list[float] = field(default_factory=list)  # an environment step began
    began: list[float] = field(default_factory=list)  # an update
    ended: list[float] = field(default_factory=list)
    tests: list[float] = field(default_factory=list)  # seconds that a test took, not when


def train_row(module: ModuleType, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of the algorithm's own loop at one update a step, by blocks of 50, and its updates' share.

    A step of a test is one of all its episodes, which are played side by side; the share of tests is that of a whole
    run, from when every step has its update.
    """
    schedule = module.defaults(ENV, "own")
    tests = schedule["num_test_episodes"] * args.test_ep_len
    marks = marked(module, args, Ranks(), {"test_ep_len": args.test_ep_len})
    every, per_block = schedule["update_every"], schedule["updates"]
    ends = np.array(marks.ended)[per_block - 1 :: per_block]  # of each block of updates; the first one warms up
    inside = (np.array(marks.ended) - np.array(marks.began)).reshape(-1, per_block).sum(1)[1:]
    whole = np.diff(ends)
    bare = np.diff(marks.steps[args.update_after // 2 : args.update_after : every]) / every
    test_step, step = np.array(marks.tests) / tests, np.median(whole) / every
    of_tests = schedule["num_test_episodes"] * schedule["test_ep_len"] * test_step
    return {
        "algorithm": module.__name__,
        "env": ENV,
        "steps_per_s": spread(every / whole),
        "updates_alone_per_s": spread(per_block / inside),
        "of_updates_alone": spread(inside / whole),
        "us_without_update": spread(1e6 * bare),
        "us_of_test": spread(1e6 * test_step),
        "share_of_tests": spread(of_tests / (of_tests + schedule["steps_per_epoch"] * step)),
    }


def marked(module: ModuleType, args: argparse.Namespace, ranks: Ranks, settings: dict[str, Any]) -> Marks:
    """Train a seed for args.blocks blocks of updates, in this rank, and tell when what happened."""
    settings = {**module.defaults(ENV, "own"), "hid": args.hid, "batch_size": args.batch_size, **settings}
    settings |= {"epochs": 1, "steps_per_epoch": args.update_after + settings["update_every"] * args.blocks}
    settings |= {"update_after": args.update_after, "device": args.device, "threads": ranks.threads}
    marks = Marks()
    patches = [
        mock.patch.object(Run, "record", _timed(Run.record, marks, args.device)),
        mock.patch.object(Run, "steps", _noted(Run.steps, marks)),
        mock.patch.object(module, "evaluate", _repeated(module.evaluate, marks)),
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cfg = module.Config(env=ENV, exp_name="bench", data_dir=folder, **settings)
        signals = Signals()
        try:
            with Folder(cfg, module.__name__, ranks.rank) as kept, contextlib.ExitStack() as stack:
                for patch in patches:
                    stack.enter_context(patch)
                run = Run(Process(cfg, ranks, signals, Once(0)), {ranks.rank: kept}, kernels=args.kernels)
                module.train(cfg, run)
                run.close()
        finally:
            signals.restore()
    return marks


def _timed(record: Callable[..., Any], marks: Marks, device: str) -> Callable[..., Any]:
    """Run.record, whose updates note when they begin and end."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def timed(run: Run, update: Any) -> Any:
        recorded = record(run, update)

        def call(*arguments: Any) -> Any:
            wait()
            marks.began.append(time.monotonic())
            out = recorded(*arguments)
            wait()
            marks.ended.append(time.monotonic())
            return out

        return call

    return timed


def _noted(steps: Callable[[Run], Iterator[int]], marks: Marks) -> Callable[[Run], Iterator[int]]:
    """Run.steps, which notes when each begins."""

    def noted(run: Run) -> Iterator[int]:
        for step in steps(run):
            marks.steps.append(time.monotonic())
            yield step

    return noted


def _repeated(evaluate: Callable[..., Any], marks: Marks) -> Callable[..., Any]:
    """`evaluate`, several times, as it leaves nothing behind."""

    def repeated(*arguments: Any) -> Any:
        out = None
        for _ in range(AGAIN):
            start = time.monotonic()
            out = evaluate(*arguments)
            marks.tests.append(time.monotonic() - start)
        return out

    return repeated
