"""The algorithms as one would first write them: a torch.nn module and an optimiser for each network of each agent of
each seed, the losses as they stand on paper. Slow and plain: what tests and benchmarks compare the stacks with.
"""

import copy
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from common.nets import MLP


def perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def evaluate(net: nn.Module, *parts: Tensor) -> Tensor:
    """A network that gives one number, of these inputs side by side: (B,)."""
    return net(torch.cat(parts, 1))[:, 0]


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def track(target: nn.Module, online: nn.Module, polyak: float) -> None:
    with torch.no_grad():
        for old, new in zip(target.parameters(), online.parameters()):
            old.copy_(polyak * old + (1 - polyak) * new)


class Learner(nn.Module):
    """One agent of one seed. cfg is the Config of the algorithm's file, whose names it uses."""

    inputs: ClassVar[dict[str, str]]  # what each kind of network takes: o(bservation), a(ction)

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__()
        self.cfg, self.n_obs, self.n_act = cfg, n_obs, n_act

    def net(self, kind: str, n_out: int) -> nn.Sequential:
        n_in = sum({"o": self.n_obs, "a": self.n_act}[part] for part in self.inputs[kind])
        return perceptron([n_in, *[self.cfg.hid] * self.cfg.l, n_out])


def adam(net: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr=lr)


class Ddpg(Learner):
    """iddpg.py"""

    inputs: ClassVar = {"pi": "o", "q": "oa"}

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.pi, self.q = self.net("pi", n_act), self.net("q", 1)
        self.pi_targ, self.q_targ = copy.deepcopy(self.pi), copy.deepcopy(self.q)
        self.pi_adam, self.q_adam = adam(self.pi, cfg.pi_lr), adam(self.q, cfg.q_lr)

    def target(self, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> Tensor:
        next_q = evaluate(self.q_targ, next_obs, torch.tanh(self.pi_targ(next_obs)))
        return rew + self.cfg.gamma * (1 - terminated) * next_q

    def climb(self, obs: Tensor) -> None:
        step(self.pi_adam, -evaluate(self.q, obs, torch.tanh(self.pi(obs))).mean())

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        with torch.no_grad():
            y = self.target(next_obs, rew, terminated)
        error = y - evaluate(self.q, obs, act)
        weight = torch.where(error < 0, self.cfg.negative_td, 1.0)
        step(self.q_adam, (weight * error).square().mean())
        self.climb(obs)
        track(self.pi_targ, self.pi, self.cfg.polyak)
        track(self.q_targ, self.q, self.cfg.polyak)


class I2q(Ddpg):
    """i2q_ddpg.py"""

    inputs: ClassVar = {"pi": "o", "q": "oa", "qss": "oo", "f": "oa"}
    FLOOR = 1e-2  # of the mean of |Qss|

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.qss, self.f_net = self.net("qss", 1), self.net("f", n_obs)
        self.qss_targ, self.f_targ = copy.deepcopy(self.qss), copy.deepcopy(self.f_net)
        self.qss_adam, self.f_adam = adam(self.qss, cfg.q_lr), adam(self.f_net, cfg.q_lr)

    def successor(self, net: nn.Module, obs: Tensor, act: Tensor) -> Tensor:
        out = net(torch.cat([obs, act], 1))
        if self.cfg.forward == "bounded":
            return (obs + 0.1 * torch.tanh(out)).clamp(-1, 1)
        return obs + out

    def f_loss(self, obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        f = self.successor(self.f_net, obs, act)
        qss = evaluate(self.qss, obs, f)
        weight = self.cfg.lam / max(float(qss.detach().abs().mean()), self.FLOOR)
        return ((f - next_obs).square().mean(1) - weight * qss).mean()

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        cfg = self.cfg
        with torch.no_grad():
            if cfg.rule == "released":
                y = self.target(next_obs, rew, terminated)
            else:
                further = self.successor(self.f_targ, next_obs, torch.tanh(self.pi_targ(next_obs)))
                y = rew + cfg.gamma * (1 - terminated) * evaluate(self.qss_targ, next_obs, further)
        step(self.qss_adam, (evaluate(self.qss, obs, next_obs) - y).square().mean())

        step(self.f_adam, self.f_loss(obs, act, next_obs))

        with torch.no_grad():
            released = cfg.rule == "released"
            net, judge = (self.f_net, self.qss) if released else (self.f_targ, self.qss_targ)
            f = self.successor(net, obs, act)
            proposed, seen = evaluate(judge, obs, f), evaluate(judge, obs, next_obs)
            if cfg.rule == "2":
                y = torch.maximum(proposed, seen)
            else:
                y = self.target(torch.where((proposed > seen)[:, None], f, next_obs), rew, terminated)
            if released:
                y = torch.minimum(y, self.target(next_obs, rew, terminated))
        step(self.q_adam, (evaluate(self.q, obs, act) - y).square().mean())
        self.climb(obs)
        track(self.pi_targ, self.pi, cfg.polyak)
        track(self.q_targ, self.q, cfg.polyak)
        track(self.qss_targ, self.qss, cfg.polyak)
        track(self.f_targ, self.f_net, cfg.polyak)


class Mbpo(I2q):
    """mbpo_baseline.py"""

    def f_loss(self, obs: Tensor, act: Tensor, next_obs: Tensor) -> Tensor:
        return (self.successor(self.f_net, obs, act) - next_obs).square().mean()


class Expectile(Ddpg):
    """i2q_expectile.py"""

    inputs: ClassVar = {"pi": "o", "q": "oa", "qss": "oo", "v": "o", "q2": "oa"}

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.qss, self.v = self.net("qss", 1), self.net("v", 1)
        self.qss_targ = copy.deepcopy(self.qss)
        self.qss_adam, self.v_adam = adam(self.qss, cfg.q_lr), adam(self.v, cfg.q_lr)
        self.q2 = self.net("q2", 1)  # the released form's alone
        self.q2_targ, self.q2_adam = copy.deepcopy(self.q2), adam(self.q2, cfg.q_lr)

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        cfg, goes_on = self.cfg, self.cfg.gamma * (1 - terminated)
        released = cfg.form == "released"
        with torch.no_grad():
            y = rew + goes_on * evaluate(self.v, next_obs)
        step(self.qss_adam, (evaluate(self.qss, obs, next_obs) - y).square().mean())

        with torch.no_grad():
            seen = evaluate(self.qss_targ, obs, next_obs)
        u = seen - evaluate(self.v, obs)
        step(self.v_adam, (torch.where(u < 0, 1 - cfg.tau_expectile, cfg.tau_expectile) * u.square()).mean())

        with torch.no_grad():
            if released:
                y = self.target(next_obs, rew, terminated)
            else:
                y = torch.maximum(evaluate(self.q_targ, obs, act), evaluate(self.qss_targ, obs, next_obs))
        step(self.q_adam, (evaluate(self.q, obs, act) - y).square().mean())

        if released:
            with torch.no_grad():
                next_q2 = evaluate(self.q2_targ, next_obs, torch.tanh(self.pi_targ(next_obs)))
                y = rew + goes_on * torch.maximum(evaluate(self.v, next_obs), next_q2)
            step(self.q2_adam, (evaluate(self.q2, obs, act) - y).square().mean())
            pi = torch.tanh(self.pi(obs))
            step(self.pi_adam, -(evaluate(self.q, obs, pi) + evaluate(self.q2, obs, pi)).mean() / 2)
            track(self.q2_targ, self.q2, cfg.polyak)
            track(self.pi_targ, self.pi, cfg.polyak)
        else:
            self.climb(obs)
        track(self.q_targ, self.q, cfg.polyak)
        track(self.qss_targ, self.qss, cfg.polyak)


class D3g(Learner):
    """d3g.py"""

    inputs: ClassVar = {"tau": "o", "inverse": "oo", "f": "oa", "q1": "oo", "q2": "oo"}

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.tau, self.inverse, self.f_net = (
            self.net("tau", n_obs),
            self.net("inverse", n_act),
            self.net("f", n_obs),
        )
        self.q1, self.q2 = self.net("q1", 1), self.net("q2", 1)
        self.tau_targ, self.q1_targ, self.q2_targ = map(copy.deepcopy, (self.tau, self.q1, self.q2))
        self.tau_adam, self.inverse_adam = adam(self.tau, cfg.pi_lr), adam(self.inverse, cfg.q_lr)
        self.f_adam, self.q1_adam, self.q2_adam = (adam(net, cfg.q_lr) for net in (self.f_net, self.q1, self.q2))
        self.n_updates = 0

    def action(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        return torch.tanh(self.inverse(torch.cat([obs, next_obs], 1)))

    def f(self, obs: Tensor, act: Tensor) -> Tensor:
        return obs + self.f_net(torch.cat([obs, act], 1))

    def reached(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self.f(obs, self.action(obs, goal))

    def update(self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor) -> None:
        cfg = self.cfg
        with torch.no_grad():
            c = self.reached(next_obs, next_obs + self.tau_targ(next_obs))
            next_q = torch.minimum(evaluate(self.q1_targ, next_obs, c), evaluate(self.q2_targ, next_obs, c))
            y = rew + cfg.gamma * (1 - terminated) * next_q
        step(self.q1_adam, (evaluate(self.q1, obs, next_obs) - y).square().mean())
        step(self.q2_adam, (evaluate(self.q2, obs, next_obs) - y).square().mean())
        step(self.inverse_adam, (self.action(obs, next_obs) - act).square().mean())
        step(self.f_adam, (self.f(obs, act) - next_obs).square().mean())
        self.n_updates += 1
        if self.n_updates % cfg.tau_every == 0:
            m = obs + self.tau(obs)
            c = self.reached(obs, m)
            step(self.tau_adam, (c - m).square().mean() - evaluate(self.q1, obs, c).mean())
            track(self.q1_targ, self.q1, cfg.polyak)
            track(self.q2_targ, self.q2, cfg.polyak)
            track(self.tau_targ, self.tau, cfg.polyak)


class Ppo(Learner):
    """ippo.py; its batch is a rollout in order, with whether the episode `ended` after each step."""

    inputs: ClassVar = {"pi": "o", "v": "o"}

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.pi, self.v = self.net("pi", n_act), self.net("v", 1)
        self.v_adam, self.log_std = adam(self.v, cfg.vf_lr), nn.Parameter(torch.full((n_act,), -0.5))
        self.pi_adam = torch.optim.Adam([*self.pi.parameters(), self.log_std], lr=cfg.pi_lr)

    def log_prob(self, obs: Tensor, act: Tensor) -> Tensor:
        error = (act - torch.tanh(self.pi(obs))) / self.log_std.exp()
        return (-0.5 * error.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(1)

    def update(
        self, obs: Tensor, act: Tensor, next_obs: Tensor, rew: Tensor, terminated: Tensor, ended: Tensor
    ) -> None:
        cfg = self.cfg
        with torch.no_grad():
            next_v = (1 - terminated) * evaluate(self.v, next_obs)
            delta = (rew + cfg.gamma * next_v - evaluate(self.v, obs)).tolist()
            old = self.log_prob(obs, act)
        following, rewards, over = next_v.tolist(), rew.tolist(), ended.tolist()
        over[-1] = 1.0
        adv, returns, a, g = [], [], 0.0, 0.0
        for t in reversed(range(len(over))):
            a = delta[t] + cfg.gamma * cfg.lam * (0.0 if over[t] else a)
            g = rewards[t] + cfg.gamma * (following[t] if over[t] else g)
            adv.append(a)
            returns.append(g)
        gain, y = (torch.tensor(list(reversed(x)), dtype=obs.dtype, device=obs.device) for x in (adv, returns))
        gain = (gain - gain.mean()) / gain.std(correction=0)
        for _ in range(cfg.train_pi_iters):
            logp = self.log_prob(obs, act)
            if float((old - logp).detach().mean()) > 1.5 * cfg.target_kl:
                break
            ratio = torch.exp(logp - old)
            clipped = ratio.clamp(1 - cfg.clip_ratio, 1 + cfg.clip_ratio)
            step(self.pi_adam, -torch.minimum(ratio * gain, clipped * gain).mean())
        for _ in range(cfg.train_v_iters):
            step(self.v_adam, (evaluate(self.v, obs) - y).square().mean())


def pairs(learner: Learner, agents: Any, env: Any, s: int, i: int) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Each parameter of a naive learner beside the real, unpadded part of its like in the stacks."""
    masks = {"o": env.obs_mask[i], "a": env.act_mask[i]}
    for name, net in vars(agents).items():
        if isinstance(net, MLP):
            parts = list(getattr(learner, name).parameters())
            real = np.concatenate([masks[part] for part in learner.inputs[name.split("_")[0]]])
            for k, (weight, bias) in enumerate(zip(net.weights, net.biases)):
                n_out, columns = len(parts[2 * k]), real if k == 0 else slice(None)
                yield f"{name}.{k}.weight", parts[2 * k], weight[s, i, :n_out][:, columns]
                yield f"{name}.{k}.bias", parts[2 * k + 1], bias[s, i, :n_out]


def learners_like(kind: type[Learner], agents: Any, env: Any, cfg: Any) -> dict[tuple[int, int], Any]:
    """A naive learner for each seed and agent, with the parameters of the stacks."""
    learners = {}
    like = next(net.flat for net in vars(agents).values() if isinstance(net, MLP))
    for s, i in np.ndindex(len(env.seeds), env.n_agents):
        learner = kind(int(env.obs_mask[i].sum()), int(env.act_mask[i].sum()), cfg).to(like)
        for _, own, stacked in pairs(learner, agents, env, s, i):
            own.data.copy_(stacked)
        learners[s, i] = learner
    return learners


def update(learners: dict[tuple[int, int], Any], batch: tuple[Tensor, ...], env: Any) -> None:
    """Every learner's update on its own part of the batch, without padding."""
    for (s, i), learner in learners.items():
        obs, act, next_obs, *rest = (part[s, i] for part in batch)
        seen, driven = env.obs_mask[i], env.act_mask[i]
        learner.update(obs[:, seen], act[:, driven], next_obs[:, seen], *rest)
