"""Verdicts on the paper's claims, and their statistics against a hand's."""

from pathlib import Path

import numpy as np
import pytest
from helpers.runs import GAME, write_experiment, write_game

from paper.claims import improvement, judge, p_value, scores
from paper.figures import FIGURES, Claim
from paper.panels import Runs, panels


def verdict(root: Path, claim: Claim, number: str = "6") -> tuple[str, str]:
    figure = FIGURES[number]
    return judge(claim, panels(figure, Runs([root]))[0])


ABOVE = Claim("I2Q learns more", "I2Q", "IDDPG")


def test_a_final_score_is_the_mean_over_the_last_tenth_of_the_steps(tmp_path):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [0] * 18 + [10, 20])
    (line,) = panels(FIGURES["6"], Runs([tmp_path]))[0].lines
    assert scores(line).tolist() == [15]
    assert scores(line, end=190_000).tolist() == [5]  # of rows 18 and 19


def test_improvement_is_the_share_of_pairs_with_ties_counted_half():
    assert improvement(np.array([1.0, 3]), np.array([1.0, 2]))[0] == 0.625  # wins 1, 1, 0 and a tie
    assert improvement(np.array([5.0, 6]), np.array([1.0, 2])) == (1, 1, 1)
    mid, low, high = improvement(np.array([0.0, 4, 5, 9]), np.array([1.0, 3, 6, 8]))
    assert low < mid == 0.5 < high


def test_p_value_is_the_share_of_deals_at_least_as_good():
    high, low = np.array([4.0, 5, 6]), np.array([1.0, 2, 3])
    assert p_value(high, low) == 1 / 20  # of 6 over 3 deals, this one
    assert p_value(low, high) == 1.0
    assert p_value(np.array([1.0, 1]), np.array([1.0, 1])) == 1.0


def test_p_value_of_many_seeds_is_estimated_well():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.9, 1, 12), rng.normal(0, 1, 12)
    exact = p_value(x[:8], y[:8])  # 12,870 deals
    both = np.concatenate([x[:8], y[:8]])
    ranks = both.argsort().argsort()
    deals = np.random.default_rng(1).permuted(np.tile(np.arange(16), (20_000, 1)), axis=1)[:, :8]
    assert exact == pytest.approx((ranks[deals].sum(1) >= ranks[:8].sum()).mean(), abs=0.01)
    assert 0 < p_value(x, y) < 0.2


@pytest.mark.parametrize(
    "i2q, iddpg, n_rows, answer",
    [
        ([90, 91, 92], [29, 30, 31], 55, "yes"),
        ([29, 30, 31], [90, 91, 92], 55, "no"),
        ([90, 28, 92], [29, 30, 31], 55, "not enough data"),  # not clear
        ([90, 91], [29, 30, 31, 32, 33, 34], 55, "not enough data"),  # two seeds
        ([90, 91, 92], [29, 30, 31], 16, "not enough data"),  # 160,000 of 550,000 steps
    ],
)
def test_the_answer_follows_the_rule(tmp_path, i2q, iddpg, n_rows, answer):
    write_game(tmp_path, i2q, iddpg, n_rows)
    assert verdict(tmp_path, ABOVE)[0] == answer


@pytest.mark.parametrize("i2q, answer", [([90] * 4, "yes"), ([29] * 4, "no"), ([90, 29, 90, 29], "not enough data")])
def test_a_claim_against_a_number_asks_for_the_interval(tmp_path, i2q, answer):
    write_game(tmp_path, i2q, [])
    assert verdict(tmp_path, Claim("I2Q leaves the trap", "I2Q", 35.0))[0] == answer
    other = {"yes": "no", "no": "yes", "not enough data": "not enough data"}[answer]
    assert verdict(tmp_path, Claim("I2Q stays in the trap", 35.0, "I2Q"))[0] == other


def test_a_claim_without_runs_says_what_was_not_run(tmp_path):
    write_game(tmp_path, [90] * 4, [])
    assert verdict(tmp_path, ABOVE) == ("not enough data", "not run yet: IDDPG")


def test_every_claim_is_about_lines_and_tasks_of_its_figure():
    for figure in FIGURES.values():
        for claim in figure.claims:
            assert {claim.better, claim.worse} - {7.0, 35.0} <= set(figure.lines)
            assert set(claim.tasks) <= set(figure.tasks)
