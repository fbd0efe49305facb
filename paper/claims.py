"""What the runs say of the paper's claims: final scores, the probability of improvement, and a rule for a verdict."""

import itertools
from math import comb

import numpy as np

from curves.estimate import curve
from curves.lines import Line, Panel
from paper.figures import Claim
from paper.runs import rows

SEEDS, SHARE, P = 3, 0.3, 0.05  # what a verdict needs: seeds of each side, share of the paper's steps, and its level
RULE = (
    f"A final score is a seed's mean test return over the last tenth of the steps that both sides made. The answer "
    f"is yes or no where both sides have {SEEDS} seeds or more and {SHARE:.0%} of the paper's steps or more, and a "
    f"one-sided permutation test of the probability of improvement says so at p <= {P} (against a number: where the "
    f"bootstrap 95 % interval of the interquartile mean is above or below it). All else is not enough data."
)


def scores(line: Line, end: float | None = None) -> np.ndarray:
    """Final score of every seed: the mean over the last tenth of the steps up to `end`: (runs,)."""
    last = float(line.x[-1])
    end = last if end is None else min(end, last)
    kept = (line.x <= end) & (line.x > 0.9 * end)
    return line.values[:, kept].mean(1)


def improvement(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """P(X > Y) + P(X = Y) / 2 of final scores, and its bootstrap 95 % interval. Agarwal et al. 2021, section 4."""
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    rng = np.random.default_rng(0)
    i, j = rng.integers(len(x), size=(2000, len(x))), rng.integers(len(y), size=(2000, len(y)))
    low, high = np.percentile(wins[i[:, :, None], j[:, None, :]].mean((1, 2)), [2.5, 97.5])
    return float(wins.mean()), float(low), float(high)


def p_value(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the ways to deal the scores into groups of these sizes that favour the first at least as much."""
    both, n = np.concatenate([x, y]), len(x)
    ranks = (both[:, None] > both).sum(1) + 0.5 * (both[:, None] == both).sum(1)
    if comb(len(both), n) <= 20_000:
        deals = np.array(list(itertools.combinations(range(len(both)), n)))
    else:
        deals = np.random.default_rng(0).permuted(np.tile(np.arange(len(both)), (20_000, 1)), axis=1)[:, :n]
    return float((ranks[deals].sum(1) >= ranks[:n].sum() - 1e-9).mean())


def judge(claim: Claim, panel: Panel) -> tuple[str, str]:
    """("yes", "no" or "not enough data", the numbers it rests on) for one task, by RULE."""
    lines = {line.experiment.label: line for line in panel.lines}
    sides = [name for name in (claim.better, claim.worse) if isinstance(name, str)]
    if absent := [name for name in sides if name not in lines]:
        return "not enough data", f"not run yet: {', '.join(absent)}"
    end = min(lines[name].x[-1] for name in sides)
    full = {row.experiment: row.steps for row in rows("paper")}[lines[sides[0]].runs[0].path.parent.name]
    enough = end >= SHARE * full and all(len(lines[name].runs) >= SEEDS for name in sides)
    x = scores(lines[sides[0]], end)
    if len(sides) == 2:
        y = scores(lines[sides[1]], end)
        mid, low, high = improvement(x, y)
        yes, no = p_value(x, y), p_value(y, x)
        text = f"P({sides[0]} > {sides[1]}) {mid:.2f} [{low:.2f}, {high:.2f}], p = {min(yes, no):.3f}"
        text += f", {len(x)} against {len(y)} seeds"
    else:
        number = next(side for side in (claim.better, claim.worse) if not isinstance(side, str))
        mid, low, high = (float(v[0]) for v in curve(x[:, None]))
        yes, no = float(low <= number), float(high >= number)
        if number == claim.better:
            yes, no = no, yes
        text = f"IQM {mid:.1f} [{low:.1f}, {high:.1f}] against {number:g}, {len(x)} seeds"
    text += f", at step {end:,.0f}"
    return ("not enough data" if not enough else "yes" if yes <= P else "no" if no <= P else "not enough data"), text
