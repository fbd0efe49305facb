"""The paper's MBPO baseline: I2Q with lambda = 0, so that f is a plain model of the mean successor.

Everything but f's loss is I2Q's (i2q_ddpg.py has the formulas): nothing draws f(s, a) to valuable successors, so the
difference shows what that pull is worth. This is NOT the MBPO of Janner et al. 2019: there is no ensemble, no rollout
and no soft actor-critic. The name is the one that the I2Q paper uses.

    f     descends  mean_dims (f(s, a) - s')^2                                                        (12), lambda = 0

Some optimism is left: in rules 1 and 2 a sampled s' that is worth more than the mean successor is taken for s'*.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. We had its appendix and the released
code only: equation numbers are the paper's, but (13)-(15) are our reconstruction.

Departures from the released code: those of i2q_ddpg.py, but for the floor of mean|Qss|, which lambda 0 does not need.

mpirun -np 5 python mbpo_baseline.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs:
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

# the paper's choices by family of tasks, MuJoCo's for your own; envs.schedule has those that all algorithms share
SETTINGS: dict[str, dict[str, Any]] = {
    "differential": {"rule": "2", "forward": "bounded"},
    "mujoco": {"rule": "1", "forward": "residual"},
    "parallel": {"rule": "1", "forward": "residual"},
}


@dataclass(frozen=True)
class Config(RunConfig):
    hid: Count = 256  # units of a hidden layer
    l: Count = 2  # hidden layers of every network
    gamma: Unit = 0.99  # discount of a step
    polyak: Unit = 0.995  # what a target network keeps of itself in an update
    pi_lr: NonNegative = 1e-3  # Adam's step size for the policy
    q_lr: NonNegative = 1e-3  # Adam's step size for values and models
    batch_size: Count = 100  # transitions per update, per seed and agent
    batches: Literal["shared", "apart"] = "apart"  # one draw of replay indices per seed, or one per agent
    replay_size: Count = 500_000  # transitions that an agent remembers
    start_steps: Natural = 10_000  # environment steps with uniform actions, per seed
    uniform_every: Natural = 0  # every k-th episode acts uniformly, for the whole run; 0: none
    update_after: Natural = 1_000  # environment steps before the first update
    update_every: Count = 50  # environment steps between blocks of updates
    updates: Count = 50  # updates in a block
    act_noise: NonNegative = 0.1  # std of exploration noise, in units of the action range [-1, 1]
    rule: Literal["1", "2", "released"] = "1"  # Q's target: (14), (15), or that of the authors' Multi-Agent MuJoCo code
    forward: Literal["bounded", "residual"] = "residual"  # form of f: clip(s + .1 tanh(net), -1, 1), or s + net


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, values Q and Qss, forward model f, and their targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.forward = cfg.forward
        self.pi = self.net([obs], act, squash=True)
        self.q = self.net([obs, act], 1)
        self.qss = self.net([obs, obs], 1)
        self.f_net = self.net([obs, act], obs)
        self.pi_targ, self.q_targ = self.pi.copy(), self.q.copy()
        self.qss_targ, self.f_targ = self.qss.copy(), self.f_net.copy()
        self.pi_adam, self.q_adam = Adam(self.pi, cfg.pi_lr), Adam(self.q, cfg.q_lr)
        self.qss_adam, self.f_adam = Adam(self.qss, cfg.q_lr), Adam(self.f_net, cfg.q_lr)

    def f(self, obs: Tensor, act: Tensor, net: Net | None = None) -> Tensor:
        """The successor proposed for (s, a): (S, N, B, O), zero in padded dims."""
        out = (net or self.f_net)(obs, act)
        if self.forward == "bounded":
            return torch.clamp(obs + 0.1 * torch.tanh(out), -1, 1) * self.obs_mask
        return obs + out * self.obs_mask


def value(net: Net, *inputs: Tensor) -> Tensor:
    """Q(o, a) or Qss(s, s'): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def td_target(agents: Agents, batch: Batch, next_obs: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) Q'(o', pi'(o')): (S, N, B). Lillicrap et al. 2016, Algorithm 1."""
    next_q = value(agents.q_targ, next_obs, agents.pi_targ(next_obs))
    return batch.rew + gamma * (1 - batch.terminated) * next_q


def qss_target(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """y = r + gamma (1 - d) Qss'(s', f'(s', pi'(s'))), (13): (S, N, B). Released: DDPG's own target."""
    if cfg.rule == "released":
        return td_target(agents, batch, batch.next_obs, cfg.gamma)
    successor = agents.f(batch.next_obs, agents.pi_targ(batch.next_obs), agents.f_targ)
    return batch.rew + cfg.gamma * (1 - batch.terminated) * value(agents.qss_targ, batch.next_obs, successor)


def ideal_successor(batch: Batch, f: Tensor, qss: Net) -> tuple[Tensor, Tensor]:
    """The better of the proposal f (S, N, B, O) and the sampled s' under Qss, and its Qss(s, s'*): (S, N, B)."""
    proposed, seen = value(qss, batch.obs, f), value(qss, batch.obs, batch.next_obs)
    return torch.where((proposed > seen)[..., None], f, batch.next_obs), torch.maximum(proposed, seen)


def q_target(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """Q's target at the ideal successor s'*: (S, N, B). Released: s'* under the online networks, the lower target."""
    if cfg.rule == "released":
        best, _ = ideal_successor(batch, agents.f(batch.obs, batch.act), agents.qss)
        seen = td_target(agents, batch, batch.next_obs, cfg.gamma)
        return torch.minimum(td_target(agents, batch, best, cfg.gamma), seen)
    best, best_qss = ideal_successor(batch, agents.f(batch.obs, batch.act, agents.f_targ), agents.qss_targ)
    if cfg.rule == "1":
        return td_target(agents, batch, best, cfg.gamma)  # (14)
    return best_qss  # (15)


def f_loss(agents: Agents, batch: Batch) -> Tensor:
    """mean_dims (f(s, a) - s')^2: (S, N, B)."""
    error = (agents.f(batch.obs, batch.act) - batch.next_obs).square() * agents.obs_mask
    return error.sum(-1) / agents.obs_mask.sum(-1)


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    """
    with torch.no_grad():
        y = qss_target(agents, batch, cfg)
    loss_qss = (value(agents.qss, batch.obs, batch.next_obs) - y).square().mean(-1)
    agents.qss_adam.descend(loss_qss.sum())

    loss_f = f_loss(agents, batch).mean(-1)
    agents.f_adam.descend(loss_f.sum())

    with torch.no_grad():
        y = q_target(agents, batch, cfg)
    q = value(agents.q, batch.obs, batch.act)
    loss_q = (q - y).square().mean(-1)
    agents.q_adam.descend(loss_q.sum())

    loss_pi = -value(agents.q.frozen, batch.obs, agents.pi(batch.obs)).mean(-1)
    agents.pi_adam.descend(loss_pi.sum())

    agents.pi_targ.polyak_(agents.pi, cfg.polyak)
    agents.q_targ.polyak_(agents.q, cfg.polyak)
    agents.qss_targ.polyak_(agents.qss, cfg.polyak)
    agents.f_targ.polyak_(agents.f_net, cfg.polyak)
    return {"LossPi": loss_pi, "LossQ": loss_q, "LossQss": loss_qss, "LossF": loss_f, "QVals": q.mean(-1)}


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
    """The settings that the paper used with a task, where they differ from Config's; for whole states, ours."""
    whole = {"rule": "released"} if obs == "full" and envs.family(env) == "mujoco" else {}
    return {**envs.schedule(env, obs), **SETTINGS[envs.family(env)], **whole}


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
