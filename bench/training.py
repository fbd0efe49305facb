"""Training as a run does it: an algorithm's own loop, and the share of its updates."""

import argparse
import contextlib
import io
import tempfile
import time
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


def train_row(module: ModuleType, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of the algorithm's own loop at one update a step, by blocks of 50, and its updates' share."""
    env, name = "2x3HalfCheetah", module.__name__
    settings = {**module.defaults(env, "own"), "hid": args.hid, "batch_size": args.batch_size, "device": args.device}
    every = settings["update_every"]
    steps = args.update_after + every * args.blocks
    settings |= {"epochs": 1, "steps_per_epoch": steps, "num_test_episodes": 1, "test_ep_len": 1}
    settings |= {"update_after": args.update_after}
    wait = torch.cuda.synchronize if args.device != "cpu" else lambda: None
    began: list[float] = []
    ended: list[float] = []

    original = Run.record

    def timed(run: Run, update: Any) -> Any:
        recorded = original(run, update)

        def call(*arguments: Any) -> Any:
            wait()
            began.append(time.perf_counter())
            out = recorded(*arguments)
            wait()
            ended.append(time.perf_counter())
            return out

        return call

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cfg = module.Config(env=env, exp_name="bench", data_dir=folder, threads=1, **settings)
        signals = Signals()
        try:
            with Folder(cfg, name, 0) as kept, mock.patch.object(Run, "record", timed):
                run = Run(Process(cfg, Ranks(), signals, Once(0)), {0: kept}, kernels=args.kernels)
                module.train(cfg, run)
                run.close()
        finally:
            signals.restore()
    per_block = settings["updates"]
    ends = np.array(ended)[per_block - 1 :: per_block]  # of each block of updates; the first one warms up
    inside = (np.array(ended) - np.array(began)).reshape(-1, per_block).sum(1)[1:]
    whole = np.diff(ends)
    return {
        "algorithm": name,
        "env": env,
        "steps_per_s": spread(every / whole),
        "updates_alone_per_s": spread(per_block / inside),
        "of_updates_alone": spread(inside / whole),
    }
