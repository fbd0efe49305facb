"""The MBPO baseline: I2Q with lambda = 0 bit for bit, so its targets are tested where I2Q's are."""

import numpy as np
import pytest
import torch
from helpers import checks
from helpers.toys import Toy, make_agents, make_batch

import i2q_ddpg
import mbpo_baseline

ENV = Toy(seeds=[3, 4])  # three agents of unequal width
LOSSES = {"LossPi", "LossQ", "LossQss", "LossF"}


def bits(agents) -> dict[str, bytes]:
    return {name: part.detach().numpy().tobytes() for name, part in agents.tensors().items()}


@pytest.mark.parametrize("forward", ["bounded", "residual"])
@pytest.mark.parametrize("rule", ["1", "2", "released"])
def test_it_is_i2q_with_lambda_0_bit_for_bit(rule, forward):
    flags = {"rule": rule, "forward": forward, "hid": 64, "batch_size": 100, "polyak": 0.9}
    ours, cfg = make_agents(mbpo_baseline, ENV, **flags)
    theirs, their_cfg = make_agents(i2q_ddpg, ENV, lam=0.0, **flags)
    assert bits(ours) == bits(theirs)
    start = bits(ours)
    for turn in range(5):
        batch = make_batch(ENV, 100, turn)
        mine, other = mbpo_baseline.update(ours, batch, cfg), i2q_ddpg.update(theirs, batch, their_cfg)
        assert {name: value.tolist() for name, value in mine.items()} == {k: v.tolist() for k, v in other.items()}
    assert bits(ours) == bits(theirs)
    assert not any(bits(ours)[name] == start[name] for name in start)


def test_it_is_not_i2q_with_another_lambda():
    ours, cfg = make_agents(mbpo_baseline, ENV)
    theirs, their_cfg = make_agents(i2q_ddpg, ENV, lam=0.01)
    mbpo_baseline.update(ours, make_batch(ENV), cfg)
    i2q_ddpg.update(theirs, make_batch(ENV), their_cfg)
    assert not torch.equal(ours.f_net.flat, theirs.f_net.flat)


def test_the_models_loss_is_the_mean_square_error_over_real_dims():
    agents, _ = make_agents(mbpo_baseline, ENV, torch.float64, forward="residual")
    batch = make_batch(ENV, dtype=torch.float64)
    obs, act, next_obs = (part.numpy() for part in batch[:3])
    error = obs + checks.run_net(checks.layers_of(agents.f_net), obs, act) - next_obs
    expected = np.zeros(batch.rew.shape)
    for i in range(3):
        expected[:, i] = (error[:, i][..., ENV.obs_mask[i]] ** 2).mean(-1)
    np.testing.assert_allclose(mbpo_baseline.f_loss(agents, batch).detach(), expected, rtol=1e-10)


@pytest.mark.parametrize("env", ["differential", "mujoco"])
def test_its_settings_are_those_of_i2q_without_lambda(env):
    settings = dict(i2q_ddpg.SETTINGS[env])
    del settings["lam"]
    assert mbpo_baseline.SETTINGS[env] == settings


@pytest.mark.parametrize("obs", ["own", "farama", "full"])
@pytest.mark.parametrize("env", ["DifferentialGame-3", "2x3HalfCheetah"])
def test_its_defaults_are_those_of_i2q_without_lambda(env, obs):
    assert mbpo_baseline.defaults(env, obs) == {k: v for k, v in i2q_ddpg.defaults(env, obs).items() if k != "lam"}


@pytest.mark.parametrize("env", ["DifferentialGame-2", "2x3HalfCheetah"])
def test_it_trains(env, data_dir):
    checks.assert_trains(mbpo_baseline, data_dir, LOSSES, env=env)


def test_a_run_stopped_and_resumed_equals_one_never_stopped(data_dir):
    checks.assert_resumes_exactly(mbpo_baseline, data_dir)


@pytest.mark.parametrize("rule", ["1", "2", "released"])
def test_agent_i_never_learns_from_agent_j(rule):
    checks.assert_decentralised(mbpo_baseline, rule=rule)
