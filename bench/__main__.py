"""How fast updates, environments and training are: against this core's matrix products, a naive update, gymnasium.

    python -m bench                              all of it, about three minutes of a free core
    python -m bench --only i2q_ddpg env          a part of it
    python -m bench --json > speed.json          the same numbers to read by programs
    python -m bench --device cuda                the updates and training on a card
    python -m bench --only ranks                 all ranks of this machine together: all of its cores, four minutes

One process (but for `ranks`), one thread, single precision. Whatever is compared takes turns, round after round, and a
ratio is taken within a round: what else the machine does hits all alike. Every number is the median over rounds, with
the least and the greatest. Absolute times tell of the machine and of its neighbours; ratios are what counts.

Useful FLOPs are those of the matrix products that the mathematics of an update needs (PASSES), a multiplication and an
addition each; ReLU, Adam, losses and target networks count as nothing. `of torch.mm` is useful FLOP/s over the best of
torch.mm in the same round, `of best` over the best product by any library, which can be twice that: MKL, on which
torch.mm stands, leaves half of an AMD core's vector units unused. `naive` is bench/naive.py, a torch.nn module and an
Adam for each network of each agent; after three updates of both, `difference` is the largest one of any parameter, and
`apart` how far any two networks ended apart over how far they had come: rounding makes up to 1e-2.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

import i2q_ddpg
import iddpg
from bench.clock import Clock, Peaks, compiled
from bench.environments import env_rows
from bench.flops import N_ACT, N_OBS
from bench.ranks import BLOCKS, CORES, rank_rows
from bench.report import device_name, differs, table
from bench.training import train_row
from bench.updates import CASES, SIZES, update_rows
from common.parser import Parser, number

ALONE = [*CASES, "env", "train"]  # measured by default, on one core
PARTS = [*ALONE, "ranks"]
TRAINED = i2q_ddpg, iddpg


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything asked for, as it goes into --json."""
    torch.set_num_threads(1)
    args.kernels = compiled(say) if args.device == "cpu" else None
    clock, peaks = Clock(args.device, args.rounds, args.seconds), Peaks(args)
    report: dict[str, Any] = {
        "machine": {"device": device_name(args.device), "torch": torch.__version__, "threads": 1},
        "settings": {"obs": N_OBS, "act": N_ACT}
        | {name: getattr(args, name) for name in ("batch_size", "hid", "rollout", "rounds")},
        "updates": [],
        "env": [],
        "train": [],
        "ranks": [],
    }
    peaks.add(clock.turns(peaks.works()))
    for name in CASES:
        if name in args.only:
            say(f"bench: {name}")
            report["updates"] += update_rows(name, args, clock, peaks)
    if "env" in args.only:
        say("bench: environments")
        report["env"] = [*env_rows(clock)]
    if "train" in args.only:
        for module in TRAINED:
            say(f"bench: training with {module.__name__}")
            report["train"].append(train_row(module, args))
    if "ranks" in args.only:
        for module in TRAINED:
            say(f"bench: ranks of {module.__name__}")
            report["ranks"] += rank_rows(module.__name__, args, say)
    peaks.add(clock.turns(peaks.works()))
    return {**report, "peak": peaks.rows()}


def pair(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9]\d*,[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no S,N, as 5,2 for five seeds of two agents")
    S, N = text.split(",")
    return int(S), int(N)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 an update differs from the naive one, 2 usage."""
    parser = Parser("bench", __doc__)
    add = parser.add_argument
    text = f"some of {', '.join(shlex.quote(part) for part in PARTS)}"
    add("--only", nargs="+", choices=PARTS, default=ALONE, metavar="PART", help=text)
    add("--sizes", nargs="+", type=pair, metavar="S,N", help="seeds and agents [1,2 5,2 1,6 1,8]")
    add("--batch_size", type=number(1), default=100, help="transitions per update, seed and agent [%(default)s]")
    add("--hid", type=number(1), default=256, help="units of each of two hidden layers [%(default)s]")
    add("--rounds", type=number(1), default=9, help="turns of each contestant [%(default)s]")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 [%(default)s]")
    add("--quick", action="store_true", help="everything once, in tiny sizes: does it run?")
    add("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        parser.error(f"--device {args.device!r}: known are cpu, cuda and cuda:<number>")
    if args.device != "cpu" and int(args.device[5:] or 0) >= torch.cuda.device_count():
        parser.error(f"--device {args.device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    args.sizes = args.sizes or SIZES[args.device[:4].rstrip(":")]
    args.rank_sizes, args.rank_blocks = (CORES, 2 * CORES + 1), BLOCKS
    args.seconds, args.square = 0.02, 512 if args.device == "cpu" else 4096
    args.rollout, args.update_after, args.blocks, args.test_ep_len, args.rank_rounds = 4000, 1000, 9, 1000, 3
    if args.quick:
        args.sizes, args.rounds, args.hid, args.batch_size = args.sizes[:1], 2, 16, 8
        args.seconds, args.square, args.rollout, args.update_after, args.blocks = 1e-4, 64, 50, 200, 2
        args.test_ep_len, args.rank_rounds, args.rank_sizes = 5, 1, (1, 2)
        args.rank_blocks = dict.fromkeys(BLOCKS, args.blocks)
    report = measure(args, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(report, indent=1) if args.json else table(report))
    return int(any(map(differs, report["updates"])))


if __name__ == "__main__":
    sys.exit(main())
