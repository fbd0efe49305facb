"""Independent TD3: an example of an algorithm of your own, made from a copy of iddpg.py (docs/your_own_algorithm.md).

Agent i sees its own o_i, acts a_i and shares the team's reward r. A prime marks a target network.

    Q1, Q2  descend  (Qk(o, a) - y)^2,  y = r + gamma (1 - d) min(Q1', Q2')(o', a')
            a' = clip(pi'(o') + clip(target_noise N(0, 1), -noise_clip, noise_clip), -1, 1)
    pi      ascends  Q1(o, pi(o)), in every pi_every-th update; then the targets move too

Paper: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", Algorithm 1. It is no
part of the I2Q paper. Settings, networks, schedule and departures are those of iddpg.py.

python -m examples.itd3 --env DifferentialGame-3 --num_runs 4
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
    pi_every: Count = 2  # updates for each step of the policy and of the target networks
    target_noise: NonNegative = 0.2  # std of the noise on the target's action, in units of the range [-1, 1]
    noise_clip: NonNegative = 0.5  # limit of that noise


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, values Q1 and Q2, and their targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.pi = self.net([obs], act, squash=True)
        self.q1, self.q2 = self.net([obs, act], 1), self.net([obs, act], 1)
        self.pi_targ, self.q1_targ, self.q2_targ = self.pi.copy(), self.q1.copy(), self.q2.copy()
        self.pi_adam = Adam(self.pi, cfg.pi_lr)
        self.q1_adam, self.q2_adam = Adam(self.q1, cfg.q_lr), Adam(self.q2, cfg.q_lr)


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q1(o, a) or Q2(o, a): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def td_target(agents: Agents, batch: Batch, noise: Tensor, cfg: Config) -> Tensor:
    """y = r + gamma (1 - d) min(Q1', Q2')(o', a') with a' = pi'(o') + clipped noise: (S, N, B)."""
    smooth = (cfg.target_noise * noise).clamp(-cfg.noise_clip, cfg.noise_clip) * agents.act_mask
    next_act = (agents.pi_targ(batch.next_obs) + smooth).clamp(-1, 1)
    q1, q2 = (value(q, batch.next_obs, next_act) for q in (agents.q1_targ, agents.q2_targ))
    return batch.rew + cfg.gamma * (1 - batch.terminated) * torch.minimum(q1, q2)


def update(agents: Agents, batch: Batch, cfg: Config, noise: Tensor, move_pi: bool = True) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    `noise` (S, N, B, A) is N(0, 1), drawn outside: an update draws nothing. `move_pi` is an argument, as an update that
    counts in Python cannot be recorded.
    """
    with torch.no_grad():
        y = td_target(agents, batch, noise, cfg)
    q1 = value(agents.q1, batch.obs, batch.act)
    loss_q1 = (q1 - y).square().mean(-1)
    agents.q1_adam.descend(loss_q1.sum())
    loss_q2 = (value(agents.q2, batch.obs, batch.act) - y).square().mean(-1)
    agents.q2_adam.descend(loss_q2.sum())
    losses = {"LossQ": loss_q1 + loss_q2, "QVals": q1.mean(-1)}

    if move_pi:
        loss_pi = -value(agents.q1.frozen, batch.obs, agents.pi(batch.obs)).mean(-1)
        agents.pi_adam.descend(loss_pi.sum())
        agents.pi_targ.polyak_(agents.pi, cfg.polyak)
        agents.q1_targ.polyak_(agents.q1, cfg.polyak)
        agents.q2_targ.polyak_(agents.q2, cfg.polyak)
        losses["LossPi"] = loss_pi
    return losses


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
    noise, smoothing = Streams(run.seeds, "exploration"), Streams(run.seeds, "update")
    fast_update = run.record(update)
    env.reset()
    run.track(env=env, agents=agents, replay=replay, noise=noise, smoothing=smoothing)
    actor.refresh()
    for step in run.steps():
        obs = env.obs
        act = explore(cfg, actor(obs), env.act_mask, step, env.episode, noise)
        next_obs, rew, terminated, truncated = env.step(act)
        run.store(replay, step, obs, act, next_obs, rew, terminated, truncated)
        env.reset(terminated | truncated)
        if step >= cfg.update_after and step % cfg.update_every == 0:
            for batch in replay.sample(cfg.batch_size, cfg.updates, cfg.batches == "shared"):
                move_pi = (run.log.n_updates + 1) % cfg.pi_every == 0
                drawn = torch.from_numpy(smoothing.normal(*batch.act.shape[1:])).to(cfg.device)
                run.log.update(fast_update(agents, batch, cfg, drawn, move_pi))
            actor.refresh()
        if step % cfg.steps_per_epoch == 0:
            run.end_epoch(step, *evaluate(test_env, agents.pi, run.seeds, step, cfg.device))


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that the paper used with a task, where they differ from Config's."""
    return envs.schedule(env, obs)


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
