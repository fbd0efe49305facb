"""I2Q and independent DDPG as one would first write them: a torch.nn module and an optimiser for each network of each
agent of each seed, the losses as they stand on paper. Slow and plain: what the stacked code is compared with.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.nets import MLP
from common.replay import Batch


def perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def step(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()


def track(target: nn.Module, online: nn.Module, polyak: float) -> None:
    with torch.no_grad():
        for old, new in zip(target.parameters(), online.parameters()):
            old.copy_(polyak * old + (1 - polyak) * new)


class Ddpg(nn.Module):
    """One agent of iddpg.py, of one seed. cfg is that file's Config."""

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__()
        self.cfg, hidden = cfg, [cfg.hid] * cfg.l
        self.pi_net = perceptron([n_obs, *hidden, n_act])
        self.q = perceptron([n_obs + n_act, *hidden, 1])
        self.pi_targ, self.q_targ = copy.deepcopy(self.pi_net), copy.deepcopy(self.q)
        self.pi_adam = torch.optim.Adam(self.pi_net.parameters(), lr=cfg.pi_lr)
        self.q_adam = torch.optim.Adam(self.q.parameters(), lr=cfg.q_lr)

    def target(self, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> Tensor:
        next_act = torch.tanh(self.pi_targ(next_obs))
        next_q = self.q_targ(torch.cat([next_obs, next_act], 1))[:, 0]
        return rew + self.cfg.gamma * (1 - terminated) * next_q

    def improve(self, obs: Tensor) -> None:
        act = torch.tanh(self.pi_net(obs))
        step(self.pi_adam, -self.q(torch.cat([obs, act], 1)).mean())

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        """obs (B, O), act (B, A), next_obs (B, O), rew (B,), terminated (B,), no dim of it padded."""
        with torch.no_grad():
            y = self.target(next_obs, rew, terminated)
        error = y - self.q(torch.cat([obs, act], 1))[:, 0]
        weight = torch.where(error < 0, self.cfg.negative_td, 1.0)
        step(self.q_adam, (weight * error).square().mean())
        self.improve(obs)
        track(self.pi_targ, self.pi_net, self.cfg.polyak)
        track(self.q_targ, self.q, self.cfg.polyak)


class I2q(Ddpg):
    """One agent of i2q_ddpg.py, of one seed. cfg is that file's Config."""

    FLOOR = 1e-2  # of the mean of |Qss|

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        hidden = [cfg.hid] * cfg.l
        self.qss = perceptron([2 * n_obs, *hidden, 1])
        self.f_net = perceptron([n_obs + n_act, *hidden, n_obs])
        self.qss_targ, self.f_targ = copy.deepcopy(self.qss), copy.deepcopy(self.f_net)
        self.qss_adam = torch.optim.Adam(self.qss.parameters(), lr=cfg.q_lr)
        self.f_adam = torch.optim.Adam(self.f_net.parameters(), lr=cfg.q_lr)

    def successor(self, net: nn.Module, obs: Tensor, act: Tensor) -> Tensor:
        out = net(torch.cat([obs, act], 1))
        if self.cfg.forward == "bounded":
            return (obs + 0.1 * torch.tanh(out)).clamp(-1, 1)
        return obs + out

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        cfg = self.cfg
        with torch.no_grad():
            if cfg.rule == "released":
                y = self.target(next_obs, rew, terminated)
            else:
                further = self.successor(self.f_targ, next_obs, torch.tanh(self.pi_targ(next_obs)))
                y = rew + cfg.gamma * (1 - terminated) * self.qss_targ(torch.cat([next_obs, further], 1))[:, 0]
        step(self.qss_adam, (self.qss(torch.cat([obs, next_obs], 1))[:, 0] - y).square().mean())

        f = self.successor(self.f_net, obs, act)
        qss = self.qss(torch.cat([obs, f], 1))[:, 0]
        weight = cfg.lam / max(float(qss.detach().abs().mean()), self.FLOOR)
        step(self.f_adam, ((f - next_obs).square().mean(1) - weight * qss).mean())

        with torch.no_grad():
            released = cfg.rule == "released"
            net, judge = (self.f_net, self.qss) if released else (self.f_targ, self.qss_targ)
            f = self.successor(net, obs, act)
            proposed, seen = (judge(torch.cat([obs, s], 1))[:, 0] for s in (f, next_obs))
            ideal = torch.where((proposed > seen)[:, None], f, next_obs)
            y = self.target(ideal, rew, terminated)
            if cfg.rule == "2":
                y = torch.maximum(proposed, seen)
            elif released:
                y = torch.minimum(y, self.target(next_obs, rew, terminated))
        step(self.q_adam, (self.q(torch.cat([obs, act], 1))[:, 0] - y).square().mean())
        self.improve(obs)
        for name in ("pi", "q", "qss", "f"):
            online = getattr(self, f"{name}_net", None) or getattr(self, name)
            track(getattr(self, f"{name}_targ"), online, cfg.polyak)


def pairs(learner: Ddpg, agents: Any, env: Any, s: int, i: int) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Each parameter of a naive learner beside the real, unpadded part of its like in the stacks."""
    obs, act = env.obs_mask[i], env.act_mask[i]
    inputs = {"pi": [obs], "q": [obs, act], "qss": [obs, obs], "f": [obs, act]}
    for name, net in vars(agents).items():
        if isinstance(net, MLP):
            parts = list(getattr(learner, name).parameters())
            for k, (weight, bias) in enumerate(zip(net.weights, net.biases)):
                n_out = len(parts[2 * k])
                columns = np.concatenate(inputs[name.split("_")[0]]) if k == 0 else slice(None)
                yield f"{name}.{k}.weight", parts[2 * k], weight[s, i, :n_out][:, columns]
                yield f"{name}.{k}.bias", parts[2 * k + 1], bias[s, i, :n_out]


def learners_like(kind: type[Ddpg], agents: Any, env: Any, cfg: Any) -> dict[tuple[int, int], Ddpg]:
    """A naive learner for each seed and agent, with the parameters of the stacks."""
    learners = {}
    for s, i in np.ndindex(len(env.seeds), env.n_agents):
        learner = kind(int(env.obs_mask[i].sum()), int(env.act_mask[i].sum()), cfg).to(agents.q.flat.dtype)
        for _, own, stacked in pairs(learner, agents, env, s, i):
            own.data.copy_(stacked)
        learners[s, i] = learner
    return learners


def update(learners: dict[tuple[int, int], Ddpg], batch: Batch, env: Any) -> None:
    """Every learner's update on its own part of the batch, without padding."""
    for (s, i), learner in learners.items():
        obs, act, next_obs, rew, terminated = (part[s, i] for part in batch)
        seen, driven = env.obs_mask[i], env.act_mask[i]
        learner.update(obs[:, seen], act[:, driven], next_obs[:, seen], rew, terminated)
