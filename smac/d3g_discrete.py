"""Decentralised D3G, discrete and recurrent: agents choose the successor they want, then ask which action leads there.

Agent i sees its own o_i, remembers what it saw and did in a GRU's hidden state h, takes one of the actions that are
legal now, and shares the team's reward r. From its own episodes it learns the value Qss(h, h') of moving to a successor
(twin critics), a goal model tau whose h + tau(h) is the successor it wants, an inverse model I(h, h') over actions, and
a forward model f(h, a) that keeps goals reachable. It takes the action that I finds likeliest for h + tau(h).

Paper: Edwards et al. 2020, "Estimating Q(s,s') with Deep Deterministic Dynamics Gradients", ICML. Jiang & Lu 2022
compare I2Q with a discrete D3G on StarCraft, which wins no game there; neither their paper's appendix nor their code
says what it was. This one is ours: d3g.py with probabilities of the legal actions in the place of the action's mean.
Settings are those of PyMARL (Samvelyan et al. 2019), as in iql.py.

What is ours:
- States are hidden states of the target network of iql.py's Q, which learns beside as in iql.py and never acts. D3G by
  itself has nothing that could train a memory: its values do not depend on actions.
- I is a softmax over the legal actions; it learns by cross-entropy, and f takes its probabilities.
- Targets are copied every target_every episodes, not averaged after every second update.
- tau moves at updates where the number of episodes, over update_every, is a multiple of tau_every: at every second one,
  unless several episodes end in one step (--n_envs), which counts them all and makes one update.

Departures from PyMARL:
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

mpirun -np 3 python smac/d3g_discrete.py --env smax:3m trains three seeds side by side, each by itself. Without flags
the task is FocusFire-3: see smac/envs/focusfire.py.
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


@dataclass(frozen=True)
class Config(RecurrentConfig):
    rnn_hid: Count = 64  # units of the GRU and of the layer before it
    gamma: Unit = 0.99  # discount of a step
    hid: Count = 256  # units of the two hidden layers of critics, tau, I and f
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
    tau_every: Count = 2  # updates for each step of tau, counted in update_every episodes


class Agents(RecurrentStacks):
    """The networks of S seeds times N agents: memory Q, goal tau, inverse and forward model, two critics, targets."""

    def __init__(self, env: envs.MaskedEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, cfg, seeds, [cfg.hid] * 2)
        self.q = self.recurrent()
        self.tau, self.inverse_net = self.mlp(1, cfg.rnn_hid), self.mlp(2, env.n_act)
        self.f_net = self.mlp(1, cfg.rnn_hid, act=True)
        self.qss1, self.qss2 = self.mlp(2, 1), self.mlp(2, 1)
        self.q_targ, self.tau_targ = self.q.copy(), self.tau.copy()
        self.qss1_targ, self.qss2_targ = self.qss1.copy(), self.qss2.copy()
        self.q_rms, self.tau_rms = self.rms(self.q, cfg), self.rms(self.tau, cfg)
        self.inverse_rms, self.f_rms = self.rms(self.inverse_net, cfg), self.rms(self.f_net, cfg)
        self.qss1_rms, self.qss2_rms = self.rms(self.qss1, cfg), self.rms(self.qss2, cfg)

    def rms(self, net: Net, cfg: Config) -> RMSprop:
        return RMSprop(net, cfg.lr, cfg.alpha, cfg.eps, cfg.clip)

    def values(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What to act on: logits (S, N, B, A) of I(h, h + tau(h)), and the next hidden states of the target network."""
        h, _ = self.q_targ.step(x, h)
        return self.inverse(h, self.goal(h, self.tau)), h

    def goal(self, h: Tensor, tau: MLP) -> Tensor:
        """m = h + tau(h), the successor wanted: (S, N, M, H)."""
        return h + tau(h)

    def inverse(self, h: Tensor, next_h: Tensor, net: MLP | None = None) -> Tensor:
        """Logits of I(h, h'), the actions that may lead there: (S, N, M, A)."""
        return (net or self.inverse_net)(torch.cat([h, next_h], -1))

    def f(self, h: Tensor, act: Tensor, net: MLP | None = None) -> Tensor:
        """h + net(h, a), the successor expected of (h, a), a one-hot or probabilities: (S, N, M, H)."""
        return h + (net or self.f_net)(torch.cat([h, act], -1))

    def update_targets(self) -> None:
        self.q_targ.polyak_(self.q, 0)
        self.tau_targ.polyak_(self.tau, 0)
        self.qss1_targ.polyak_(self.qss1, 0)
        self.qss2_targ.polyak_(self.qss2, 0)


class Steps(NamedTuple):
    """A batch, and the hidden states of the target network: computed once, used by all models."""

    h: Tensor  # (S, N, M, H), hidden states that the steps start from
    next_h: Tensor  # (S, N, M, H), and those that they lead to
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
    """Qss(h, h'): (S, N, M)."""
    return q(torch.cat(states, -1)).squeeze(-1)


def reached(agents: Agents, h: Tensor, avail: Tensor, goal: Tensor) -> Tensor:
    """c = f(h, softmax I(h, m)), where the legal actions for goal m lead by the forward model: (S, N, M, H)."""
    logits = agents.inverse(h, goal, agents.inverse_net.frozen)
    return agents.f(h, torch.softmax(logits.masked_fill(~avail, UNAVAILABLE), -1), agents.f_net.frozen)


def critic_target(agents: Agents, steps: Steps, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) min(Qss1', Qss2')(h', c) with c reached from h' for the goal h' + tau'(h'): (S, N, M)."""
    c = reached(agents, steps.next_h, steps.batch.next_avail, agents.goal(steps.next_h, agents.tau_targ))
    next_q = torch.minimum(value(agents.qss1_targ, steps.next_h, c), value(agents.qss2_targ, steps.next_h, c))
    return steps.batch.rew + gamma * (1 - steps.batch.terminated) * next_q


def inverse_loss(agents: Agents, steps: Steps) -> Tensor:
    """-log I(a | h, h') among the legal actions: (S, N, M)."""
    logits = agents.inverse(steps.h, steps.next_h).masked_fill(~steps.batch.avail, UNAVAILABLE)
    return -chosen(torch.log_softmax(logits, -1), steps.batch.act)


def f_loss(agents: Agents, steps: Steps) -> Tensor:
    """mean_dims (f(h, a) - h')^2: (S, N, M)."""
    act = one_hot(steps.batch.act, agents.n_act).to(steps.h.dtype)
    return (agents.f(steps.h, act) - steps.next_h).square().mean(-1)


def tau_loss(agents: Agents, steps: Steps) -> Tensor:
    """-Qss1(h, c) + mean_dims (c - m)^2 with m = h + tau(h), c reached for it; the gradient enters both: (S, N, M)."""
    m = agents.goal(steps.h, agents.tau)
    c = reached(agents, steps.h, steps.batch.avail, m)
    return (c - m).square().mean(-1) - value(agents.qss1.frozen, steps.h, c)


def update(agents: Agents, batch: Batch, cfg: Config, move_tau: bool = True) -> dict[str, Tensor]:
    """One step of every network of every agent on its own episodes; returns diagnostics, each (S, N).

    Losses are means over the steps taken and sums over seeds and agents: every network gets the gradient it would have
    alone. tau moves only where `move_tau` says so.
    """
    x = inputs(batch.obs, batch.last, agents.n_act)
    _, q, h, q_targ = unroll(x, batch.running, agents.q, agents.q_targ)
    y, _ = td_target(batch, q, q_targ, cfg.gamma)
    q = chosen(q[:, :, batch.now], batch.act)
    loss_q = mean((q - y).square(), batch.real)
    agents.q_rms.descend(loss_q.sum())

    steps = Steps(h[:, :, batch.now], h[:, :, batch.next], batch)
    with torch.no_grad():
        y = critic_target(agents, steps, cfg.gamma)
    qss1 = value(agents.qss1, steps.h, steps.next_h)
    loss_qss1 = mean((qss1 - y).square(), batch.real)
    agents.qss1_rms.descend(loss_qss1.sum())
    loss_qss2 = mean((value(agents.qss2, steps.h, steps.next_h) - y).square(), batch.real)
    agents.qss2_rms.descend(loss_qss2.sum())

    loss_inverse = mean(inverse_loss(agents, steps), batch.real)
    agents.inverse_rms.descend(loss_inverse.sum())

    loss_f = mean(f_loss(agents, steps), batch.real)
    agents.f_rms.descend(loss_f.sum())

    losses = {"LossQ": loss_q, "LossQss": loss_qss1 + loss_qss2, "LossInverse": loss_inverse, "LossF": loss_f}
    if move_tau:
        loss_tau = mean(tau_loss(agents, steps), batch.real)
        agents.tau_rms.descend(loss_tau.sum())
        losses["LossPi"] = loss_tau
    losses |= {"QVals": mean(q, batch.real), "QssVals": mean(qss1, batch.real)}
    return {name: loss.detach() for name, loss in losses.items()}


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
                    move_tau = replay.episodes[row] // cfg.update_every % cfg.tau_every == 0
                    run.log.update(watched_update(learners[row], batch, cfg, bool(move_tau)), row)
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
