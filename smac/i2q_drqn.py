"""I2Q, discrete and recurrent: every agent learns on the successor that the team would choose, not on the one it saw.

Agent i sees its own o_i, remembers what it saw and did in a GRU's hidden state h, takes one of the actions that are
legal now, and shares the team's reward r. Beside double Q-learning's Q(h, a) it learns the value Qss(h, h') of moving
to a successor; h and h' are hidden states of the target network of Q. Three published rules (--form, --rule):

f, released   what survives of the authors' code with a forward model: Qss regresses to the double-Q target; f moves the
              h' that was seen, by at most lam in each number, to where Qss is higher; Q regresses to the lower of the
              double-Q target and that target at the moved h'. This f predicts nothing: it must be shown h'.
f, 1          the paper's equations (12) to (14): f(h, a) predicts h' and is drawn to valuable ones with the weight lam;
              Q regresses to the target at the better of f(h, a) and h'. They are those of i2q_ddpg.py.
no_f          the authors' released code: V is an expectile of Qss; Qss regresses to r + gamma V(h'), and Q to a mix of
              that, with the share `mix`, and the double-Q target.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. Its sections 1-5 were not at hand,
so (12) to (14) are as in i2q_ddpg.py. The released code for StarCraft holds the form without f; the one with f was read
from a compiled file of May 2022 beside it, and nothing shows that the paper's figures were made with just that one.
Settings and order are those of PyMARL (Samvelyan et al. 2019), on which that code is built.

Departures:
- Every agent has its own optimisers, losses and gradient clips. There, one clip at the norm 10 over the gradients of
  all agents, and losses divided by the number of agents, let one agent's gradient scale another's.
- An agent's number is no part of its input: to a network of its own it is a constant.
- The replay holds 5,000 episodes as there, but no more than --replay_steps environment steps.
- Observations are rounded to float16, for acting as for learning.
- Several environments of a seed (--n_envs) go on by themselves; there, they wait for each other's episodes to end.
- Test episodes start from their own seeds and leave training untouched.
- Episodes of a batch are drawn with replacement, there without. Epsilon falls with every step, there after an episode.
- Episodes of a seed that end in one step (--n_envs) get one update, whatever --update_every is.
- Targets are copied after each target_every-th episode; there, one episode later.
- Rule 1 needs what the paper does not say of hidden states: f(h, a) = tanh(net), as hidden states lie in (-1, 1); f and
  Qss have target networks, copied with Q's; actions at s'* are those that are legal at the h' that was seen; and lam's
  scale has the floor QSS_FLOOR, as in i2q_ddpg.py.

mpirun -np 3 python smac/i2q_drqn.py --env smax:3m trains three seeds side by side, each by itself. Without flags the
task is FocusFire-3, which is solved in a minute: see smac/envs/focusfire.py.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started from here: imports begin above

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from common.errors import UsageError
from common.flags import Count, NonNegative, Unit
from common.nets import MLP, Net
from common.run import Run
from common.runs import main
from common.seeding import Streams
from smac import envs
from smac.common.config import RecurrentConfig
from smac.common.nets import unroll
from smac.common.optim import RecurrentStacks, RMSprop
from smac.common.play import UNAVAILABLE, Memory, due, epsilon, evaluate, inputs, log_episodes
from smac.common.replay import Batch, EpisodeReplay

OWN = {"f": ("rule", "lam"), "no_f": ("mix", "tau_expectile")}  # flags that one form alone reads
QSS_FLOOR = 1e-2  # of mean|Qss| in lam's scale: below it, values are noise to which no successor should be bent


@dataclass(frozen=True)
class Config(RecurrentConfig):
    rnn_hid: Count = 64  # units of the GRU and of the layer before it
    gamma: Unit = 0.99  # discount of a step
    hid: Count = 256  # units of the two hidden layers of Qss, V and f
    lr: NonNegative = 5e-4  # RMSprop's step size, for every network
    alpha: Unit = 0.99  # RMSprop: what the mean of squared gradients keeps of itself
    eps: NonNegative = 1e-5  # RMSprop: added to the root of that mean
    clip: NonNegative = 10.0  # norm that an agent's gradient of a network is clipped to
    batch_size: Count = 32  # episodes per update, per seed and agent
    batches: Literal["shared", "apart"] = "shared"  # one draw of episodes per seed, or one per agent
    replay_size: Count = 5000  # episodes that an agent remembers
    replay_steps: Count = 200_000  # environment steps that it has memory for; long episodes are forgotten earlier
    update_every: Count = 1  # episodes between updates, per seed, once batch_size are there
    target_every: Count = 200  # episodes between copies to the target networks
    epsilon_steps: Count = 50_000  # environment steps, per seed, in which epsilon falls from 1
    epsilon_finish: Unit = 0.05  # share of uniform actions after that
    form: Literal["f", "no_f"] = "f"  # with a forward model, or with an expectile in its place
    rule: Literal["released", "1"] = "released"  # of the form f: that of the authors' code, or the paper's (14)
    lam: NonNegative = 0.05  # released: how far f moves each number of a hidden state; 1: value against accuracy
    mix: Unit = 0.2  # of the form no_f: share of r + gamma V(h') in Q's target
    tau_expectile: Unit = 0.52  # of the form no_f: expectile of Qss that V learns; .5 is the mean, 1 the maximum

    def __post_init__(self) -> None:
        super().__post_init__()
        for form, names in OWN.items():
            for name in names if form != self.form else ():
                if (value := getattr(self, name)) != getattr(Config, name):
                    raise UsageError(f"--{name} {value}: only --form {form} reads it; leave it out, or give that form")


class Agents(RecurrentStacks):
    """The networks of S seeds times N agents: Q, Qss, f or V, and those targets that the rule asks for."""

    def __init__(self, env: envs.MaskedEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, cfg, seeds, [cfg.hid] * 2)
        self.rule, self.lam = "no_f" if cfg.form == "no_f" else cfg.rule, cfg.lam
        self.q, self.qss = self.recurrent(), self.mlp(2, 1)
        self.q_targ = self.q.copy()
        self.q_rms, self.qss_rms = self.rms(self.q, cfg), self.rms(self.qss, cfg)
        if self.rule == "no_f":
            self.v = self.mlp(1, 1)
            self.v_targ, self.qss_targ, self.v_rms = self.v.copy(), self.qss.copy(), self.rms(self.v, cfg)
        else:
            self.f_net = self.mlp(2 if self.rule == "released" else 1, cfg.rnn_hid, act=True)
            self.f_rms = self.rms(self.f_net, cfg)
        if self.rule == "1":
            self.f_targ, self.qss_targ = self.f_net.copy(), self.qss.copy()

    def rms(self, net: Net, cfg: Config) -> RMSprop:
        return RMSprop(net, cfg.lr, cfg.alpha, cfg.eps, cfg.clip)

    def values(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What to act on: values (S, N, B, A) of each action, and the next hidden states."""
        h, q = self.q.step(x, h)
        return q, h

    def f(self, h: Tensor, act: Tensor, next_h: Tensor, net: MLP | None = None) -> Tensor:
        """The successor proposed: h' + lam tanh(net(h, a, h')) if released, else tanh(net(h, a)): (S, N, M, H)."""
        seen = [next_h] if self.rule == "released" else []
        out = torch.tanh((net or self.f_net)(torch.cat([h, *seen, one_hot(act, self.n_act).to(h.dtype)], -1)))
        return next_h + self.lam * out if self.rule == "released" else out

    def update_targets(self) -> None:
        self.q_targ.polyak_(self.q, 0)
        if self.rule != "released":
            self.qss_targ.polyak_(self.qss, 0)
        if self.rule == "no_f":
            self.v_targ.polyak_(self.v, 0)
        if self.rule == "1":
            self.f_targ.polyak_(self.f_net, 0)


class Steps(NamedTuple):
    """A batch, and what the target network makes of it: computed once, used by Qss, f, V and Q."""

    h: Tensor  # (S, N, M, H), hidden states that the steps start from
    next_h: Tensor  # (S, N, M, H), and those that they lead to
    y: Tensor  # (S, N, M), the double-Q target
    best: Tensor  # (S, N, M), the action of that target
    batch: Batch


def td_target(batch: Batch, q: Tensor, q_targ: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """y = r + gamma (1 - d) Q'(h', a*) and a* = argmax_a Q(h', a) over what is available: (S, N, M) each."""
    best = q[:, :, batch.next].detach().masked_fill(~batch.next_avail, UNAVAILABLE).argmax(-1)
    next_q = chosen(q_targ[:, :, batch.next], best)
    return batch.rew + gamma * (1 - batch.terminated) * next_q, best


def chosen(q: Tensor, act: Tensor) -> Tensor:
    """Q(., a) of q (..., A) and act (...)."""
    return q.gather(-1, act[..., None]).squeeze(-1)


def mean(x: Tensor, real: Tensor) -> Tensor:
    """The mean over the steps that were taken, x and real (S, N, M): (S, N)."""
    return (x * real).sum(-1) / real.sum(-1)


def value(q: MLP, *states: Tensor) -> Tensor:
    """Qss(h, h') or V(h): (S, N, M)."""
    return q(torch.cat(states, -1)).squeeze(-1)


def backed_up(steps: Steps, next_value: Tensor, gamma: float) -> Tensor:
    """r + gamma (1 - d) next_value: (S, N, M)."""
    return steps.batch.rew + gamma * (1 - steps.batch.terminated) * next_value


def greedy(agents: Agents, h: Tensor, avail: Tensor) -> tuple[Tensor, Tensor]:
    """max_a Q'(h, a) over what is available, and that action: (S, N, M) each."""
    return agents.q_targ.head(h).masked_fill(~avail, UNAVAILABLE).max(-1)


def qss_target(agents: Agents, steps: Steps, cfg: Config) -> Tensor:
    """Qss's target by the rule: (S, N, M).

    Released: the double-Q target. 1, (13): r + gamma (1 - d) Qss'(h', f'(h', a')), a' greedy. No f: V'(h') there.
    """
    if agents.rule == "released":
        return steps.y
    if agents.rule == "no_f":
        return backed_up(steps, value(agents.v_targ, steps.next_h), cfg.gamma)
    _, act = greedy(agents, steps.next_h, steps.batch.next_avail)
    successor = agents.f(steps.next_h, act, steps.next_h, agents.f_targ)
    return backed_up(steps, value(agents.qss_targ, steps.next_h, successor), cfg.gamma)


def q_target(agents: Agents, steps: Steps, y_qss: Tensor, f: Tensor | None, cfg: Config) -> Tensor:
    """Q's target by the rule, of which `y_qss` is Qss's: (S, N, M).

    Released: min(y, r + gamma (1 - d) Q'(f, a*)), a* as in y. 1, (14): r + gamma (1 - d) max_a Q'(h'*, a), h'* the
    better of f' and h' under Qss'. No f: mix (r + gamma (1 - d) V'(h')) + (1 - mix) y.
    """
    if agents.rule == "no_f":
        return cfg.mix * y_qss + (1 - cfg.mix) * steps.y
    if agents.rule == "released":
        assert f is not None
        return torch.minimum(backed_up(steps, chosen(agents.q_targ.head(f), steps.best), cfg.gamma), steps.y)
    proposal = agents.f(steps.h, steps.batch.act, steps.next_h, agents.f_targ)
    proposed, seen = value(agents.qss_targ, steps.h, proposal), value(agents.qss_targ, steps.h, steps.next_h)
    best = torch.where((proposed > seen)[..., None], proposal, steps.next_h)
    return backed_up(steps, greedy(agents, best, steps.batch.next_avail)[0], cfg.gamma)


def f_loss(agents: Agents, steps: Steps, f: Tensor) -> Tensor:
    """Released: -Qss(h, f). 1, -(12): mean_dims (f - h')^2 - sg(lam / mean_M |Qss(h, f)|) Qss(h, f). (S, N, M)."""
    qss = value(agents.qss.frozen, steps.h, f)
    if agents.rule == "released":
        return -qss
    size = mean(qss.detach().abs(), steps.batch.real)[..., None]  # a bare mean() would couple agents and seeds
    return (f - steps.next_h).square().mean(-1) - agents.lam / size.clamp(min=QSS_FLOOR) * qss


def v_loss(agents: Agents, steps: Steps, tau: float) -> Tensor:
    """w u^2 with u = Qss'(h, h') - V(h), w = tau where u > 0, else 1 - tau, over the mean of w: (S, N, M)."""
    u = value(agents.qss_targ, steps.h, steps.next_h) - value(agents.v, steps.h)
    w = torch.where(u > 0, tau, 1 - tau)
    return w / mean(w, steps.batch.real)[..., None] * u.square()


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every network of every agent on its own episodes; returns diagnostics, each (S, N).

    Losses are means over the steps taken and sums over seeds and agents: every network gets the gradient it would have
    alone.
    """
    x = inputs(batch.obs, batch.last, agents.n_act)
    _, q, h, q_targ = unroll(x, batch.running, agents.q, agents.q_targ)
    y, best = td_target(batch, q, q_targ, cfg.gamma)
    steps = Steps(h[:, :, batch.now], h[:, :, batch.next], y, best, batch)

    with torch.no_grad():
        y_qss = qss_target(agents, steps, cfg)
    loss_qss = mean((value(agents.qss, steps.h, steps.next_h) - y_qss).square(), batch.real)
    agents.qss_rms.descend(loss_qss.sum())

    losses, f = {"LossQss": loss_qss.detach()}, None
    if agents.rule == "no_f":
        loss_v = mean(v_loss(agents, steps, cfg.tau_expectile), batch.real)
        agents.v_rms.descend(loss_v.sum())
        losses["LossV"] = loss_v.detach()
    else:  # f moves here or after Q: Q's target takes f as it was before, or its target network
        f = agents.f(steps.h, steps.batch.act, steps.next_h)
        loss_f = mean(f_loss(agents, steps, f), batch.real)
        agents.f_rms.descend(loss_f.sum())
        losses["LossF"] = loss_f.detach()

    with torch.no_grad():
        y = q_target(agents, steps, y_qss, f, cfg)
    q = chosen(q[:, :, batch.now], batch.act)
    loss_q = mean((q - y).square(), batch.real)
    agents.q_rms.descend(loss_q.sum())
    return {"LossQ": loss_q.detach(), **losses, "QVals": mean(q.detach(), batch.real)}


def explore(q: np.ndarray, avail: np.ndarray, eps: float, noise: Streams) -> np.ndarray:
    """argmax_a Q, or with probability eps one of the available actions, uniformly: (S, N, L)."""
    _, N, L, A = avail.shape
    uniform = np.where(avail, noise.uniform(N, L, A), -2).argmax(-1)
    return np.where((noise.uniform(N, L) + 1) / 2 < eps, uniform, q.argmax(-1))


def train(cfg: Config, run: Run) -> None:
    """Train the seeds of `run` from where its checkpoint stands."""
    env = envs.make(cfg.env, run.seeds, cfg.n_envs, cfg.max_ep_len)
    test_env = envs.make(cfg.env, run.seeds, cfg.num_test_episodes, cfg.test_ep_len)
    run.say(env.table())
    agents = Agents(env, cfg, run.seeds)
    replay = EpisodeReplay(env, cfg.replay_size, cfg.replay_steps, cfg.device)
    memory, noise = Memory(env, cfg.rnn_hid, cfg.device), Streams(run.seeds, "exploration")
    watched_update = run.record(update)  # never recorded here, but watched for draws from global generators
    env.reset()
    run.track(env=env, agents=agents, replay=replay, memory=memory, noise=noise)
    learners = agents.split()
    for step in run.steps():
        if step % cfg.n_envs == 0:  # a step of a seed's environments at once is n_envs steps
            obs, avail, before = env.obs, env.avail, replay.episodes.copy()
            eps = epsilon(step, cfg.epsilon_steps, cfg.epsilon_finish)
            act = explore(memory.values(learners, env), avail, eps, noise)
            rew, terminated, truncated = env.step(act)
            ended = terminated | truncated
            run.check(step, observation=env.obs, reward=rew)
            replay.store(obs, avail, act, rew, terminated)
            replay.end(env.obs, env.avail, env.t, ended)
            log_episodes(run, env, rew, ended)
            memory.acted(act, ended)
            env.reset(ended)
            for row in due(before, replay.episodes, cfg.update_every):
                if replay.episodes[row] >= cfg.batch_size:
                    batch = replay.sample(row, cfg.batch_size, cfg.batches == "shared")
                    run.log.update(watched_update(learners[row], batch, cfg), row)
            for row in due(before, replay.episodes, cfg.target_every):
                learners[row].update_targets()
        if step % cfg.steps_per_epoch == 0:
            returns, lengths, won = evaluate(test_env, learners, cfg.rnn_hid, step, cfg.device)
            run.end_epoch(step, returns, lengths, TestWinRate=won)


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that go with a task, where they differ from Config's."""
    return envs.schedule(env)


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
