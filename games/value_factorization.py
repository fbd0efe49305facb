"""A one-step game that most factorised values cannot represent: decentralised and centralised learners on uniform data.

Two agents choose one of three actions each; the team is paid once and the episode ends:

    qplex-game      8 -12 -12       qtran-game      8 -12 -12
                  -12   6   0                     -12   0   0
                  -12   0   6                     -12   0   0

Decentralised: agent i sees a_i, the reward and the successor s', a state of its own for each of the 9 joint actions:
    iql       Q_i(a_i) -> r
    i2q       Qss_i(s') -> r; Q_i(a_i) -> max of Qss_i over the successors seen to follow a_i
Centralised training, decentralised execution (every agent takes the argmax of its own Q_i):
    vdn       Qtot = sum_i Q_i                                                       Sunehag et al. 2018
    qmix      Qtot = w2 . elu(sum_i w1_i Q_i + b1) + b2 with w1, w2 >= 0             Rashid et al. 2018
    qatten    Qtot = c + sum_h w_h sum_i softmax_i(l_h) Q_i with w_h >= 0            Yang et al. 2020
    qtran     Qjt -> r; penalties, both of weight 1, hold sum_i Q_i + V at Qjt for the greedy joint action and at no
              less than Qjt elsewhere (QTRAN-base)                                   Son et al. 2019
    qplex-aLbH   Qtot = sum_i Q'_i + sum_i (lambda_i(u) - 1) sg(Q'_i - max Q'_i), Q'_i = |w_i| Q_i + b_i, and
              lambda_i(u) = sum_h |k_h| sigmoid(g_hi) sigmoid(m_hi(u)): b heads, nets of a layers   Wang et al. 2021
    ow-qmix   QMIX with squared errors weighted by 1 where Qtot < r, else w_alpha    Rashid et al. 2020
    cw-qmix   the same with 1 at the greedy joint action and where r > Q*(greedy), else w_alpha; Q* is a joint table

As in the released code of QPLEX, which is PyMARL's: one network has the values of both agents, its input is the agent's
index; batches of 32; RMSprop; gradients are clipped to norm 10. QPLEX finds 8 in far fewer seeds where the agents'
networks are two, w_i and b_i are missing, nothing is clipped, or Adam is used: docs/value_factorization.md says why.
Departures:
- 20,000 updates with steps of 5e-3 in place of 210,000 with 5e-4: as far in all.
- The state is zero, as there. What hypernetworks other than QPLEX's would make of it are free parameters; Qjt and Q*
  are tables; the agents' network is a perceptron in place of a GRU, of which this game would see the first step only.
- Each agent of IQL and I2Q has a table of its own and clips by itself: decentralised agents share nothing.
- r is the target of everything: the game ends after its step. All learners have the same batches; a batch is held as
  the shares of the 9 joint actions in it.
"""

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import elu, one_hot, pad

from common.console import say
from common.errors import UsageError
from common.flags import Count, FirstSeed, NonNegative, Unit, check_ranges
from common.layout import PROGRESS, read_progress
from games.shared import Seed, main, unfinished, write_table

N, A = 2, 3  # agents, actions of each
GAMES = {
    "qplex-game": torch.tensor([[8.0, -12, -12], [-12, 6, 0], [-12, 0, 6]]),
    "qtran-game": torch.tensor([[8.0, -12, -12], [-12, 0, 0], [-12, 0, 0]]),
}
WIDTH = 64  # units of a hidden layer
LANES = 64  # a multiple of the numbers that PyTorch takes at a time on any CPU
STATE = torch.zeros(1, N)
# state and both actions one-hot: (9, 8)
JOINT = torch.cat([STATE.expand(A * A, -1), torch.eye(A).repeat_interleave(A, 0), torch.eye(A).repeat(A, 1)], 1)
QPLEX = tuple(f"qplex-{layers}L{heads}H" for layers, heads in ((1, 4), (2, 4), (2, 10), (3, 10)))
NAMES = ("iql", "i2q", "vdn", "qmix", "qatten", "qtran", *QPLEX, "ow-qmix", "cw-qmix")


@dataclass(frozen=True)
class Config:
    env: Literal["qplex-game", "qtran-game"] = "qplex-game"  # pay-off
    learners: tuple[str, ...] = NAMES  # who learns it; qplex-aLbH for any a layers and b heads
    seed: FirstSeed = 0  # first seed, of initial values and data
    num_runs: Count = 6  # seeds to train
    exp_name: str = ""  # name of the experiment; default: value_factorization_<env>; a learner's folder adds its name
    data_dir: str = "data"  # where experiments are kept
    updates: Count = 20_000  # updates of every learner
    batch_size: Count = 32  # joint actions per update, drawn uniformly
    lr: NonNegative = 5e-3  # RMSprop's step size
    max_norm: NonNegative = 10.0  # largest norm of a gradient
    w_alpha: Unit = 0.1  # OW- and CW-QMIX: weight of what their rule does not choose
    embed: Count = 32  # QMIX: units of the mixing network
    heads: Count = 4  # Qatten: attention heads
    score_every: Count = 100  # updates between scores

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.updates % self.score_every:
            raise UsageError(f"--updates {self.updates}: must be a multiple of --score_every {self.score_every}")
        for name in self.learners:
            if name not in NAMES and not re.fullmatch(r"qplex-[1-9]L[1-9]\d*H", name):
                raise UsageError(f"--learners {name!r}: known are {', '.join(NAMES)} and any other qplex-aLbH")


Net = list[tuple[Tensor, Tensor]]


def forward(net: Net, x: Tensor) -> Tensor:
    """x (B, in) through all heads: (S, H, B, out)."""
    for k, (weight, bias) in enumerate(net):
        x = (x.relu() if k else x) @ weight + bias
    return x


def evenly(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), elementwise, in bits that do not depend on the number of seeds.

    PyTorch computes exponentials many numbers at a time, and what is left over at the end one by one, with other last
    bits: here nothing is left over.
    """
    return function(pad(x.flatten(), (0, -x.numel() % LANES)))[: x.numel()].view(x.shape)


class Learner:
    """Values of S seeds; q() (S, N, A) are the agents' own, whose argmax they play."""

    apart = 1  # axes that a gradient is clipped over one by one: those of the seeds

    def __init__(self, rngs: Sequence[np.random.Generator]):
        self.rngs = rngs
        self.parameters: list[Tensor] = []
        self.begin()

    def begin(self) -> None:
        self.agents = self.net(N, WIDTH, A)

    def q(self) -> Tensor:
        return forward(self.agents, torch.eye(N))[:, 0]

    def new(self, *shape: int, fan_in: int = 1) -> Tensor:
        """A parameter (S, *shape) ~ U(-1, 1) / sqrt(fan_in), as torch.nn.Linear begins; every seed its own."""
        draws = np.stack([rng.uniform(-1, 1, shape) for rng in self.rngs]) / np.sqrt(fan_in)
        self.parameters.append(torch.tensor(draws, dtype=torch.float32, requires_grad=True))
        return self.parameters[-1]

    def net(self, *sizes: int, heads: int = 1) -> Net:
        """A perceptron with ReLU between its layers, for every head: weights (S, H, in, out), biases (S, H, 1, out)."""
        return [
            (self.new(heads, n_in, n_out, fan_in=n_in), self.new(heads, 1, n_out, fan_in=n_in))
            for n_in, n_out in pairwise(sizes)
        ]

    def greedy(self) -> Tensor:
        """The joint action that is played: (S, A, A), one-hot."""
        best = one_hot(self.q().argmax(-1), A)
        return best[:, 0, :, None] * best[:, 1, None, :]

    def joint(self) -> Tensor:
        """Qtot of all joint actions: (S, A, A)."""
        raise NotImplementedError

    def loss(self, share: Tensor, rew: Tensor) -> Tensor:
        """Mean over the batch, whose joint actions have these shares (S, A, A), of (Qtot - r)^2: (S,)."""
        return (share * (self.joint() - rew).square()).sum((1, 2))


def by_agent(table: Tensor) -> Tensor:
    """A table over joint actions (..., A, A) as either agent has it, own action first: (..., N, A, A)."""
    return torch.stack([table, table.mT], -3)


class IQL(Learner):
    apart = 2  # seeds and agents

    def begin(self) -> None:
        self.table = self.new(N, A)

    def q(self) -> Tensor:
        return self.table

    def joint(self) -> Tensor:
        return torch.full((len(self.rngs), A, A), torch.nan)  # it has none

    def loss(self, share: Tensor, rew: Tensor) -> Tensor:
        return (by_agent(share) * (self.q()[..., None] - by_agent(rew)).square()).sum((1, 2, 3))


class I2Q(IQL):
    def __init__(self, rngs: Sequence[np.random.Generator]):
        super().__init__(rngs)
        self.qss = self.new(N, A, A)
        self.seen = torch.zeros(self.qss.shape, dtype=torch.bool)

    def loss(self, share: Tensor, rew: Tensor) -> Tensor:
        share, rew, q = by_agent(share), by_agent(rew), self.q()
        self.seen |= share > 0
        best = torch.where(self.seen, self.qss, -torch.inf).amax(-1).detach()
        y = torch.where(self.seen.any(-1), best, q.detach())  # of an action never taken nothing is known
        loss_qss = (share * (self.qss - rew).square()).sum((1, 2, 3))
        return loss_qss + (share.sum(-1) * (q - y).square()).sum((1, 2))


def by_action(q: Tensor) -> Tensor:
    """Values (S, N, A) of the agents' own actions, by joint action: (S, N, A, A)."""
    return torch.stack([q[:, 0, :, None].expand(-1, A, A), q[:, 1, None].expand(-1, A, A)], 1)


class VDN(Learner):
    def joint(self) -> Tensor:
        return by_action(self.q()).sum(1)


class QMIX(Learner):
    def __init__(self, rngs: Sequence[np.random.Generator], embed: int):
        super().__init__(rngs)
        self.w1, self.b1 = self.new(N, embed), self.new(embed)
        self.w2, self.b2 = self.new(embed, fan_in=embed), self.new()

    def joint(self) -> Tensor:
        x = torch.einsum("snu,sne->snue", self.q(), self.w1.abs())  # (S, N, A, E)
        hidden = evenly(elu, x[:, 0, :, None] + x[:, 1, None] + self.b1[:, None, None])
        return (hidden * self.w2.abs()[:, None, None]).sum(-1) + self.b2[:, None, None]


class WQMIX(QMIX):
    def __init__(self, rngs: Sequence[np.random.Generator], embed: int, rule: str, alpha: float):
        super().__init__(rngs, embed)
        self.rule, self.alpha = rule, alpha
        self.q_star = self.new(A, A)

    def loss(self, share: Tensor, rew: Tensor) -> Tensor:
        error, greedy = self.joint() - rew, self.greedy()
        if self.rule == "ow":
            full = error < 0
        else:
            full = (greedy > 0) | (rew > (self.q_star * greedy).sum((1, 2), keepdim=True))
        weight = torch.where(full, 1.0, self.alpha)
        return (share * (weight * error.square() + (self.q_star - rew).square())).sum((1, 2))


class Qatten(Learner):
    def __init__(self, rngs: Sequence[np.random.Generator], heads: int):
        super().__init__(rngs)
        self.logits, self.w, self.c = self.new(heads, N), self.new(heads), self.new()

    def joint(self) -> Tensor:
        weight = torch.einsum("sh,shn->sn", self.w.abs(), self.logits.softmax(-1))
        return by_action(self.q() * weight[..., None]).sum(1) + self.c[:, None, None]


class QTRAN(Learner):
    def __init__(self, rngs: Sequence[np.random.Generator]):
        super().__init__(rngs)
        self.q_joint, self.v = self.new(A, A), self.new()

    def joint(self) -> Tensor:
        return self.q_joint

    def loss(self, share: Tensor, rew: Tensor) -> Tensor:
        over = by_action(self.q()).sum(1) + self.v[:, None, None] - self.q_joint.detach()
        opt = (self.greedy() * over.square()).sum((1, 2))
        nopt = (share * over.clamp(max=0).square()).sum((1, 2))
        return super().loss(share, rew) + opt + nopt


class DuplexDueling(Learner):
    def __init__(self, rngs: Sequence[np.random.Generator], layers: int, heads: int):
        super().__init__(rngs)
        hidden = [WIDTH] * (layers - 1)
        self.w, self.b = self.net(N, WIDTH, N), self.net(N, WIDTH, N)
        self.k, self.g = self.net(N, *hidden, 1, heads=heads), self.net(N, *hidden, N, heads=heads)
        self.m = self.net(N + N * A, *hidden, N, heads=heads)

    def transformed(self) -> Tensor:
        """Q'_i: (S, N, A)."""
        w, b = (forward(net, STATE)[:, 0].mT for net in (self.w, self.b))  # (S, N, 1)
        return (w.abs() + 1e-10) * self.q() + b

    def credit(self) -> Tensor:
        """lambda_i(u) > 0: (S, N, A, A)."""
        nets = (self.k, STATE), (self.g, STATE), (self.m, JOINT)
        key, agent, action = (forward(net, x).mT for net, x in nets)  # (S, H, 1, 1), (S, H, N, 1), (S, H, N, A A)
        head = (key.abs() + 1e-10) * evenly(torch.sigmoid, agent)
        return (head * evenly(torch.sigmoid, action)).sum(1).unflatten(-1, (A, A))

    def joint(self) -> Tensor:
        q = self.transformed()
        held = by_action((q - q.amax(-1, keepdim=True)).detach())
        return (by_action(q) + (self.credit() - 1) * held).sum(1)


def make(name: str, cfg: Config, rngs: Sequence[np.random.Generator]) -> Learner:
    if name.startswith("qplex"):
        layers, heads = re.findall(r"\d+", name)
        return DuplexDueling(rngs, int(layers), int(heads))
    if name in ("ow-qmix", "cw-qmix"):
        return WQMIX(rngs, cfg.embed, name[:2], cfg.w_alpha)
    if name == "qmix":
        return QMIX(rngs, cfg.embed)
    if name == "qatten":
        return Qatten(rngs, cfg.heads)
    return {"iql": IQL, "i2q": I2Q, "vdn": VDN, "qtran": QTRAN}[name](rngs)


def clip(grads: Sequence[Tensor], apart: int, max_norm: float) -> None:
    """Scale gradients down to this norm, each index of the first `apart` axes by itself."""
    norm = sum((grad.flatten(apart) if grad.dim() > apart else grad[..., None]).square().sum(-1) for grad in grads)
    scale = (max_norm / (torch.as_tensor(norm).sqrt() + 1e-6)).clamp(max=1)
    for grad in grads:
        grad *= scale.view(*scale.shape, *[1] * (grad.dim() - apart))


def train(cfg: Config, name: str, seeds: Sequence[int]) -> tuple[Learner, np.ndarray]:
    """The learner, and the pay-off of its greedy joint action every `score_every` updates: (updates / that, S)."""
    rngs = [np.random.default_rng(seed) for seed in seeds]
    learner, rew, history = make(name, cfg, rngs), GAMES[cfg.env], []
    rmsprop = torch.optim.RMSprop(learner.parameters, lr=cfg.lr, alpha=0.99, eps=1e-5, foreach=True)
    data = [np.random.default_rng([seed, 1]) for seed in seeds]  # the same batches for all learners
    for _ in range(cfg.updates // cfg.score_every):
        size = (cfg.score_every, A * A)
        count = np.stack([rng.multinomial(cfg.batch_size, np.full(size, 1 / (A * A))) for rng in data], 1)
        for share in torch.tensor(count / cfg.batch_size, dtype=torch.float32).unflatten(-1, (A, A)):
            rmsprop.zero_grad()
            learner.loss(share, rew).sum().backward()  # a sum: every seed has the gradient that it would have alone
            clip([p.grad for p in learner.parameters if p.grad is not None], learner.apart, cfg.max_norm)
            rmsprop.step()
        history.append((learner.greedy() * rew).sum((1, 2)).numpy())
    return learner, np.array(history)


def defaults(env: str, obs: str) -> dict[str, Any]:
    """Both games have Config's settings."""
    return {}


def train_all(cfg: Config) -> None:
    """Train every learner, and say what they came to."""
    torch.set_num_threads(1)
    for name in cfg.learners:
        run(cfg, name)
    say(report(cfg))


def seeds_of(cfg: Config, name: str) -> list[Seed]:
    return [Seed.of(cfg, name, cfg.seed + k) for k in range(cfg.num_runs)]


def run(cfg: Config, name: str) -> None:
    """Train the seeds of one learner that are not finished, and write their progress.txt and values.txt."""
    with unfinished(seeds_of(cfg, name)) as seeds:
        if not seeds:
            return
        learner, history = train(cfg, name, [seed.settings["seed"] for seed in seeds])
        step = np.arange(1, len(history) + 1) * cfg.score_every
        names = ["Epoch", "AverageTestEpRet", "TotalEnvInteracts"]
        for row, folder in enumerate(seed.folder for seed in seeds):
            rows = np.concatenate([learner.joint()[row].detach().numpy(), learner.q()[row].detach().numpy()])
            index = [*range(A), *[-1 - i for i in range(N)]]  # row a_0 of Qtot; -1 and -2: Q_0 and Q_1
            write_table(folder / "values.txt", ["Row", *(f"Act{a}" for a in range(A))], [np.array(index), *rows.T])
            write_table(folder / PROGRESS, names, [step // cfg.score_every, history[:, row], step * cfg.batch_size])
    say(f"{name} done")


def report(cfg: Config) -> str:
    """Pay-offs of the greedy joint actions over the seeds, and the values learned, medians over the seeds."""
    lines = [f"{cfg.exp_name}: pay-off of the greedy joint action after {cfg.updates} updates, {cfg.num_runs} seeds"]
    lines += ["learner        median     25 %     75 %  best found"]
    tables = ["", "values learned, medians over the seeds: rows a_0 of Qtot(a_0, .), then Q_0 and Q_1"]
    for name in cfg.learners:
        folders = [seed.folder for seed in seeds_of(cfg, name)]
        last = np.array([read_progress(folder)["AverageTestEpRet"][-1] for folder in folders])
        low, mid, high = np.percentile(last, [25, 50, 75])
        found = f"{(last == GAMES[cfg.env].max().item()).sum()} of {len(last)}"
        lines.append(f"{name:<12} {mid:>8.2f} {low:>8.2f} {high:>8.2f}  {found}")
        values = np.median([np.loadtxt(folder / "values.txt", skiprows=1)[:, 1:] for folder in folders], 0)
        rows = ["".join("       -" if np.isnan(x) else f"{x:8.2f}" for x in row) for row in values]
        tables.append(f"{name:<12}" + "  |".join(rows))
    curves = f"curves: python plot.py {shlex.quote(str(Path(cfg.data_dir) / cfg.exp_name))} --est median --band iqr"
    return "\n".join([*lines, *tables, curves])


if __name__ == "__main__":
    sys.exit(main(Config, defaults, __doc__, "value_factorization", train_all))
