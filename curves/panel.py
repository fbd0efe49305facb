"""One panel: its lines, their bands and seeds, and the marks to compare with."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from curves.lines import Line, Panel
from curves.style import View, colour_of, dash_of, fill, log_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = 8  # of a line; where there are more, their thin lines would hide each other
THIN = 0.5  # points wide
LONG = 1.5  # a single line that is so many times longer than all others is cut


def draw_panel(ax: "Axes", panel: Panel, view: View, markers: dict[str, str]) -> None:
    """Everything but title and labels. `markers`: of lines that lie on one another, by label; see `markers_for`."""
    if not panel.lines:
        text = "not run yet" if panel.missing else "no runs"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#777777")
        ax.set_axis_off()
        return
    left, right = view.xlim or limits(panel.lines, view)
    _scale(ax, panel, view)
    many = len(panel.lines) > 4
    for k, line in enumerate(panel.lines):
        _draw_seeds(ax, line, right, 0.3 if many else 0.5)
        _draw_line(ax, line, right, markers, k / len(panel.lines), 1.3 if many else 1.6)
        _draw_band(ax, line, right, 0.07 if many else 0.16)  # of many bands none would be seen
    if left < right:
        ax.set_xlim(left, right if view.xlim else right + 0.01 * (right - left))
    if view.ylim:
        ax.set_ylim(*view.ylim)
    for label, y in panel.marks.items():
        ax.axhline(y, color="#999999", lw=0.8, ls=(0, (1, 2)), zorder=1)
        beside = ax.get_yaxis_transform()  # x in shares of the axes, y in returns
        ax.text(1.01, y, fill(label, 13), transform=beside, va="center", size=7, color="#777777")  # a long one: wrapped
    if panel.missing:
        text = fill(f"not run yet: {', '.join(panel.missing)}", 40)
        ax.text(0.99, 0.01, text, transform=ax.transAxes, ha="right", va="bottom", size=7, color="#777777")
        low, high = ax.get_ylim()
        if "y" not in view.log:
            ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])  # none in what follows
        ax.set_ylim(low - 0.1 * (high - low), high)  # room for the text
    if right >= 10_000 and "x" not in view.log:
        ax.xaxis.set_major_formatter(lambda value, _: short(value))


def limits(lines: Sequence[Line], view: View) -> tuple[float, float]:
    """The x that a panel shows: all, but for what one line alone has far beyond the others."""
    ends = sorted(float(line.x[-1]) for line in lines)
    right = ends[-2] if len(ends) > 2 and ends[-1] > LONG * ends[-2] else ends[-1]
    left = min(float(line.x[0]) for line in lines)
    if 0 < left <= 0.5 * right and "x" not in view.log:  # the first row comes after an epoch; show where training began
        left = 0.0
    return left, right


def _scale(ax: "Axes", panel: Panel, view: View) -> None:
    """Logarithmic where asked for; in both directions from 0 where there are values of 0 or less."""
    for name, values in (("x", [line.x for line in panel.lines]), ("y", [line.values for line in panel.lines])):
        if name in view.log:
            numbers = np.abs(np.concatenate([part.ravel() for part in values]))
            whole = min(part.min() for part in values) > 0
            least = float(numbers[numbers > 0].min(initial=1.0))
            set_scale = ax.set_xscale if name == "x" else ax.set_yscale
            set_scale("log") if whole else set_scale("symlog", linthresh=least)
    log_ticks(ax)


def _draw_seeds(ax: "Axes", line: Line, right: float, alpha: float) -> None:
    """Every seed, thin: where seeds split in two camps, no seed need be where their mean is."""
    colour, kept = colour_of(line.experiment.colour), line.x <= right
    for values in line.values if 1 < len(line.runs) <= SEEDS else ():
        ax.plot(line.x[kept], values[kept], color=colour, lw=THIN, alpha=alpha, zorder=1.5)


def _draw_line(ax: "Axes", line: Line, right: float, markers: dict[str, str], share: float, width: float) -> None:
    kept = line.x <= right
    marker, every = markers.get(line.experiment.label, ""), None
    if marker and kept.sum() > 12:
        step = max(1, int(kept.sum()) // 6)
        every = (int(share * step), step)  # each at points of its own, so that those below stay visible
    marker = marker or ("o" if len(line.x) <= 12 else "")  # a line of one or two points would hardly show
    ax.plot(
        line.x[kept],
        line.mid[kept],
        dash_of(line.experiment.colour),
        color=colour_of(line.experiment.colour),
        lw=width if len(line.runs) > 1 else 1.1,
        marker=marker,
        markevery=every,
        ms=4.5 if every else 3,
        mec="white",
        mew=0.4,
    )


def _draw_band(ax: "Axes", line: Line, right: float, alpha: float) -> None:
    colour, kept = colour_of(line.experiment.colour), line.x <= right
    if kept.sum() > 1:
        ax.fill_between(line.x[kept], line.low[kept], line.high[kept], color=colour, alpha=alpha, lw=0)
    else:
        ax.vlines(line.x[kept], line.low[kept], line.high[kept], color=colour, alpha=0.4, lw=3)


def markers_for(panels: Sequence[Panel]) -> dict[str, str]:
    """A marker for each label where lines of a panel lie on one another; else none."""
    if not any(_coincide(a, b, panel) for panel in panels for a, b in itertools.combinations(panel.lines, 2)):
        return {}
    labels = dict.fromkeys(line.experiment.label for panel in panels for line in panel.lines)
    return dict(zip(labels, itertools.cycle("osD^vPX<>h")))


def _coincide(a: Line, b: Line, panel: Panel) -> bool:
    """Whether lines of two labels are within a hundredth of the panel's range of each other for half of their way."""
    if a.experiment.label == b.experiment.label:
        return False
    values = np.concatenate([line.mid for line in panel.lines])
    grid = a.x[(a.x >= b.x[0]) & (a.x <= b.x[-1])]
    apart = np.abs(np.interp(grid, a.x, a.mid) - np.interp(grid, b.x, b.mid))
    return len(grid) > 1 and bool((apart <= 0.01 * np.ptp(values)).mean() >= 0.5)
