"""The statistics of a few seeds, against a hand's."""

import itertools
from fractions import Fraction
from math import comb
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
    variance,
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


def test_a_learner_that_is_tested_more_rarely_is_scored_between_its_tests(tmp_path):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [10, 20, 40], steps=100_000)
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert scores(line, end=250_000).tolist() == [30]  # no test between steps 225,000 and 250,000


def test_a_row_without_a_test_is_no_part_of_a_score(tmp_path):
    """As where training diverged: what was measured last counts."""
    nan = float("nan")
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [0] * 8 + [10, nan, 30, nan])
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert line.x[-1] == 110_000
    assert scores(line).tolist() == [30]
    assert scores(line, end=100_000).tolist() == [20]  # between 10 and 30


def test_a_score_is_of_all_rows_where_a_picture_shows_some_of_them(tmp_path):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [0] * 1800 + [0, 1] * 100)
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert len(line.x) < 2000
    assert scores(line).tolist() == [0.5]


def test_a_run_cut_off_cuts_the_comparison_for_all(tmp_path):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [1] * 20 + [9] * 10)
    write_experiment(tmp_path, f"iddpg_{GAME}", 1, [2] * 20)
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert scores(line).tolist() == [1, 2]  # at step 200,000, where the second ends


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


def dealt(groups: list[tuple[list[int], list[int]]]) -> float:
    """The same p by hand: every way to deal every task, in fractions."""
    sums = {Fraction(0): 1}
    for x, y in groups:
        after: dict[Fraction, int] = {}
        for pick in itertools.combinations(range(len(x) + len(y)), len(x)):
            share = pairs([(x + y)[i] for i in pick], [v for i, v in enumerate(x + y) if i not in pick])
            for total, ways in sums.items():
                after[total + share] = after.get(total + share, 0) + ways
        sums = after
    half = Fraction(len(groups), 2)
    seen = abs(sum(pairs(x, y) for x, y in groups) - half)
    return sum(ways for total, ways in sums.items() if abs(total - half) >= seen) / sum(sums.values())


def pairs(x: list[int], y: list[int]) -> Fraction:
    return Fraction(sum(2 * (a > b) + (a == b) for a in x for b in y), 2 * len(x) * len(y))


@pytest.mark.parametrize(
    "groups",
    [
        [([3, 1, 4, 1], [5, 9, 2])],  # ties, sides of different size
        [([2, 2, 7], [2, 0]), ([1], [0, 3, 3])],
        [([5, 6], [1, 2]), ([5], [1]), ([0, 4, 4], [4, 4, 9])],
    ],
)
def test_p_is_that_of_all_deals_counted_one_by_one(groups):
    assert p_value([(np.array(x), np.array(y)) for x, y in groups]) == pytest.approx(dealt(groups))


def test_p_of_many_seeds_is_exact_and_never_zero():
    x, y = np.arange(100.0, 115), np.arange(15.0)
    assert p_value([(x, y)]) == pytest.approx(2 / comb(30, 15)) == smallest_p([(15, 15)])
    x, y = np.arange(0.5, 24, 2), np.arange(0.0, 24, 2)
    assert p_value([(x, y)]) == pytest.approx(0.75, abs=0.02)  # 78 of 144 pairs; Mann-Whitney, normal: 0.75


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


def test_the_interval_over_four_tasks_is_of_a_quarter_of_the_variance():
    low, high = interval([(HIGH, LOW), (LOW, HIGH)] * 2)
    assert low == pytest.approx(1 - high) == pytest.approx(0.279, abs=1e-3)
    assert (0.5 - low) ** 2 == pytest.approx(1.96**2 * float(variance(np.array(low), 3, 3)) / 4, rel=0.01)


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
