"""How numbers of a few seeds are written: scores, shares with their interval, p values."""

import numpy as np

from paper.compare import interval, p_value, smallest_p, wins


def bounds(seen: float, low: float, high: float) -> str:
    """ "0.75 [0.35, 0.94]": a share with its interval. "1" and "0" stand for all and none alone."""
    return f"{_share(seen)} [{_share(low)}, {_share(high)}]"


def _share(value: float) -> str:
    return f"{value:.0f}" if value in (0, 1) else f"{min(max(value, 0.01), 0.99):.2f}"


def versus(x: np.ndarray, y: np.ndarray) -> tuple[str, str]:
    """P(X > Y) with its interval, and its p, which says so where it is the smallest that so many seeds can give."""
    p = p_value([(x, y)])
    least = " (the smallest possible)" * (p <= 1.001 * smallest_p([(len(x), len(y))]))
    return bounds(wins(x, y) / (len(x) * len(y)), *interval([(x, y)])), number(p) + least


def compare(x: np.ndarray, y: np.ndarray, names: tuple[str, str]) -> str:
    """x against y in words: P, in how many pairs of seeds, p."""
    n, m = len(x), len(y)
    share, p = versus(x, y)
    many = "s" * (n * m > 1)
    sides = f"{n} against {m} seed{many}"
    return f"P({names[0]} > {names[1]}) = {share}, ahead in {wins(x, y):g} of {n * m} pair{many} ({sides}), p = {p}"


def each(sizes: list[int]) -> str:
    """ "4 seeds each", "1 to 3 seeds each"."""
    low, high = min(sizes), max(sizes)
    return f"{low} to {high} seeds each" if low < high else f"{low} seed{'s' * (low > 1)} each"


def spread(values: np.ndarray) -> str:
    """ "24.7 to 91.6": the lowest and the highest."""
    low, high = cell(values.min()), cell(values.max())
    return low if low == high else f"{low} to {high}"


def cell(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 200 else f"{value:.1f}" if abs(value) >= 2 else f"{value:.3f}"


def number(p: float) -> str:
    """A p value with two digits that say something."""
    return f"{p:.2f}" if p >= 0.095 else f"{p:.3f}" if p >= 0.00095 else f"{p:.4f}" if p >= 0.00005 else f"{p:.0e}"
