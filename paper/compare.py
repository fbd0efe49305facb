"""Final scores of a few seeds against one another: the probability of improvement, its interval, p, and seeds needed.

Everything is over one or several tasks: groups are (scores of the one, scores of the other), a pair a task, and what is
estimated is the mean over the tasks. Seeds of different tasks are never compared.
"""

import itertools
import math
from collections.abc import Sequence
from math import comb
from statistics import NormalDist

import numpy as np

from curves.lines import Line

Groups = Sequence[tuple[np.ndarray, np.ndarray]]
POWER = 0.8  # the chance to see the difference, for which seeds are counted
MOST = 50  # seeds more of each; beyond, the difference seen is too small to tell


def scores(line: Line, end: float | None = None) -> np.ndarray:
    """Final score of every seed: the mean of its own rows in the last tenth of the steps up to `end`: (runs,).

    Where no test falls in them, what the straight line between the tests around them has at `end`. Of a smoothed line
    the rows as they were: a window would reach beyond `end`.
    """
    last = float(line.x[-1])
    end = last if end is None else min(end, last)
    return np.array([_score(xs, ys, end) for xs, ys in line.rows])


def _score(xs: np.ndarray, ys: np.ndarray, end: float) -> float:
    kept = (xs <= end) & (xs > 0.9 * end)
    return float(ys[kept].mean() if kept.any() else np.interp(end, xs, ys))


def wins(x: np.ndarray, y: np.ndarray) -> float:
    """In how many pairs of seeds x is above y; ties count half."""
    return float(((x[:, None] > y) + 0.5 * (x[:, None] == y)).sum())


def improvement(groups: Groups) -> float:
    """P(X > Y) + P(X = Y) / 2. Agarwal et al. 2021, section 4."""
    return float(np.mean([wins(x, y) / (len(x) * len(y)) for x, y in groups]))


def variance(p: np.ndarray, n: int, m: int) -> np.ndarray:
    """Of the share of pairs that n seeds win against m, where its mean is p. Hanley & McNeil 1982; Newcombe 2006."""
    beside = (n + m) / 2 - 1
    return p * (1 - p) / (n * m) * (1 + beside * ((1 - p) / (2 - p) + p / (1 + p)))


def interval(groups: Groups) -> tuple[float, float]:
    """95 % interval of the improvement: the p whose distance from the one seen is below 1.96 of its own deviations.

    Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", method 5.
    Unlike the bootstrap's it is not [1, 1] where one side wins all pairs.
    """
    p = np.linspace(0, 1, 10_001)
    of_mean = np.sum([variance(p, len(x), len(y)) for x, y in groups], axis=0) / len(groups) ** 2
    return _within(p, improvement(groups), of_mean)


def share_interval(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of which k of n are seen: Wilson 1927, which is the same way to find it."""
    p = np.linspace(0, 1, 10_001)
    return _within(p, k / n, p * (1 - p) / n)


def _within(p: np.ndarray, seen: float, of_mean: np.ndarray) -> tuple[float, float]:
    inside = p[(p - seen) ** 2 <= NormalDist().inv_cdf(0.975) ** 2 * of_mean + 1e-12]
    return float(inside[0]), float(inside[-1])


def p_value(groups: Groups) -> float:
    """Two-sided: the share of the ways to deal each task's scores into its two groups that are as far from 1/2."""
    values, chances = np.zeros(1), np.ones(1)
    for x, y in groups:  # the distribution of the sum, task after task
        more, odds = _null(x, y)
        sums = np.round(values[:, None] + more, 9).ravel()
        values, where = np.unique(sums, return_inverse=True)
        chances = np.bincount(where.ravel(), np.outer(chances, odds).ravel())
    seen = abs(improvement(groups) - 0.5) * len(groups)
    return min(1.0, float(chances[abs(values - 0.5 * len(groups)) >= seen - 1e-6].sum()))


def _null(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of pairs that x could win if the scores were dealt at random, and their chances, exactly.

    ways[k, s] counts the choices of k scores whose ranks, taken twice to be whole, have the sum s.
    """
    both, n, m = np.concatenate([x, y]), len(x), len(y)
    twice = 2 * (both[:, None] > both).sum(1) + (both[:, None] == both).sum(1)
    ways = np.zeros((n + 1, int(twice.sum()) + 1))
    ways[0, 0] = 1
    for rank in twice:
        for k in range(n, 0, -1):
            ways[k, rank:] += ways[k - 1, :-rank]
    (sums,) = np.nonzero(ways[n])
    won = sums / 2 - n * n / 2  # a seed's own rank counts half for itself, half for each pair among x
    return won / (n * m), ways[n, sums] / ways[n].sum()


def sign_test(k: int, n: int) -> float:
    """Two-sided p of k of n seeds above a number, where each were above it with a chance of 1/2."""
    tail = sum(comb(n, i) for i in range(max(k, n - k), n + 1)) / 2**n
    return min(1.0, 2 * tail)


def smallest_p(sizes: Sequence[tuple[int, int]]) -> float:
    """The smallest p that so many seeds can give: of all deals, one and its mirror image."""
    return 2 / math.prod(comb(n + m, n) for n, m in sizes)


def fewest(level: float, tasks: int) -> int:
    """Seeds of each side and task with which the smallest p reaches this level; tasks 0: of the sign test."""
    return next(n for n in itertools.count(1) if (smallest_p([(n, n)] * tasks) if tasks else 2 / 2**n) <= level)


def seeds_needed(p: float, tasks: int, level: float) -> int:
    """Seeds of each side and task that would find P = p at this level: Noether 1987. `tasks` as in fewest."""
    both = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(POWER)
    effect = (6 * tasks if tasks else 4) * (p - 0.5) ** 2
    return max(math.ceil(min(1e6, both**2 / max(effect, 1e-9))), fewest(level, tasks))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, corrected for their number. Holm 1979."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = itertools.accumulate((min(1.0, (len(order) - k) * p_values[i]) for k, i in enumerate(order)), max)
    return [value for _, value in sorted(zip(order, corrected))]
