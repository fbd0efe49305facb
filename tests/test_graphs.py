"""What a GPU does otherwise, its logic on a CPU: a recorded update, and a replay that is sent to late."""

import numpy as np
import pytest
import torch
from test_replay import filled
from toys import Toy, make_agents, make_batch, parameters, same_bits

import i2q_ddpg
import i2q_expectile
import iddpg
import mbpo_baseline
from common.graphs import Graphed, graphed

ALGORITHMS = [i2q_ddpg, iddpg, mbpo_baseline, i2q_expectile]


def record_by_hand(step):
    """As a graph: the result keeps its place, and is there only once it has been replayed."""
    for _ in range(3):
        step()
    out = {name: torch.full_like(value, torch.nan) for name, value in step().items()}

    def replay():
        for name, value in step().items():
            out[name].copy_(value)

    return replay, out


@pytest.mark.parametrize("module", ALGORITHMS, ids=lambda module: module.__name__)
def test_a_recorded_update_trains_as_the_update_does_from_its_first_batch_on(module):
    env = Toy([1, 2])
    plain, cfg = make_agents(module, env)
    recorded, _ = make_agents(module, env)
    improve = Graphed(module.update, record_by_hand)
    for turn in range(4):
        batch = make_batch(env, seed=turn)
        expected, actual = module.update(plain, batch, cfg), improve(recorded, batch, cfg)
        assert all(torch.equal(expected[name], actual[name]) for name in expected)
        for row in range(2):
            assert all(same_bits(parameters(plain, row), parameters(recorded, row)).values())
            before, after = plain.state_dict(row), recorded.state_dict(row)
            assert torch.equal(before["q_adam"]["exp_avg_sq"], after["q_adam"]["exp_avg_sq"])
            assert before["q_adam"]["steps"] == after["q_adam"]["steps"] == turn + 1


def test_on_a_cpu_nothing_is_recorded():
    assert graphed(iddpg.update, "cpu") is iddpg.update


@pytest.mark.parametrize("steps", [7, 50, 51, 120])
def test_a_replay_that_is_sent_to_late_holds_and_draws_the_same(steps):
    at_once, late = filled(0), filled(0)
    late.sends_late = True
    rng = np.random.default_rng(0)
    for t in range(steps):
        obs = rng.normal(size=(2, 3, 2)).astype(np.float32)
        for replay in (at_once, late):
            replay.store(obs, obs[..., :1], -obs, obs[:, 0, 0], np.zeros(2, bool))
        if t % 30 == 29 or t == steps - 1:
            for (a,), (b,) in [(at_once.sample(9, 1), late.sample(9, 1))]:
                assert all(map(torch.equal, a, b))
    start = max(0, steps - 50)
    assert np.array_equal(at_once.read(1, start, steps), late.read(1, start, steps))


def test_a_checkpoint_holds_the_rows_that_wait():
    replay = filled(0)
    replay.sends_late = True
    obs = np.ones((2, 3, 2), np.float32)
    replay.store(obs, obs[..., :1], obs, np.ones(2), np.zeros(2, bool))
    assert (replay.read(0, 0, 1) == [1, 1, 1, 1, 1, 1, 0]).all()
