"""The tables of results/README.md: what each shipped seed came to at its last test."""

from collections.abc import Iterable, Mapping

import numpy as np

from curves.lines import Line
from paper.data import Data
from paper.figures import CHEETAH, FIGURES, GAME, ROBOTS
from paper.tables import ON_GAME, ON_ROBOTS, SEEN, VIEWS, markdown
from paper.words import cell


def at_end(line: Line, end: float) -> dict[str, float]:
    """Seed -> what it had at the last test of all up to `end`."""
    k = int((line.x <= end).sum()) - 1
    return {run.seed: float(values[k]) for run, values in zip(line.runs, line.values)}


def by_seed(header: list[str], rows: Iterable[tuple[list[str], Mapping[str, str]]]) -> str:
    """A table with a column a seed, from rows of (first cells, seed -> text)."""
    rows = list(rows)
    names = sorted({seed for _, texts in rows for seed in texts}, key=int)
    lines = [[*first, *(texts.get(name, "") for name in names)] for first, texts in rows]
    return markdown([*header, *(f"seed {name}" for name in names)], lines) if rows else "Not run yet."


def ends(lines: Mapping[str, Line]) -> list[tuple[list[str], dict[str, str]]]:
    """A row a learner: label, step, what each seed had there; a second one where it goes on beyond most others."""
    usual = float(np.median([line.x[-1] for line in lines.values()])) if lines else 0.0
    rows = []
    for label, line in lines.items():
        for end in sorted({min(usual, float(line.x[-1])), float(line.x[-1])}):
            values = {seed: cell(value) for seed, value in at_end(line, end).items()}
            rows.append(([label, f"{end:,.0f}"], values))
    return rows


def seeds_game(data: Data) -> str:
    return by_seed(["", "steps"], ends(data.lines(GAME, ON_GAME)))


def seeds_cheetah(data: Data) -> str:
    return by_seed(["", "steps"], ends(data.lines(CHEETAH, ON_ROBOTS)))


def seeds_whole(data: Data) -> str:
    whole = {label: line + VIEWS["whole state"] for label, line in SEEN.items()}
    return by_seed(["", "steps"], ends(data.lines(CHEETAH, whole)))


def seeds_robots(data: Data) -> str:
    found = [(task, row) for task in ROBOTS[1:] for row in ends(data.lines(task, ON_ROBOTS))]
    return by_seed(["task", "", "steps"], (([task, *first], texts) for task, (first, texts) in found))


def seeds_trees(data: Data) -> str:
    rows = []
    lines, solved = (data.lines("trees", FIGURES["trees"].lines, y) for y in ("Performance", "Optimal"))
    for label, line in lines.items():
        share = at_end(solved[label], float(line.x[-1]))
        values = at_end(line, float(line.x[-1]))
        rows.append(([label], {seed: f"{value:.3f}, {100 * share[seed]:.0f} %" for seed, value in values.items()}))
    return by_seed([""], rows)


def seeds_factored(data: Data) -> str:
    """In how many seeds each learner of the one-step games ends at the best pay-off, 8."""
    tasks = FIGURES["qplex"].tasks
    lines = {label: line for label, line in FIGURES["qplex"].lines.items() if label != "QPLEX"}
    rows = []
    for label, line in (lines | FIGURES["qplex-sizes"].lines).items():
        found = [data.lines(task, {label: line}).get(label) for task in tasks]
        best = [[value == 8 for value in at_end(one, np.inf).values()] if one else [] for one in found]
        rows.append([label, *(f"{sum(one)} of {len(one)}" if one else "" for one in best)])
    return markdown(["", *tasks], rows)


BLOCKS = {
    "seeds_game": seeds_game,
    "seeds_cheetah": seeds_cheetah,
    "seeds_whole": seeds_whole,
    "seeds_robots": seeds_robots,
    "seeds_trees": seeds_trees,
    "seeds_factored": seeds_factored,
}
