"""The figures as panels of curves, from the runs that some folders hold."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.layout import IDEAL_VALUES, asked, read_table
from curves.draw import draw
from curves.lines import Experiment, Fit, Line, Panel, arrange
from curves.read import Run, load, note
from curves.style import COLOURS, View, save
from curves.table import cut, describe
from paper.figures import GAME, LABELS, LABELS_LIKE, MARKS, RAMP, REFERENCES, SHARED, TITLES, WHOLE, Figure
from paper.runs import experiment, settings, told, unlike


class Runs:
    """The runs of some folders, each read once; `est` and `band`, where given, take the place of a figure's own."""

    def __init__(self, folders: Sequence[str | Path], est: str = "", band: str = ""):
        self.folders, self.est, self.band = [Path(folder) for folder in folders], est, band
        self.found: dict[tuple[str, str], list[Run]] = {}

    def of(self, line: str, task: str, having: str = "") -> list[Run]:
        """The seeds of a line ("i2q_ddpg --lam 2") on a task, of runs that have the file `having`.

        A run is one of them where its settings are the line's and the task's, whatever its folder says; see told().
        Other settings, and seeds that are not as far as all finished ones, are left out with a note.
        """
        program, *flags = line.split()
        return self.find(experiment(line, task), settings(program, task, flags), having)

    def find(self, name: str, expected: Mapping[str, Any] | None = None, having: str = "") -> list[Run]:
        """The seeds of an experiment of this name: of two runs of one seed the longer one.

        Of two settings those that differ less from the expected ones, or else the longer.
        """
        if (name, having) not in self.found:
            self.found[name, having] = self._find(name, expected or {}, having)
        return self.found[name, having]

    def _find(self, name: str, expected: Mapping[str, Any], having: str) -> list[Run]:
        named, sizes = told()
        groups: dict[str, dict[str, Run]] = {}
        others: dict[str, dict[str, str]] = {}  # of each group, what is not as expected
        for run in self._load(name, having):
            differ = unlike(run.config, expected) if expected else {}
            if wrong := [key for key in differ if key in {*named, "algorithm", "env"}]:
                note(f"{run.path}: {wrong[0]} is {differ[wrong[0]]}; the run is left out of {name}")
                continue
            key = str(sorted(run.settings.items(), key=str))
            seeds, others[key] = groups.setdefault(key, {}), differ
            if run.seed not in seeds or run.steps > seeds[run.seed].steps:
                seeds[run.seed] = run
        if not groups:
            return []
        best = min(groups, key=lambda key: (len(others[key]), -sum(run.steps for run in groups[key].values())))
        for key, seeds in groups.items():
            if key != best:
                paths = [run.path for run in seeds.values()]
                note(f"{name}: {len(paths)} runs of other settings are left out, such as {paths[0]}")
        text = [f"{k} {v}" for k, v in others[best].items() if (k, v.partition(",")[0]) not in sizes]
        if text:
            note(f"{name}: its runs have {'; '.join(text)}")
        return _finished(name, list(groups[best].values()))

    def _load(self, name: str, having: str) -> list[Run]:
        """The experiment's runs in all folders."""
        runs = []
        for folder in self.folders:
            if (folder / name).is_dir():
                try:
                    runs += load([str(folder / name)])
                except UsageError as error:
                    note(str(error))
        return [run for run in runs if run.path.parent.name == name and (not having or (run.path / having).exists())]

    def fit(self, figure: Figure) -> Fit:
        """Line and band of the figure."""
        return Fit(est=self.est or figure.est[0], band=self.band or figure.est[1])


def _finished(name: str, seeds: list[Run]) -> list[Run]:
    """The seeds without those that have yet to reach what all finished ones have: a curve ends where one ends."""
    whole = {run: asked(run.config) for run in seeds}
    least = min((run.steps for run in seeds if run.steps >= whole[run]), default=0.0)
    if cut := [run for run in seeds if run.steps < min(least, whole[run])]:
        at = ", ".join(f"{run.path.name} at step {run.steps:,.0f} of {whole[run]:,}" for run in cut)
        note(f"{name}: unfinished seeds are left out ({at})")
    return [run for run in seeds if run not in cut]


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
            if seeds := runs.of(line, task):
                colour = RAMP[i] if figure.number == "7" else style(label)
                lines += _line(Experiment(label, task, seeds, colour), y, runs.fit(figure))
            else:
                missing.append(label)
        for label, line in REFERENCES.items() if figure.references else ():
            if seeds := runs.of(line, task):
                lines += _line(Experiment(label, task, seeds, "#555555"), y, runs.fit(figure))
        marks = MARKS.get(task, {}) if y == figure.ys[0] else {}
        found.append(Panel(TITLES.get(task, task), y, lines, missing, marks))
    return found


def _line(experiment: Experiment, y: str, fit: Fit) -> list[Line]:
    return arrange([experiment], [y], fit)[0].lines


def _ideal_panels(figure: Figure, runs: Runs) -> list[Panel]:
    """Learned and ideal values, a panel a learner, and the distance between them. From what games.ideal_values left."""
    found, distances, fit = [], [], runs.fit(figure)
    for label, line in figure.lines.items():
        seeds, lines = _compared(runs.of(line, GAME, IDEAL_VALUES)), []
        if seeds:
            own, ideal = Experiment(label, GAME, seeds, style(label)), Experiment("ideal", GAME, seeds, "#555555")
            lines = [*_line(own, "QVals", fit), *_line(ideal, "IdealQVals", fit)]
            distances += _line(own, "Distance", fit)
        found.append(Panel(f"{label} against ideal", "QVals", lines, [] if seeds else [label], {}, "mean value"))
    missing = [label for label in figure.lines if label not in [line.experiment.label for line in distances]]
    return [*found, Panel("distance from ideal", "QVals", distances, missing)]


def _compared(runs: Sequence[Run]) -> list[Run]:
    """The runs with the columns of the table in which their values are compared with ideal ones."""
    found = []
    for run in runs:
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
