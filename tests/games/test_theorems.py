"""The paper's theorems on random games, by the code that draws their picture."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

from games import theorems
from games.theorems import (
    GAMMA,
    JACKPOT,
    A,
    Config,
    Games,
    chance_errors,
    i2q,
    ideal_transition,
    line_game,
    optimum,
    perturbation,
    q_along,
    random_games,
    transitions,
    value_iteration,
)

CFG = Config(games=5, states=4, steps=6000)


def test_value_iteration_solves_a_game_by_hand():
    # from 0 the joint action (0, 0) goes to 1 and pays 1, all others stay and pay .2; 1 stays and pays .5; 2 is the end
    successor = np.zeros((1, 3, A, A), int)
    successor[0, 0, 0, 0], successor[0, 1], successor[0, 2] = 1, 1, 2
    rew = np.array([[[0.2, 1, 0], [0, 0.5, 0], [0, 0, 0]]])
    q = value_iteration(transitions(Games(successor, rew), 1.0), rew)
    assert q[0, 1] == pytest.approx(np.full((A, A), 5.0))
    assert q[0, 0, 0, 0] == pytest.approx(1 + 0.9 * 5)
    assert q[0, 0, 1, 2] == pytest.approx(0.2 + 0.9 * 5.5)


def test_theorem_2_i2q_converges_to_the_teams_optimum_in_deterministic_games():
    games = random_games(5, 4, np.random.default_rng(0))
    prob = transitions(games, 1.0)
    q = i2q(prob, games.rew, 6000, 0.5, np.random.default_rng(1))
    assert q == pytest.approx(optimum(value_iteration(prob, games.rew)), abs=1e-3)


def test_agents_that_see_rewards_alone_would_not_reach_that_optimum():
    # Q-learning on the sampled successor ends below it: what Theorem 2 says is not true of just any learner
    games = random_games(5, 4, np.random.default_rng(0))
    prob, rng = transitions(games, 1.0), np.random.default_rng(1)
    best = optimum(value_iteration(prob, games.rew))[:, 0]
    q, game = np.zeros((5, 5, A)), np.arange(5)
    for _ in range(6000):
        s, a, b = rng.integers(5, size=5), *rng.integers(A, size=(2, 5))
        t = games.next[game, s, a, b]
        q[game, s, a] += 0.05 * (games.rew[game, s, t] + GAMMA * q[game, t].max(-1) - q[game, s, a])
    assert np.abs(q - best)[:, :-1].max() > 0.5


def test_both_agents_of_i2q_agree_on_the_value_of_a_state():
    games = random_games(5, 4, np.random.default_rng(2))
    q = i2q(transitions(games, 1.0), games.rew, 6000, 0.5, np.random.default_rng(3))
    assert q[:, 0].max(-1) == pytest.approx(q[:, 1].max(-1), abs=1e-3)


@pytest.mark.parametrize("luck", [False, True])
def test_in_stochastic_games_the_value_error_shrinks_as_the_probability_of_the_ideal_successor_grows(luck):
    games = random_games(5, 4, np.random.default_rng(4))
    ideal = np.array([0.1, 0.5, 0.9])  # how probable s'* is: a move's success, or the stroke of luck instead of it
    error, bound, reach = chance_errors(games, luck, 1 - ideal if luck else ideal, CFG)
    assert reach == pytest.approx(np.tile(ideal[:, None], 5))
    assert (np.diff(error, axis=0) < 0).all()
    assert (error <= bound + 1e-3).all()
    assert error[0].min() > 1  # there is something to shrink


def test_error_and_bound_of_a_game_of_one_state_by_hand():
    game = Games(np.array([[[[0] * A] * A, [[1] * A] * A]]), np.array([[[1.0, 0], [0, 0]]]))  # staying pays 1
    cfg, half = Config(steps=2000), np.array([0.5])
    # counting on staying is worth 10, and the end 0; V = .5 (1 + .9 V)
    accident = chance_errors(game, False, half, cfg)
    assert [x.item() for x in accident] == pytest.approx([10 - 0.5 / 0.55, 0.5 * 10 / 0.1, 0.5])
    # counting on the jackpot is worth 20, and staying 1 + .9 20; V = .5 (1 + .9 V) + .5 20
    luck = chance_errors(game, True, half, cfg)
    assert [x.item() for x in luck] == pytest.approx([20 - 10.5 / 0.55, 0.5 * 1 / 0.1, 0.5])


def test_one_rare_stroke_of_luck_is_worth_as_much_to_i2q_as_a_sure_one():
    games = random_games(2, 3, np.random.default_rng(5))
    rew = games.rew.copy()
    rew[:, :-1, -1] = JACKPOT
    q = i2q(transitions(games, 0.95), rew, 8000, 0.5, np.random.default_rng(6))
    assert q[:, :, :-1] == pytest.approx(np.full((2, 2, 3, A), JACKPOT), abs=1e-2)


def test_the_ideal_transition_function_leads_along_the_teams_optimum():
    x, successor, rew = line_game(np.random.default_rng(0), 41)
    f = ideal_transition(successor, rew)
    best = value_iteration(np.eye(len(x))[successor][None], rew[None])[0]
    assert q_along(f, rew) == pytest.approx(best.max(-1), abs=1e-8)


@pytest.mark.parametrize("cells", [1, 3, 8])
def test_theorem_4_a_wrong_transition_function_costs_no_more_than_its_bound(cells):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        delta, error, bound = perturbation(*line_game(rng, 41), cells, rng)
        assert 0 < delta <= cells / 40 + 1e-12
        assert 0 < error <= bound


def test_the_bound_of_theorem_4_has_the_largest_slopes_of_q_and_of_the_reward():
    x, successor, rew = line_game(np.random.default_rng(1), 21)
    q = q_along(ideal_transition(successor, rew), rew)
    pairs = [(i, j) for i in range(21) for j in range(i)]
    slope_q = max(abs(q[i] - q[j]).max() / (x[i] - x[j]) for i, j in pairs)  # over the state
    slope_r = max(abs(rew[:, i] - rew[:, j]).max() / (x[i] - x[j]) for i, j in pairs)  # over the successor
    delta, _, bound = perturbation(x, successor, rew, 2, np.random.default_rng(0))
    assert bound == pytest.approx((slope_r + 0.9 * slope_q) / 0.1 * delta)


def test_the_right_transition_function_costs_nothing():
    rng = np.random.default_rng(0)
    assert perturbation(*line_game(rng, 41), 0, rng) == (0, 0, 0)


def test_the_command_writes_its_picture(tmp_path):
    line = [sys.executable, "-m", "games.theorems", "--games", "2", "--states", "3", "--steps", "300"]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "t.png")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    assert "Theorem 4" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    (median, worst), *_, (_, last) = [(float(x[2]), float(x[3])) for x in lines if x[1:2] == ["transitions"]]
    assert worst >= median > last > 0.1  # from 100 transitions to 300
    for name in ("accident", "luck"):
        assert [x[2] for x in lines if x[0] == name] == ["0.10", "0.30", "0.50", "0.70", "0.90", "0.95", "0.99"], name


def test_a_picture_that_cannot_be_written_ends_in_one_line_and_status_1(tmp_path, capsys):
    (tmp_path / "t.png").mkdir()
    assert theorems.main(["--games", "2", "--states", "3", "--steps", "50", "--out", f"{tmp_path}/t.png"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("theorems: ") and err.count("\n") == 1
    assert "      50 transitions" in out and "100 transitions" not in out  # no more than was asked for


def test_ctrl_c_shows_no_traceback(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(theorems, "theorem_3", stop)
    assert theorems.main(["--games", "2", "--states", "3", "--steps", "50", "--out", f"{tmp_path}/t.png"]) == 130
    assert not list(tmp_path.iterdir())
