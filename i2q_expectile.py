"""I2Q without a forward model: the value of the best known successor is an expectile, and no successor is proposed.

Agent i sees its own o_i (written s), acts a_i and shares the team's reward r. V(s) is the upper expectile of the values
Qss(s, s') over the successors in the replay; it stands in for the maximum over all successors that the team can reach.
A prime marks a target network; V has none. Two published forms (--form):

    both      V     descends  |tau - 1(u < 0)| u^2,  u = Qss'(s, s') - V(s)
              Qss   descends  (Qss(s, s') - r - gamma (1 - d) V(s'))^2
    b7        Q     descends  (Q(s, a) - y)^2,   y = max(Q'(s, a), Qss'(s, s'))
              pi    ascends   Q(s, pi(s))
    released  Q     descends  (Q(s, a) - y)^2,   y = r + gamma (1 - d) Q'(s', pi'(s'))
              Q2    descends  (Q2(s, a) - y)^2,  y = r + gamma (1 - d) max(V(s'), Q2'(s', pi'(s')))
              pi    ascends   (Q(s, pi(s)) + Q2(s, pi(s))) / 2

b7 is the paper's appendix B.7, released the authors' full-observation code. In b7 nothing ever lowers Q, its initial
values included: it learns where values are positive, as in the differential games, and stays where it began where they
are negative, as at the start of Multi-Agent MuJoCo.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. We had its appendix and the released
code only. The expectile as a soft maximum is that of Kostrikov et al. 2022, "Offline Reinforcement Learning with
Implicit Q-Learning".

Departures:
- B.7 does not say which Qss the expectile is of. Here it is the target Qss', as in the released code: with the online
  one V and Qss bootstrap each other without a target between them, and both diverge.
- B.7 does not spell terminal states out: V(s') counts as zero there, as in the released code.
- An update steps Qss, V, Q, Q2 and pi in turn; the released code runs them in no set order.
- tau_expectile 0.6 is the middle of the three that the released code was run with (0.55, 0.6, 0.65); B.7's is unknown.
- Each agent draws its own batch (--batches), with replacement; the released code draws one set of indices for all.
- Adam's eps, padded dims, and a fall at exactly the last step of an episode are as i2q_ddpg.py says.
- Tests run after a block of updates, on seeds of their own, and leave training untouched.

mpirun -np 5 python i2q_expectile.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs:
unlike Spinning Up's MPI, which averages the gradients of one run, nothing is shared between them.
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

# by family of tasks: on MuJoCo what the authors ran there; b7 where no reward is negative
SETTINGS: dict[str, dict[str, Any]] = {
    "differential": {"form": "b7"},
    "mujoco": {"form": "released"},
    "parallel": {"form": "released"},
}


@dataclass(frozen=True)
class Config(RunConfig):
    hid: Count = 256  # units of a hidden layer
    l: Count = 2  # hidden layers of every network
    gamma: Unit = 0.99  # discount of a step
    polyak: Unit = 0.995  # what a target network keeps of itself in an update
    pi_lr: NonNegative = 1e-3  # Adam's step size for the policy
    q_lr: NonNegative = 1e-3  # Adam's step size for values
    batch_size: Count = 100  # transitions per update, per seed and agent
    batches: Literal["shared", "apart"] = "apart"  # one draw of replay indices per seed, or one per agent
    replay_size: Count = 500_000  # transitions that an agent remembers
    start_steps: Natural = 10_000  # environment steps with uniform actions, per seed
    uniform_every: Natural = 0  # every k-th episode acts uniformly, for the whole run; 0: none
    update_after: Natural = 1_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 50  # updates in a block
    act_noise: NonNegative = 0.1  # std of exploration noise, in units of the action range [-1, 1]
    form: Literal["b7", "released"] = "b7"  # that of the paper's appendix B.7, or of the authors' full-observation code
    tau_expectile: Unit = 0.6  # expectile of Qss that V learns: .5 is the mean, towards 1 the maximum


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, values Q, Qss and V; "released" has Q2 and pi's target too."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.pi = self.net([obs], act, squash=True)
        self.q = self.net([obs, act], 1)
        self.qss = self.net([obs, obs], 1)
        self.v = self.net([obs], 1)
        self.q_targ, self.qss_targ = self.q.copy(), self.qss.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)
        self.qss_adam, self.v_adam = Adam(self.qss, cfg.q_lr), Adam(self.v, cfg.q_lr)
        if cfg.form == "released":
            self.q2 = self.net([obs, act], 1)
            self.pi_targ, self.q2_targ, self.q2_adam = self.pi.copy(), self.q2.copy(), Adam(self.q2, cfg.q_lr)


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q(o, a) or Qss(s, s'): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def td_target(agents: Agents, batch: Batch, next_obs: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) Q'(o', pi'(o')): (S, N, B). Lillicrap et al. 2016, Algorithm 1."""
    next_q = value(agents.q_targ, next_obs, agents.pi_targ(next_obs))
    return batch.rew + gamma * (1 - batch.terminated) * next_q


def qss_target(agents: Agents, batch: Batch, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) V(s'): (S, N, B). Both forms; V has no target network."""
    return batch.rew + gamma * (1 - batch.terminated) * value(agents.v, batch.next_obs)


def v_loss(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """|tau - 1(u < 0)| u^2 with u = Qss'(s, s') - V(s): (S, N, B). Both forms."""
    u = value(agents.qss_targ, batch.obs, batch.next_obs) - value(agents.v, batch.obs)
    return (cfg.tau_expectile - (u < 0).to(u.dtype)).abs() * u.square()


def q_target(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """B.7: y = max(Q'(s, a), Qss'(s, s')). Released: DDPG's own target. (S, N, B)."""
    if cfg.form == "released":
        return td_target(agents, batch, batch.next_obs, cfg.gamma)
    seen = value(agents.qss_targ, batch.obs, batch.next_obs)
    return torch.maximum(value(agents.q_targ, batch.obs, batch.act), seen)


def q2_target(agents: Agents, batch: Batch, gamma: float) -> Tensor:
    """Released only: y = r + gamma (1 - d) max(V(s'), Q2'(s', pi'(s'))): (S, N, B)."""
    next_v = value(agents.v, batch.next_obs)
    next_q = value(agents.q2_targ, batch.next_obs, agents.pi_targ(batch.next_obs))
    return batch.rew + gamma * (1 - batch.terminated) * torch.maximum(next_v, next_q)


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    """
    with torch.no_grad():
        y = qss_target(agents, batch, cfg.gamma)
    loss_qss = (value(agents.qss, batch.obs, batch.next_obs) - y).square().mean(-1)
    agents.qss_adam.descend(loss_qss.sum())

    loss_v = v_loss(agents, batch, cfg).mean(-1)
    agents.v_adam.descend(loss_v.sum())

    with torch.no_grad():
        y = q_target(agents, batch, cfg)
    q = value(agents.q, batch.obs, batch.act)
    loss_q = (q - y).square().mean(-1)
    agents.q_adam.descend(loss_q.sum())
    losses = {"LossQ": loss_q, "LossQss": loss_qss, "LossV": loss_v}

    if cfg.form == "released":
        with torch.no_grad():
            y = q2_target(agents, batch, cfg.gamma)
        loss_q2 = (value(agents.q2, batch.obs, batch.act) - y).square().mean(-1)
        agents.q2_adam.descend(loss_q2.sum())
        losses["LossQ2"] = loss_q2

    act = agents.pi(batch.obs)
    objective = value(agents.q.frozen, batch.obs, act)
    if cfg.form == "released":
        objective = (objective + value(agents.q2.frozen, batch.obs, act)) / 2
    loss_pi = -objective.mean(-1)
    agents.pi_adam.descend(loss_pi.sum())

    agents.q_targ.polyak_(agents.q, cfg.polyak)
    agents.qss_targ.polyak_(agents.qss, cfg.polyak)
    if cfg.form == "released":
        agents.q2_targ.polyak_(agents.q2, cfg.polyak)
        agents.pi_targ.polyak_(agents.pi, cfg.polyak)
    return {"LossPi": loss_pi, **losses, "QVals": q.mean(-1)}


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
    return {**envs.schedule(env, obs), **SETTINGS[envs.family(env)]}


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
