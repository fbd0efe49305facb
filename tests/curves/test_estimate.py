"""Line and band of a few runs, against numbers that a hand can check."""

import numpy as np
import pytest

from common.estimates import iqm
from curves.estimate import curve, smooth
from curves.table import interval


def column_vector(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_iqm_of_eight_runs_drops_the_two_lowest_and_the_two_highest():
    assert iqm(column_vector(1000, 1, 2, 3, 4, 5, 6, -1000)) == 3.5  # of 2 3 4 5


def test_iqm_of_five_runs_drops_one_at_each_end():
    assert iqm(column_vector(100, 1, 3, 5, -100)) == 3.0


def test_iqm_below_four_runs_is_the_mean():
    assert iqm(column_vector(0, 1, 5)) == 2.0


def test_iqm_sorts_each_point_on_its_own():
    values = np.array([[0.0, 9], [1, 1], [3, 3], [9, 0]])
    assert iqm(values).tolist() == [2.0, 2.0]


def test_sd_band_is_the_sample_standard_deviation_around_the_line():
    mid, low, high = curve(column_vector(1, 3), "mean", "sd")
    assert (mid[0], low[0], high[0]) == pytest.approx((2, 2 - 2**0.5, 2 + 2**0.5))


def test_iqr_band_is_the_quartiles():
    mid, low, high = curve(column_vector(0, 1, 2, 3, 4), "median", "iqr")
    assert (mid[0], low[0], high[0]) == (2, 1, 3)


def test_one_run_has_no_band():
    for band in ("sd", "iqr", "ci"):
        mid, low, high = curve(np.array([[1.0, 2.0]]), band=band)
        assert mid.tolist() == low.tolist() == high.tolist() == [1.0, 2.0]


def test_interval_of_two_runs_reaches_from_one_to_the_other():
    _, low, high = curve(column_vector(0, 10), "mean", "ci")  # a quarter of all resamples are (0, 0)
    assert (low[0], high[0]) == (0, 10)


def test_interval_of_the_mean_is_that_of_the_normal_distribution_for_many_runs():
    values = np.random.default_rng(0).normal(size=(400, 1))
    mid, low, high = curve(values, "mean", "ci")
    assert high[0] - mid[0] == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    assert mid[0] - low[0] == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(20, 300))  # 300 experiments of 20 runs, side by side as points
    _, low, high = curve(samples, "iqm", "ci")
    assert 0.87 < np.mean((low < 0) & (high > 0)) < 0.98


def test_interval_is_the_same_for_the_same_generator():
    values = np.random.default_rng(0).normal(size=(6, 120))
    first, again, other = (curve(values, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_resampling_takes_whole_runs():
    values = np.random.default_rng(0).normal(size=(5, 1)) + np.zeros((5, 120))  # every run is flat, so is the interval
    _, low, high = curve(values)
    assert np.ptp(low) == np.ptp(high) == 0


def test_smoothing_averages_what_there_is_at_the_edges():
    assert smooth(np.array([0.0, 3, 6, 15]), 3).tolist() == [1.5, 3, 8, 10.5]


def test_smoothing_over_one_row_changes_nothing():
    assert smooth(np.array([0.0, 3, 6, 15]), 1).tolist() == [0, 3, 6, 15]


@pytest.mark.parametrize("k", [9, 10, 100_000_000_000])
def test_smoothing_over_more_rows_than_there_are_keeps_their_number(k):
    assert smooth(np.array([1.0, 3]), k).tolist() == [2, 2]


@pytest.mark.parametrize("k", range(1, 8))
def test_smoothing_is_spinning_ups_within_the_edges(k):
    y = np.random.default_rng(0).normal(size=30)
    theirs = np.convolve(y, np.ones(k), "same") / np.convolve(np.ones(30), np.ones(k), "same")
    assert np.allclose(smooth(y, k), theirs)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_below_five_runs_the_interval_is_their_range(n):
    values = np.random.default_rng(n).normal(size=(n, 7))
    _, low, high = curve(values)
    assert (low.tolist(), high.tolist()) == (values.min(0).tolist(), values.max(0).tolist())


def test_of_five_runs_the_interval_is_narrower_than_their_range():
    values = np.arange(5.0)[:, None]
    _, low, high = curve(values)
    assert 0 < low[0] < high[0] < 4


def test_a_resample_is_as_large_as_the_sample():
    _, low, high = curve(np.arange(5.0)[:, None], "mean", "ci")
    assert (low[0], high[0]) == (0.8, 3.2)  # of the 5^5 resamples 1.8 % have a sum below 4, and 4 % below 5


@pytest.mark.parametrize(
    "sizes, words",
    [
        ([3, 4], "range of the seeds"),
        ([3, 8], "bootstrap 95 % interval (below 5 seeds: their range)"),
        ([5, 8], "bootstrap 95 % interval"),
    ],
)
def test_a_band_is_called_what_it_is(sizes, words):
    assert interval(sizes) == words
