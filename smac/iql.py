"""IQL: every agent runs recurrent double Q-learning on what it sees, does and is paid, as if it were alone.

Agent i sees its own o_i, remembers what it saw and did in a GRU's hidden state h, takes one of the actions that are
legal now, and shares the team's reward r. It learns Q(h, a) from whole episodes out of its replay; what died stays in
the episode with one action, "nothing", and is still paid.

Papers: Tan 1993, independent Q-learning; Hausknecht & Stone 2015, recurrent Q-learning; van Hasselt et al. 2016, double
Q-learning. Settings and order are those of PyMARL (Samvelyan et al. 2019), as Jiang & Lu 2022 used it for StarCraft.

Departures from PyMARL's IQL, as the authors ran it:
- Every agent has its own optimiser, loss and gradient clip. There, one clip at the norm 10 over the gradients of all
  agents, and a loss divided by the number of agents, let one agent's gradient scale another's.
- An agent's number is no part of its input: to a network of its own it is a constant.
- The replay holds 5,000 episodes as there, but no more than --replay_steps environment steps.
- Observations are rounded to float16, for acting as for learning.
- Several environments of a seed (--n_envs) go on by themselves; there, they wait for each other's episodes to end.
- Test episodes start from their own seeds and leave training untouched.
- Episodes of a batch are drawn with replacement, there without. Epsilon falls with every step, there after an episode.
- Episodes of a seed that end in one step (--n_envs) get one update, whatever --update_every is.
- Targets are copied after each target_every-th episode; there, one episode later.

mpirun -np 3 python smac/iql.py --env smax:3m trains three seeds side by side, each by itself. Without flags the task is
FocusFire-3, which is solved in a minute: see smac/envs/focusfire.py.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started from here: imports begin above

import numpy as np
from torch import Tensor

from common.flags import Count, NonNegative, Unit
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
    lr: NonNegative = 5e-4  # RMSprop's step size
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


class Agents(RecurrentStacks):
    """The networks of S seeds times N agents: Q and its target."""

    def __init__(self, env: envs.MaskedEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, cfg, seeds)
        self.q = self.recurrent()
        self.q_targ = self.q.copy()
        self.q_rms = RMSprop(self.q, cfg.lr, cfg.alpha, cfg.eps, cfg.clip)

    def values(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What to act on: values (S, N, B, A) of each action, and the next hidden states."""
        h, q = self.q.step(x, h)
        return q, h

    def update_targets(self) -> None:
        self.q_targ.polyak_(self.q, 0)


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


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every agent's network on its own episodes; returns diagnostics, each (S, N).

    Losses are means over the steps taken and sums over seeds and agents: every network gets the gradient it would have
    alone.
    """
    x = inputs(batch.obs, batch.last, agents.n_act)
    _, q, _, q_targ = unroll(x, batch.running, agents.q, agents.q_targ)
    y, _ = td_target(batch, q, q_targ, cfg.gamma)

    q = chosen(q[:, :, batch.now], batch.act)
    loss_q = mean((q - y).square(), batch.real)
    agents.q_rms.descend(loss_q.sum())
    return {"LossQ": loss_q.detach(), "QVals": mean(q.detach(), batch.real)}


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
