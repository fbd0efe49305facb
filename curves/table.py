"""Curves in words and numbers: what line and band are, and where every line ends."""

from collections.abc import Collection, Sequence

import numpy as np

from common.estimates import ESTIMATES, iqm
from curves.estimate import FEW, curve
from curves.lines import Fit, Line, Panel
from curves.panel import SEEDS, limits
from curves.style import View

INTERVAL = f"95 % of {{}} (below {FEW}: range)"


def describe(panels: Sequence[Panel], fit: Fit) -> str:
    """What line, band and thin lines are."""
    sizes = {len(line.runs) for panel in panels for line in panel.lines}
    smoothed = f", smoothed over {fit.k} rows" if fit.k > 1 else ""
    if sizes == {1}:
        return f"Each line is one seed{smoothed}."
    est = "mean" if fit.est == "iqm" and sizes <= {1, 2, 3} else fit.est
    few = " (below 4 seeds: the mean)" if est == "iqm" and sizes & {2, 3} else ""
    middle = {"mean": "Mean", "iqm": "Interquartile mean", "median": "Median"}[est]
    shaded = {"sd": "standard deviation", "iqr": "quartiles", "ci": interval(sizes)}[fit.band]
    number = f"{max(sizes)} seeds" if len(sizes) == 1 else "seeds"
    thin = "; thin: every seed" if min(sizes - {1}) <= SEEDS else ""
    return f"{middle} over {number}{few}{smoothed}; shaded: {shaded}{thin}."


def cut(panels: Sequence[Panel], view: View) -> str:
    """Which lines go on beyond what is shown; empty where none does, or where the limits were asked for."""
    drawn = [(line, limits(panel.lines, view)[1]) for panel in panels for line in panel.lines]
    beyond = [f"{line.experiment.label} goes on to {line.x[-1]:,.10g}" for line, end in drawn if line.x[-1] > end]
    return f" Not shown: {'; '.join(dict.fromkeys(beyond))}." if beyond and not view.xlim else ""


def interval(sizes: Collection[int]) -> str:
    """What the band "ci" is over so many seeds."""
    if sizes and max(sizes) < FEW:
        return "range of the seeds"
    few = any(1 < size < FEW for size in sizes)
    return "bootstrap 95 % interval" + f" (below {FEW} seeds: their range)" * few


def table(panels: Sequence[Panel], fit: Fit) -> str:
    """The end of every line: what its seeds came to at the last x that all of them have."""
    text = []
    for y in dict.fromkeys(panel.y for panel in panels):
        lines = [(panel.title, line) for panel in panels if panel.y == y for line in panel.lines]
        if all(len(line.runs) == 1 for _, line in lines):
            rows = [["task", "curve", "seed", fit.x, "value"], *(_one_seed(*line) for line in lines)]
        else:
            few = max(len(line.runs) for _, line in lines) < FEW
            rows = [
                [
                    "task",
                    "curve",
                    "seeds",
                    fit.x,
                    "mean",
                    "IQM",
                    "median",
                    "SD",
                    "range" if few else INTERVAL.format(fit.est),
                ]
            ]
            rows += [_seeds(*line, fit.est) for line in lines]
        text += [f"final {y}:", *aligned(rows, "ll")]
    return "\n".join(text)


def _one_seed(title: str, line: Line) -> list[str]:
    return [title, line.experiment.label, line.runs[0].seed, f"{line.x[-1]:,.10g}", cell(line.values[0, -1])]


def _seeds(title: str, line: Line, est: str) -> list[str]:
    end = line.values[:, -1:]
    _, low, high = curve(end, est, "ci", np.random.default_rng(0))
    spread = [cell(end.std(ddof=1)), f"{cell(low[0])} to {cell(high[0])}"] if len(end) > 1 else ["-", "-"]
    middles = [cell(estimate(end)[0]) for estimate in (ESTIMATES["mean"], iqm, ESTIMATES["median"])]
    return [title, line.experiment.label, str(len(end)), f"{line.x[-1]:,.10g}", *middles, *spread]


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """The rows as lines, each column as wide as it must be, flush l(eft) or r(ight), where nothing is said right."""
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    sides = sides.ljust(len(widths), "r")
    return [
        "  ".join(c.ljust(w) if side == "l" else c.rjust(w) for c, w, side in zip(row, widths, sides)).rstrip()
        for row in rows
    ]


def cell(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2e}"
