"""Train every run behind the paper's figures, those of the table FIGURES in paper/figures.py, and go on where it was.

    ./run_all.sh --scale smoke                         all of it in tiny sizes: does everything run?
    ./run_all.sh --scale short --figures 6 9           fewer seeds than the paper's, and on MuJoCo fewer steps
    ./run_all.sh --scale paper --list                  what is done, running and left, and how long it will take
    ./run_all.sh --scale lab --shard 1/3               the runs that decide the claims; this machine's part of three
    mpirun -np 8 ./run_all.sh --scale paper            eight rows at a time; under Slurm: srun -n 8 ./run_all.sh ...
    ./run_all.sh --launcher "mpirun -np 4"             a row at a time, its seeds shared out among four ranks

A row of the table is one command that trains all its seeds; --list shows it. Seeds that results/ has are not trained
again. Short runs are the beginning of the paper's, in the same folders, and are continued by --scale paper; smoke runs
are kept apart, in data/smoke. Stop it at any time and give the command again: programs go on from their checkpoints. A
row is claimed by a lock on its folder, so any number of these commands can work on one --data_dir.

Rows of smax: tasks are left out, with a line that says so, where the extra smax is not installed.

The scale lab (paper/lab.py) has its own seeds and steps for each row and trains seed by seed: first one seed of every
row, then a second. Machines without a common disk take a part each, --shard 1/n to n/n; git merges what they add to
results/.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from common.console import say
from common.layout import reason
from common.parser import Parser, number
from common.ranks import LAUNCHERS
from curves.table import aligned
from paper.figures import FIGURES
from paper.pool import Pool
from paper.runs import NAMES, ROOT, rows
from paper.state import State, clock, remaining, shard


def table(states: Sequence[State], args: argparse.Namespace, workers: int) -> str:
    """A line a row, and what is done, running, left, and for how long."""
    rows = [["figures", "experiment", "seeds", "state", "core time", "command"]]
    experiments: dict[tuple[int, str, int], list[State]] = {}  # the rows of one seed each are a line together
    for state in states:
        experiments.setdefault((state.row.tier, state.row.experiment, state.row.steps), []).append(state)
    for group in experiments.values():
        row, left = group[0].row, [state for state in group if state.left]
        seeds = str(row.seeds) if row.seed is None else f"{len(group) - len(left)} of {len(group)}"
        time_left = clock(remaining(left, 1)) if left else "-"
        command = " ".join(["python", *row.start, "--env", row.task, *row.flags])
        rows.append([" ".join(row.figures), row.experiment, seeds, describe(group), time_left, command])
    lines = aligned(rows, "llrlrl")
    for tier in sorted({state.row.tier for state in states} - {0}):
        left = [state for state in states if state.left and state.row.tier == tier]
        lines.append(f"tier {tier}: {len(left)} seeds left, {remaining(left, 1) / 3600:.1f} core-hours")
    running = sum(state.running() for state in states if state.left)
    done = sum(not state.left for state in states)
    timed = any(state.speeds for state in states)
    rough = "" if timed else " (on a core as fast as AMD's Zen 5; runs here will correct it)"
    lines.append(
        f"{len(states)} rows: {done} done, {running} running, {len(states) - done - running} left; about "
        f"{clock(remaining(states, workers))} with {workers} at a time{rough}. Runs: {args.data_dir}; "
        f"figures: python plot.py results {shlex.quote(str(args.data_dir))} --all-figures"
    )
    return "\n".join(lines)


def describe(group: Sequence[State]) -> str:
    """The state of an experiment's rows."""
    if len(group) == 1:
        return group[0].describe()
    if not any(state.left for state in group):
        return "done" if any(state.describe() == "done" for state in group) else "in results"
    return "running" if any(state.left and state.running() for state in group) else "left"


def refused(folder: Path) -> str:
    """Why nothing can be written to the folder, which is made; empty where something can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return reason(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no permission"


def part(text: str) -> tuple[int, int]:
    """The I and N of "I/N". Raises ArgumentTypeError."""
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r}: name a part as I/N, the first of three as 1/3")
    return int(i), int(n)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 a row failed, 2 usage, 130 stopped and saved."""
    parser = Parser("run_all.sh", __doc__)
    add = parser.add_argument
    add("--scale", choices=NAMES, default="smoke", help="sizes of the runs [%(default)s]")
    known = list(FIGURES)
    add("--figures", nargs="+", default=[], choices=known, metavar="N", help=f"only what these need: {' '.join(known)}")
    add("--only", default="", metavar="STR", help="only experiments whose name holds this")
    text = "the I-th of N parts of the rows, which machines without a common disk can each train [1/1]"
    add("--shard", type=part, default=(1, 1), metavar="I/N", help=text)
    text = "rows at a time; of each rank, where there are several [as many as cores, or 1 a rank]"
    add("--jobs", type=number(1), metavar="N", help=text)
    add("--threads", type=number(0), default=0, metavar="N", help="threads of a program [cores / rows at a time]")
    add("--launcher", default="", metavar="CMD", help='what to start a row with, as "mpirun -np 4"')
    add("--data_dir", type=Path, metavar="DIR", help="where runs are kept [data, or data/smoke]")
    text = "runs that are not made again [results]"
    add("--results", type=Path, default=ROOT / "results", metavar="DIR", help=text)
    add("--list", action="store_true", help="show the table and what is left; start nothing")
    args = parser.parse_args(argv)
    args.data_dir = (args.data_dir or ROOT / ("data/smoke" if args.scale == "smoke" else "data")).absolute()
    place = [(int(os.environ[size]), int(os.environ[rank])) for size, rank in LAUNCHERS if size in os.environ]
    size, rank = place[0] if place else (1, 0)
    cores = os.cpu_count() or 1
    if args.jobs is None:
        args.jobs = 1 if place or args.launcher else cores
    workers = args.jobs * size
    if not args.threads and not args.launcher:  # with a launcher each program sees how many ranks share its host
        args.threads = max(1, cores // workers)

    if not (named := rows(args.scale, args.figures)):
        parser.error(f"the scale {args.scale} trains nothing of --figures {' '.join(args.figures)}; try --scale short")
    chosen = [row for row in shard(named, *args.shard) if args.only in row.experiment]
    states = [State(row, args.data_dir, args.results) for row in chosen]
    if rank == 0:
        say(table(states, args, workers))
    if args.list:
        return 0
    if find_spec("jaxmarl") is None and (bare := [state for state in states if state.left and state.row.needs_smax]):
        states = [state for state in states if state not in bare]
        if rank == 0:
            which = "1 row of smax: tasks is" if len(bare) == 1 else f"{len(bare)} rows of smax: tasks are"
            say(f"run_all: {which} left out: pip install '.[smax]'", sys.stderr)
    if any(state.left for state in states) and (why := refused(args.data_dir)):
        parser.error(f"--data_dir {str(args.data_dir)!r}: cannot write there ({why}); give another --data_dir")
    return Pool(args, states, rank, workers).run()


if __name__ == "__main__":
    sys.exit(main())
