"""State of one's own on recurrent Agents: every seed has its part of it, and a checkpoint holds it."""

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import compiled
from helpers.recurrent import assert_same, command, left, played
from safetensors.numpy import load_file
from torch import Tensor

from common.errors import UsageError
from common.nets import Adam
from smac import envs, iql, watch
from smac.common.nets import unroll
from smac.common.play import inputs
from smac.common.replay import Batch


class Agents(iql.Agents):
    """IQL's, with what a copy of it may add: numbers, a statistic, networks in a list, Adam, an object of its own."""

    def __init__(self, env: envs.MaskedEnv, cfg: iql.Config, seeds: tuple[int, ...]):
        super().__init__(env, cfg, seeds)
        self.n, self.history = 0, []
        self.scale, self.seen = torch.ones(len(seeds), env.n_agents), np.zeros(len(seeds), np.int64)
        self.twins = [self.recurrent(), self.recurrent()]
        self.own = SimpleNamespace(adams={"a": Adam(self.twins[0], 1e-2), "b": Adam(self.twins[1], 1e-2)}, pair=(0, 1))
        self.weights = torch.tensor([[0.5, 2.0]])  # no row of a seed
        self.squash, self.join, self.made = torch.tanh, ", ".join, dict.fromkeys  # no object's
        self.kind = iql.Config
        self.step_of, self.tally = self.rate, torch.zeros(len(seeds), env.n_agents).add_
        self.smooth = functools.partial(torch.Tensor.lerp_, torch.ones(len(seeds), env.n_agents), weight=0.1)

    def rate(self, lr: float) -> float:
        return lr / (1 + 0.1 * self.n)


def update(agents: Agents, batch: Batch, cfg: iql.Config) -> dict[str, Tensor]:
    agents.n += 1
    agents.history.append(len(batch.now))
    agents.seen += len(batch.now)
    agents.q_rms.lr = agents.step_of(cfg.lr)
    agents.scale.lerp_(batch.rew.mean(-1), 0.1)
    agents.weights *= 0.99
    agents.tally(len(batch.now))
    agents.smooth(batch.rew.mean(-1))
    x = inputs(batch.obs, batch.last, agents.n_act)
    for k, adam in enumerate(agents.own.adams.values()):
        _, q, _, q_targ = unroll(x, batch.running, agents.twins[k], agents.q_targ)
        y, _ = iql.td_target(batch, q, q_targ, cfg.gamma)
        error = (iql.chosen(q[:, :, batch.now], batch.act) - y).square() * agents.weights[0, k]
        adam.descend(iql.mean(error, batch.real).sum())
    losses = UPDATE(agents, batch, cfg)
    return {**losses, "LossQ": losses["LossQ"] * agents.scale}


UPDATE = iql.update


@pytest.fixture
def copied(monkeypatch):
    """IQL with Agents and an update of one's own."""
    monkeypatch.setattr(iql, "Agents", Agents)
    monkeypatch.setattr(iql, "update", update)


def make() -> tuple[Agents, envs.MaskedEnv]:
    env = envs.make("FocusFire-3", (3, 4), 1, 20)
    return Agents(env, iql.Config(rnn_hid=8), env.seeds), env


def values(path: Path) -> dict[str, Any]:
    """The numbers of a finished run's checkpoint."""
    return json.loads((path / "checkpoint" / "120.json").read_text())["values"]


compiles = pytest.mark.parametrize("compile", ["off", "on"])


@pytest.mark.usefixtures("copied")
@compiles
def test_a_run_that_goes_on_equals_one_that_never_stopped(compile, data_dir):
    if compile == "on":
        compiled()
    flags = {"num_runs": 2, "compile": compile, "max_ep_len": 6}
    assert command(iql, data_dir / "straight", **flags) == 0
    for epochs in (1, 2):
        assert command(iql, data_dir / "resumed", **flags, epochs=epochs) == 0
    for seed in range(2):
        assert_same(*(left(data_dir / name / "x" / f"x_s{seed}") for name in ("straight", "resumed")))
        saved = values(data_dir / "resumed" / "x" / f"x_s{seed}")
        assert saved["agents/n"] == len(saved["agents/history"]) > 20
        assert saved["agents/q_rms.lr"] == pytest.approx(5e-4 / (1 + 0.1 * saved["agents/n"]))


@pytest.mark.usefixtures("copied")
@compiles
def test_a_seed_learns_the_same_alone_as_beside_others(compile, data_dir):
    if compile == "on":
        compiled()
    flags = {"compile": compile, "max_ep_len": 6}
    assert command(iql, data_dir / "beside", num_runs=2, **flags) == 0
    assert command(iql, data_dir / "alone", seed=1, num_runs=1, **flags) == 0
    assert_same(*(left(data_dir / name / "x" / "x_s1") for name in ("beside", "alone")))


def held(agents: Agents, row: int) -> dict[str, str]:
    """What a checkpoint would hold of one seed, by name."""
    state = agents.state_dict(row)
    return {name: repr(value.tolist() if hasattr(value, "tolist") else value) for name, value in state.items()}


def test_an_update_of_one_seed_changes_nothing_of_another():
    agents, env = make()
    before = [held(agents, row) for row in (0, 1)]
    update(agents.split()[1], played(env, 80).sample(1, 5, True), iql.Config(rnn_hid=8))
    after = [held(agents, row) for row in (0, 1)]
    changed = {name for name, value in after[1].items() if value != before[1][name]}
    assert after[0] == before[0]
    assert changed >= {"n", "history", "seen", "scale", "weights", "q_rms.lr", "own.adams.b.step"}
    assert changed >= {"tally.__self__", "smooth.0"}
    assert changed >= {"q.flat", "q_rms.square_avg", "twins.0.flat", "twins.1.flat", "own.adams.a.exp_avg"}
    assert not torch.equal(agents.scale[1], torch.ones(3)) and agents.seen[1] > 0  # the same memory


@pytest.mark.usefixtures("copied")
def test_watching_plays_with_the_numbers_of_the_checkpoint(data_dir):
    assert command(iql, data_dir) == 0
    run = data_dir / "x" / "x_s0"
    assert watch.load(run, 0)[1].n == values(run)["agents/n"] > 0


@pytest.mark.usefixtures("copied")
def test_the_policy_file_holds_networks_in_lists_too(data_dir):
    assert command(iql, data_dir, epochs=1) == 0
    names = load_file(data_dir / "x" / "x_s0" / "policy.safetensors")
    assert names.keys() >= {"q.gru.bias_hh", "q_targ.gru.bias_hh", "twins.0.last.weight", "twins.1.last.weight"}


@pytest.mark.parametrize("name, change", [
    ("n", lambda agents: setattr(agents, "n", 1)),
    ("q_rms.lr", lambda agents: setattr(agents.q_rms, "lr", 0.1)),
    ("weights", lambda agents: agents.weights.mul_(2)),
    ("scale", lambda agents: setattr(agents, "scale", agents.scale * 2)),
    ("late", lambda agents: setattr(agents, "late", 1)),
])  # fmt: skip
def test_what_would_be_changed_for_no_seed_is_refused_by_name(name, change):
    agents, _ = make()
    agents.split()
    agents.scale.mul_(2)  # in the memory of all
    agents.state_dict(0)
    change(agents)
    with pytest.raises(UsageError, match=f"agents.{re.escape(name)} was changed on the Agents of all seeds"):
        agents.state_dict(0)


@pytest.mark.parametrize("seeds", [2, 3])
def test_an_axis_that_may_be_of_seeds_or_of_agents_is_refused(seeds):
    env = envs.make("FocusFire-3", range(seeds), 1, 20)
    agents = iql.Agents(env, iql.Config(rnn_hid=8), env.seeds)
    agents.bonus = torch.tensor([1.0, 2.0, 3.0])  # pyright: ignore
    if seeds == 2:
        assert [part.bonus.tolist() for part in agents.split()] == [[1, 2, 3]] * 2
        return
    with pytest.raises(UsageError, match=r"agents.bonus of shape \(3,\): its first axis may be that of the 3 seeds or"):
        agents.split()


def test_what_one_seeds_update_adds_is_refused(data_dir, monkeypatch, capfd):
    first = []

    def adding(agents: Any, *args: Any) -> Any:
        first.append(agents)
        if agents is not first[0]:
            agents.late = 1
        return UPDATE(agents, *args)

    monkeypatch.setattr(iql, "update", adding)
    assert command(iql, data_dir, num_runs=2, epochs=1) == 2
    assert "agents.late was added or removed during the run" in capfd.readouterr().err
