"""The tables of docs/results.md, each made from the runs."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from curves.estimate import FEW, curve
from curves.lines import Experiment, Line, arrange
from paper.compare import improvement, p_value, scores
from paper.data import Data
from paper.figures import (
    CHEETAH,
    D3G,
    FALLING,
    FIGURES,
    GAME,
    I2Q,
    IDDPG,
    MAPS,
    MARKS,
    MBPO,
    PAPER_TABLE_1,
    REFERENCES,
    ROBOTS,
    STANDING,
    TITLES,
)
from paper.words import cell, compare, number, versus

ESCAPED = 35.0  # a final score above it is out of the ring
ABOVE = f"seeds above {ESCAPED:g}"
LAM = "I2Q, rule 2, lambda"
ON_LAM = {label.replace("λ =", LAM): learner for label, learner in FIGURES["7"].lines.items()}
ON_LAM_1, TRAP = f"{LAM} 1", "trap_apart"  # a row of ON_LAM, and more of its seeds
ON_GAME = {
    "IDDPG": IDDPG,
    **ON_LAM,
    **{f"{LAM} {lam}, shared batches": f"{I2Q} --lam {lam} --batches shared" for lam in ("1", "2")},
    "I2Q, rule 1, lambda 1": f"{I2Q} --rule 1",
    "I2Q, rule 1, lambda 1, shared batches": f"{I2Q} --rule 1 --batches shared",
    "I2Q, released rule, lambda 1": f"{I2Q} --rule released",
    "expectile I2Q, form b7": "i2q_expectile --form b7",
    "D3G": D3G,
    "IPPO": "ippo",
    **REFERENCES,
}
ON_ROBOTS = {
    "IDDPG": IDDPG,
    "I2Q, rule 1, lambda 0.01": I2Q,
    "I2Q, lambda 0": MBPO,
    **{f"I2Q, rule 1, lambda {lam}": f"{I2Q} --lam {lam}" for lam in ("0.005", "0.02", "0.05")},
    "I2Q, rule 2, lambda 0.01": f"{I2Q} --rule 2",
    "I2Q, released rule": f"{I2Q} --rule released",
    "I2Q without a model, released form": "i2q_expectile --form released",
    "I2Q without a model, form b7": "i2q_expectile --form b7",
    "D3G": D3G,
    "IPPO": "ippo",
    **REFERENCES,
}
VIEWS = {"own joints": "", "whole state": " --obs full"}
DISCRETE = FIGURES["10"].lines | FIGURES["16"].lines
SEEN = {
    "IDDPG": IDDPG,
    "I2Q, released rule": f"{I2Q} --rule released",
    "I2Q, rule 1": f"{I2Q} --rule 1",
    "I2Q, lambda 0, rule 1": f"{MBPO} --rule 1",
}


def score(values: np.ndarray) -> str:
    """ "75.7 (67.0 to 88.7)": the interquartile mean with the bootstrap interval, or below FEW seeds the range."""
    mid, low, high = (float(v[0]) for v in curve(values[:, None]))
    if len(values) == 1:
        return cell(mid)
    return f"{cell(mid)} " + (f"({cell(low)} to {cell(high)})" if len(values) < FEW else f"[{cell(low)}, {cell(high)}]")


def rows_of(lines: dict[str, Line], base: str, extra: Callable[[np.ndarray], str] | None = None) -> list[list[str]]:
    """A row a learner: seeds, steps, final scores, `extra` of them, P(ends above the base) and its p.

    Both at the last step that both have made; where the base goes on, its score there stands beside P. Neither score
    nor P where one of them has no row up to that step.
    """
    found = []
    for label, line in lines.items():
        other = lines.get(base)
        end = min(float(line.x[-1]), float(other.x[-1])) if other else float(line.x[-1])
        if other and end < max(line.x[0], other.x[0]):
            found.append([label, str(len(line.runs)), f"{end:,.0f}", "no row yet", *([""] if extra else []), "", ""])
            continue
        own = scores(line, end)
        found.append([label, str(len(own)), f"{end:,.0f}", score(own), *([extra(own)] if extra else [])])
        share = p = ""
        if other and other is not line:
            share, p = versus(own, scores(other, end))
            share += f" ({base} there: {score(scores(other, end))})" if end < other.x[-1] else ""
        found[-1] += [share, p]
    return found


def against(base: str) -> list[str]:
    """The heads of the last two columns of rows_of."""
    return [f"P(above {base})", "p"]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "--|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row).replace("2|4", "2-4") + " |" for row in rows)])


def game(data: Data) -> str:
    """The learners on DifferentialGame-3, and in how many seeds they escape the ring."""
    lines = data.lines(GAME, ON_GAME)
    rows = rows_of(lines, "IDDPG", _above)
    marks = ", ".join(f"{name} {value:g}" for name, value in MARKS[GAME].items())
    header = ["", "seeds", "steps", "final score", ABOVE, *against("IDDPG")]
    told = [markdown(header, rows), f"A test episode returns: {marks}.", escapes(lines), _larger(lines), _beside(data)]
    return "\n\n".join(filter(None, told))


def _above(own: np.ndarray) -> str:
    return f"{(own > ESCAPED).sum()} of {len(own)}"


def _lam(label: str) -> float:
    """The lambda of a row of ON_LAM."""
    return float(label.removeprefix(LAM))


def _larger(lines: dict[str, Line]) -> str:
    """Whether a larger lambda than the default ends higher."""
    if ON_LAM_1 not in lines:
        return ""
    base, found = lines[ON_LAM_1], []
    for label, line in lines.items():
        if label in ON_LAM and _lam(label) > 1:
            end = min(float(line.x[-1]), float(base.x[-1]))
            found.append(compare(scores(line, end), scores(base, end), (f"λ = {_lam(label):g}", "λ = 1")))
    return f"Final scores of larger values against the default: {'; '.join(found)}." if found else ""


def _beside(data: Data) -> str:
    """The runs of I2Q that docs/trap.md stopped early: of the same settings, but no part of the table.

    Their rounding errors are others, so they are runs of their own, also where the table has their seeds.
    """
    runs = data.runs.find(TRAP)
    if not runs:
        return ""
    (line,) = arrange([Experiment(TRAP, GAME, runs)])[0].lines
    out, end = int((scores(line) > ESCAPED).sum()), f"{line.x[-1]:,.0f}"
    older = f"{len(runs)} older run{'s' * (len(runs) > 1)} of {ON_LAM_1}"
    return f"Not counted: {older}, stopped at step {end} ([{TRAP}](trap.md)); {out} of them escaped by then."


def escapes(lines: dict[str, Line]) -> str:
    """Who escapes, who does not, and whether it depends on lambda."""
    counts = _escaped(lines)
    out = [f"{label}: {k} of {n}" for label, (k, n) in counts.items() if k]
    stay = [f"{label} ({n})" for label, (k, n) in counts.items() if not k]
    text = f"Seeds that escape: {'; '.join(out) or 'none'}. No seed of {', '.join(stay) or 'none'} does.\n\n"
    return text + _trend(counts)


def leaves(data: Data) -> str:
    """Of README: in how many seeds I2Q leaves the ring, by lambda."""
    whole = {label: learner for label, learner in ON_LAM.items() if _lam(label).is_integer()}
    found = [
        f"{k} of {n} with {_lam(label):g}" + " (the default)" * (label == ON_LAM_1)
        for label, (k, n) in _escaped(data.lines(GAME, whole)).items()
    ]
    if not found:
        return "Not run yet."
    return f"Seeds of I2Q that leave the ring, by lambda: {', '.join(found)} ([what decides](docs/trap.md))."


def _escaped(lines: dict[str, Line]) -> dict[str, tuple[int, int]]:
    """How many seeds of each learner escape, of how many."""
    return {label: (int((scores(line) > ESCAPED).sum()), len(line.runs)) for label, line in lines.items()}


def _trend(counts: dict[str, tuple[int, int]]) -> str:
    """Whether escape depends on lambda under rule 2, from (escapes, seeds) of each learner."""
    stay, gone = [], []  # lambda, once a seed
    for label, (k, n) in counts.items():
        if label in ON_LAM:
            gone += [_lam(label)] * k
            stay += [_lam(label)] * (n - k)
    if not gone or not stay:
        return ""
    groups = [(np.array(gone), np.array(stay))]
    seen, p = improvement(groups), number(p_value(groups))
    way = "rises" if seen > 0.5 else "falls" if seen < 0.5 else "neither rises nor falls"
    return (
        f"Over the values of lambda under rule 2, escape {way} with lambda, p = {p} (two-sided permutation "
        f"test of lambda's ranks, {len(gone) + len(stay)} runs, {len(gone)} escapes)."
    )


def cheetah(data: Data) -> str:
    rows = rows_of(data.lines(CHEETAH, ON_ROBOTS), "IDDPG")
    return markdown(["", "seeds", "steps", "final score", *against("IDDPG")], rows)


def robots(data: Data) -> str:
    """The other robots, own observations."""
    return _on_robots(data, ROBOTS[1:], ON_ROBOTS)


def full(data: Data) -> str:
    """Figure 14: more agents, the whole state."""
    return _on_robots(data, FIGURES["14"].tasks, FIGURES["14"].lines)


def _on_robots(data: Data, tasks: Sequence[str], learners: dict[str, str]) -> str:
    """A row a task and learner, and how many seeds of robots that can fall earn more than one that stands still."""
    rows, ends = [], []
    for task in tasks:
        lines = data.lines(task, learners)
        rows += [[task, *row] for row in rows_of(lines, "IDDPG")]
        if task in FALLING:
            ends += [own for line in lines.values() for own in scores(line)]
    if not rows:
        return "Not run yet."
    text = markdown(["task", "", "seeds", "steps", "final score", *against("IDDPG")], rows)
    if ends:
        ahead = sum(own > STANDING for own in ends)
        text += f"\n\nStanding still returns {STANDING:,.0f} on robots that can fall. "
        text += f"Seeds that end above it: {ahead} of {len(ends)}."
    return text


def stochastic(data: Data) -> str:
    (task,) = FIGURES["8"].tasks
    rows = rows_of(data.lines(task, FIGURES["8"].lines), "IDDPG", _above)
    header = ["", "seeds", "steps", "final score", ABOVE, *against("IDDPG")]
    return markdown(header, rows) if rows else "Not run yet."


def observations(data: Data) -> str:
    """What an agent sees: final scores up to equal steps, and the two views against each other."""
    views = {view: data.lines(CHEETAH, {k: v + flags for k, v in SEEN.items()}) for view, flags in VIEWS.items()}
    steps = sorted({float(line.x[-1]) for line in views["whole state"].values()})
    rows = []
    for label in SEEN:
        row = [label]
        for view, end in itertools.product(VIEWS, steps):
            line = views[view].get(label)
            row.append(score(scores(line, end)) if line and line.x[-1] >= end else "")
        both = [views[view].get(label) for view in VIEWS]
        own, whole = both
        text = ""
        if own and whole:
            end = min(float(own.x[-1]), float(whole.x[-1]))
            share, p = versus(scores(whole, end), scores(own, end))
            text = f"{share}, p = {p}, at step {end:,.0f}"
        rows.append([*row, text])
    header = ["", *(f"{view}, step {end:,.0f}" for view, end in itertools.product(VIEWS, steps))]
    return markdown([*header, "P(whole state above own joints)"], rows)


def exact(data: Data) -> str:
    """The games that can be solved exactly."""
    rows = []
    for name, base in (("trees", "IQL"), ("15", "IQL"), ("qplex", "IQL")):
        figure = FIGURES[name]
        for task in figure.tasks:
            lines = data.lines(task, figure.lines)
            solved = data.lines(task, figure.lines, "Optimal") if "Optimal" in figure.ys else {}
            for row, label in zip(rows_of(lines, base), lines):
                share = f"{100 * scores(solved[label]).mean():.0f} %" if label in solved else ""
                best = (scores(lines[label]) > 7).sum()
                share = share or f"{best} of {len(lines[label].runs)} seeds"
                rows.append([task, *row[:2], row[3], share, *row[4:]])
    return markdown(["game", "", "seeds", "share of the best return, or pay-off", "solved", *against("IQL")], rows)


def discrete(data: Data) -> str:
    """The paper's Table 1: games won, on SMAX in place of StarCraft."""
    rows, missing = [], []
    for task in MAPS:
        won, returns = (data.lines(task, DISCRETE, y) for y in ("TestWinRate", "AverageTestEpRet"))
        for label, row, other in zip(won, rows_of(won, "IQL"), rows_of(returns, "IQL")):
            paper = PAPER_TABLE_1.get(label, {}).get(task)
            rows.append([TITLES[task], *row[:4], other[3], *row[4:], "" if paper is None else f"{paper:g}"])
        missing += [] if won else [TITLES[task]]
    header = [
        "map",
        "",
        "seeds",
        "steps",
        "games won",
        "return",
        "P(more games won than IQL)",
        "p",
        "the paper, on SMAC",
    ]
    return markdown(header, rows) + (f"\n\nNot run yet: {', '.join(missing)}." if missing else "")


BLOCKS = {
    "discrete": discrete,
    "leaves": leaves,
    "game": game,
    "cheetah": cheetah,
    "robots": robots,
    "full": full,
    "stochastic": stochastic,
    "observations": observations,
    "exact": exact,
}
