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
    wins,
)
from paper.figures import TITLES, Claim, Figure
from paper.runs import rows
from paper.words import bounds, compare, each, number, spread

SHARE, LEVEL = 0.1, 0.05  # what a verdict needs: share of the paper's steps, and the level of its test
ENOUGH = 3  # seeds of a side, over all tasks, from which a P is seen that tells how many more are needed
OTHERS = ("qplex",)  # figures whose claims are of another paper: a family of their own
RULES = (
    "A final score is a seed's mean test return over the last tenth of the steps that both sides made; in figure 5, "
    "the distance of its values from the ideal ones. A seed that is not finished, where others are, is not counted.",
    "P(X > Y) is the share of pairs of seeds in which X ends above Y (a tie counts half), averaged over the claim's "
    "tasks. Brackets hold Newcombe's 95 % interval, for shares of seeds Wilson's. It is wide where seeds are few, also "
    "where one side wins all pairs: P = 1 [0.50, 1] is no certainty.",
    "p is two-sided. It comes from an exact permutation test of P that deals seeds anew within each task; for a claim "
    "against a number, from the sign test.",
    f"A claim is reproduced where p is at most {LEVEL} after Holm's correction for all claims of its paper. It is not "
    "reproduced where the opposite holds by the same test. All else is undecided, also where a task was not run or a "
    f"run has less than {100 * SHARE:.0f} % of the paper's steps.",
    f"An undecided claim needs about as many more seeds as would find the P seen so far with a chance of "
    f"{100 * POWER:.0f} % (Noether 1987), at {LEVEL} divided by the number of undecided claims. This P is as uncertain "
    f"as its interval is wide, and is taken to hold for tasks that were not run. Over {MOST}: it is too "
    "near to 0.5 for fewer.",
    f"Where a side has fewer than {ENOUGH} seeds in all, its P cannot tell how many more are needed: 'at least' is "
    "then the number below which the test could not decide.",
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
    gaps: str  # "not run on 3x2Walker"
    seeds: str  # how many more of each side and task: "about 6", "at least 4"
    seen: str  # the share with its interval
    p: str  # raw and corrected; empty as long as it cannot be tested
    tasks: Mapping[str, str]

    @property
    def needs(self) -> str:
        """What the claim waits for, in words; empty where it is decided."""
        if not self.seeds:
            return ""
        more = "more seeds" if self.seen else "seeds"
        of = "" if _against_number(self.claim) else " of each learner" + " on each task" * (len(self.tasks) > 1)
        return "; ".join(filter(None, [self.gaps, f"needs {self.seeds} {more}{of}"]))

    @property
    def evidence(self) -> str:
        return "; ".join(filter(None, [self.seen, self.p]))


def judge(drawn: Mapping[Figure, Sequence[Panel]]) -> list[Answer]:
    """Every claim of these figures, by RULES."""
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


def _testable(measures: Sequence[Measure]) -> bool:
    return all(m.groups and m.share >= SHARE for m in measures)


def _p(claim: Claim, measures: Sequence[Measure]) -> float:
    """The claim's p; 1 as long as it cannot be tested on all of its tasks."""
    if not _testable(measures):
        return 1.0
    groups = _groups(measures)
    return sign_test(*_signs(groups)) if _against_number(claim) else p_value(groups)


def _answer(
    figure: Figure, claim: Claim, measures: Sequence[Measure], p: float, adjusted: float, level: float
) -> Answer:
    groups = _groups(measures)
    verdict, gaps, seeds = "undecided", _gaps(measures), _seeds(claim, measures, level)
    if adjusted <= LEVEL:
        verdict, gaps, seeds = "reproduced" if _seen(claim, groups) > 0.5 else "not reproduced", "", ""
    tested = f"p = {number(p)}, {number(adjusted)} after Holm's correction" if _testable(measures) else ""
    tasks = {m.title: _one(claim, m) for m in measures}
    return Answer(figure, claim, verdict, gaps, seeds, _evidence(claim, groups), tested, tasks)


def _seen(claim: Claim, groups: Groups) -> float:
    """The share of seeds, or of pairs of seeds, in which the claim holds."""
    if _against_number(claim):
        holds, n = _signs(groups)
        return holds / n
    return improvement(groups)


def _gaps(measures: Sequence[Measure]) -> str:
    """Tasks that were not run, and runs that are too short."""
    if not _groups(measures):
        return "not run"
    missing = [m.title for m in measures if not m.groups]
    short = [m.title for m in measures if m.groups and m.share < SHARE]
    words = {"not run on": missing, f"below {100 * SHARE:.0f} % of the paper's steps on": short}
    return "; ".join(f"{word} {', '.join(titles)}" for word, titles in words.items() if titles)


def _seeds(claim: Claim, measures: Sequence[Measure], level: float) -> str:
    """How many more seeds of each side and task would decide the claim."""
    groups, tasks = _groups(measures), 0 if _against_number(claim) else len(measures)
    if not groups:
        return f"at least {fewest(level, tasks)}"
    sizes = [min(len(x), len(y)) if tasks else max(len(x), len(y)) for x, y in groups]
    have = min(sizes) if tasks else sum(sizes)
    if sum(sizes) < ENOUGH:
        return f"at least {max(1, fewest(level, tasks) - have)}"
    more = seeds_needed(_seen(claim, groups), tasks, level) - have
    return f"over {MOST}" if more > MOST else f"about {max(1, more)}"


def _evidence(claim: Claim, groups: Groups) -> str:
    """The share seen with its interval."""
    if not groups:
        return ""
    seen = _seen(claim, groups)
    if _against_number(claim):
        holds, n = _signs(groups)
        return f"{_side(claim)} in {holds} of {n} seeds: {bounds(seen, *share_interval(holds, n))}"
    sizes = [len(side) for pair in groups for side in pair]
    return f"P({claim.better} > {claim.worse}) = {bounds(seen, *interval(groups))}, {each(sizes)}"


def _side(claim: Claim) -> str:
    """What is counted against a number."""
    learner, word, value = claim.better, "above", claim.worse
    if not isinstance(learner, str):
        learner, word, value = claim.worse, "below", claim.better
    return f"{learner} {word} {value:g}"


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
