"""The replay of episodes: what comes out is what was played, whole, and little memory is taken."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.recurrent import played

from bench import recurrent_naive as naive
from common import limits
from common.errors import UsageError
from smac import envs, iql
from smac.common.replay import EpisodeReplay


class Count(envs.MaskedEnv):
    """Two agents see how many steps the row has made in all, and agent 1 may take action 2 at even counts alone."""

    def __init__(self, lengths: tuple[int, ...], seeds: tuple[int, ...] = (0,), copies: int = 1):
        self.lengths, shape = lengths, (len(seeds), copies)
        self.count, self.episode = np.zeros(shape, int), np.zeros(shape, int)
        super().__init__("count", seeds, copies, np.ones((2, 1), bool), np.ones((2, 3), bool), max_ep_len=6)

    def _seen(self, row, copy):
        count = self.count[row, copy]
        return np.array([[count], [-count]]), np.array([[True, True, True], [True, True, count % 2 == 0]])

    def _start(self, row, copy):
        self.count[row, copy] += 100 - self.count[row, copy] % 100
        self.episode[row, copy] += 1
        return self._seen(row, copy)

    def _play(self, row, copy, act):
        self.count[row, copy] += 1
        length = self.lengths[(self.episode[row, copy] + copy) % len(self.lengths)]
        over = self.count[row, copy] % 100 == length
        return (*self._seen(row, copy), float(self.count[row, copy]), over, False, float("nan"))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("copies", [1, 3])
def test_every_episode_comes_out_as_it_was_played(shared, copies):
    env = Count((3, 5, 9, 2), copies=copies)  # 9 is cut off at 6, which is no end
    batch = played(env, 60).sample(0, 16, shared)
    starts = batch.obs[0, 0, :16, 0]
    assert len(set(starts.tolist())) > 3
    for i in range(2):
        obs, avail, act, rew, terminated, mask = naive.part(batch, 0, i)
        for b in range(16):
            n = int(mask[b].sum())
            counts = obs[b, 0, 0].abs() + torch.arange(n + 1)
            assert torch.equal(obs[b, : n + 1, 0], counts * (1, -1)[i])
            assert torch.equal(rew[b, :n], counts[1:])
            even = counts % 2 == 0
            assert torch.equal(avail[b, : n + 1, 2], torch.ones(n + 1).bool() if i == 0 else even)
            assert terminated[b].tolist() == [0] * (n - 1) + [float(n != 6)] + [0] * (len(mask[b]) - n)
            assert avail[b, :n].gather(-1, act[b, :n, None]).all()
            assert not rew[b, n:].any()
    assert torch.equal(starts, -batch.obs[0, 1, :16, 0]) == shared


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_is_packed_time_after_time_the_longest_first(shared):
    batch = played(Count((3, 5, 2)), 60).sample(0, 16, shared)
    lengths = torch.stack([naive.part(batch, 0, i)[-1].sum(-1) for i in range(2)])
    assert (lengths.diff(dim=-1) <= 0).all()
    assert batch.running == tuple(int((lengths >= t).sum(-1).max()) for t in range(int(lengths.max()) + 1))
    assert batch.obs.shape[2] == sum(batch.running) and batch.act.shape[2] == sum(batch.running[1:])
    assert torch.equal(batch.real[0].sum(-1), lengths.sum(-1))
    assert bool(batch.real.all()) == shared  # what is drawn together needs no filling


def test_the_last_action_is_that_of_the_step_before():
    batch = played(Count((3, 5, 2)), 60).sample(0, 16, False)
    assert (batch.last[:, :, :16] == -1).all() and (batch.last[:, :, 16:] >= 0).all()
    assert torch.equal(batch.last[:, :, batch.next], batch.act)


def test_old_episodes_go_by_number_and_by_steps():
    replay = played(Count((3,)), 60, size=7)
    assert [int(replay.table[0, k, 1]) for k in replay.held(0)] == [42, 45, 48, 51, 54, 57, 39]
    drawn = replay.sample(0, 300, False).obs[0, :, :300, 0].abs()  # what an episode begins with is its own
    assert [len(set(starts)) for starts in drawn.tolist()] == [7, 7]
    env = Count((3,))
    few = EpisodeReplay(env, 50, 10)
    few.count, few.episodes[0], few.table[0, :4] = 14, 4, [(0, 1, 2), (0, 3, 1), (0, 4, 6), (0, 10, 4)]
    assert few.held(0).tolist() == [2, 3]  # rows 4 .. 13 are there


def test_what_was_read_and_saved_is_the_same_in_another_replay():
    env = Count((3, 5, 9, 2), (0, 1), copies=2)
    old = played(env, 40, size=6)
    new = EpisodeReplay(Count((3,), (1,), copies=2), 6, old.size * 2)
    new.write(0, 0, old.read(1, 0, 40))
    new.load_state_dict(0, old.state_dict(1))
    for shared in (True, False):
        for a, b in zip(old.sample(1, 5, shared), new.sample(0, 5, shared)):
            assert np.array_equal(np.asarray(a), np.asarray(b))


def test_the_memory_for_5000_episodes_of_8m_is_less_than_half_of_float32():
    class Eight(envs.MaskedEnv):  # 8 agents, 205 numbers seen, 13 actions, as smax:8m
        def __init__(self):
            super().__init__("8m", (0,), 1, np.ones((8, 205), bool), np.ones((8, 13), bool), 100)

    whole = EpisodeReplay(Eight(), 5000, 5000 * 100)  # were every episode of full length
    assert whole.rows.nbytes + whole.finals.nbytes < 5000 * 101 * 8 * (205 * 4 + 13 + 4 + 4 + 1) * 0.53
    usual = EpisodeReplay(Eight(), iql.Config.replay_size, iql.Config.replay_steps)
    assert usual.rows.nbytes + usual.finals.nbytes + usual.table.nbytes < 3.3e9 / 4


def test_a_replay_without_room_for_an_episode_is_refused():
    with pytest.raises(UsageError, match="--replay_steps 5: has no room for 1 episodes of 6 steps"):
        EpisodeReplay(Count((3,)), 10, 5)


@pytest.mark.parametrize("size, steps", [(10**15, 50), (5, 10**15)])
def test_a_replay_that_no_address_space_holds_is_refused_with_its_flags(size, steps):
    with pytest.raises(UsageError, match=f"--replay_steps {steps}, --replay_size {size}: more than this machine has"):
        EpisodeReplay(Count((3,)), size, steps)


def test_the_memory_of_episodes_is_counted_by_their_steps():
    long: dict[str, Any] = {"epochs": 10**9, "steps_per_epoch": 10**6}
    limits.check(iql.Config(replay_steps=1000, replay_size=1000, **long), 1)
    with pytest.raises(UsageError, match=f"--replay_steps {10**14}: some .* GiB of memory for 1 seed"):
        limits.check(iql.Config(replay_steps=10**14, **long), 1)
    with pytest.raises(UsageError, match=f"--replay_size {10**14}: some .* GiB of memory for 1 seed"):
        limits.check(iql.Config(replay_size=10**14, **long), 1)
    env = Count((3,), copies=2)  # two agents, an observation of one number, three actions
    needed = dict(limits._needs(iql.Config(replay_steps=500, replay_size=30), env.n_agents, env.n_obs, env.n_act))
    replay = EpisodeReplay(env, 30, 500)
    assert needed["--replay_steps 500"] == replay.rows.nbytes
    assert needed["--replay_size 30"] == replay.finals.nbytes + replay.table.nbytes
