"""The loop of every recurrent learner: when it updates, copies targets, explores and tests, and what it stores."""

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recurrent import LEARNERS, command

from common.log import Log
from common.run import Run
from smac import d3g_discrete, envs, iql
from smac.common.play import evaluate, log_episodes
from smac.common.replay import EpisodeReplay

Calls = dict[str, list[tuple[Any, ...]]]
modules = pytest.mark.parametrize("module", sorted({module for module, _ in LEARNERS}, key=str))
# no episode of FocusFire-3 ends by itself within two steps: the time limit ends all of them
PAIRS = {"max_ep_len": 2, "test_ep_len": 4, "epochs": 1, "batch_size": 6, "update_every": 3, "target_every": 5}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Callable[..., tuple[Run, Calls]]:
    """watched(module, **flags): a finished run, and at which steps its loop called what, with what."""

    def watch(module: ModuleType, **flags: Any) -> tuple[Run, Calls]:
        calls, runs = defaultdict(list), []

        def note(owner: Any, name: str, say: Callable[..., tuple[Any, ...]]) -> None:
            real = getattr(owner, name)

            def noted(*args: Any) -> Any:
                calls[name].append((runs[0].step, *say(*args)))
                return real(*args)

            monkeypatch.setattr(owner, name, noted)

        def train(cfg: Any, run: Run) -> None:
            runs.append(run)
            module.train(cfg, run)

        note(module, "update", lambda agents, batch, cfg, *more: more)
        note(module, "epsilon", lambda *args: args)
        note(module, "evaluate", lambda env, *_: (env.copies, env.max_ep_len))
        note(module.Agents, "update_targets", lambda _: ())
        note(EpisodeReplay, "sample", lambda _, row, batch_size, shared: (batch_size, shared))
        assert command(module, data_dir, train, **{**PAIRS, **flags}) == 0
        return runs[0], calls

    return watch


@modules
def test_updates_and_copies_come_after_so_many_episodes(module, watched):
    _, calls = watched(module, batches="apart")
    steps = range(12, 61, 6)  # every third episode, of two steps each, once six are there
    assert [step for step, *_ in calls["update"]] == list(steps)
    assert calls["sample"] == [(step, 6, False) for step in steps]
    assert [step for step, *_ in calls["update_targets"]] == list(range(10, 61, 10))


def test_d3g_moves_tau_at_every_so_many_updates(watched):
    _, calls = watched(d3g_discrete, tau_every=3)
    assert [moved for _, moved in calls["update"]] == [False, True, False] * 3


def test_d3g_counts_episodes_and_not_updates_where_two_end_in_one_step(watched):
    _, calls = watched(d3g_discrete, n_envs=2, update_every=1)  # 6, 8, 10, ... episodes: always an even number
    assert [moved for _, moved in calls["update"]] == [True] * 13


@modules
def test_tests_have_their_own_number_and_length_of_episodes(module, watched):
    _, calls = watched(module)
    assert calls["evaluate"] == [(60, 3, 4)]


@modules
def test_epsilon_is_that_of_environment_steps(module, watched):
    _, calls = watched(module, n_envs=3)
    assert calls["epsilon"] == [(step, step, 50, 0.05) for step in range(3, 61, 3)]


@modules
def test_a_time_limit_is_not_terminal_but_the_memory_is_empty_after_it(module, watched):
    run, _ = watched(module, replay_steps=60)
    rows, memory = run.parts["replay"].rows, run.parts["memory"]
    assert not rows["terminated"].any()
    assert (rows["obs"][0, :, ::2] == 1).all()  # what the first of two actions is chosen on: all are in full health
    assert not memory.hidden.any() and (memory.last == -1).all()


DRAWS = {
    "torch": lambda: torch.randn(1),
    "numpy": lambda: np.random.rand(),  # noqa: NPY002 (this is the generator that nobody should use)
    "random": random.random,
}


@modules
@pytest.mark.parametrize("generator", DRAWS)
def test_an_update_that_draws_from_a_global_generator_is_refused(module, generator, data_dir, monkeypatch, capfd):
    update = module.update

    def drawing(*args: Any) -> Any:
        DRAWS[generator]()
        return update(*args)

    monkeypatch.setattr(module, "update", drawing)
    assert command(module, data_dir, epochs=1) == 2
    err = capfd.readouterr().err
    assert f"update draws from {generator}'s global generator" in err and len(err.strip().splitlines()) == 1


class Race(envs.MaskedEnv):
    """Game k takes k + 1 steps, each paid 1; those of odd k are won."""

    def __init__(self) -> None:
        super().__init__("race", (0,), 3, np.ones((2, 1), bool), np.ones((2, 2), bool), max_ep_len=9)

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((2, 1)), np.ones((2, 2), bool)

    def _play(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        over = self.t[row, copy] == copy
        return *self._start(row, copy), 1.0, bool(over), False, float(over and copy % 2)


def test_a_test_counts_each_game_until_its_own_end():
    env = Race()
    learners = iql.Agents(env, iql.Config(rnn_hid=8), env.seeds).split()
    returns, lengths, won = evaluate(env, learners, 8, 100, "cpu")
    assert (returns.tolist(), lengths.tolist(), won.tolist()) == ([[1, 2, 3]], [[1, 2, 3]], [[0, 1, 0]])


def test_agents_under_test_see_what_they_did_last():
    env, seen = Race(), []

    def values(x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(x[0, 0, 2].tolist())
        return torch.tensor([0.0, 1.0]).expand(1, 2, 3, 2), h

    evaluate(env, [SimpleNamespace(values=values)], 8, 100, "cpu")
    assert seen == [[0, 0, 0], [0, 0, 1], [0, 0, 1]]  # an observation, and the last action as one-hot


def test_the_log_has_each_episodes_own_return_and_the_largest_reward_of_either_sign():
    env, run = Race(), SimpleNamespace(log=Log(1))
    env.ret[:], env.t[:] = [[4, 5, 6]], [[7, 8, 9]]
    log_episodes(run, env, np.array([[1.0, -3, 2]]), np.array([[False, True, True]]))
    assert (run.log.returns, run.log.lengths, run.log.largest_rew.tolist()) == ([[5, 6]], [[8, 9]], [3])


def test_games_of_tests_are_new_each_time_and_never_those_of_training():
    training, env = (envs.make("helpers.battles:today", (0, 1), 3, 12) for _ in range(2))
    training.reset()
    learners, begun = iql.Agents(env, iql.Config(rnn_hid=8), env.seeds).split(), [training.begun]  # pyright: ignore
    for step in (100, 200, 100):
        evaluate(env, learners, 8, step, "cpu")
        begun.append(env.begun.copy())  # pyright: ignore
    assert np.array_equal(begun[1], begun[3])
    assert len(np.unique(begun[:3])) == 18
