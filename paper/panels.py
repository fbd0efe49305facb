"""The figures as panels of curves, from the runs that some folders hold."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import UsageError
from common.layout import IDEAL_VALUES, read_table
from curves.draw import draw
from curves.lines import Experiment, Fit, Line, Panel, arrange
from curves.read import Run, load, note
from curves.style import COLOURS, View, save
from curves.table import cut, describe
from paper.figures import GAME, LABELS, LABELS_LIKE, MARKS, RAMP, REFERENCES, SHARED, TITLES, WHOLE, Y_LABELS, Figure
from paper.runs import experiment


class Runs:
    """The runs of some folders, each read once; `est` and `band`, where given, take the place of a figure's own."""

    def __init__(self, folders: Sequence[str | Path], est: str = "", band: str = ""):
        self.folders, self.est, self.band = [Path(folder) for folder in folders], est, band
        self.found: dict[str, list[Run]] = {}

    def find(self, name: str) -> list[Run]:
        """The seeds of an experiment; of two runs of one seed the longer one, of two settings the longer."""
        if name not in self.found:
            self.found[name] = self._find(name)
        return self.found[name]

    def _find(self, name: str) -> list[Run]:
        runs = []
        for folder in self.folders:
            if (folder / name).is_dir():
                try:
                    runs += load([str(folder / name)])
                except UsageError as error:
                    note(str(error))
        by_settings: dict[str, dict[str, Run]] = {}
        for run in runs:
            seeds = by_settings.setdefault(str(sorted(run.settings.items(), key=str)), {})
            if run.seed not in seeds or _length(run) > _length(seeds[run.seed]):
                seeds[run.seed] = run
        best = max(by_settings.values(), key=lambda seeds: sum(map(_length, seeds.values())), default={})
        for seeds in by_settings.values():
            if seeds is not best:
                others = [run.path for run in seeds.values()]
                note(f"{name}: {len(others)} runs of other settings are left out, such as {others[0]}")
        return list(best.values())

    def fit(self, figure: Figure) -> Fit:
        """Line and band of the figure."""
        return Fit(est=self.est or figure.est[0], band=self.band or figure.est[1])


def _length(run: Run) -> float:
    return np.nanmax(run.columns.get("TotalEnvInteracts", np.zeros(1)))


def style(label: str) -> int:
    """A line's place in COLOURS; a round further, where lines are dashed, for what differs from others of its name."""
    known = label.removesuffix(WHOLE).removesuffix(SHARED)
    return LABELS.index(LABELS_LIKE.get(known, known)) + len(COLOURS) * (known != label)


def panels(figure: Figure, runs: Runs) -> list[Panel]:
    """The figure's panels; a learner without runs is in its panel's `missing`."""
    if figure.number == "5":
        return _ideal_panels(figure, runs)
    found = []
    for y, task in itertools.product(figure.ys, figure.tasks):
        lines, missing = [], []
        for i, (label, line) in enumerate(figure.lines.items()):
            if seeds := runs.find(experiment(line, task)):
                colour = RAMP[i] if figure.number == "7" else style(label)
                lines += _line(Experiment(label, task, seeds, colour), y, runs.fit(figure))
            else:
                missing.append(label)
        for label, line in REFERENCES.items() if figure.references else ():
            if seeds := runs.find(experiment(line, task)):
                lines += _line(Experiment(label, task, seeds, "#555555"), y, runs.fit(figure))
        marks = MARKS.get(task, {}) if y == figure.ys[0] else {}
        found.append(Panel(TITLES.get(task, task), y, lines, missing, marks, Y_LABELS.get((task, y), "")))
    return found


def _line(experiment: Experiment, y: str, fit: Fit) -> list[Line]:
    return arrange([experiment], [y], fit)[0].lines


def _ideal_panels(figure: Figure, runs: Runs) -> list[Panel]:
    """Learned and ideal values, a panel a learner, and the distance between them. From what games.ideal_values left."""
    found, distances, fit = [], [], runs.fit(figure)
    for label, line in figure.lines.items():
        seeds, lines = _compared(runs.find(experiment(line, GAME))), []
        if seeds:
            own, ideal = Experiment(label, GAME, seeds, style(label)), Experiment("ideal", GAME, seeds, "#555555")
            lines = [*_line(own, "QVals", fit), *_line(ideal, "IdealQVals", fit)]
            distances += _line(own, "Distance", fit)
        found.append(Panel(f"{label} against ideal", "QVals", lines, [] if seeds else [label], {}, "mean value"))
    missing = [label for label in figure.lines if label not in [line.experiment.label for line in distances]]
    return [*found, Panel("distance from ideal", "QVals", distances, missing)]


def _compared(runs: Sequence[Run]) -> list[Run]:
    """Those of the runs whose values were compared with ideal ones, with the columns of that table."""
    found = []
    for run in runs:
        if (run.path / IDEAL_VALUES).exists():
            columns = read_table(run.path / IDEAL_VALUES)
            columns["Distance"] = abs(columns["QVals"] - columns["IdealQVals"])
            found.append(replace(run, columns=columns))
    return found


def caption(figure: Figure, drawn: Sequence[Panel], fit: Fit) -> str:
    """What line and band are, how many seeds and steps are behind each curve, and which panels have no runs."""
    text = f"Figure {figure.number}. " if figure.number.isdigit() else ""
    text += f"{figure.title}."
    if any(panel.lines for panel in drawn):
        text += f" {describe(drawn, fit)}{cut(drawn, View())}"
    behind: dict[str, list[str]] = {}  # what panels have -> their titles
    for panel in drawn:
        if panel.lines:
            behind.setdefault(_behind(panel), []).append(panel.title)
    for what, titles in behind.items():
        text += f" {what}." if len(behind) == 1 else f" {', '.join(dict.fromkeys(titles))}: {what}."
    bare = dict.fromkeys(panel.title for panel in drawn if not panel.lines)
    return text + (f" Not run yet: {', '.join(bare)}." if bare else "")


def _behind(panel: Panel) -> str:
    """How many seeds and steps each of the panel's lines has."""
    behind: dict[str, list[str]] = {}
    for line in panel.lines:
        size = f"{len(line.runs)} seed{'s' if len(line.runs) > 1 else ''} to step {line.x[-1]:,.0f}"
        behind.setdefault(size, []).append(line.experiment.label)
    return "; ".join(f"{', '.join(labels)}: {size}" for size, labels in behind.items())


def draw_figure(figure: Figure, runs: Runs, out: Path) -> list[Panel]:
    """Writes <out>/figure_<number>.png and .pdf, and returns the panels."""
    drawn = panels(figure, runs)
    path = out / f"figure_{figure.number}.png"
    picture = draw(drawn, path, View(caption=caption(figure, drawn, runs.fit(figure))))
    save(picture, path.with_suffix(".pdf"))
    return drawn
