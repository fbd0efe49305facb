"""Updates as PyMARL writes them: a module per agent, stepped through time by Python, everything padded.

The yardstick of smac/bench.py, and what the tests hold the stacked updates against: plain torch.nn, torch.optim and
autograd, one agent at a time. Each class is one agent.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from smac.common.replay import Batch

NOTHING = -9999999


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
            best = q[:, 1:].masked_fill(~avail[:, 1:], NOTHING).argmax(-1)
            next_q = q_targ[:, 1:].gather(-1, best[..., None])[..., 0]
            y = rew + self.cfg.gamma * (1 - terminated) * next_q
        return q[:, :-1].gather(-1, act[..., None])[..., 0], y, best, h

    def update(self, batch: tuple[Tensor, ...]) -> None:
        """obs, avail, act, rew, terminated and mask of this agent's episodes."""
        q, y, _, _ = self.targets(batch)
        mask = batch[-1]
        self.descend(self.q, self.q_rms, ((q - y).square() * mask).sum() / mask.sum())


def part(batch: Batch, s: int, i: int) -> tuple[Tensor, ...]:
    """What one agent of one seed takes of a batch."""
    return tuple(x[s, i] for x in batch[:6])


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
