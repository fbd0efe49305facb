"""The statistics of a few seeds, against a hand's."""

from statistics import NormalDist

import numpy as np
import pytest
from helpers.runs import GAME, write_experiment

from paper.compare import (
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
from paper.figures import FIGURES
from paper.panels import Runs, panels

HIGH, LOW = np.array([4.0, 5, 6]), np.array([1.0, 2, 3])


def test_a_final_score_is_the_mean_over_the_last_tenth_of_the_steps(tmp_path):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [0] * 18 + [10, 20])
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert scores(line).tolist() == [15]
    assert scores(line, end=190_000).tolist() == [5]  # of rows 18 and 19


def test_improvement_is_the_share_of_pairs_with_ties_counted_half():
    x, y = np.array([1.0, 3]), np.array([1.0, 2])
    assert wins(x, y) == 2.5  # a tie, 0, 1, 1
    assert improvement([(x, y)]) == 0.625
    assert improvement([(x, y), (HIGH, LOW)]) == (0.625 + 1) / 2  # tasks count alike


def test_p_is_two_sided():
    assert p_value([(HIGH, LOW)]) == p_value([(LOW, HIGH)]) == pytest.approx(2 / 20)  # of 6 over 3 deals, two
    assert p_value([(np.ones(2), np.ones(2))]) == 1
    assert smallest_p([(3, 3)]) == 2 / 20


def test_p_over_tasks_deals_seeds_within_each_of_them():
    assert p_value([(HIGH, LOW), (10 * HIGH, 10 * LOW)]) == pytest.approx(2 / 400) == smallest_p([(3, 3), (3, 3)])
    assert p_value([(HIGH, LOW), (LOW, HIGH)]) == 1  # one task speaks for it as clearly as the other against it


def test_p_of_many_seeds_is_estimated_well():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.9, 1, 12), rng.normal(0, 1, 12)
    both = np.concatenate([x, y])
    deals = rng.permuted(np.tile(both, (20_000, 1)), axis=1)
    shares = [wins(deal[:12], deal[12:]) / 144 for deal in deals[:4000]]
    far = abs(np.array(shares) - 0.5) >= abs(wins(x, y) / 144 - 0.5) - 1e-9
    assert p_value([(x, y)]) == pytest.approx(far.mean(), abs=0.01)


@pytest.mark.parametrize("n, effect", [(3, 0.0), (4, 1.0), (8, 2.0)])
def test_the_interval_covers_what_it_should(n, effect):
    """The bootstrap's covers half of that with three seeds."""
    rng, truth = np.random.default_rng(0), NormalDist().cdf(effect / 2**0.5)
    bounds = [interval([(rng.normal(effect, 1, n), rng.normal(0, 1, n))]) for _ in range(300)]
    assert 0.88 <= np.mean([low <= truth <= high for low, high in bounds]) <= 0.99


def test_the_interval_of_a_side_that_wins_all_pairs_is_no_certainty():
    low, high = interval([(HIGH, LOW)])
    assert 0.4 < low < 0.6 and high == 1
    assert share_interval(3, 3) == (pytest.approx(0.438, abs=1e-3), 1)  # Wilson: 3 / (3 + 1.96^2)


def test_signs_of_seeds_above_a_number():
    assert (sign_test(6, 6), sign_test(0, 6), sign_test(3, 6)) == (2 / 64, 2 / 64, 1)
    assert sign_test(5, 6) == 2 * 7 / 64
    assert seeds_needed(1, 0, 0.05) == 8  # 7.85 / (4 x 0.5^2) = 7.85; six would do if all are sure to agree


def test_p_values_are_corrected_for_their_number():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x .01; 2 x .03; not below that
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_seeds_needed_are_noethers_and_the_fewest_are_what_the_test_can_do_with():
    assert seeds_needed(0.75, 1, 0.05) == 21  # (1.96 + 0.84)^2 / (6 x 0.25^2) = 20.9
    assert seeds_needed(0.75, 3, 0.05) == 7  # three tasks share the work
    assert fewest(0.0042, 1) == 6
    assert smallest_p([(6, 6)]) <= 0.0042 < smallest_p([(5, 5)])
    assert fewest(0.0042, 3) == 3  # 2 / 20^3
    assert fewest(0.05, 0) == 6  # 2 / 2^6
    assert seeds_needed(0.5, 1, 0.05) > 1000


def test_so_many_seeds_do_find_the_difference():
    """Of a normal difference with P 0.9, simulated: the power that seeds_needed promises, roughly."""
    rng, shift = np.random.default_rng(0), 2**0.5 * NormalDist().inv_cdf(0.9)
    n = seeds_needed(0.9, 1, 0.05)
    found = [p_value([(rng.normal(shift, 1, n), rng.normal(0, 1, n))]) <= 0.05 for _ in range(100)]
    assert 0.7 <= np.mean(found) <= 1
