"""Curves in words and numbers: what line and band are, and where every line ends."""

from collections.abc import Collection, Sequence

import numpy as np

from common.estimates import ESTIMATES, iqm
from curves.estimate import FEW, curve
from curves.lines import Fit, Line, Panel

INTERVAL = f"95 % of {{}} (below {FEW}: range)"


def describe(panels: Sequence[Panel], fit: Fit) -> str:
    """One line that says what line and band are."""
    sizes = {len(line.runs) for panel in panels for line in panel.lines}
    smoothed = f", smoothed over {fit.k} rows" if fit.k > 1 else ""
    if sizes == {1}:
        return f"Each line is one seed{smoothed}."
    few = " (below 4 seeds: the mean)" if fit.est == "iqm" and sizes & {2, 3} else ""
    middle = {"mean": "Mean", "iqm": "Interquartile mean", "median": "Median"}[fit.est]
    shaded = {"sd": "standard deviation", "iqr": "quartiles", "ci": interval(sizes)}[fit.band]
    return f"{middle} over seeds{few}{smoothed}; shaded: {shaded}."


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
        text += [f"final {y}:", *columns(rows, left=2)]
    return "\n".join(text)


def _one_seed(title: str, line: Line) -> list[str]:
    return [title, line.experiment.label, line.runs[0].seed, f"{line.x[-1]:,.10g}", cell(line.values[0, -1])]


def _seeds(title: str, line: Line, est: str) -> list[str]:
    end = line.values[:, -1:]
    _, low, high = curve(end, est, "ci", np.random.default_rng(0))
    spread = [cell(end.std(ddof=1)), f"{cell(low[0])} to {cell(high[0])}"] if len(end) > 1 else ["-", "-"]
    middles = [cell(estimate(end)[0]) for estimate in (ESTIMATES["mean"], iqm, ESTIMATES["median"])]
    return [title, line.experiment.label, str(len(end)), f"{line.x[-1]:,.10g}", *middles, *spread]


def columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The rows as lines, each column as wide as it must be; the first `left` columns are flush left."""
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    return [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    ]


def cell(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2e}"
