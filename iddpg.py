"""Independent DDPG (IDDPG): every agent runs DDPG on what it sees, does and is paid, as if it were alone.

Agent i sees its own o_i, acts a_i and shares the team's reward r. A prime marks a target network.

    Q     descends  (Q(o, a) - y)^2,  y = r + gamma (1 - d) Q'(o', pi'(o'))
    pi    ascends   Q(o, pi(o))

With --negative_td c below 1, negative TD errors count for less: 0.5 is hysteretic (after Matignon et al. 2007), 0 is
distributed Q-learning (Lauer & Riedmiller 2000), which never learns from a bad surprise. Errors are scaled, then
squared: c^2 is the ratio of steps down to steps up that Matignon et al. call beta / alpha.

Papers: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"; the baseline of Jiang & Lu 2022.

Departures from Spinning Up's ddpg.py, whose settings these are:
- Each agent draws its own batch (--batches); the I2Q authors' code draws one set of indices for all.
- Weights start uniform Glorot, biases zero, as in the I2Q authors' code.
- The length of a run, its replay and when it explores, updates and tests are the I2Q authors', by task (envs.schedule).
  Uniform exploration lasts start_steps steps; in Spinning Up it lasts one step longer.
- A fall at exactly the last step of an episode is terminal; in Spinning Up it is not.
- Tests run on seeds of their own and leave training untouched.

mpirun -np 5 python iddpg.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs: unlike
Spinning Up's MPI, which averages the gradients of one run, nothing is shared between them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import envs
from common.agents import Actor, Stacks
from common.evaluate import evaluate
from common.flags import Count, Natural, NonNegative, RunConfig, Unit
from common.nets import Adam, Net
from common.replay import Batch, Replay
from common.run import Run
from common.runs import main
from common.seeding import Streams


@dataclass(frozen=True)
class Config(RunConfig):
    hid: Count = 256  # units of a hidden layer
    l: Count = 2  # hidden layers of every network
    gamma: Unit = 0.99  # discount of a step
    polyak: Unit = 0.995  # what a target network keeps of itself in an update
    pi_lr: NonNegative = 1e-3  # Adam's step size for the policy
    q_lr: NonNegative = 1e-3  # Adam's step size for the value
    batch_size: Count = 100  # transitions per update, per seed and agent
    batches: Literal["shared", "apart"] = "apart"  # one draw of replay indices per seed, or one per agent
    replay_size: Count = 500_000  # transitions that an agent remembers
    start_steps: Natural = 10_000  # environment steps with uniform actions, per seed
    uniform_every: Natural = 0  # every k-th episode acts uniformly, for the whole run; 0: none
    update_after: Natural = 1_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 50  # updates in a block
    act_noise: NonNegative = 0.1  # std of exploration noise, in units of the action range [-1, 1]
    negative_td: Unit = 1.0  # factor of negative TD errors: 1 is DDPG, .5 hysteretic, 0 distributed


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, value Q, and their targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.pi = self.net([obs], act, squash=True)
        self.q = self.net([obs, act], 1)
        self.pi_targ, self.q_targ = self.pi.copy(), self.q.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q(o, a) or Qss(s, s'): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def td_target(agents: Agents, batch: Batch, next_obs: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) Q'(o', pi'(o')): (S, N, B). Lillicrap et al. 2016, Algorithm 1."""
    next_q = value(agents.q_targ, next_obs, agents.pi_targ(next_obs))
    return batch.rew + gamma * (1 - batch.terminated) * next_q


def q_loss(q: Tensor, y: Tensor, negative_td: float) -> Tensor:
    """w (y - Q)^2 with w = 1 where y >= Q, else negative_td^2: the error is scaled, then squared. (S, N, B)."""
    error = y - q
    return torch.where(error < 0, negative_td * error, error).square()


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    """
    with torch.no_grad():
        y = td_target(agents, batch, batch.next_obs, cfg.gamma)
    q = value(agents.q, batch.obs, batch.act)
    loss_q = q_loss(q, y, cfg.negative_td).mean(-1)
    agents.q_adam.descend(loss_q.sum())

    loss_pi = -value(agents.q.frozen, batch.obs, agents.pi(batch.obs)).mean(-1)
    agents.pi_adam.descend(loss_pi.sum())

    agents.pi_targ.polyak_(agents.pi, cfg.polyak)
    agents.q_targ.polyak_(agents.q, cfg.polyak)
    return {"LossPi": loss_pi, "LossQ": loss_q, "QVals": q.mean(-1)}


def explore(
    cfg: Config, pi: np.ndarray, act_mask: np.ndarray, step: int, episode: np.ndarray, noise: Streams
) -> np.ndarray:
    """clip(pi + act_noise N(0, 1), -1, 1), or U(-1, 1) at the start and in each uniform_every-th episode: (S, N, A)."""
    noisy = np.clip(pi + cfg.act_noise * noise.normal(*act_mask.shape), -1, 1)
    uniform = noise.uniform(*act_mask.shape)
    turn = episode % cfg.uniform_every == 0 if cfg.uniform_every else np.zeros(len(episode), bool)
    return np.where((turn | (step <= cfg.start_steps))[:, None, None], uniform, noisy) * act_mask


def train(cfg: Config, run: Run) -> None:
    """Train the seeds of `run` from where its checkpoint stands."""
    env, test_env = envs.training_and_test(cfg, run.seeds)
    run.say(env.table())
    agents = Agents(env, cfg, run.seeds)
    actor = Actor(agents.pi)
    replay = Replay(run.seeds, env.n_agents, env.n_obs, env.n_act, cfg.replay_size, cfg.device)
    noise = Streams(run.seeds, "exploration")
    fast_update = run.record(update)
    env.reset()
    run.track(env=env, agents=agents, replay=replay, noise=noise)
    actor.refresh()
    for step in run.steps():
        obs = env.obs
        act = explore(cfg, actor(obs), env.act_mask, step, env.episode, noise)
        next_obs, rew, terminated, truncated = env.step(act)
        run.store(replay, step, obs, act, next_obs, rew, terminated, truncated)
        env.reset(terminated | truncated)
        if step >= cfg.update_after and step % cfg.update_every == 0:
            for batch in replay.sample(cfg.batch_size, cfg.updates, cfg.batches == "shared"):
                run.log.update(fast_update(agents, batch, cfg))
            actor.refresh()
        if step % cfg.steps_per_epoch == 0:
            run.end_epoch(step, *evaluate(test_env, agents.pi, run.seeds, step, cfg.device))


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that the paper used with a task, where they differ from Config's."""
    return envs.schedule(env, obs)


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
