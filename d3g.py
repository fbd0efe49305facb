"""Decentralised D3G: every agent chooses the successor it wants, then asks an inverse model for the action.

Agent i sees its own o_i (written s), acts a_i and shares the team's reward r. From its own transitions it learns the
value Q(s, s') of moving to a successor (twin critics), a goal model tau whose s + tau(s) is the successor it wants, an
inverse model I(s, s') -> a, and a forward model f(s, a) that keeps goals reachable. A prime marks a target network.

    m, c  m = s + tau(s) is the goal, c = f(s, I(s, m)) what the models say is reached for it
    Q1,2  descend   (Qk(s, s') - r - gamma (1 - d) min(Q1', Q2')(s', c'))^2,  c' reached from s' for s' + tau'(s')
    I     descends  mean_dims (I(s, s') - a)^2
    f     descends  mean_dims (f(s, a) - s')^2
    tau   descends  mean_dims (c - m)^2 - Q1(s, c), in every tau_every-th update; then targets move too
    acts  I(s, s + tau(s))

Paper: Edwards et al. 2020, "Estimating Q(s,s') with Deep Deterministic Dynamics Gradients", ICML; the losses, their
order and the delay are those of its released code. As a decentralised baseline: Jiang & Lu 2022 (I2Q), who give two
reasons why it fails among other learners, which docs/d3g.md shows: I averages the actions that led to one successor,
and f averages the successors that one action led to while the others did this and that.

Departures:
- The schedule, widths, batch and learning rate are those of the other learners here, for a fair comparison: batches of
  100 and 1e-3 in place of the released 256 and 3e-4, which --authors_settings brings back. Updates come in blocks of
  update_every steps from step update_after on, not one a step after the uniform ones; the schedule says how many.
- Weights start as the other learners' do (uniform Glorot, zero biases), not as PyTorch's layers do.
- Twin critics are two networks with an Adam each, which is the same as one Adam over both.
- Each agent draws its own batch (--batches) from its own replay.
- A fall at exactly the last step of an episode is terminal; in the released code it is not.
- Tests run on seeds of their own and leave training untouched.

mpirun -np 5 python d3g.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs: unlike
Spinning Up's MPI, which averages the gradients of one run, nothing is shared between them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import envs
from common.agents import Actor, Stacks
from common.errors import UsageError
from common.evaluate import evaluate
from common.flags import Count, Natural, NonNegative, RunConfig, Unit
from common.nets import Adam, Net
from common.replay import Batch, Replay
from common.run import Run
from common.runs import main
from common.seeding import Streams

AUTHORS = {"pi_lr": 3e-4, "q_lr": 3e-4, "batch_size": 256}  # of D3G's released code


@dataclass(frozen=True)
class Config(RunConfig):
    hid: Count = 256  # units of a hidden layer
    l: Count = 2  # hidden layers of every network
    gamma: Unit = 0.99  # discount of a step
    polyak: Unit = 0.995  # what a target network keeps of itself in an update
    pi_lr: NonNegative = 1e-3  # Adam's step size for tau
    q_lr: NonNegative = 1e-3  # Adam's step size for critics, inverse and forward model
    batch_size: Count = 100  # transitions per update, per seed and agent
    batches: Literal["shared", "apart"] = "apart"  # one draw of replay indices per seed, or one per agent
    replay_size: Count = 500_000  # transitions that an agent remembers
    start_steps: Natural = 10_000  # environment steps with uniform actions, per seed
    uniform_every: Natural = 0  # every k-th episode acts uniformly, for the whole run; 0: none
    update_after: Natural = 1_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 50  # updates in a block
    act_noise: NonNegative = 0.1  # std of exploration noise, in units of the action range [-1, 1]
    tau_every: Count = 2  # updates for each step of tau and of the target networks
    authors_settings: bool = False  # Adam 3e-4 and batches of 256, as in D3G's released code

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in AUTHORS.items() if self.authors_settings else ():
            if getattr(self, name) not in (value, getattr(Config, name)):
                raise UsageError(
                    f"--{name} {getattr(self, name)}: --authors_settings makes it {value}; give one of the two"
                )
            object.__setattr__(self, name, value)  # so that config.json tells what was used


class Agents(Stacks):
    """The networks of S seeds times N agents: goal tau, inverse and forward model, critics Q1 and Q2, some targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.tau = self.net([obs], obs)
        self.inverse = self.net([obs, obs], act, squash=True)
        self.f_net = self.net([obs, act], obs)
        self.q1 = self.net([obs, obs], 1)
        self.q2 = self.net([obs, obs], 1)
        self.tau_targ, self.q1_targ, self.q2_targ = self.tau.copy(), self.q1.copy(), self.q2.copy()
        self.tau_adam, self.q1_adam = Adam(self.tau, cfg.pi_lr), Adam(self.q1, cfg.q_lr)
        self.q2_adam, self.f_adam = Adam(self.q2, cfg.q_lr), Adam(self.f_net, cfg.q_lr)
        self.inverse_adam = Adam(self.inverse, cfg.q_lr)

    def pi(self, obs: Tensor) -> Tensor:
        """I(s, s + tau(s)) in [-1, 1], zero in padded dims: (S, N, B, A)."""
        return self.inverse(obs, self.goal(obs, self.tau))

    def goal(self, obs: Tensor, tau: Net) -> Tensor:
        """m = s + tau(s), the successor wanted: (S, N, B, O), zero in padded dims."""
        return obs + tau(obs) * self.obs_mask

    def f(self, obs: Tensor, act: Tensor, net: Net | None = None) -> Tensor:
        """s + net(s, a), the successor expected of (s, a): (S, N, B, O), zero in padded dims."""
        return obs + (net or self.f_net)(obs, act) * self.obs_mask

    def policy(self, row: int) -> dict[str, np.ndarray]:
        """The weights and biases of tau and of the inverse model by layer, for policy.safetensors."""
        named = {f"tau.{name}": part.copy() for name, part in self.tau.named(row).items()}
        named |= {f"inverse.{name}": part for name, part in self.inverse.named(row).items()}
        real = self.obs_mask[:, 0].cpu().numpy()  # (N, O): a reader of the file needs no mask of observations
        named[f"tau.{len(self.tau.weights) - 1}.weight"] *= real[..., None]
        named[f"tau.{len(self.tau.weights) - 1}.bias"] *= real
        return named


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q(o, a) or Qss(s, s'): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def reached(agents: Agents, obs: Tensor, goal: Tensor) -> Tensor:
    """c = f(s, I(s, m)), where the action for goal m leads by the forward model: (S, N, B, O)."""
    act = agents.inverse.frozen(obs, goal)
    return agents.f(obs, act, agents.f_net.frozen)


def critic_target(agents: Agents, batch: Batch, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) min(Q1', Q2')(s', c) with c reached from s' for the goal s' + tau'(s'): (S, N, B)."""
    c = reached(agents, batch.next_obs, agents.goal(batch.next_obs, agents.tau_targ))
    next_q = torch.minimum(value(agents.q1_targ, batch.next_obs, c), value(agents.q2_targ, batch.next_obs, c))
    return batch.rew + gamma * (1 - batch.terminated) * next_q


def inverse_loss(agents: Agents, batch: Batch) -> Tensor:
    """mean_dims (I(s, s') - a)^2: (S, N, B)."""
    error = (agents.inverse(batch.obs, batch.next_obs) - batch.act).square() * agents.act_mask
    return error.sum(-1) / agents.act_mask.sum(-1)


def f_loss(agents: Agents, batch: Batch) -> Tensor:
    """mean_dims (f(s, a) - s')^2: (S, N, B)."""
    error = (agents.f(batch.obs, batch.act) - batch.next_obs).square() * agents.obs_mask
    return error.sum(-1) / agents.obs_mask.sum(-1)


def tau_loss(agents: Agents, batch: Batch) -> Tensor:
    """-Q1(s, c) + mean_dims (c - m)^2 with m = s + tau(s) and c reached for it; the gradient enters both: (S, N, B)."""
    m = agents.goal(batch.obs, agents.tau)
    c = reached(agents, batch.obs, m)
    cycle = ((c - m).square() * agents.obs_mask).sum(-1) / agents.obs_mask.sum(-1)
    return cycle - value(agents.q1.frozen, batch.obs, c)


def update(agents: Agents, batch: Batch, cfg: Config, move_tau: bool = True) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    tau and the targets move at every tau_every-th update only. That is an argument, as a recorded update cannot count.
    """
    with torch.no_grad():
        y = critic_target(agents, batch, cfg.gamma)
    q1 = value(agents.q1, batch.obs, batch.next_obs)
    loss_q1 = (q1 - y).square().mean(-1)
    agents.q1_adam.descend(loss_q1.sum())
    loss_q2 = (value(agents.q2, batch.obs, batch.next_obs) - y).square().mean(-1)
    agents.q2_adam.descend(loss_q2.sum())

    loss_inverse = inverse_loss(agents, batch).mean(-1)
    agents.inverse_adam.descend(loss_inverse.sum())

    loss_f = f_loss(agents, batch).mean(-1)
    agents.f_adam.descend(loss_f.sum())

    losses = {"LossQ": loss_q1 + loss_q2, "LossInverse": loss_inverse, "LossF": loss_f, "QVals": q1.mean(-1)}
    if move_tau:
        loss_tau = tau_loss(agents, batch).mean(-1)
        agents.tau_adam.descend(loss_tau.sum())
        agents.q1_targ.polyak_(agents.q1, cfg.polyak)
        agents.q2_targ.polyak_(agents.q2, cfg.polyak)
        agents.tau_targ.polyak_(agents.tau, cfg.polyak)
        losses = {"LossPi": loss_tau, **losses}
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
    tau, inverse = Actor(agents.tau), Actor(agents.inverse)
    replay = Replay(run.seeds, env.n_agents, env.n_obs, env.n_act, cfg.replay_size, cfg.device)
    noise = Streams(run.seeds, "exploration")
    fast_update = run.record(update)
    env.reset()
    run.track(env=env, agents=agents, replay=replay, noise=noise)
    tau.refresh()
    inverse.refresh()
    for step in run.steps():
        obs = env.obs
        goal = obs + tau(obs) * env.obs_mask
        act = explore(cfg, inverse(obs, goal), env.act_mask, step, env.episode, noise)
        next_obs, rew, terminated, truncated = env.step(act)
        run.store(replay, step, obs, act, next_obs, rew, terminated, truncated)
        env.reset(terminated | truncated)
        if step >= cfg.update_after and step % cfg.update_every == 0:
            for batch in replay.sample(cfg.batch_size, cfg.updates, cfg.batches == "shared"):
                move_tau = (run.log.n_updates + 1) % cfg.tau_every == 0
                run.log.update(fast_update(agents, batch, cfg, move_tau))
            tau.refresh()
            inverse.refresh()
        if step % cfg.steps_per_epoch == 0:
            run.end_epoch(step, *evaluate(test_env, agents.pi, run.seeds, step, cfg.device))


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that the paper used with a task, where they differ from Config's."""
    return envs.schedule(env, obs)


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
