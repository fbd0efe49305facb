"""From runs to the lines of panels: which seeds are one curve, the rows that they share, and what they come to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.errors import UsageError
from common.layout import PROGRESS
from curves.estimate import curve, smooth
from curves.read import Run, note

PERFORMANCE = ("AverageTestEpRet", "AverageEpRet")  # Spinning Up's alias Performance is the first that a run has
MAX_POINTS = 500  # of a curve; more cannot be told apart on paper


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs of one task that differ in the seed alone: one curve. Equal labels have equal colours in all panels."""

    label: str
    env: str
    runs: list[Run]
    colour: int | str = 0  # of COLOURS and DASHES, or a colour of its own


@dataclass(frozen=True, eq=False)
class Line:
    """An experiment as drawn: x (points,), values (runs, points), and what `curve` makes of them, (points,) each."""

    experiment: Experiment
    runs: list[Run]  # those that have the column
    rows: list[tuple[np.ndarray, np.ndarray]]  # x and y of each run's own rows: not smoothed, interpolated or thinned
    x: np.ndarray
    values: np.ndarray
    mid: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """Title, column on the y axis, lines; names of lines without runs yet; marks to compare with, label -> y."""

    title: str
    y: str
    lines: list[Line]
    missing: Sequence[str] = ()
    marks: Mapping[str, float] = field(default_factory=dict)
    label: str = ""  # of the y axis, where the column's own would not say it


def group(runs: Sequence[Run], count: bool = False) -> list[Experiment]:
    """The experiments, in the order of their first runs; with `count` every run is one.

    Where curves of one task would bear one name, what sets them apart is added: settings that differ, or the folder.
    """
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault((run.env, run.name, json.dumps(run.settings, sort_keys=True)), []).append(run)
    for key, members in list(found.items()):
        if len({run.seed for run in members}) < len(members):  # an older copy, say: its seeds are no further seeds
            del found[key]
            for run in members:
                found.setdefault((*key, str(run.path.parent)), []).append(run)

    experiments = []
    for key, members in found.items():
        rivals = [other[0] for k, other in found.items() if k[:2] == key[:2] and k != key]
        label = ", ".join([key[1], *_differences(members[0], rivals)])
        experiments.append(Experiment(label, key[0], members))
    if count:
        alone = len({e.label for e in experiments}) == 1  # then the colours are free to tell the seeds apart
        experiments = [
            Experiment(f"{e.label} s{run.seed}" if alone else e.label, e.env, [run])
            for e in experiments
            for run in e.runs
        ]
    labels = list(dict.fromkeys(e.label for e in experiments))
    return [replace(e, colour=labels.index(e.label)) for e in experiments]


def _differences(run: Run, rivals: Sequence[Run]) -> list[str]:
    """What sets a run apart from runs of the same name, in words for the legend."""
    words = []
    for rival in rivals:
        if run.settings == rival.settings:
            words.append(str(run.path.parent))
        elif run.config.get("algorithm") != rival.config.get("algorithm"):  # other settings follow from it
            words.append(str(run.config.get("algorithm", run.path.parent)))  # other code may not name it
        else:
            words += [f"{key} {v}" for key, v in run.settings.items() if rival.settings.get(key) != v]
    return list(dict.fromkeys(words))


def column(run: Run, name: str) -> str | None:
    """The column of this run that `name` stands for, if it has one."""
    if name == "Performance":
        return next((c for c in PERFORMANCE if np.isfinite(run.columns.get(c, np.nan)).any()), None)
    return name if name in run.columns else None


def series(run: Run, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """x (ascending) and y of the rows in which both are finite; of rows at one x the last."""
    xs, ys = (run.columns.get(column(run, name) or "", np.array([np.nan])) for name in (x, y))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        return np.empty(0), np.empty(0)
    xs, last = np.unique(xs[finite][::-1], return_index=True)
    return xs, ys[finite][::-1][last]


def align(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """x (points,) within the range of all series, and y (runs, points), linear between a run's own rows."""
    grid = np.unique(np.concatenate([xs for xs, _ in parts]))
    grid = grid[(grid >= max(xs[0] for xs, _ in parts)) & (grid <= min(xs[-1] for xs, _ in parts))]
    if len(grid) > MAX_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, MAX_POINTS).round().astype(int)]
    return grid, np.array([np.interp(grid, xs, ys) for xs, ys in parts])


@dataclass(frozen=True)
class Fit:
    """How seeds become a line: the column on the x axis, rows to smooth over, and what line and band are."""

    x: str = "TotalEnvInteracts"
    k: int = 1
    est: str = "iqm"
    band: str = "ci"


FIT = Fit()  # where a command asks for no other


def arrange(experiments: Sequence[Experiment], ys: Sequence[str] = ("Performance",), fit: Fit = FIT) -> list[Panel]:
    """One panel a column and task, y by y. Notes what is left out or cut; UsageError where nothing is left of a column.

    The same data gives the same intervals: every line has a generator of its own.
    """
    panels = []
    for y in dict.fromkeys(ys):
        notes: list[str] = []
        lines = [line for e in experiments if (line := _line(e, y, fit, notes, y == ys[0]))]
        if not lines:
            run = experiments[0].runs[0]
            columns = f"columns of {run.path / PROGRESS}: {' '.join(run.columns)}"
            empty = not any(len(series(run, fit.x, y)[0]) for e in experiments for run in e.runs)
            raise UsageError(f"-x {fit.x} -y {y}: no run has numbers in both; {columns}" if empty else notes[-1])
        for text in notes:
            note(text)
        envs = dict.fromkeys(e.env for e in experiments)
        panels += [Panel(env, y, [line for line in lines if line.experiment.env == env]) for env in envs]
    return panels


def _line(e: Experiment, y: str, fit: Fit, notes: list[str], first: bool) -> Line | None:
    """The experiment as a line, if its seeds have x and y in common; what is left out or cut goes to `notes`."""
    what = f"{e.label} on {e.env}" if e.env else e.label
    parts = {run: series(run, fit.x, y) for run in e.runs}
    runs = [run for run in e.runs if len(parts[run][0])]
    if not runs and len(e.runs) > 1:
        notes.append(f"{what}: no row of its {len(e.runs)} runs has {fit.x} and {y}; the curve is left out")
        return None
    for run in e.runs:
        if run not in runs:
            notes.append(f"{run.path / PROGRESS}: no row has {fit.x} and {y}; the run is left out")
    if not runs:
        return None
    if len(names := dict.fromkeys(str(column(run, y)) for run in runs)) > 1:
        notes.append(f"{what}: {y} is {' in some seeds and '.join(names)} in others")
    rows = [parts[run] for run in runs]
    grid, values = align([(xs, smooth(ys, fit.k)) for xs, ys in rows])
    if not len(grid):
        notes.append(f"{what}: no {fit.x} is within all {len(runs)} seeds; left out (--count draws each seed)")
        return None
    ends = [parts[run][0][-1] for run in runs]
    if first and max(ends) > min(ends):
        short = runs[int(np.argmin(ends))].path.name
        longer = f"{sum(end > min(ends) for end in ends)} of {len(runs)} seeds reach up to {max(ends):,.10g}"
        notes.append(f"{what}: drawn to {fit.x} {grid[-1]:,.10g}, where {short} ends; {longer} (see them with --count)")
    return Line(e, runs, rows, grid, values, *curve(values, fit.est, fit.band, np.random.default_rng(0)))
