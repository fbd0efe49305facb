"""What the runs say of the paper's claims: reproduced, not reproduced, or undecided with so many more seeds needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from curves.lines import Panel
from paper.compare import (
    MOST,
    POWER,
    Groups,
    fewest,
    holm,
    improvement,
    interval,
    p_value,
    scores,
    seeds_needed,
    share_interval,
    sign_test,
    smallest_p,
    wins,
)
from paper.figures import TITLES, Claim, Figure
from paper.runs import rows

SHARE, LEVEL = 0.1, 0.05  # what a verdict needs: share of the paper's steps, and the level of its test
OTHERS = ("qplex",)  # figures whose claims are of another paper: a family of their own
RULE = (
    f"A final score is a seed's mean test return over the last tenth of the steps that both sides made. P(X > Y): the "
    f"share of pairs of seeds in which X ends above Y, a mean over the claim's tasks, with Newcombe's 95 % interval. "
    f"p is two-sided: of an exact permutation test of P, seeds dealt anew within each task; against a number, of the "
    f"sign test. A claim is reproduced, or not reproduced because the opposite holds, where p is {LEVEL} at most after "
    f"Holm's correction for all claims of its paper, all of its tasks were run, and both sides made "
    f"{100 * SHARE:.0f} % "
    f"of the paper's steps. All else is undecided. The seeds it needs are those with which the P seen so far would be "
    f"found with a chance of {100 * POWER:.0f} % (Noether 1987), at {LEVEL} divided by the number of undecided claims; "
    f"this P is as uncertain as its interval is wide."
)


@dataclass(frozen=True)
class Measure:
    """One claim on one task: the scores of both sides, or of one and the number; None where one was not run."""

    title: str
    groups: tuple[np.ndarray, np.ndarray] | None
    missing: tuple[str, ...] = ()
    end: float = 0.0  # the step
    share: float = 0.0  # of the paper's steps


@dataclass(frozen=True)
class Answer:
    """A claim's verdict, what it still needs, the numbers behind it, and those of each task (title -> text)."""

    figure: Figure
    claim: Claim
    verdict: str  # "reproduced", "not reproduced", "undecided"
    needs: str
    evidence: str
    tasks: Mapping[str, str]

    @property
    def words(self) -> str:
        return f"{self.verdict}: {self.needs}" if self.needs else self.verdict


def judge(drawn: Mapping[Figure, Sequence[Panel]]) -> list[Answer]:
    """Every claim of these figures, by RULE."""
    found = []
    for others in (False, True):
        claims = [(f, claim) for f in drawn if (f.number in OTHERS) == others for claim in f.claims]
        measured = [list(_measures(figure, claim, drawn[figure])) for figure, claim in claims]
        raw = [_p(claim, measures) for (_, claim), measures in zip(claims, measured)]
        corrected = holm(raw)
        undecided = sum(p > LEVEL for p in corrected)
        for (figure, claim), measures, p, adjusted in zip(claims, measured, raw, corrected):
            found.append(_answer(figure, claim, measures, p, adjusted, LEVEL / max(1, undecided)))
    order = list(drawn)
    return sorted(found, key=lambda answer: order.index(answer.figure))


def _measures(figure: Figure, claim: Claim, panels: Sequence[Panel]) -> Iterator[Measure]:
    full = {row.experiment: row.steps for row in rows("paper", [figure.number])}
    for task, panel in zip(figure.tasks, panels[-1:] if figure.number == "5" else panels):
        if claim.tasks and task not in claim.tasks:
            continue
        lines, title = {line.experiment.label: line for line in panel.lines}, TITLES.get(task, task)
        sides = [name for name in (claim.better, claim.worse) if isinstance(name, str)]
        if missing := tuple(name for name in sides if name not in lines):
            yield Measure(title, None, missing)
            continue
        end = min(float(lines[name].x[-1]) for name in sides)
        better, worse = (
            scores(lines[side], end) if isinstance(side, str) else np.array([side])
            for side in (claim.better, claim.worse)
        )
        share = end / full[lines[sides[0]].runs[0].path.parent.name]
        yield Measure(title, (better, worse), (), end, share)


def _against_number(claim: Claim) -> bool:
    return not (isinstance(claim.better, str) and isinstance(claim.worse, str))


def _groups(measures: Sequence[Measure]) -> Groups:
    return [measure.groups for measure in measures if measure.groups]


def _signs(groups: Groups) -> tuple[int, int]:
    """In how many seeds of all the claim holds, against a number."""
    return int(sum(wins(x, y) for x, y in groups)), sum(max(len(x), len(y)) for x, y in groups)


def _p(claim: Claim, measures: Sequence[Measure]) -> float:
    """The claim's p; 1 as long as it cannot be tested on all of its tasks."""
    if any(not m.groups or m.share < SHARE for m in measures):
        return 1.0
    groups = _groups(measures)
    return sign_test(*_signs(groups)) if _against_number(claim) else p_value(groups)


def _answer(
    figure: Figure, claim: Claim, measures: Sequence[Measure], p: float, adjusted: float, level: float
) -> Answer:
    groups = _groups(measures)
    tasks = {m.title: _one(claim, m) for m in measures}
    evidence = _evidence(claim, groups)
    if groups and all(m.groups for m in measures):
        evidence += f"; p = {number(p)}, {number(adjusted)} after Holm's correction"
    if adjusted <= LEVEL:
        verdict = "reproduced" if _seen(claim, groups) > 0.5 else "not reproduced"
        return Answer(figure, claim, verdict, "", evidence, tasks)
    return Answer(figure, claim, "undecided", _needs(claim, measures, level), evidence, tasks)


def _seen(claim: Claim, groups: Groups) -> float:
    """The share of seeds, or of pairs of seeds, in which the claim holds."""
    if _against_number(claim):
        holds, n = _signs(groups)
        return holds / n
    return improvement(groups)


def _needs(claim: Claim, measures: Sequence[Measure], level: float) -> str:
    """What an undecided claim waits for: tasks that were not run, longer runs, seeds."""
    groups, tasks = _groups(measures), 0 if _against_number(claim) else len(measures)
    if not groups:
        each = " of each learner" * (tasks > 0) + " on each task" * (tasks > 1)
        return f"not run; at least {fewest(level, tasks)} seeds{each}"
    text = ""
    if missing := [m.title for m in measures if not m.groups]:
        text = f"not run on {', '.join(missing)}; "
    if short := [m.title for m in measures if m.groups and m.share < SHARE]:
        text += f"below {100 * SHARE:.0f} % of the paper's steps on {', '.join(short)}; "
    have = min(min(len(x), len(y)) for x, y in groups) if tasks else _signs(groups)[1]
    more = seeds_needed(_seen(claim, groups), tasks, level) - have
    each = "seeds of each learner" if tasks else "seeds"
    alike = ", if those are like the rest" * bool(missing)
    if more > MOST:
        return f"{text}more than {MOST} more {each} (the difference seen is small)"
    return f"{text}about {max(1, more)} more {each}{alike}"


def _evidence(claim: Claim, groups: Groups) -> str:
    """The share seen with its interval."""
    if not groups:
        return "not run"
    seen = _seen(claim, groups)
    if _against_number(claim):
        holds, n = _signs(groups)
        low, high = share_interval(holds, n)
        return f"{_side(claim)} in {holds} of {n} seeds, {bounds(seen, low, high, 'share')}"
    return f"P({claim.better} > {claim.worse}) {bounds(seen, *interval(groups))}"


def _side(claim: Claim) -> str:
    """What is counted against a number."""
    learner, word, value = claim.better, "above", claim.worse
    if not isinstance(learner, str):
        learner, word, value = claim.worse, "below", claim.better
    return f"{learner} {word} {value:g}"


def bounds(seen: float, low: float, high: float, word: str = "") -> str:
    """A share with its interval; where all or none were seen only a bound, for 1.00 would read as certainty."""
    word = f"{word} " if word else ""
    if seen == 1:
        return f"{word}at least {low:.2f}"
    return f"{word}at most {high:.2f}" if seen == 0 else f"{word}{seen:.2f} [{low:.2f}, {high:.2f}]"


def compare(x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("", "")) -> str:
    """x against y in words: P, in how many pairs of seeds, p."""
    pairs, won, p = len(x) * len(y), wins(x, y), p_value([(x, y)])
    least = smallest_p([(len(x), len(y))])
    best = ", the smallest that these can give" if p <= 1.001 * least else ""
    name = f"P({names[0]} > {names[1]})" if names[0] else "P"
    text = bounds(won / pairs, *interval([(x, y)]))
    return f"{name} {text} in {won:g} of {pairs} pairs of {len(x)} against {len(y)} seeds, p = {number(p)}{best}"


def _one(claim: Claim, measure: Measure) -> str:
    """The evidence of one task."""
    if not measure.groups:
        return f"not run: {', '.join(measure.missing)}"
    x, y = measure.groups
    at = f"at step {measure.end:,.0f}, {100 * measure.share:.0f} % of the paper's"
    if not _against_number(claim):
        return f"{compare(x, y, (str(claim.better), str(claim.worse)))}, {at}"
    holds, n = _signs([measure.groups])
    own = x if isinstance(claim.better, str) else y
    return f"{_side(claim)} in {holds} of {n} seeds, which end at {spread(own)}, {at}"


def spread(values: np.ndarray) -> str:
    """ "24.7 to 91.6": the lowest and the highest."""
    low, high = cell(values.min()), cell(values.max())
    return low if low == high else f"{low} to {high}"


def cell(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 200 else f"{value:.1f}" if abs(value) >= 2 else f"{value:.3f}"


def number(p: float) -> str:
    """A p value with two digits that say something."""
    return f"{p:.2f}" if p >= 0.095 else f"{p:.3f}" if p >= 0.00095 else f"{p:.4f}" if p >= 0.00005 else f"{p:.0e}"
