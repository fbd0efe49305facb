"""Verdicts on the paper's claims."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.runs import GAME, write_experiment, write_game

from paper.claims import Answer, judge
from paper.figures import FIGURES, Claim
from paper.panels import Runs, panels

ABOVE = Claim("I2Q learns more", "I2Q", "IDDPG")


def answer(root: Path, claim: Claim, number: str = "6", more: Sequence[Claim] = ()) -> Answer:
    figure = replace(FIGURES[number], claims=(claim, *more))
    return judge({figure: panels(figure, Runs([root]))})[0]


@pytest.mark.parametrize(
    "i2q, iddpg, n_rows, verdict",
    [
        ([90, 91, 92, 93], [28, 29, 30, 31], 55, "reproduced"),
        ([28, 29, 30, 31], [90, 91, 92, 93], 55, "not reproduced"),
        ([90, 91, 92], [29, 30, 31], 55, "undecided"),  # two-sided p = 0.1
        ([90, 27, 92, 26], [28, 29, 30, 31], 55, "undecided"),  # not clear
        ([90, 91, 92, 93], [28, 29, 30, 31], 5, "undecided"),  # 50,000 of 550,000 steps
    ],
)
def test_the_verdict_follows_the_rule(tmp_path, i2q, iddpg, n_rows, verdict):
    write_game(tmp_path, i2q, iddpg, n_rows)
    assert answer(tmp_path, ABOVE).verdict == verdict


def test_a_claim_must_stand_beside_all_others(tmp_path):
    """p = 2/70 is enough for one claim; for two it must be 0.025."""
    write_game(tmp_path, [90, 91, 92, 93], [28, 29, 30, 31])
    other = Claim("I2Q learns more than D3G", "I2Q", "D3G")
    found = answer(tmp_path, ABOVE, more=[other])
    assert (found.verdict, answer(tmp_path, ABOVE).verdict) == ("undecided", "reproduced")
    assert "p = 0.029, 0.057 after Holm's correction" in found.evidence


def test_the_numbers_of_a_clear_case_come_with_an_interval_that_is_no_certainty(tmp_path):
    write_game(tmp_path, [90, 91, 92], [29, 30, 31])
    found = answer(tmp_path, ABOVE)
    assert found.evidence.startswith("P(I2Q > IDDPG) = 1 [0.50, 1], 3 seeds each; p = 0.10,")
    (text,) = found.tasks.values()
    assert "= 1 [0.50, 1], ahead in 9 of 9 pairs (3 against 3 seeds), p = 0.10 (the smallest possible)" in text
    assert "at step 550,000, 100 % of the paper's" in text


def test_a_claim_that_cannot_be_tested_yet_shows_no_p(tmp_path):
    """Runs below a tenth of the paper's steps: a p of 1 would say that a test was made."""
    write_game(tmp_path, [90, 91, 92, 93], [28, 29, 30, 31], n_rows=5)
    found = answer(tmp_path, ABOVE)
    assert found.evidence == "P(I2Q > IDDPG) = 1 [0.58, 1], 4 seeds each"
    assert found.needs.startswith("below 10 % of the paper's steps on DifferentialGame-3; needs ")


def test_learners_are_compared_at_equal_steps(tmp_path):
    """I2Q is behind where IDDPG ends, and far ahead later."""
    for seed in range(4):
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}", seed, [seed] * 20 + [90] * 35)
        write_experiment(tmp_path, f"iddpg_{GAME}", seed, [20 + seed] * 20)
    found = answer(tmp_path, ABOVE)
    assert found.verdict == "not reproduced"
    assert "at step 200,000, 36 % of the paper's" in found.tasks[GAME]


@pytest.mark.parametrize(
    "i2q, verdict",
    [([90] * 6, "reproduced"), ([29] * 6, "not reproduced"), ([90, 29] * 3, "undecided"), ([90] * 4, "undecided")],
)
def test_a_claim_against_a_number_asks_for_the_signs(tmp_path, i2q, verdict):
    write_game(tmp_path, i2q, [])
    assert answer(tmp_path, Claim("I2Q escapes", "I2Q", 35.0)).verdict == verdict
    other = {"reproduced": "not reproduced", "not reproduced": "reproduced", "undecided": "undecided"}[verdict]
    assert answer(tmp_path, Claim("I2Q stays", 35.0, "I2Q")).verdict == other


def test_an_undecided_claim_says_how_many_seeds_more_it_needs(tmp_path):
    write_game(tmp_path, [90, 27, 92, 93], [28, 29, 30, 31])
    assert answer(tmp_path, ABOVE).needs == "needs about 17 more seeds of each learner"  # P 0.75: 21, less 4
    other = Claim("I2Q learns more than D3G", "I2Q", "D3G")  # undecided as well: at a level of 0.025
    assert answer(tmp_path, ABOVE, more=[other]).seeds == "about 22"
    write_game(tmp_path / "b", [90, 27, 92, 26], [28, 29, 30, 31])
    assert answer(tmp_path / "b", ABOVE).needs == "needs over 50 more seeds of each learner"
    assert answer(tmp_path / "none", ABOVE).needs == "not run; needs at least 4 seeds of each learner"


def test_one_seed_does_not_tell_how_many_are_needed(tmp_path):
    write_game(tmp_path, [90], [28])
    assert answer(tmp_path, ABOVE).needs == "needs at least 3 more seeds of each learner"  # 2 / 70, with four of each
    escapes = answer(tmp_path, Claim("I2Q escapes", "I2Q", 35.0))
    assert escapes.needs == "needs at least 5 more seeds"  # 2 / 2^6


def test_a_claim_is_judged_when_all_of_its_tasks_were_run(tmp_path):
    figure = FIGURES["11"]
    for task in figure.tasks[:2]:
        for name, base in (("i2q_ddpg", 50), ("mbpo_baseline", 10)):
            for seed in range(5):
                write_experiment(tmp_path, f"{name}_{task}", seed, [base + seed] * 20, env=task)
    found = answer(tmp_path, figure.claims[0], "11")
    assert found.verdict == "undecided"
    assert found.needs.startswith("not run on 2x4Ant, 3x1Hopper; needs about ")
    assert found.needs.endswith("more seeds of each learner on each task")
    assert "p = " not in found.evidence
    assert found.tasks["2x4Ant"] == "not run: I2Q, λ = 0"


def test_seeds_still_needed_are_those_of_the_task_that_has_the_fewest(tmp_path):
    figure = replace(FIGURES["11"], tasks=FIGURES["11"].tasks[:2])
    for task, seeds, ahead in ((figure.tasks[0], 7, 10), (figure.tasks[1], 3, 0)):  # P = 1 and 0.5
        for name, more in (("i2q_ddpg", ahead), ("mbpo_baseline", 0)):
            for seed in range(seeds):
                write_experiment(tmp_path, f"{name}_{task}", seed, [50 + more] * 4, env=task)  # too short to test
    (found,) = judge({figure: panels(figure, Runs([tmp_path]))})
    assert found.seeds == "about 8"  # P 0.75, two tasks: 11, less 3


def test_claims_of_another_paper_are_counted_apart(tmp_path):
    write_game(tmp_path, [90, 91, 92, 93], [28, 29, 30, 31])
    game, page = replace(FIGURES["6"], claims=(ABOVE,)), FIGURES["qplex"]
    found = judge({figure: panels(figure, Runs([tmp_path])) for figure in (page, game)})
    assert [a.figure.number for a in found] == ["qplex"] * 7 + ["6"]
    assert found[-1].verdict == "reproduced"


def test_every_claim_is_about_lines_and_tasks_of_its_figure():
    for figure in FIGURES.values():
        for claim in figure.claims:
            assert {claim.better, claim.worse} - {7.0, 35.0} <= set(figure.lines)
            assert set(claim.tasks) <= set(figure.tasks)
