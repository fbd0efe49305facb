"""The middle of a few runs. No torch."""

from collections.abc import Callable

import numpy as np


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean over the runs: (..., runs, points) -> (..., points). Below 4 runs it is the mean.

    Of n runs, the floor(n / 4) lowest and highest are dropped, as in Agarwal et al. 2021.
    """
    n = values.shape[-2]
    return np.sort(values, -2)[..., n // 4 : n - n // 4, :].mean(-2)


ESTIMATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda values: values.mean(-2),
    "iqm": iqm,
    "median": lambda values: np.median(values, -2),
}
