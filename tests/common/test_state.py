"""A checkpoint holds whatever hangs on Agents, or the run is refused before it starts."""

import collections
import functools
import math
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.checks import command, kept, rows_of
from helpers.toys import Toy, make_agents, make_batch
from torch import nn

import iddpg
from common.checkpoint import Checkpoints
from common.errors import UsageError
from common.nets import Adam, Module
from common.seeding import Streams


class Statistics:
    """A running mean, as an author's own object."""

    def __init__(self, n_seeds: int):
        self.mean, self.count = torch.zeros(n_seeds, 3), 0


class Span(NamedTuple):
    low: int
    high: float


class Other(iddpg.Agents):
    """Independent DDPG with all that an author may hang on it, under names of the author's own."""

    def __init__(self, env, cfg, seeds):
        super().__init__(env, cfg, seeds)
        obs, act = env.obs_mask, env.act_mask
        self.target_q = self.q.copy()
        self.critics = [self.net([obs, act], 1) for _ in range(2)]
        self.optimisers = {"first": Adam(self.critics[0], 1e-3), "second": Adam(self.critics[1], 1e-3)}
        self.running = torch.zeros(len(seeds), env.n_agents)
        self.table, self.each = np.zeros((len(seeds), 4)), np.zeros(len(seeds))
        self.statistics = Statistics(len(seeds))
        self.temperature, self.count, self.mode, self.pair = 1.0, 0, "first", (1, 2.5)
        self.span, self.shape, self.factor, self.seen = Span(0, 1.5), self.running.shape, np.float32(1), ()
        self.cfg, self.activation, self.total = cfg, torch.tanh, torch.zeros(())

    def change(self) -> None:
        for net in (self.target_q, *self.critics):
            net.flat.detach().add_(0.5)
        for adam in self.optimisers.values():
            adam.exp_avg.add_(1)
            adam.exp_avg_sq.add_(1)
            adam.step += 1
            adam.lr /= 2
        self.running += torch.arange(len(self.running))[:, None]
        self.table += np.arange(len(self.table))[:, None]
        self.each += np.arange(len(self.each))
        self.statistics.mean += 2
        self.statistics.count += 3
        self.temperature, self.count, self.mode, self.pair = 0.1, 7, "second", (3, 0.5)
        self.span, self.factor, self.seen = Span(2, 0.5), np.float32(0.1), (4, 5)
        self.total += 4


def other(seeds=(3, 4)) -> Other:
    return Other(Toy(list(seeds)), iddpg.Config(hid=8), tuple(seeds))


def through_a_checkpoint(folder: Path, agents: Other, row: int) -> dict:
    checkpoints = Checkpoints(folder / str(row))
    checkpoints.save(5, {"agents": agents.state_dict(row)})
    return checkpoints.load(5)["agents"]


def test_everything_that_hangs_on_agents_comes_back_whatever_it_is_called(tmp_path):
    agents, again = other(), other()
    agents.change()
    for row in range(2):
        again.load_state_dict(row, through_a_checkpoint(tmp_path, agents, row))
    for (name, a), (_, b) in zip(agents.tensors().items(), again.tensors().items(), strict=True):
        assert torch.equal(a, b), name
    found = set(agents.tensors())
    assert {"target_q.flat", "critics.1.flat", "optimisers.second.exp_avg_sq", "running", "table", "each"} <= found
    assert {"statistics.mean", "total", "pi_adam.step"} <= found
    assert (again.temperature, again.count, again.mode, again.pair) == (0.1, 7, "second", (3, 0.5))
    assert (again.span, again.seen, again.factor) == (Span(2, 0.5), (4, 5), np.float32(0.1))
    assert (type(again.span), type(again.factor)) == (Span, np.float32)
    assert again.statistics.count == 3 and again.optimisers["first"].lr == 5e-4


def test_a_seed_of_a_group_goes_on_alone(tmp_path):
    agents, alone = other(), other([4])
    agents.change()
    alone.load_state_dict(0, through_a_checkpoint(tmp_path, agents, 1))
    assert torch.equal(alone.running[0], agents.running[1]) and (alone.table[0] == agents.table[1]).all()
    assert torch.equal(alone.critics[1].flat[0], agents.critics[1].flat[1])
    assert alone.shape == (1, 3)  # it was (2, 3) among two seeds


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_a_constant_whose_rows_are_as_many_as_the_seeds_by_chance_does_not_keep_a_seed_from_going_on(kind, tmp_path):
    def made(seeds):
        agents = other(seeds)
        agents.mine = kind([[True, False], [True, True]])  # (N, A) of two agents
        return agents

    both, alone = made([3, 4]), made([4])
    both.change()
    alone.load_state_dict(0, through_a_checkpoint(tmp_path, both, 1))
    assert (alone.running[0] == both.running[1]).all() and alone.mine.tolist() == [[True, False], [True, True]]  # pyright: ignore
    alone.running += 5
    again = made([3, 4])
    again.load_state_dict(1, through_a_checkpoint(tmp_path, alone, 0))
    assert (again.running[1] == alone.running[0]).all() and again.mine.tolist() == [[True, False], [True, True]]  # pyright: ignore


def test_state_that_is_not_by_seed_is_refused_among_another_number_of_seeds_and_the_line_says_why(tmp_path):
    both, alone = other(), other([4])
    both.visits, alone.visits = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    text = r"agents\.visits has the shape \(2,\), not \(2, 2\): .* by chance; .*keep constants in a frozen dataclass"
    with pytest.raises(UsageError, match=text):
        alone.load_state_dict(0, through_a_checkpoint(tmp_path, both, 1))


def test_an_array_of_one_number_a_seed_comes_back(tmp_path):
    agents, again = other(), other()
    agents.scale, again.scale = np.array([1.5, 2.5]), np.zeros(2)
    for row in range(2):
        again.load_state_dict(row, through_a_checkpoint(tmp_path, agents, row))
    assert again.scale.tolist() == [1.5, 2.5]  # pyright: ignore


def test_masks_and_settings_are_no_state():
    assert not {name for name in other().state_dict(0) if "mask" in name or "cfg" in name or "layout" in name}


class Unfit:
    __slots__ = ()


@pytest.mark.parametrize(
    "thing",
    [
        torch.Generator(),
        np.random.default_rng(0),
        random.Random(0),
        (torch.zeros(2), 1),
        nn.Linear(2, 2),
        collections.deque([1]),
        {1, 2},
        Unfit(),
        np.array(["text"]),
        [torch.optim.SGD([torch.zeros(1, requires_grad=True)])],
        np.random.default_rng(0).normal,
        random.Random(0).gauss,
        functools.partial(np.random.default_rng(0).normal, 0, 1),
        [].append,
        torch.zeros(2, dtype=torch.bfloat16),
        b"bytes",
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_cannot_be_saved_is_refused_by_name(thing):
    agents, _ = make_agents(iddpg, Toy([3, 4]))
    agents.extra = thing
    with pytest.raises(UsageError, match=r"agents\.extra") as error:
        agents.state_dict(0)
    assert "cannot be saved" in str(error.value)


def test_what_only_a_method_or_a_partial_holds_comes_back(tmp_path):
    def bound() -> Other:
        agents = other()
        agents.tell = Statistics(2).mean.add_  # pyright: ignore
        agents.blend = functools.partial(torch.lerp, torch.zeros(2), weight=0.5)  # pyright: ignore
        agents.join, agents.root, agents.mean = ", ".join, math.sqrt, np.mean  # pyright: ignore
        return agents

    agents, again = bound(), bound()
    agents.tell(torch.ones(3))  # pyright: ignore
    agents.blend.args[0].copy_(torch.tensor([2.0, 4.0]))  # pyright: ignore
    for row in range(2):
        again.load_state_dict(row, through_a_checkpoint(tmp_path, agents, row))
    assert torch.equal(again.tell(torch.zeros(3)), torch.ones(2, 3))  # pyright: ignore
    assert again.blend(torch.zeros(2)).tolist() == [1.0, 2.0]  # pyright: ignore


def test_a_run_whose_agents_cannot_be_saved_ends_before_its_first_step(data_dir, monkeypatch, capsys):
    class Bad(iddpg.Agents):
        def __init__(self, *args):
            super().__init__(*args)
            self.rng = np.random.default_rng(0)

    monkeypatch.setattr(iddpg, "Agents", Bad)
    assert command(iddpg, env="DifferentialGame-2", epochs=1, data_dir=data_dir, exp_name="x") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "agents.rng" in line and "Streams" in line
    assert not (data_dir / "x" / "x_s0" / "progress.txt").exists()


def test_what_appears_during_a_run_is_refused_by_name(data_dir, monkeypatch, capsys):
    update = iddpg.update

    def odd(agents, batch, cfg):
        agents.late = torch.zeros(1)
        return update(agents, batch, cfg)

    monkeypatch.setattr(iddpg, "update", odd)
    assert command(iddpg, env="DifferentialGame-2", epochs=1, data_dir=data_dir, exp_name="x", record="off") == 2
    assert "agents.late" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_checkpoint_of_another_version_is_refused_by_name(change):
    agents, _ = make_agents(iddpg, Toy([3, 4]))
    state = agents.state_dict(0)
    if change == "missing":
        del state["q_targ.flat"]
    elif change == "extra":
        state["old"] = 1
    else:
        state["q_targ.flat"] = state["q_targ.flat"][:1]
    with pytest.raises(UsageError, match=r"agents\.(q_targ|old)"):
        agents.load_state_dict(0, state)


class Gated(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.inner, self.gate, self.out = nn.Linear(n_in, 8), nn.Linear(n_in, 8), nn.Linear(8, n_out)

    def forward(self, x):
        return self.out(self.inner(x) * torch.sigmoid(self.gate(x)))


class WithModules(iddpg.Agents):
    """Independent DDPG with modules of one's own as its networks, and noise that resumes."""

    def __init__(self, env, cfg, seeds):
        super().__init__(env, cfg, seeds)
        streams = Streams(seeds, "weights")
        self.pi = Module(lambda: Gated(env.n_obs, env.n_act), streams, env.n_agents, squash=self.act_mask)
        self.q = Module(lambda: Gated(env.n_obs + env.n_act, 1), streams, env.n_agents)
        self.pi_targ, self.q_targ = self.pi.copy(), self.q.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)


class OtherNorms(iddpg.Agents):
    """Independent DDPG with tanh and layer norm."""

    def __init__(self, env, cfg, seeds):
        super().__init__(env, cfg, seeds)
        self.pi = self.net([env.obs_mask], env.act_mask, activation="tanh")
        self.q = self.net([env.obs_mask, env.act_mask], 1, layer_norm=True)
        self.pi_targ, self.q_targ = self.pi.copy(), self.q.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)


@pytest.mark.parametrize("agents", [WithModules, OtherNorms])
@pytest.mark.parametrize("compile", ["auto", "off"])
def test_networks_of_ones_own_train_and_resume_bit_for_bit(agents, compile, data_dir, monkeypatch):
    monkeypatch.setattr(iddpg, "Agents", agents)
    flags = {"env": "DifferentialGame-2", "exp_name": "x", "num_runs": 2, "compile": compile}
    for name, pieces in {"straight": [2], "resumed": [1, 2]}.items():
        for epochs in pieces:
            assert command(iddpg, data_dir=data_dir / name, epochs=epochs, **flags) == 0
    for seed in range(2):
        straight, resumed = (kept(data_dir / name / "x" / f"x_s{seed}") for name in ("straight", "resumed"))
        assert straight == resumed and straight["step"] == 120
    assert all(np.isfinite(row["LossQ"]) for row in rows_of(data_dir / "straight" / "x" / "x_s0"))


def test_state_of_a_batch_of_updates_is_whole():
    agents, cfg = make_agents(iddpg, Toy([3, 4]))
    before = {name: part.clone() for name, part in agents.tensors().items()}
    iddpg.update(agents, make_batch(Toy([3, 4])), cfg)
    moved = {name for name, part in agents.tensors().items() if not torch.equal(part, before[name])}
    assert {"pi.flat", "q.flat", "pi_targ.flat", "q_targ.flat", "q_adam.exp_avg", "q_adam.step"} <= moved
