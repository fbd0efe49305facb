"""A run's two environments: what its flags become in each."""

from types import SimpleNamespace

import numpy as np
import pytest

import envs
from envs.errors import UsageError


def test_tests_have_a_row_for_each_episode_and_their_own_length_and_the_flags_of_training():
    flags = {"env": "2x4Ant", "obs": "full", "legacy_actuators": True, "max_ep_len": 7, "test_ep_len": 9}
    env, test_env = envs.training_and_test(SimpleNamespace(**flags, num_test_episodes=2), [3, 4])
    assert (env.seeds, test_env.seeds) == ((3, 4), (3, 3, 4, 4))
    assert (env.max_ep_len, test_env.max_ep_len) == (7, 9)
    for made in (env, test_env):
        assert made.n_obs == 27
        assert "hip_4, 150 N m at 1" in made.table().split("\n1  ")[0]  # agent 0 drives it in the released order


def test_an_action_that_is_not_a_number_is_not_hidden():
    env = envs.make("DifferentialGame-2", [0])
    env.reset()
    next_obs, *_ = env.step(np.array([[[np.nan], [1]]], np.float32))
    assert np.isnan(next_obs[0, :, 0]).all() and not np.isnan(next_obs[0, :, 1]).any()


@pytest.mark.parametrize("name", ["DifferentialGame-2", "envs.pettingzoo:AsParallelEnv"])
def test_an_episode_that_no_memory_holds_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match=r"^an episode of 10{14}\d steps \(--max_ep_len, --test_ep_len\): [^\n]*$"):
        envs.make(name, [0], max_ep_len=10**15)
