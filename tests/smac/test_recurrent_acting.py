"""How recurrent agents act: among what is legal, by themselves, with a memory of the episode under way."""

import itertools

import numpy as np
import pytest
import torch
from helpers.recurrent import IDS, LEARNERS, make_agents

from common.seeding import Streams
from smac import d3g_discrete, envs
from smac.common.play import UNAVAILABLE, Memory, epsilon
from smac.iql import explore

all_learners = pytest.mark.parametrize("module, flags", LEARNERS, ids=IDS)


def game(seeds: tuple[int, ...] = (3, 4), copies: int = 1) -> envs.MaskedEnv:
    return envs.make("FocusFire-3", seeds, copies, 20)


@pytest.mark.parametrize("n_envs", [1, 4])
def test_only_actions_that_are_available_are_taken(n_envs):
    env = game((0, 1), n_envs)
    env.reset()
    noise, seen = Streams(env.seeds, "exploration"), np.zeros(env.avail.shape, int)
    q = np.where(env.avail, np.arange(env.n_act, dtype=np.float32), UNAVAILABLE)
    for _ in range(300):
        act = explore(q, env.avail, 1.0, noise)
        np.add.at(seen, (*np.indices(act.shape), act), 1)
    assert not seen[~env.avail].any()
    assert np.abs(seen[env.avail] / 300 - 1 / 5).max() < 0.12  # hold or one of four enemies, uniformly
    assert (explore(q, env.avail, 0.0, noise) == env.n_act - 1).all()


def test_agents_and_seeds_explore_each_by_itself():
    env = game((0, 1))
    env.reset()
    noise = Streams(env.seeds, "exploration")
    q = np.where(env.avail, np.arange(env.n_act, dtype=np.float32), UNAVAILABLE)
    act = np.stack([explore(q, env.avail, 0.5, noise)[..., 0].ravel() for _ in range(400)])  # (400, S * N)
    strays = act != env.n_act - 1  # 0.4 of the time: four of five uniform actions
    for i, j in itertools.combinations(range(act.shape[1]), 2):
        both = strays[:, i] & strays[:, j]
        assert abs(both.mean() - 0.16) < 0.07
        assert abs((act[both, i] == act[both, j]).mean() - 0.25) < 0.2


@all_learners
@pytest.mark.parametrize("cut_off", [False, True])
def test_a_memory_forgets_at_an_episodes_end_and_there_alone(module, flags, cut_off):
    """Also at that of an episode that was cut off between two steps."""
    env = game((0,), copies=2)
    env.reset()
    agents, cfg = make_agents(module, game((0,)), **flags)
    memory, ended = Memory(env, cfg.rnn_hid, "cpu"), np.array([[True, False]])
    first = memory.values([agents], env)
    memory.acted(first.argmax(-1), None if cut_off else ended)
    if cut_off:
        memory.cut(0, ended[0])
    again = memory.values([agents], env)
    assert np.array_equal(again[0, :, 0], first[0, :, 0])
    assert not np.array_equal(again[0, :, 1], first[0, :, 1])


def test_epsilon_falls_in_a_line_and_stays():
    assert [epsilon(step, 100, 0.05) for step in (0, 50, 100, 1000)] == pytest.approx([1, 0.525, 0.05, 0.05])


def test_d3g_acts_by_its_inverse_model_on_the_target_networks_memory():
    agents, _ = make_agents(d3g_discrete, game((3,)))
    x, h = torch.rand(1, 3, 2, agents.n_obs + agents.n_act), torch.rand(1, 3, 2, 8)
    logits, after = agents.values(x, h)
    expected, _ = agents.q_targ.step(x, h)
    assert torch.equal(after, expected)
    assert torch.equal(logits, agents.inverse_net(torch.cat([after, after + agents.tau(after)], -1)))
