"""What the seeds of a curve come to: line and band, smoothing."""

import numpy as np

from common.estimates import ESTIMATES

FEW = 5  # runs below which a bootstrap interval is their range


def curve(
    values: np.ndarray,
    est: str = "iqm",
    band: str = "ci",
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mid, low, high of values (runs, points), each (points,). One run has no band: low = mid = high.

    mid is the "mean", "iqm" or "median" over the runs. The band is "sd": mid -+ the sample standard deviation; "iqr":
    the quartiles; "ci": the 2.5 and 97.5 percentiles of mid over 2000 bootstrap resamples of whole runs, as in Agarwal
    et al. 2021, section 4. Of fewer than FEW runs, "ci" is the range and is called so: below FEW, more than one
    resample in forty has the lowest run for its IQM or median. The range of n runs holds the median of all possible
    ones with a chance of 1 - 2^(1 - n): 50, 75 and 88 % for 2, 3 and 4. The interval of 5 to 7 normal runs holds their
    mean in about 90 % of cases (simulated).
    """
    mid, n = ESTIMATES[est](values), len(values)
    if n == 1:
        return mid, mid, mid
    if band == "sd":
        sd = values.std(0, ddof=1)
        return mid, mid - sd, mid + sd
    if band == "iqr":
        low, high = np.percentile(values, [25, 75], axis=0)
        return mid, low, high
    if n < FEW:
        return mid, values.min(0), values.max(0)
    rng = rng or np.random.default_rng(0)
    picks = rng.choice(n, (2000, n))
    low, high = np.empty_like(mid), np.empty_like(mid)
    for start in range(0, len(mid), 50):  # all points at once could take gigabytes
        part = slice(start, start + 50)
        low[part], high[part] = np.percentile(ESTIMATES[est](values[:, part][picks]), [2.5, 97.5], axis=0)
    return mid, low, high


def smooth(y: np.ndarray, k: int) -> np.ndarray:
    """Centred mean over k points; at the edges over those of the k that exist. Spinning Up's; same shape as y."""
    k = min(k, 2 * len(y) + k % 2)  # such a window holds all points wherever it is

    def window_sums(values: np.ndarray) -> np.ndarray:
        whole = np.convolve(values, np.ones(k))  # mode "same" would give k values where y has fewer
        return whole[(k - 1) // 2 :][: len(y)]

    return window_sums(y) / window_sums(np.ones(len(y)))
