"""examples/meet.py: a task of one's own that PettingZoo accepts and that learners learn on."""

from pathlib import Path

import numpy as np
import pytest
from helpers.checks import command, rows_of
from pettingzoo.test import parallel_api_test

import envs
import iddpg
import watch
from common.policy import load_policy
from examples.meet import LIMIT, SIDE, STEP, Meet, make_env

NAME = "examples.meet:make_env"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2,000 steps."""
    data = tmp_path_factory.mktemp("data")
    flags = {"env": NAME, "max_ep_len": LIMIT, "test_ep_len": LIMIT, "num_test_episodes": 20, "hid": 32}
    flags |= {"epochs": 4, "steps_per_epoch": 500, "start_steps": 500, "update_after": 200, "updates": 10}
    flags |= {"batch_size": 50, "replay_size": 2000, "gamma": 0.95, "data_dir": data, "exp_name": "x"}
    assert command(iddpg, **flags) == 0
    return data / "x" / "x_s0"


def test_pettingzoo_accepts_it():
    parallel_api_test(make_env(), num_cycles=200)


def test_agents_see_themselves_and_the_way_to_the_other():
    env = Meet()
    seen, _ = env.reset(seed=1)
    for i, agent in enumerate(env.possible_agents):
        np.testing.assert_allclose(seen[agent], [*env.x[i], *(env.x[1 - i] - env.x[i])], rtol=1e-6)
        assert env.observation_space(agent).contains(seen[agent])


def test_meeting_is_terminal_and_the_limit_is_a_truncation():
    env = Meet()
    env.reset(seed=0)
    env.x = np.array([[0.0, 0.0], [0.25, 0.0]])
    towards = {"red": np.array([1, 0]), "blue": np.array([-1, 0])}
    _, rew, terminated, truncated, _ = env.step(towards)
    assert rew["red"] == rew["blue"] == pytest.approx(-(0.25 - 2 * STEP))
    assert (terminated["red"], truncated["red"], env.agents) == (True, False, [])
    env.reset(seed=0)
    env.x = np.array([[-1.0, 0.0], [1.0, 0.0]])
    ends = [env.step({agent: np.zeros(2) for agent in env.possible_agents})[2:4] for _ in range(LIMIT)]
    assert [cut["blue"] for _, cut in ends] == [False] * (LIMIT - 1) + [True]
    assert not any(end["blue"] for end, _ in ends)
    env.reset(seed=0)
    env.x, env.t = np.array([[0.0, 0.0], [0.25, 0.0]]), LIMIT - 1
    _, _, terminated, truncated, _ = env.step(towards)  # at the last moment
    assert (terminated["red"], truncated["red"], env.agents) == (True, False, [])


def test_a_picture_shows_both_points_where_they_are():
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    env.x = np.array([[-1.0, 1.0], [1.0, 1.0]])  # in the upper corners
    picture = env.render()
    assert picture is not None and picture.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero((picture != 255).any(-1))
    assert rows.max() < SIDE / 8
    assert sorted({*(columns > SIDE / 2)}) == [False, True]


def test_independent_ddpg_learns_to_meet(run):
    first, *_, last = [row["AverageTestEpRet"] for row in rows_of(run)]
    assert first < -20 and last > -10  # half of a side's length apart for 50 steps, and a straight way together


def test_the_trained_policy_brings_both_together_and_can_be_watched(run, capsys):
    env, policy = envs.make(NAME, range(20), max_ep_len=LIMIT), load_policy(run)
    obs, met = env.reset(), np.zeros(20, bool)
    for _ in range(LIMIT):
        obs, _, terminated, _ = env.step(policy(obs), ~met)
        met |= terminated
    assert met.mean() >= 0.6  # of those who stand still, 0.01
    assert watch.main([str(run)]) == 0
    assert "episode 1: return -" in capsys.readouterr().out
