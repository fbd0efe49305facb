"""Copy finished runs to results/: their settings and tables, without checkpoints and policies.

    python -m paper.ship                              every finished run of run_all.sh's tables that data/ holds
    python -m paper.ship iddpg_2x4Ant my_experiment   only these experiments
    python -m paper.ship iddpg_2x4Ant --unfinished    as far as its runs have come

A run in results/ is replaced by its own continuation alone. One of other settings, or of other numbers at the same
steps, stays as it is, and a run that was trained with uncommitted changes stays where it is: a line names each, and the
exit status is 1. What is new is printed as rows for the list in results/README.md; `python -m paper.results` then
writes the tables.
"""

import functools
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.console import say
from common.errors import UsageError
from common.layout import CONFIG, PROGRESS, asked, differences, read_config, read_progress, reason
from common.parser import Parser
from paper.runs import ROOT, Row, rows
from paper.state import blocks, locked


def ship(run: Path, to: Path, unfinished: bool = False) -> str:
    """Copy a run to the folder `to`; why not, where there is nothing to do. Raises UsageError where it must not be."""
    config = read_config(run)
    try:
        columns = read_progress(run)
    except UsageError as error:
        return str(error)  # no row yet
    total = asked(config)
    if "TotalEnvInteracts" not in columns:
        raise UsageError(f"{run / PROGRESS}: has no column TotalEnvInteracts, so its length is unknown")
    if (steps := columns["TotalEnvInteracts"][-1]) < total and not unfinished:
        return f"at step {steps:,.0f} of {total:,}"
    if locked(run / ".lock"):
        return "being trained"
    if dirty := [name for name in config.get("commits", []) if name.endswith("-dirty")]:
        raise UsageError(
            f"{run}: was trained with changes that are in no commit ({dirty[-1]}); commit them, train again"
        )
    files = [*sorted(run.glob("*.txt")), run / CONFIG]  # the last one makes it a run
    if (to / CONFIG).exists() and _holds(to, config, columns):
        files = [path for path in files if path.name not in (CONFIG, PROGRESS) and _longer(path, to / path.name)]
        if not files:
            return "there already"
    to.mkdir(parents=True, exist_ok=True)
    for path in files:
        temporary = to / f".{path.name}.tmp"
        temporary.write_bytes(path.read_bytes())
        os.replace(temporary, to / path.name)
    return ""


def _holds(to: Path, config: dict[str, Any], columns: dict[str, np.ndarray]) -> bool:
    """Whether the run in `to` is this one, as long or longer. Raises UsageError where it is another."""
    if text := differences(read_config(to), config):
        raise UsageError(f"{to}: is a run with {text}; move one of them away")
    held = read_progress(to)
    both = min(len(held["TotalEnvInteracts"]), len(columns["TotalEnvInteracts"]))
    for name in sorted(held.keys() & columns.keys() - {"Time"}):
        if not np.array_equal(held[name][:both], columns[name][:both], equal_nan=True):
            raise UsageError(f"{to}: has another {name} at the same steps; move one of the runs away")
    return both == len(columns["TotalEnvInteracts"])


def _longer(table: Path, held: Path) -> bool:
    """Whether a table beside progress.txt goes on where the one that is held ends, or none is held."""
    return not held.exists() or (
        table.read_bytes().startswith(held.read_bytes()) and table.stat().st_size > held.stat().st_size
    )


@functools.cache
def known() -> dict[str, Row]:
    """Experiment -> a row of the tables."""
    return {row.experiment: row for scale in ("lab", "paper") for row in rows(scale)}


def listed(experiment: str, to: Path) -> Iterator[str]:
    """The rows of an experiment for the list in results/README.md: one for each block of seeds of one length."""
    lengths: dict[float, list[int]] = {}
    for run in seeds_of(to, experiment):
        steps = float(read_progress(run)["TotalEnvInteracts"][-1])
        lengths.setdefault(steps, []).append(int(run.name.rpartition("_s")[2]))
    for steps, seeds in sorted(lengths.items()):
        for block in blocks(seeds):
            span = f"{block[0]}-{block[-1]}" if len(block) > 1 else f"{block[0]}"
            yield f"| `{experiment}` | {span} | {steps:,.0f} | `{_command(experiment, block, steps)}` |"


def seeds_of(folder: Path, experiment: str) -> list[Path]:
    """The runs of an experiment: <experiment>_s<seed> and no other name, such as that of a copy."""
    name = re.compile(re.escape(experiment) + r"_s\d+")
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}") if name.fullmatch(path.parent.name))


def _command(experiment: str, seeds: Sequence[int], steps: float) -> str:
    """What trains these seeds for so long; dots for an experiment that is in no table."""
    if not (row := known().get(experiment)):
        return "..."
    flags = dict(zip(row.flags[::2], row.flags[1::2]))
    if "--epochs" in flags:
        flags["--epochs"] = f"{steps / 10_000:.0f}"
    flags |= {"--seed": f"{min(seeds)}"} if min(seeds) else {}
    flags |= {"--num_runs": f"{len(seeds)}"} if len(seeds) > 1 else {}
    return shlex.join(["python", *row.start, "--env", row.task, *itertools.chain(*flags.items())])


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a run must not be shipped, 2 usage."""
    parser = Parser("ship", __doc__)
    add = parser.add_argument
    add("experiments", nargs="*", metavar="EXPERIMENT", help="names of folders in DATA [those of run_all.sh's tables]")
    add("--data_dir", type=Path, default=ROOT / "data", metavar="DATA", help="where the runs are [data]")
    add("--to", type=Path, default=ROOT / "results", metavar="DIR", help="where they go [results]")
    add("--unfinished", action="store_true", help="ship runs as far as they have come")
    args = parser.parse_args(argv)
    for name in args.experiments:
        if not (args.data_dir / name).is_dir():
            parser.error(f"{args.data_dir / name}: there is no such folder")
    status, new = 0, []
    for name in args.experiments or [name for name in known() if (args.data_dir / name).is_dir()]:
        for run in seeds_of(args.data_dir / name, name):
            try:
                why = ship(run, args.to / name / run.name, args.unfinished)
                say(f"{run.name}: {why or 'shipped'}")
                new += [] if why else [name]
            except UsageError as error:
                say(f"ship: {error}", sys.stderr)
                status = 1
            except OSError as error:
                say(f"ship: {error.filename or run}: {reason(error)}", sys.stderr)
                status = 1
    for name in dict.fromkeys(new):
        say("\n".join(listed(name, args.to / name)))
    return status


if __name__ == "__main__":
    sys.exit(main())
