"""Pictures of panels: their lines and bands, one legend for all, and the caption."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curves.lines import Line, Panel, column
from curves.style import COLOURS, canvas, colour_of, dash_of, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_LABELS = {
    "Performance": "return",
    "AverageTestEpRet": "test return",
    "AverageEpRet": "training return",
    "TotalEnvInteracts": "environment steps",
    "Time": "wall-clock time (s)",
    "EpLen": "episode length (steps)",
    "TestEpLen": "test episode length (steps)",
    "QVals": "Q values",
}


def draw(panels: Sequence[Panel], out: Path, x: str = "TotalEnvInteracts", caption: str = "") -> "Figure":
    """Writes the panels, one legend for all and the caption to `out` (.png, .pdf, .svg), and returns the figure."""
    from matplotlib.lines import Line2D

    n_ys, n_titles = len({p.y for p in panels}), len({p.title for p in panels})
    if n_ys > 1 and n_titles > 1:
        n_rows, n_cols = n_ys, n_titles
    else:
        n_rows = -(-len(panels) // 4)
        n_cols = -(-len(panels) // n_rows)
    entries = legend_entries([line for panel in panels for line in panel.lines])
    width = 5.4 if len(panels) == 1 else 3.0 * n_cols  # inches, like what follows
    n_abreast = max(1, int(width / max((0.07 * len(label) + 0.4 for label in entries), default=1)))
    n_lines = max(1, -(-len(entries) // n_abreast))
    n_abreast = max(1, -(-len(entries) // n_lines))  # so that lines are equally long
    height = (2.9 if len(panels) == 1 else 2.2 * n_rows) + 0.5 + 0.2 * n_lines

    with canvas(n_rows, n_cols, (width, height)) as (figure, axes):
        for i, ax in enumerate(axes.flat):
            if i >= len(panels):
                ax.remove()
                continue
            draw_panel(ax, panels[i])
            if i < n_cols or n_ys == 1:
                ax.set_title(panels[i].title)
            if i % n_cols == 0 or n_titles == 1:
                ax.set_ylabel(axis_label(panels, panels[i].y))
            if i + n_cols >= len(panels):
                ax.set_xlabel(AXIS_LABELS.get(x, x))
        handles = [Line2D([], [], color=colour_of(c), ls=dash_of(c), lw=2) for c in entries.values()]
        figure.legend(
            handles, list(entries), loc="outside upper center", ncols=n_abreast, handlelength=1.5, frameon=False
        )
        figure.supxlabel(fill(caption, int(15 * width)), fontsize=7, color="#666666")
    save(figure, out)
    return figure


def draw_panel(ax: "Axes", panel: Panel) -> None:
    """Lines and bands of one panel, without title and labels."""
    if not panel.lines:
        text = "not run yet" if panel.missing else "no runs"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#777777")
        ax.set(xticks=[], yticks=[])
        return
    alpha = 0.2 if len(panel.lines) <= 4 else 0.1  # of many bands none would be seen
    for line in panel.lines:
        colour = colour_of(line.experiment.colour)
        marker = "o" if len(line.x) <= 12 else ""  # a line of one or two points would hardly show
        width = 1.6 if len(line.runs) > 1 else 1.1
        ax.plot(line.x, line.mid, dash_of(line.experiment.colour), color=colour, lw=width, marker=marker, ms=3)
        if len(line.x) > 1:
            ax.fill_between(line.x, line.low, line.high, color=colour, alpha=alpha, lw=0)
        else:
            ax.vlines(line.x, line.low, line.high, color=colour, alpha=0.4, lw=3)
    right, left = max(line.x[-1] for line in panel.lines), min(line.x[0] for line in panel.lines)
    if 0 < left <= 0.5 * right:  # the first row is written after an epoch; show where training began
        left = 0.0
    if left < right:
        ax.set_xlim(left, right + 0.01 * (right - left))
    for label, y in panel.marks.items():
        ax.axhline(y, color="#999999", lw=0.8, ls=(0, (1, 2)), zorder=1)
        at_left = ax.get_yaxis_transform()  # x in shares of the axes, y in returns
        ax.text(0.01, y, label, transform=at_left, va="bottom", size=7, color="#777777")
    if panel.missing:
        text = fill(f"not run yet: {', '.join(panel.missing)}", 40)
        ax.text(0.99, 0.01, text, transform=ax.transAxes, ha="right", va="bottom", size=7, color="#777777")
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.1 * (high - low), high)  # room for the text
    if right >= 10_000:
        ax.xaxis.set_major_formatter(lambda value, _: _short(value))


def fill(text: str, width: int) -> str:
    """The text in lines of this many characters; what is one to the reader, as "λ = 2" or "95 %", is not broken."""
    return textwrap.fill(re.sub(r" (?=[%=])|(?<==) ", "\u00a0", text), width)


def _short(value: float) -> str:
    """250000 -> 250k, 1500000 -> 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def axis_label(panels: Sequence[Panel], y: str) -> str:
    """What y stands for, in words, if it stands for the same column in all runs."""
    if label := next((panel.label for panel in panels if panel.y == y), ""):
        return label
    real = {column(run, y) or y for panel in panels if panel.y == y for line in panel.lines for run in line.runs}
    name = real.pop() if len(real) == 1 else y
    return AXIS_LABELS.get(name, name)


def legend_entries(lines: Sequence[Line]) -> dict[str, int | str]:
    """Label with its number of seeds -> colour, in the colours' order; a range where panels differ in it."""
    lines = sorted(lines, key=lambda line: c if isinstance(c := line.experiment.colour, int) else len(COLOURS) ** 2)
    seeds: dict[str, list[int]] = {}
    for line in lines:
        seeds.setdefault(line.experiment.label, []).append(len(line.runs))
    colours = {line.experiment.label: line.experiment.colour for line in lines}
    if all(len(line.runs) == 1 for line in lines):  # the caption says so
        return colours
    entries = {}
    for label, n in seeds.items():
        number = f"{max(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
        entries[f"{label} ({number} seed{'s' if max(n) > 1 else ''})"] = colours[label]
    return entries
