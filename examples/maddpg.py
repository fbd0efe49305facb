"""MADDPG: the team's value is learned centrally, from all observations and actions; policies stay decentralised.

A reference for what decentralisation costs, and no part of the I2Q paper. Agent i acts pi_i(o_i) on its own o_i; one
value Q(o, a) of the joint o = (o_1 .. o_N) and a = (a_1 .. a_N) serves all, since they share the reward r. A prime
marks a target network.

    Q     descends  (Q(o, a) - y)^2,  y = r + gamma (1 - d) Q'(o', pi'(o'))
    pi_i  ascends   Q(o, a_1 .. pi_i(o_i) .. a_N), the other actions as they were in the replay

Paper: Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", (5) and (6).

Departures:
- One value for the team in place of one per agent: with a shared reward all would learn the same.
- Settings, networks and schedule are those of iddpg.py, and tanh policies with Gaussian noise explore.
- All agents of a seed draw the same moments, as the joint value needs.

python -m examples.maddpg --env 2x3HalfCheetah --num_runs 4
"""

from dataclasses import dataclass
from typing import Any

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
    batch_size: Count = 100  # transitions per update, per seed
    replay_size: Count = 500_000  # transitions that an agent remembers
    start_steps: Natural = 10_000  # environment steps with uniform actions, per seed
    uniform_every: Natural = 0  # every k-th episode acts uniformly, for the whole run; 0: none
    update_after: Natural = 1_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 50  # updates in a block
    act_noise: NonNegative = 0.1  # std of exploration noise, in units of the action range [-1, 1]


class Agents(Stacks):
    """The networks of S seeds: policy pi of each of N agents, one value Q of the team, and their targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.pi = self.net([obs], act, squash=True)
        self.q = self.net([obs.reshape(1, -1), act.reshape(1, -1)], 1)
        self.pi_targ, self.q_targ = self.pi.copy(), self.q.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)


def joint(x: Tensor) -> Tensor:
    """What all agents see or do, side by side: (S, N, B, D) -> (S, 1, B, N * D)."""
    return x.transpose(1, 2).flatten(2)[:, None]


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q(o, a) of the joint observation and action: (S, 1, B)."""
    return net(*inputs).squeeze(-1)


def td_target(agents: Agents, batch: Batch, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) Q'(o', pi'(o')): (S, 1, B)."""
    next_q = value(agents.q_targ, joint(batch.next_obs), joint(agents.pi_targ(batch.next_obs)))
    return batch.rew[:, :1] + gamma * (1 - batch.terminated[:, :1]) * next_q


def pi_loss(agents: Agents, batch: Batch) -> Tensor:
    """-Q(o, a) where agent i's own action is pi_i(o_i) and the others' are those of the replay: (S, N, B)."""
    S, N, B, _ = batch.act.shape
    own = torch.eye(N, dtype=torch.bool, device=batch.act.device)[:, :, None, None]
    act = torch.where(own, agents.pi(batch.obs)[:, None], batch.act[:, None])  # (S, N, N, B, A): [i, j] is j's for i
    act = act.transpose(2, 3).flatten(3).reshape(S, 1, N * B, -1)
    return -value(agents.q.frozen, joint(batch.obs).repeat(1, 1, N, 1), act).reshape(S, N, B)


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of the value and of every policy on a batch of joint transitions; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    """
    with torch.no_grad():
        y = td_target(agents, batch, cfg.gamma)
    q = value(agents.q, joint(batch.obs), joint(batch.act))
    loss_q = (q - y).square().mean(-1)
    agents.q_adam.descend(loss_q.sum())

    loss_pi = pi_loss(agents, batch).mean(-1)
    agents.pi_adam.descend(loss_pi.sum())

    agents.pi_targ.polyak_(agents.pi, cfg.polyak)
    agents.q_targ.polyak_(agents.q, cfg.polyak)
    team = {"LossQ": loss_q, "QVals": q.mean(-1)}
    return {"LossPi": loss_pi, **{name: part.expand_as(loss_pi) for name, part in team.items()}}


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
            for batch in replay.sample(cfg.batch_size, cfg.updates, shared=True):
                run.log.update(fast_update(agents, batch, cfg))
            actor.refresh()
        if step % cfg.steps_per_epoch == 0:
            run.end_epoch(step, *evaluate(test_env, agents.pi, run.seeds, step, cfg.device))


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that the paper used with a task, where they differ from Config's."""
    return envs.schedule(env, obs)


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
