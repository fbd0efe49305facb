"""Updates as PyMARL writes them: a module per agent, stepped through time by Python, everything padded.

The yardstick of bench/recurrent.py, and what the tests hold the stacked updates against: plain torch.nn, torch.optim
and autograd, one agent at a time. Each class is one agent.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from smac.common.replay import Batch

UNAVAILABLE = -9999999


class Agent(nn.Module):
    """PyMARL's RNNAgent."""

    def __init__(self, n_in: int, hid: int, n_act: int):
        super().__init__()
        self.first, self.gru, self.last = nn.Linear(n_in, hid), nn.GRUCell(hid, hid), nn.Linear(hid, n_act)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.gru(torch.relu(self.first(x)), h)
        return self.last(h), h


class IQL:
    """One agent's recurrent double Q-learning."""

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        self.cfg, self.n_act = cfg, n_act
        self.q = Agent(n_obs + n_act, cfg.rnn_hid, n_act)
        self.q_targ = Agent(n_obs + n_act, cfg.rnn_hid, n_act)
        self.q_rms = self.optimiser(self.q)

    def optimiser(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(net.parameters(), lr=self.cfg.lr, alpha=self.cfg.alpha, eps=self.cfg.eps)

    def descend(self, net: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward(inputs=list(net.parameters()))
        nn.utils.clip_grad_norm_(net.parameters(), self.cfg.clip)
        optimiser.step()

    def unroll(self, net: Agent, obs: Tensor, act: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, T + 1, A) and hidden states (B, T + 1, H)."""
        h, qs, hs = obs.new_zeros(len(obs), self.cfg.rnn_hid), [], []
        for t in range(obs.shape[1]):
            last = one_hot(act[:, t - 1], self.n_act) if t else torch.zeros(len(obs), self.n_act)
            q, h = net(torch.cat([obs[:, t], last.to(obs)], -1), h)
            qs.append(q)
            hs.append(h)
        return torch.stack(qs, 1), torch.stack(hs, 1)

    def targets(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Q of the actions taken, the double-Q target, a*, target network's hidden states: (B, T) or (B, T + 1, H)."""
        obs, avail, act, rew, terminated, _ = batch
        q, _ = self.unroll(self.q, obs, act)
        with torch.no_grad():
            q_targ, h = self.unroll(self.q_targ, obs, act)
            best = q[:, 1:].masked_fill(~avail[:, 1:], UNAVAILABLE).argmax(-1)
            next_q = q_targ[:, 1:].gather(-1, best[..., None])[..., 0]
            y = rew + self.cfg.gamma * (1 - terminated) * next_q
        return q[:, :-1].gather(-1, act[..., None])[..., 0], y, best, h

    def update(self, batch: tuple[Tensor, ...]) -> None:
        """obs, avail, act, rew, terminated and mask of this agent's episodes."""
        q, y, _, _ = self.targets(batch)
        mask = batch[-1]
        self.descend(self.q, self.q_rms, ((q - y).square() * mask).sum() / mask.sum())


class I2Q(IQL):
    """One agent's I2Q by any of the three rules."""

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        self.rule, H = "no_f" if cfg.form == "no_f" else cfg.rule, cfg.rnn_hid
        self.qss, self.qss_targ = self.mlp(2 * H, 1), self.mlp(2 * H, 1)
        self.v, self.v_targ = self.mlp(H, 1), self.mlp(H, 1)
        n_f = (2 * H if self.rule == "released" else H) + n_act
        self.f_net, self.f_targ = self.mlp(n_f, H), self.mlp(n_f, H)
        self.qss_rms, self.v_rms, self.f_rms = map(self.optimiser, (self.qss, self.v, self.f_net))

    def mlp(self, n_in: int, n_out: int) -> nn.Sequential:
        hid = self.cfg.hid
        return nn.Sequential(nn.Linear(n_in, hid), nn.ReLU(), nn.Linear(hid, hid), nn.ReLU(), nn.Linear(hid, n_out))

    def f(self, net: nn.Module, h: Tensor, act: Tensor, next_h: Tensor) -> Tensor:
        act = one_hot(act, self.n_act).to(h)
        if self.rule == "1":
            return torch.tanh(net(torch.cat([h, act], -1)))
        return next_h + self.cfg.lam * torch.tanh(net(torch.cat([h, next_h, act], -1)))

    def update(self, batch: tuple[Tensor, ...]) -> None:
        _, avail, act, rew, terminated, mask = batch
        gamma, cfg, legal = self.cfg.gamma * (1 - terminated), self.cfg, avail[:, 1:]
        q, y, best, hidden = self.targets(batch)
        h, next_h = hidden[:, :-1], hidden[:, 1:]
        pair = torch.cat([h, next_h], -1)

        def mean(x: Tensor) -> Tensor:
            return (x * mask).sum() / mask.sum()

        def value(net: nn.Module, *states: Tensor) -> Tensor:
            return net(torch.cat(states, -1))[..., 0]

        with torch.no_grad():
            y_qss, y_q = y, y
            if self.rule == "1":
                greedy = self.q_targ.last(next_h).masked_fill(~legal, UNAVAILABLE).argmax(-1)
                y_qss = rew + gamma * value(self.qss_targ, next_h, self.f(self.f_targ, next_h, greedy, next_h))
                moved = self.f(self.f_targ, h, act, next_h)
                better = value(self.qss_targ, h, moved) > self.qss_targ(pair)[..., 0]
                at = torch.where(better[..., None], moved, next_h)
                y_q = rew + gamma * self.q_targ.last(at).masked_fill(~legal, UNAVAILABLE).amax(-1)
            elif self.rule == "no_f":
                y_qss = rew + gamma * value(self.v_targ, next_h)
                y_q = cfg.mix * y_qss + (1 - cfg.mix) * y
            else:
                moved = self.f(self.f_net, h, act, next_h)
                y_q = torch.minimum(rew + gamma * self.q_targ.last(moved).gather(-1, best[..., None])[..., 0], y)
        self.descend(self.qss, self.qss_rms, mean((self.qss(pair)[..., 0] - y_qss).square()))
        if self.rule == "no_f":
            u = self.qss_targ(pair)[..., 0].detach() - value(self.v, h)
            w = torch.where(u > 0, cfg.tau_expectile, 1 - cfg.tau_expectile) * mask
            self.descend(self.v, self.v_rms, (w * u.square()).sum() / w.sum())
        self.descend(self.q, self.q_rms, mean((q - y_q).square()))
        if self.rule != "no_f":
            moved = self.f(self.f_net, h, act, next_h)
            loss = -value(self.qss, h, moved)
            if self.rule == "1":
                scale = cfg.lam / mean(loss.detach().abs()).clamp(min=1e-2)
                loss = (moved - next_h).square().mean(-1) + scale * loss
            self.descend(self.f_net, self.f_rms, mean(loss))


class D3G(IQL):
    """One agent's D3G on the hidden states of its target network."""

    mlp = I2Q.mlp

    def __init__(self, n_obs: int, n_act: int, cfg: Any):
        super().__init__(n_obs, n_act, cfg)
        H = cfg.rnn_hid
        self.tau, self.tau_targ = self.mlp(H, H), self.mlp(H, H)
        self.inverse_net, self.f_net = self.mlp(2 * H, n_act), self.mlp(H + n_act, H)
        self.qss1, self.qss1_targ = self.mlp(2 * H, 1), self.mlp(2 * H, 1)
        self.qss2, self.qss2_targ = self.mlp(2 * H, 1), self.mlp(2 * H, 1)
        self.tau_rms, self.inverse_rms, self.f_rms = map(self.optimiser, (self.tau, self.inverse_net, self.f_net))
        self.qss1_rms, self.qss2_rms = self.optimiser(self.qss1), self.optimiser(self.qss2)

    def reached(self, h: Tensor, avail: Tensor, goal: Tensor) -> Tensor:
        logits = self.inverse_net(torch.cat([h, goal], -1)).masked_fill(~avail, UNAVAILABLE)
        return h + self.f_net(torch.cat([h, logits.softmax(-1)], -1))

    def update(self, batch: tuple[Tensor, ...]) -> None:
        super().update(batch)
        obs, avail, act, rew, terminated, mask = batch
        with torch.no_grad():
            _, hidden = self.unroll(self.q_targ, obs, act)
            h, next_h = hidden[:, :-1], hidden[:, 1:]
            ahead = torch.cat([next_h, self.reached(next_h, avail[:, 1:], next_h + self.tau_targ(next_h))], -1)
            worse = torch.minimum(self.qss1_targ(ahead), self.qss2_targ(ahead))[..., 0]
            y = rew + self.cfg.gamma * (1 - terminated) * worse
        pair = torch.cat([h, next_h], -1)

        def mean(x: Tensor) -> Tensor:
            return (x * mask).sum() / mask.sum()

        self.descend(self.qss1, self.qss1_rms, mean((self.qss1(pair)[..., 0] - y).square()))
        self.descend(self.qss2, self.qss2_rms, mean((self.qss2(pair)[..., 0] - y).square()))
        logits = self.inverse_net(pair).masked_fill(~avail[:, :-1], UNAVAILABLE).log_softmax(-1)
        self.descend(self.inverse_net, self.inverse_rms, mean(-logits.gather(-1, act[..., None])[..., 0]))
        expected = h + self.f_net(torch.cat([h, one_hot(act, self.n_act).to(h)], -1))
        self.descend(self.f_net, self.f_rms, mean((expected - next_h).square().mean(-1)))
        goal = h + self.tau(h)
        c = self.reached(h, avail[:, :-1], goal)
        loss = (c - goal).square().mean(-1) - self.qss1(torch.cat([h, c], -1))[..., 0]
        self.descend(self.tau, self.tau_rms, mean(loss))


def part(batch: Batch, s: int, i: int) -> tuple[Tensor, ...]:
    """One agent's part of a batch, padded: obs and avail (B, T + 1, .), act, rew, terminated and mask (B, T)."""
    B, T = batch.running[0], len(batch.running) - 1
    n = torch.tensor(batch.running)
    t = torch.repeat_interleave(torch.arange(T + 1), n)
    b = torch.arange(len(t)) - torch.repeat_interleave(n.cumsum(0) - n, n)
    obs = batch.obs.new_zeros(B, T + 1, batch.obs.shape[-1])
    avail = batch.avail.new_zeros(B, T + 1, batch.avail.shape[-1])
    obs[b, t] = batch.obs[s, i]
    now, following = (b[batch.now], t[batch.now]), (b[batch.next], t[batch.next])
    avail[now], avail[following] = batch.avail[s, i], batch.next_avail[s, i]
    act = batch.act.new_zeros(B, T)
    rew, terminated, mask = (batch.rew.new_zeros(B, T) for _ in range(3))
    grids = (act, batch.act), (rew, batch.rew), (terminated, batch.terminated), (mask, batch.real)
    for grid, packed in grids:
        grid[now] = packed[s, i]
    return obs, avail, act, rew, terminated, mask


def learners_like(kind: Any, agents: Any, cfg: Any) -> dict[tuple[int, int], Any]:
    """A naive learner for each seed and agent, with the parameters of the stacks."""
    learners = {}
    for s in range(agents.layout.seeds):
        named = agents.policy(s)
        for i in range(len(agents.n_legal)):
            learner = kind(agents.n_obs, agents.n_act, cfg)
            for name, array in named.items():
                net, _, rest = name.partition(".")
                own = parameter(getattr(learner, net), rest)
                own.data = torch.from_numpy(array[i].copy())
            learners[s, i] = learner
    return learners


def parameter(net: nn.Module, name: str) -> nn.Parameter:
    """The parameter that a stack calls by this name; in a Sequential with ReLUs between, layer k is module 2 k."""
    if isinstance(net, nn.Sequential):
        layer, _, kind = name.partition(".")
        return getattr(net[2 * int(layer)], kind)
    return net.get_parameter(name)
