"""The replay buffers: what goes in comes out, each agent's own, each seed by itself."""

import numpy as np
import pytest
import torch
from helpers.replays import A, N, O, S, filled

from common.replay import Replay


def counted(steps: int, size: int) -> Replay:
    """One agent and seed that sees t at step t."""
    replay = Replay([0], 1, 1, 1, size)
    for t in range(steps):
        x = np.full((1, 1, 1), t, np.float32)
        replay.store(x, x, x, np.zeros(1), np.zeros(1, bool))
    return replay


def test_a_batch_holds_whole_transitions_of_its_agent_and_seed():
    (batch,) = filled(20).sample(200, 1)
    assert batch.obs.shape == batch.next_obs.shape == (S, N, 200, O)
    assert batch.act.shape == (S, N, 200, A)
    assert batch.rew.shape == batch.terminated.shape == (S, N, 200)
    for s, seed in enumerate((3, 4)):
        for i in range(N):
            obs = batch.obs[s, i, :, 0]
            t = (obs - seed * 1000 - i / 10).round()
            torch.testing.assert_close(obs, t + seed * 1000 + i / 10, rtol=0, atol=1e-3)
            assert torch.equal(batch.act[s, i, :, 0], obs / 2)
            assert torch.equal(batch.next_obs[s, i, :, 1], batch.obs[s, i, :, 1] + 1)
            torch.testing.assert_close(batch.rew[s, i], -t - seed / 1000)
            assert torch.equal(batch.terminated[s, i], (t % 5 == 4).float())


def test_it_draws_from_all_that_is_stored_and_nothing_else():
    (batch,) = counted(4, size=10).sample(1000, 1)
    values, counts = np.unique(batch.obs, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3]  # the six empty places would add to 0
    assert counts.max() < 300 and counts.min() > 200  # 250 +- 14 each


def test_the_oldest_are_overwritten_when_it_is_full():
    (batch,) = counted(12, size=5).sample(500, 1)
    assert np.unique(batch.obs).tolist() == [7, 8, 9, 10, 11]


def test_each_agent_draws_by_itself():
    (batch,) = filled(50).sample(100, 1)
    times = -batch.rew.round()
    assert not torch.equal(times[0, 0], times[0, 1])


def test_agents_that_share_moments_draw_the_same_each_from_its_own_and_seeds_differ():
    for batch in filled(50).sample(100, 2, shared=True):
        for i in range(1, N):
            assert torch.equal(batch.rew[:, 0], batch.rew[:, i])
            assert not torch.equal(batch.obs[:, 0], batch.obs[:, i])
        assert not torch.equal(batch.rew[0].round(), batch.rew[1].round())


def test_every_tensor_of_a_batch_is_contiguous():
    assert all(part.is_contiguous() for batch in filled(50).sample(100, 2) for part in batch)


def test_batches_of_a_block_differ():
    first, second = filled(50).sample(100, 2)
    assert not torch.equal(first.obs, second.obs)


def test_a_seed_draws_the_same_alone_as_beside_others():
    together = list(filled(30, seeds=(3, 4)).sample(8, 2))
    alone = list(filled(30, seeds=(4,)).sample(8, 2))
    for a, b in zip(together, alone):
        for x, y in zip(a, b):
            assert torch.equal(x[1:], y)


def test_what_does_not_fit_in_memory_is_refused_in_a_line():
    with pytest.raises(ValueError, match=r"--replay_size 1000000000000000000: .* GiB .* more than cpu has"):
        Replay([0], 1, 1, 1, size=10**18)
