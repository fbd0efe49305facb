"""Test episodes: their own seeds, no noise, one episode a row, and no trace in what trains."""

import sys
import types
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

import envs
from common.checks import stuck_agents
from common.evaluate import episode_seeds, evaluate


def push(target: float):
    """A policy that moves every coordinate towards `target`: obs (S, N, E, O) -> act (S, N, E, 1)."""

    def pi(obs: torch.Tensor) -> torch.Tensor:
        own = torch.diagonal(obs, dim1=1, dim2=3).transpose(1, 2)[..., None]
        return ((target - own) * 10).clamp(-1, 1)

    return pi


def test_returns_are_those_of_episodes_played_one_by_one():
    seeds, E, step = (5, 6), 3, 120
    env = envs.make("DifferentialGame-2", [0] * 6, max_ep_len=20)
    returns, lengths, _ = evaluate(env, push(0.0), seeds, step, "cpu")
    assert lengths.tolist() == [[20] * E] * 2
    for s, seed in enumerate(seeds):
        for e, episode_seed in enumerate(episode_seeds([seed], step, E)):
            alone = envs.make("DifferentialGame-2", [episode_seed], max_ep_len=20)
            obs, total, over = alone.reset(), 0.0, False
            while not over:
                act = np.clip(-10 * obs[:, [0, 1], [0, 1]], -1, 1)[..., None]
                obs, rew, _, truncated = alone.step(act)
                total, over = total + rew[0], truncated[0]
            np.testing.assert_allclose(returns[s, e], total, rtol=1e-5)


def test_a_seed_is_tested_the_same_alone_as_beside_others_and_anew_at_each_step():
    def returns(seeds: tuple[int, ...], step: int) -> np.ndarray:
        env = envs.make("DifferentialGame-2", [0] * (2 * len(seeds)), max_ep_len=10)
        return evaluate(env, push(0.8), seeds, step, "cpu")[0]

    together = returns((1, 2), 10)
    assert np.array_equal(together[1:], returns((2,), 10))
    assert not np.array_equal(together[1:], returns((2,), 20))
    assert len(np.unique(together)) == 4


def test_an_episode_ends_with_its_fall_and_costs_no_step_after_it():
    env = envs.make("3x1Hopper", [0, 0, 0], max_ep_len=200)
    stepped = np.zeros(3, int)
    for row, robot in enumerate(env.envs):  # pyright: ignore[reportAttributeAccessIssue]
        original = robot.step

        def step(act, row=row, original=original):
            stepped[row] += 1
            return original(act)

        robot.step = step
    returns, lengths, _ = evaluate(env, lambda obs: torch.ones(*obs.shape[:3], 1), (3,), 10, "cpu")
    assert lengths[0].tolist() == stepped.tolist()
    assert len(set(lengths[0])) > 1
    assert lengths.max() < 200
    alone = envs.make("3x1Hopper", [0], max_ep_len=200)
    last = episode_seeds((3,), 10, 3)[2]
    alone.reseed([last])
    alone.reset()
    total, over = 0.0, False
    while not over:
        _, rew, terminated, _ = alone.step(np.ones((1, 3, 1), np.float32))
        total, over = total + rew[0], terminated[0]
    assert returns[0, 2] == total


class Paying:
    """Row k is over after k + 1 steps, but goes on to tell of a reward of 1 a step, which means nothing then."""

    act_mask = np.ones((1, 1), bool)

    def __init__(self, rows: int) -> None:
        self.seeds = (0,) * rows

    def reseed(self, seeds: Any) -> None:
        self.seeds = tuple(seeds)

    def reset(self) -> np.ndarray:
        self.t = 0
        return np.zeros((len(self.seeds), 1, 1), np.float32)

    def step(self, act: np.ndarray, where: np.ndarray) -> Any:
        self.t += 1
        rows = len(self.seeds)
        over = self.t >= np.arange(1, rows + 1)
        return np.zeros((rows, 1, 1), np.float32), np.ones(rows), over, np.zeros(rows, bool)


def test_what_a_row_tells_after_its_end_is_no_part_of_its_return():
    returns, lengths, _ = evaluate(Paying(4), lambda obs: torch.zeros(*obs.shape[:3], 1), (1, 2), 10, "cpu")
    assert returns.tolist() == lengths.tolist() == [[1, 2], [3, 4]]


class Short(ParallelEnv):
    """Over after one to five steps, as its seed has it; pays 1 a step; takes no step after its end."""

    def __init__(self) -> None:
        self.possible_agents, self.agents = ["a"], []

    def observation_space(self, agent: str) -> Box:
        return Box(-1, 1, (1,))

    action_space = observation_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.left, self.agents = (seed or 0) % 5 + 1, ["a"]
        return {"a": self.see()}, {"a": {}}

    def see(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def step(self, actions: Any) -> Any:
        assert self.agents, "stepped after its end"
        self.left -= 1
        over = self.left == 0
        self.agents = [] if over else ["a"]
        return {"a": self.see()}, {"a": 1.0}, {"a": over}, {"a": False}, {"a": {}}


def test_a_parallel_env_is_not_stepped_after_its_end(monkeypatch):
    module: Any = types.ModuleType("short_module")
    module.Short = Short
    monkeypatch.setitem(sys.modules, "short_module", module)
    env = envs.make("short_module:Short", [0] * 8, max_ep_len=50)
    returns, lengths, _ = evaluate(env, lambda obs: torch.zeros(*obs.shape[:3], 1), (1, 2), 10, "cpu")
    assert np.array_equal(returns, lengths)
    assert len(np.unique(lengths)) > 1


def test_an_episode_that_is_over_does_not_count_among_what_a_saturated_agent_did(monkeypatch):
    """Its row goes on with zeros, on which the policy acts, too."""
    module: Any = types.ModuleType("short_module")
    module.Short = Short
    monkeypatch.setitem(sys.modules, "short_module", module)
    env = envs.make("short_module:Short", [0] * 8, max_ep_len=50)

    def pi(obs: torch.Tensor) -> torch.Tensor:
        return torch.where(obs > 0, -1.0, 1.0)

    monkeypatch.setattr(Short, "see", lambda self: np.full(1, self.left, np.float32))
    assert evaluate(env, pi, (1, 2), 10, "cpu")[2].tolist() == [[1], [1]]
    monkeypatch.setattr(Short, "see", lambda self: np.ones(1, np.float32))
    assert evaluate(env, pi, (1, 2), 10, "cpu")[2].tolist() == [[0], [0]]  # has seen one state alone


def test_training_and_the_global_generator_are_left_untouched():
    train, test = (envs.make("StochasticDifferentialGame-2", [7, 7], max_ep_len=10) for _ in range(2))
    train.reset()
    before = [repr(train.state_dict(row)) for row in range(2)], torch.get_rng_state()
    evaluate(test, push(0.0), (7,), 10, "cpu")
    after = [repr(train.state_dict(row)) for row in range(2)], torch.get_rng_state()
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])


def test_a_saturated_agent_is_stuck_and_no_other():
    env = envs.make("DifferentialGame-2", [0] * 4, max_ep_len=40)

    def pi(obs: torch.Tensor) -> torch.Tensor:
        """Of seed 0: agent 0 moves by what it sees, agent 1 never does. Of seed 1: both by what they see."""
        act = push(0.0)(obs)
        act[0, 1] = -1.0
        return act

    stuck = evaluate(env, pi, (1, 2), 10, "cpu")[2]
    assert stuck.tolist() == [[0, 1], [0, 0]]
    assert [(row, text[:24]) for row, text in stuck_agents(stuck).items()] == [(0, "every action of agent 1 ")]
    inside = evaluate(env, lambda obs: push(0.0)(obs) * 0 + 0.5, (1, 2), 10, "cpu")[2]
    assert not inside.any()  # the same in every state, but its tanh passes a gradient on


def test_padded_actions_do_not_hide_a_saturated_agent():
    env = envs.make("2-4HalfCheetah", [0, 0], max_ep_len=20)
    mask = torch.tensor(env.act_mask)[None, :, None].float()
    assert not mask.all()
    assert evaluate(env, lambda obs: torch.ones(*obs.shape[:3], 4) * mask, (1,), 10, "cpu")[2].tolist() == [[1, 1]]
    assert evaluate(env, lambda obs: torch.ones(*obs.shape[:3], 4), (1,), 10, "cpu")[2].tolist() == [[1, 1]]  # unmasked

    def first(obs: torch.Tensor) -> torch.Tensor:
        """The first action at a limit, the others not."""
        act = 0.5 * mask.expand(*obs.shape[:3], 4).clone()
        act[..., 0] = 1
        return act

    stuck = evaluate(env, first, (1,), 10, "cpu")[2]
    assert stuck.tolist() == [[1 / 2, 1 / 4]]
    assert not stuck_agents(stuck)  # what is left of their actions may still be moved


def test_an_agent_that_sees_one_state_alone_is_not_called_stuck(monkeypatch):
    module: Any = types.ModuleType("short_module")
    module.Short = Short
    monkeypatch.setitem(sys.modules, "short_module", module)
    env = envs.make("short_module:Short", [0] * 2, max_ep_len=50)
    assert not evaluate(env, lambda obs: torch.ones(*obs.shape[:3], 1), (1,), 10, "cpu")[2].any()
