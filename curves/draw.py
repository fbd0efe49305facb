"""Pictures of panels: one legend for all, titles, labels and the caption."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from curves.lines import Line, Panel, column
from curves.panel import draw_panel, markers_for
from curves.style import COLOURS, View, canvas, colour_of, dash_of, fill, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXIS_LABELS = {
    "Performance": "return",
    "AverageTestEpRet": "test return",
    "AverageEpRet": "training return",
    "TotalEnvInteracts": "environment steps",
    "Time": "wall-clock time (s)",
    "EpLen": "episode length (steps)",
    "TestEpLen": "test episode length (steps)",
    "TestStuck": "share of actions stuck at a limit",
    "QVals": "Q values",
    "TestWinRate": "share of test games won",
    "Optimal": "share of games solved",
}
TASK_LABELS = {  # what a test of games/ returns
    ("trees", "AverageTestEpRet"): "share of the best return",
    ("two-optima", "AverageTestEpRet"): "share of the best return",
    ("qplex-game", "AverageTestEpRet"): "pay-off",
    ("qtran-game", "AverageTestEpRet"): "pay-off",
}


VIEW = View()  # where a command asks for no other


def draw(panels: Sequence[Panel], out: Path, view: View = VIEW) -> "Figure":
    """Writes the panels to `out` (.png, .pdf, .svg), and returns the figure. Panels without lines are left out."""
    panels = [panel for panel in panels if panel.lines] or panels[:1]
    n_ys, n_titles = len({p.y for p in panels}), len({p.title for p in panels})
    grid = n_ys > 1 and n_titles > 1 and len(panels) == n_ys * n_titles
    n_rows = n_ys if grid else -(-len(panels) // 4)
    n_cols = n_titles if grid else -(-len(panels) // n_rows)
    entries = legend_entries([line for panel in panels for line in panel.lines])
    width, height = view.size or (5.4 if len(panels) == 1 else 3.0 * n_cols, 0.0)  # inches, like what follows
    abreast = columns_for(list(entries), width)
    if not view.size:
        lines = -(-len(entries) // abreast) + len(fill(view.caption, int(15 * width)).splitlines())
        height = (2.7 if len(panels) == 1 else 2.1 * n_rows) * (1 if entries else 0.4) + 0.6 + 0.16 * lines
    markers = markers_for(panels)
    with canvas(n_rows, n_cols, (width, height)) as (figure, axes):
        for i, ax in enumerate(axes.flat):
            if i >= len(panels):
                ax.remove()
                continue
            draw_panel(ax, panels[i], view, markers)
            if not panels[i].lines:
                continue
            if i < n_cols or not grid:
                ax.set_title(panels[i].title)
            if i % n_cols == 0 or (n_ys > 1 and not grid):
                ax.set_ylabel(axis_label(panels, panels[i].y))
            if i + n_cols >= len(panels):
                ax.set_xlabel(AXIS_LABELS.get(view.x, view.x))
        _legend(figure, entries, abreast, markers, view.title)
        figure.supxlabel(fill(view.caption, int(15 * width)), fontsize=7, color="#666666")
    save(figure, out)
    return figure


def columns_for(labels: Sequence[str], width: float) -> int:
    """How many entries of the legend stand abreast in so many inches; in the end, all its lines are equally long."""
    abreast = max(1, int(width / max((0.058 * len(label) + 0.42 for label in labels), default=1)))
    lines = max(1, -(-len(labels) // abreast))
    return max(1, -(-len(labels) // lines))


def _legend(figure: "Figure", entries: dict[str, Line], abreast: int, markers: dict[str, str], title: str) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for line in entries.values():
        e = line.experiment
        handle = Line2D([], [], color=colour_of(e.colour), ls=dash_of(e.colour), lw=1.8, ms=4.5, mec="white", mew=0.4)
        handle.set_marker(markers.get(e.label, ""))
        handles.append(handle)
    figure.legend(
        handles, list(entries), loc="outside upper center", ncols=abreast, frameon=False,
        title=title or None, title_fontsize=10, fontsize=8, handlelength=1.6, columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip


def axis_label(panels: Sequence[Panel], y: str) -> str:
    """What y stands for, in words, if it stands for the same column in all runs."""
    if label := next((panel.label for panel in panels if panel.y == y), ""):
        return label
    runs = [run for panel in panels if panel.y == y for line in panel.lines for run in line.runs]
    labels = {TASK_LABELS.get((run.env, name), AXIS_LABELS.get(name, name)) for run in runs if (name := column(run, y))}
    return labels.pop() if len(labels) == 1 else AXIS_LABELS.get(y, y)


def legend_entries(lines: Sequence[Line]) -> dict[str, Line]:
    """Label -> a line of it, in the colours' order; with the numbers of seeds, where lines differ in that."""
    lines = sorted(lines, key=lambda line: c if isinstance(c := line.experiment.colour, int) else len(COLOURS) ** 2)
    seeds: dict[str, set[int]] = {}
    for line in lines:
        seeds.setdefault(line.experiment.label, set()).add(len(line.runs))
    first = {line.experiment.label: line for line in reversed(lines)}
    if len(set.union(set(), *seeds.values())) == 1:  # the caption says how many
        return {label: first[label] for label in seeds}
    entries = {}
    for label, n in seeds.items():
        number = f"{max(n)}" if len(n) == 1 else f"{min(n)} to {max(n)}"
        entries[f"{label} ({number} seed{'s' if max(n) > 1 else ''})"] = first[label]
    return entries
