"""The differential games: the formula, the anchors, the clock, what a row is independent of, what a state restores."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import envs
from envs.differential import reward
from envs.errors import UsageError

make: Any = envs.make  # Any, as tests look inside
# mean return of a 100-step episode: uniform actions, kept on the ring l = .8, driven to the centre
ANCHORS = {2: (7.8, 29.6, 93.7), 3: (10.5, 29.7, 93.7), 4: (12.2, 29.7, 94.2), 5: (13.4, 29.8, 94.8)}


def full_return(env, policy):
    """Mean over rows of the return of one episode under policy(obs (S, N, O)) -> act (S, N, 1)."""
    env.reset()
    total, truncated = np.zeros(len(env.seeds)), np.zeros(len(env.seeds), bool)
    while not truncated.any():
        _, rew, _, truncated = env.step(policy(env.obs).astype(np.float32))
        total += rew
    return total.mean()


def length(x):
    return np.sqrt(2 / x.shape[-1] * np.square(x).sum(-1, keepdims=True))


def drive_to(radius):
    """The policy of a team that moves straight to this l, as fast as it can, and stays."""

    def act(obs):
        x = obs[:, 0].astype(np.float64)
        return (10 * (x * radius / np.maximum(length(x), 1e-9) - x))[..., None]

    return act


@pytest.mark.parametrize(("n", "x", "expected"), [
    (3, [0, 0, 0], 1.0),
    (1, [0.05 / np.sqrt(2)], 0.5),  # half-way down the hill of radius .10
    (3, [0.3, 0.3, 0.3], 0.0),  # l = .424, between hill and ring
    (2, [0.8, 0], 0.3),  # on the top of the ring
    (2, [0.6, 0], 0.15 * (np.cos(3) + 1)),  # the ring starts with .6 itself
    (2, [1, 0], 0.0),  # and ends before 1
    (2, [1, 1], 0.0),  # l = 1.41
])  # fmt: skip
def test_reward_is_the_formula(n, x, expected):
    assert reward(np.array(x, float)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "radius"), [(1, 0.10), (2, 0.12), (3, 0.25), (4, 0.38), (5, 0.51)])
def test_the_hill_ends_at_the_radius_of_its_number_of_agents(n, radius):
    direction = np.ones(n) / length(np.ones(n))
    assert reward(direction * radius * 0.99) > 0
    assert reward(direction * radius * 1.01) == 0


def test_an_episode_starts_anywhere_in_the_box():
    env = make("DifferentialGame-2", range(1000))
    env.reset()
    assert (env.x.min(0) < -0.98).all() and (env.x.max(0) > 0.98).all()
    assert env.x.mean(0) == pytest.approx([0, 0], abs=0.06)
    assert np.corrcoef(env.x.T)[0, 1] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("n", ANCHORS)
def test_returns_of_uniform_trapped_and_solved_teams_are_the_known_ones(n):
    env = make(f"DifferentialGame-{n}", range(1000), max_ep_len=100)
    rng = np.random.default_rng(0)
    uniform, trapped, solved = ANCHORS[n]
    assert full_return(env, lambda obs: rng.uniform(-1, 1, (1000, n, 1))) == pytest.approx(uniform, abs=1.0)
    assert full_return(env, drive_to(0.8)) == pytest.approx(trapped, abs=1.0)
    assert full_return(env, drive_to(0.0)) == pytest.approx(solved, abs=1.0)


def test_a_step_pays_for_the_state_before_the_move():
    env = make("DifferentialGame-2", [0])
    env.reset()
    env.x[:] = [[0.1, 0.0]]
    next_obs, rew, _, _ = env.step(np.array([[[-1.0], [0.0]]], np.float32))
    assert rew[0] == pytest.approx(0.5 * (np.cos(np.pi * 0.1 / 0.12) + 1))
    assert np.allclose(next_obs, 0)


def test_the_point_stays_in_the_box_and_actions_are_clipped():
    env = make("DifferentialGame-1", [0])
    env.reset()
    env.x[:] = 0.85
    assert env.step(np.full((1, 1, 1), 5, np.float32))[0] == np.float32(0.95)
    assert env.step(np.full((1, 1, 1), 5, np.float32))[0] == 1


def test_a_move_is_computed_in_float64():
    env = make("DifferentialGame-1", [0])
    env.reset()
    env.x[:] = 0
    env.step(np.full((1, 1, 1), 0.7, np.float32))
    assert env.x.item() == 0.1 * float(np.float32(0.7))


@pytest.mark.parametrize("shape", [(1, 3, 1), (2, 1, 1), (2, 3), (3, 1), (2, 3, 2), ()])
def test_actions_of_another_shape_are_refused_in_one_line_that_names_both(shape):
    env = make("DifferentialGame-3", [0, 1])
    env.reset()
    with pytest.raises(UsageError) as error:
        env.step(np.zeros(shape, np.float32))
    expected = f"DifferentialGame-3: actions of the shape {shape}, not (2, 3, 1): rows, agents, action numbers"
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)
    assert env.t.tolist() == [0, 0]


def test_time_limit_truncates_and_nothing_is_terminal():
    env = make("DifferentialGame-3", [0, 1], max_ep_len=4)
    env.reset()
    ends = [env.step(np.ones((2, 3, 1), np.float32))[2:] for _ in range(4)]
    assert [truncated.tolist() for _, truncated in ends] == [[False, False]] * 3 + [[True, True]]
    assert not np.any([terminated for terminated, _ in ends])


def test_nothing_restarts_by_itself_and_reset_leaves_other_rows_alone():
    env = make("DifferentialGame-3", [0, 1], max_ep_len=2)
    env.reset()
    for _ in range(2):
        next_obs, *_ = env.step(np.ones((2, 3, 1), np.float32))
    path = env.path[1].copy()
    obs = env.reset(np.array([True, False]))
    assert np.array_equal(obs[1], next_obs[1])
    assert np.array_equal(env.path[1], path)
    assert not np.array_equal(obs[0], next_obs[0])
    assert (env.t.tolist(), env.episode.tolist()) == ([0, 2], [1, 0])
    assert env.reset(np.array([False, False])) is obs


def test_a_reset_does_not_change_the_successor_that_step_returned():
    env = make("DifferentialGame-3", [0])
    env.reset()
    next_obs, *_ = env.step(np.ones((1, 3, 1), np.float32))
    kept = next_obs.copy()
    env.reset()
    assert np.array_equal(next_obs, kept)


@pytest.mark.parametrize("name", ["DifferentialGame-3", "StochasticDifferentialGame-3"])
def test_a_row_behaves_the_same_alone_as_beside_others(name):
    rng = np.random.default_rng(1)
    several, alone = make(name, [5, 6, 7], max_ep_len=5), make(name, [6], max_ep_len=5)
    several.reset()
    alone.reset()
    for _ in range(12):
        act = rng.uniform(-1, 1, (3, 3, 1)).astype(np.float32)
        a, b = several.step(act), alone.step(act[1:2])
        assert all(np.array_equal(x[1:2], y) for x, y in zip(a, b))
        several.reset(a[3])
        alone.reset(b[3])
        assert np.array_equal(several.obs[1:2], alone.obs)


@pytest.mark.parametrize("name", ["DifferentialGame-3", "StochasticDifferentialGame-3"])
def test_a_restored_row_continues_bit_for_bit(name):
    rng = np.random.default_rng(2)
    env = make(name, [3, 4], max_ep_len=7)
    env.reset()
    for _ in range(4):
        env.step(rng.uniform(-1, 1, (2, 3, 1)).astype(np.float32))
    fresh = make(name, [0], max_ep_len=7)
    fresh.load_state_dict(0, env.state_dict(1))
    assert np.array_equal(fresh.obs[0], env.obs[1])
    assert np.array_equal(env.render(1), fresh.render(0))
    for _ in range(20):
        act = rng.uniform(-1, 1, (2, 3, 1)).astype(np.float32)
        a, b = env.step(act), fresh.step(act[1:])
        assert all(np.array_equal(x[1:], y) for x, y in zip(a, b))
        env.reset(a[3])
        fresh.reset(b[3])
        assert np.array_equal(env.obs[1:], fresh.obs)
    assert env.episode[1] == fresh.episode[0] == 3


def test_a_state_of_a_game_is_a_copy():
    env = make("StochasticDifferentialGame-2", [0])
    env.reset()
    state = env.state_dict(0)
    kept = {key: np.array(value) for key, value in state.items()}
    env.reset()
    next_obs, *_ = env.step(np.ones((1, 2, 1), np.float32))
    held = next_obs.copy()
    env.load_state_dict(0, state)
    assert np.array_equal(next_obs, held)  # nor does it write into what step returned
    env.step(np.ones((1, 2, 1), np.float32))
    env.reset()
    assert all(np.array_equal(kept[key], state[key]) for key in kept)


def test_reseeding_starts_over_as_if_newly_made():
    env = make("StochasticDifferentialGame-2", [1])
    act = np.ones((1, 2, 1), np.float32)
    env.reset()
    first = [env.step(act)[0] for _ in range(10)]
    env.reset()
    env.reseed([1])
    env.reset()
    assert env.episode.tolist() == [0]
    assert all(np.array_equal(obs, env.step(act)[0]) for obs in first)


def test_a_push_slips_in_three_steps_of_ten_each_agent_by_itself():
    env = make("StochasticDifferentialGame-2", range(4000))
    env.reset()
    env.x[:] = 0
    env.step(np.ones((4000, 2, 1), np.float32))
    slipped = env.x != 0.1
    assert slipped.mean(0) == pytest.approx([0.3, 0.3], abs=0.03)
    assert (slipped[:, 0] & slipped[:, 1]).mean() == pytest.approx(0.09, abs=0.02)
    assert np.abs(env.x).max() <= 0.1
    assert np.std(env.x[slipped]) == pytest.approx(0.1 / np.sqrt(3), rel=0.05)


def test_the_stochastic_game_can_still_be_solved_and_is_harder():
    env = make("StochasticDifferentialGame-3", range(500), max_ep_len=100)
    trapped, solved = full_return(env, drive_to(0.8)), full_return(env, drive_to(0.0))
    assert trapped < 29
    assert 2 * trapped < solved < 90


def test_all_agents_see_all_of_the_state_as_float32():
    env = make("DifferentialGame-4", [0, 1])
    obs = env.reset()
    assert obs.shape == (2, 4, 4)
    assert obs.dtype == np.float32
    assert all(np.array_equal(obs[:, i], env.x.astype(np.float32)) for i in range(4))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_picture_shows_the_path(n):
    env = make(f"DifferentialGame-{n}", [0])
    env.reset()
    before = env.render(0)
    env.step(np.ones((1, n, 1), np.float32))
    assert before.shape == (480, 480, 3)
    assert before.dtype == np.uint8
    assert not np.array_equal(before, env.render(0))


def test_the_path_is_every_place_of_the_point_with_x0_to_the_right_and_x1_upwards():
    env = make("DifferentialGame-2", [0])
    seen = [env.reset()[0, 0], *(env.step(np.full((1, 2, 1), act, np.float32))[0][0, 0] for act in (1, -1, 0.5))]
    assert np.array_equal(env.path[0, :4], seen)
    env.reset()
    env.path[0, 0] = 0.7, -0.7
    down, right = np.nonzero((env.render(0) == (214, 39, 40)).all(-1))  # matplotlib's tab:red
    assert down.mean() > 300 and right.mean() > 300


def test_the_table_of_a_game_says_once_what_all_see_and_what_each_one_drives():
    lines = make("StochasticDifferentialGame-2", [0]).table().splitlines()
    begins = [["all", "0", "x0,"], ["all", "1", "x1,"], ["0", "0", "x0,"], ["1", "0", "x1,"]]
    assert [line.split()[:3] for line in lines[1:]] == begins
    assert all(line.endswith(", 0.1 length a step at most, uniform with probability 0.3") for line in lines[3:])


def test_the_schedule_is_the_released_code_s():
    schedule = envs.schedule("DifferentialGame-3")
    assert schedule["epochs"] * schedule["steps_per_epoch"] == schedule["replay_size"] == 550_000
    assert (schedule["max_ep_len"], schedule["test_ep_len"], schedule["num_test_episodes"]) == (25, 100, 200)
    assert (schedule["update_after"], schedule["update_every"], schedule["updates"]) == (50_000, 50, 10)
    assert (schedule["start_steps"], schedule["uniform_every"]) == (0, 4)
    assert make("DifferentialGame-3", [0]).max_ep_len == 25


@pytest.mark.parametrize("name", ["DifferentialGame-6", "DifferentialGame", "MyDifferentialGame-2"])
def test_an_unknown_game_is_refused_in_one_line_that_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"^--env '.*DifferentialGame-1, DifferentialGame-2.*$") as error:
        make(name, [0])
    assert "\n" not in str(error.value)


def test_an_episode_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="--max_ep_len 0"):
        make("DifferentialGame-2", [0], max_ep_len=0)


def test_a_differential_game_starts_without_importing_mujoco():
    program = """
import sys, numpy as np, envs
env = envs.make("DifferentialGame-3", [0])
env.reset(), env.step(np.zeros((1, 3, 1), np.float32)), env.table()
sys.exit(any(module in sys.modules for module in ("mujoco", "gymnasium", "pettingzoo", "torch", "matplotlib")))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
