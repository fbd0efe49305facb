"""The runs of a folder as the pages of results need them: figures, verdicts, lines."""

from functools import cached_property
from pathlib import Path

from curves.lines import Experiment, Line, Panel, arrange
from paper.claims import Answer, judge
from paper.figures import FIGURES, Figure
from paper.panels import Runs, panels


class Data:
    """The runs of a folder, the figures drawn from them, and the verdicts."""

    def __init__(self, folder: Path):
        self.runs = Runs([folder])

    @cached_property
    def drawn(self) -> dict[Figure, list[Panel]]:
        return {figure: panels(figure, self.runs) for figure in FIGURES.values()}

    @cached_property
    def answers(self) -> list[Answer]:
        return judge(self.drawn)

    def lines(self, task: str, lines: dict[str, str], y: str = "Performance") -> dict[str, Line]:
        """Those of the lines (label -> program and flags) that have runs on the task."""
        found = {}
        for label, line in lines.items():
            if seeds := self.runs.of(line, task):
                found[label] = arrange([Experiment(label, task, seeds)], [y])[0].lines[0]
        return found
