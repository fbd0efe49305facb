"""Finds and reads runs: folders with config.json and progress.txt."""

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError
from common.layout import CONFIG, FREE, LATER, PROGRESS, read_config, read_progress

LOGGING = {"logger", "logger_kwargs"}  # where Spinning Up's own runs, which have these, were kept
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a function that such a run names; another for each seed


@dataclass(frozen=True, eq=False)
class Run:
    """One seed: its folder, config.json, the columns of progress.txt, the LOGDIR as typed, its experiment's name."""

    path: Path
    config: dict[str, Any]
    columns: dict[str, np.ndarray]
    logdir: str
    name: str

    @property
    def env(self) -> str:
        return str(self.config.get("env", ""))

    @property
    def seed(self) -> str:
        return str(self.config.get("seed", self.path.name))

    @property
    def settings(self) -> dict[str, Any]:
        """What makes its numbers. Without what runs did before they had a flag for it, so that old and new are one."""
        kept = {k: v for k, v in self.config.items() if k not in FREE | LOGGING and (k not in LATER or v != LATER[k])}
        return {k: ADDRESS.sub("", v) if isinstance(v, str) else v for k, v in kept.items()}

    @property
    def steps(self) -> float:
        """How far it has come."""
        return float(np.nanmax(self.columns.get("TotalEnvInteracts", np.zeros(1))))


def note(text: str) -> None:
    print(f"plot.py: {text}", file=sys.stderr)


def load(logdirs: Sequence[str], select: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Run]:
    """The runs below the LOGDIRs whose path holds every string of `select` and none of `exclude`; links are followed.

    A string that ends in a digit is held only where no further digit follows: "_s1" is not in "_s12". A run that cannot
    be read or has no row yet, and of two runs of one seed in a folder the shorter, is left out with a note. UsageError
    where no run is left.
    """
    runs: list[Run] = []
    met: set[Path] = set()
    refused: list[Path] = []
    bare: list[str] = []
    for logdir in dict.fromkeys(logdirs):
        paths = _folders(logdir)
        if not paths:
            bare.append(logdir)
        for path in paths:
            if path.resolve() in met:
                continue
            met.add(path.resolve())
            if not all(_holds(path, s) for s in select) or any(_holds(path, s) for s in exclude):
                refused.append(path)
            elif run := _read(path, logdir):
                runs.append(run)
    if runs:
        for logdir in bare:
            note(f"LOGDIR {logdir!r}: no folder below it has a {PROGRESS}")
        return _once(runs)
    if refused:
        rules = [f"--select {s!r}" for s in select] + [f"--exclude {s!r}" for s in exclude]
        raise UsageError(f"{' '.join(rules)} leaves no run of {_some(refused)}")
    raise UsageError(
        f"no run to draw below {_some(logdirs)}: a run is a folder with {CONFIG} and a {PROGRESS} with rows"
    )


def _folders(logdir: str) -> list[Path]:
    found, met = [], set()
    for folder in complete(logdir):
        for root, below, files in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(root)) in met:  # a link to a folder above it would lead on without end
                below.clear()
            elif PROGRESS in files:
                found.append(Path(root))
            met.add(real)
    return sorted(found, key=_natural)


def _holds(path: Path, text: str) -> bool:
    end = r"(?!\d)" if text[-1:].isdecimal() else ""
    return re.search(re.escape(text) + end, str(path)) is not None


def _once(runs: Sequence[Run]) -> list[Run]:
    """The runs without copies: of one seed's runs of equal settings in one folder, the longest, or else the first."""
    kept: dict[Any, Run] = {}
    for run in runs:
        known = (run.path.parent, run.seed, json.dumps(run.settings, sort_keys=True)) if "seed" in run.config else run
        best = kept.setdefault(known, run)
        if best is not run:
            kept[known], other = (run, best) if run.steps > best.steps else (best, run)
            note(f"{other.path}: a copy of {kept[known].path.name}, no further seed; the run is left out")
    return [run for run in runs if run in kept.values()]


def _read(path: Path, logdir: str) -> Run | None:
    """The run, unless it cannot be read: then a note."""
    try:
        config, columns = read_config(path), read_progress(path, note)
    except UsageError as error:
        note(f"{error}; the run is left out")
        return None
    name = str(config.get("exp_name") or path.parent.name)
    env = re.sub(r"[^0-9A-Za-z-]", "-", str(config.get("env", "")))
    name = name.replace(f"_{env}", "") or name  # the task is the panel's title
    return Run(path, config, columns, logdir, name)


def complete(logdir: str) -> list[Path]:
    """The folder itself, or else the folders whose names it begins. UsageError where there are none."""
    path = Path(logdir)
    if path.is_dir():
        return [path]
    if not path.parent.is_dir():
        raise UsageError(f"LOGDIR {logdir!r}: there is no folder {str(path.parent)!r}")
    beside = sorted((p for p in path.parent.iterdir() if p.is_dir()), key=_natural)
    if found := [p for p in beside if p.name.startswith(path.name)]:
        return found
    if path.is_file():
        raise UsageError(f"LOGDIR {logdir!r} is a file; name the folder of a run, with {CONFIG} and {PROGRESS}")
    raise UsageError(f"LOGDIR {logdir!r} is neither a folder nor a prefix of one; there are: {_some(beside)}")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts s2 before s10."""
    return [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for part in path.parts
        for piece in [*re.split(r"(\d+)", part), ""]  # "" ends a name, so that lam0 comes before lam0.2
    ]


def _some(things: Iterable[Any]) -> str:
    names = [str(thing) for thing in things]
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "none"


def rename(runs: Sequence[Run], logdirs: Sequence[str], legend: Sequence[str]) -> list[Run]:
    """The runs, named by a legend of one name a LOGDIR, or else one a curve. UsageError where it fits neither."""
    names = list(dict.fromkeys(run.name for run in runs))
    if len(legend) == len(logdirs):
        for logdir, new in zip(logdirs, legend):
            if len(pooled := dict.fromkeys(run.name for run in runs if run.logdir == logdir)) > 1:
                note(f"-l: {new!r} is all of {_some(pooled)}, where their settings are the same")
        return [replace(run, name=legend[logdirs.index(run.logdir)]) for run in runs]
    if len(legend) != len(names):
        raise UsageError(
            f"-l: {len(legend)} names given; give one for each LOGDIR ({len(logdirs)}) or for each curve "
            f"({len(names)}): {_some(names)}"
        )
    new = dict(zip(names, legend))
    note("-l: " + ", ".join(f"{old} is {name!r}" for old, name in new.items()))  # a slip here would swap results
    return [replace(run, name=new[run.name]) for run in runs]
