"""The report for people."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.flops import PPO_ITERS
from bench.updates import TOLERANCE


def device_name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return "cpu"


def differs(row: dict[str, Any]) -> bool:
    """Whether this update does not give what the naive one gives; a NaN does not."""
    return row["apart"] is not None and not row["apart"] <= TOLERANCE


def table(report: dict[str, Any]) -> str:
    """The report for people: median (min .. max)."""

    def cell(values: dict[str, float] | None, digits: int = 2) -> str:
        if values is None:
            return "-"
        return "{median:.{d}f} ({min:.{d}f}..{max:.{d}f})".format(**values, d=digits)

    def part(rows: Sequence[dict[str, Any]], head: str, line: Callable[[dict[str, Any]], str]) -> list[str]:
        return ["", head, *map(line, rows)] if rows else []

    of, s = report["machine"], report["settings"]
    lines = [f"{of['device']}, {of['threads']} thread, torch {of['torch']}; median (min..max) of {s['rounds']} rounds"]
    lines += ["", f"{'one product, GFLOP/s':30} {'':22} {'before':>8} {'after':>8}"]
    for row in report["peak"]:
        lines.append(f"{row['product']:30} {cell(row['gflops'], 0):22} {row['before']:8.0f} {row['after']:8.0f}")
    if report["updates"]:
        title = f"updates: observation {s['obs']}, {s['act']} actions, batch {s['batch_size']}, {s['hid']}-{s['hid']}"
        lines += ["", f"{title}; IPPO: {PPO_ITERS} + {PPO_ITERS} steps on a rollout of {s['rollout']}, 64-64"]
        head = f"{'':30} {'S':>2} {'N':>2} {'':9} {'ms an update':24} {'MFLOP':>8} {'of torch.mm':20} {'of best':20} "
        lines.append(head + f"{'times naive':20} {'difference':10} apart")
    for row in report["updates"]:
        check = "" if row["apart"] is None else f"{row['difference']:<10.1e} {row['apart']:.1e}"
        check += "  DIFFERS" if differs(row) else ""
        lines.append(
            f"{row['algorithm']:30} {row['seeds']:2} {row['agents']:2} {row['way']:9} {cell(row['ms']):24} "
            f"{row['useful_mflop']:8.1f} {cell(row['of_mm']):20} {cell(row['of_best']):20} "
            f"{cell(row['times_naive']):20} {check}".rstrip()
        )
    lines += part(
        report["env"],
        f"{'environments':22} {'rows':>4} {'':10} {'us a step':26} {'over gymnasium':20} {'steps/s':>10}",
        lambda row: (
            f"{row['env']:22} {row['rows']:4} {row['way']:10} {cell(row['us'], 1):26} {cell(row['over_gymnasium']):20} "
            f"{row['steps_per_s']['median']:10.0f}"
        ),
    )
    lines += part(
        report["train"],
        f"{'training, an update a step':30} {'steps/s':24} {'updates alone, 1/s':24} of updates alone",
        lambda row: (
            f"{row['algorithm'] + ' ' + row['env']:30} {cell(row['steps_per_s'], 0):24} "
            f"{cell(row['updates_alone_per_s'], 0):24} {cell(row['of_updates_alone'])}"
        ),
    )
    lines += part(
        report["train"],
        f"{'microseconds a step':30} {'without update':24} {'of a test':24} tests of a run",
        lambda row: (
            f"{row['algorithm'] + ' ' + row['env']:30} {cell(row['us_without_update'], 0):24} "
            f"{cell(row['us_of_test'], 0):24} {cell(row['share_of_tests'], 3)}"
        ),
    )
    lines += part(
        report["ranks"],
        f"{'ranks, of all together':30} {'cores':>5} {'ranks':>5} {'updates/s':24} of the first",
        lambda row: (
            f"{row['algorithm']:30} {row['cores']:5} {row['ranks']:5} {cell(row['updates_per_s'], 0):24} "
            f"{cell(row['of_first'])}"
        ),
    )
    return "\n".join(lines)
