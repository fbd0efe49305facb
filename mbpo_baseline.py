"""The paper's MBPO baseline: I2Q with lambda = 0, so that the forward model is a plain model of the mean successor.

Everything is I2Q's except for the forward model's loss: f(s, a) is fitted to the successors in the replay and nothing
draws it to valuable ones. It shows what that pull is worth. It is NOT the MBPO of Janner et al. 2019: there is no
ensemble, no rollout, no soft actor-critic; the name is the one that the I2Q paper uses.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. Its sections 1-5 were not at hand:
equation numbers are the paper's, but (13)-(15) are reconstructed from its appendix and the released code.
Rules for Q's target (--rule): 1 is (14), the paper's choice for Multi-Agent MuJoCo; 2 is (15), its choice for
differential games; "released" is what the authors' Multi-Agent MuJoCo code does: Qss regresses to the DDPG target and Q
to the lower of the two targets.

Departures:
- s'* is chosen between f's proposal and the sampled s' under the target networks in rules 1 and 2, as in i2q_ddpg.py.
  So some optimism is left at lambda = 0: a sampled s' that is worth more than the mean successor is taken.
- With the whole state of a robot (--obs full) the released rule is the default. Rule 1 takes the better of two
  successors that differ by what other agents did, and there overestimates until it learns nothing (docs/i2q_ddpg.md).
- Agents draw their batches apart, each from its own replay.
- Test episodes start from their own seeds and leave training untouched.

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
from common.nets import MLP, Adam
from common.replay import Batch, Replay
from common.runs import Run, RunConfig, main, within
from common.seeding import Streams

# the paper's choices by family of tasks; envs.schedule has those that all algorithms share
SETTINGS: dict[str, dict[str, Any]] = {
    "differential": {"rule": "2", "forward": "bounded"},
    "mujoco": {"rule": "1", "forward": "residual"},
    "parallel": {"rule": "1", "forward": "residual"},
}


@dataclass(frozen=True)
class Config(RunConfig):
    hid: int = 256  # units of a hidden layer
    l: int = 2  # hidden layers of every network
    gamma: float = 0.99  # discount of a step
    polyak: float = 0.995  # what a target network keeps of itself in an update
    pi_lr: float = 1e-3  # Adam's step size for the policy
    q_lr: float = 1e-3  # Adam's step size for values and models
    batch_size: int = 100  # transitions per update, per seed and agent
    batches: Literal["shared", "apart"] = "apart"  # one draw of replay indices per seed, or one per agent
    replay_size: int = 500_000  # transitions that an agent remembers
    start_steps: int = 10_000  # environment steps with uniform actions, per seed
    uniform_every: int = 0  # episodes: every so many-th acts uniformly for the whole run; 0: none does
    update_after: int = 1_000  # environment steps before the first update
    update_every: int = 50  # environment steps between blocks of updates
    updates: int = 50  # updates in a block
    act_noise: float = 0.1  # std of exploration noise, in units of the action range [-1, 1]
    rule: Literal["1", "2", "released"] = "1"  # Q's target: (14), (15), or that of the authors' Multi-Agent MuJoCo code
    forward: Literal["bounded", "residual"] = "residual"  # form of f: clip(s + .1 tanh(net), -1, 1), or s + net

    def __post_init__(self) -> None:
        super().__post_init__()
        more = (0, float("inf"))
        within(self, gamma=(0, 1), polyak=(0, 1), act_noise=more, pi_lr=more, q_lr=more)
        within(self, start_steps=more, uniform_every=more, update_after=more)
        one = (1, float("inf"))
        within(self, hid=one, l=one, batch_size=one, replay_size=one, update_every=one, updates=one)


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, values Q and Qss, forward model f, and their targets."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.forward = cfg.forward
        self.pi_net = self.net([obs], act)
        self.q = self.net([obs, act], 1)
        self.qss = self.net([obs, obs], 1)
        self.f_net = self.net([obs, act], obs)
        self.pi_targ, self.q_targ = self.pi_net.copy(), self.q.copy()
        self.qss_targ, self.f_targ = self.qss.copy(), self.f_net.copy()
        self.pi_adam, self.q_adam = Adam(self.pi_net, cfg.pi_lr), Adam(self.q, cfg.q_lr)
        self.qss_adam, self.f_adam = Adam(self.qss, cfg.q_lr), Adam(self.f_net, cfg.q_lr)

    def pi(self, obs: Tensor, net: MLP | None = None) -> Tensor:
        """tanh(net(o)) in [-1, 1], zero in padded dims: (S, N, B, A)."""
        return torch.tanh((net or self.pi_net)(obs)) * self.act_mask

    def f(self, obs: Tensor, act: Tensor, net: MLP | None = None) -> Tensor:
        """The successor proposed for (s, a): (S, N, B, O), zero in padded dims."""
        out = (net or self.f_net)(torch.cat([obs, act], -1))
        if self.forward == "bounded":
            return torch.clamp(obs + 0.1 * torch.tanh(out), -1, 1) * self.obs_mask
        return obs + out * self.obs_mask


def value(q: MLP, obs: Tensor, act: Tensor) -> Tensor:
    """Q(o, a): (S, N, B)."""
    return q(torch.cat([obs, act], -1)).squeeze(-1)


def td_target(agents: Agents, batch: Batch, next_obs: Tensor, gamma: float) -> Tensor:
    """y = r + gamma (1 - d) Q'(o', pi'(o')): (S, N, B). Lillicrap et al. 2016, Algorithm 1."""
    next_q = value(agents.q_targ, next_obs, agents.pi(next_obs, agents.pi_targ))
    return batch.rew + gamma * (1 - batch.terminated) * next_q


def qss_target(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """y = r + gamma (1 - d) Qss'(s', f'(s', pi'(s'))), (13): (S, N, B). Released: DDPG's own target."""
    if cfg.rule == "released":
        return td_target(agents, batch, batch.next_obs, cfg.gamma)
    successor = agents.f(batch.next_obs, agents.pi(batch.next_obs, agents.pi_targ), agents.f_targ)
    return batch.rew + cfg.gamma * (1 - batch.terminated) * value(agents.qss_targ, batch.next_obs, successor)


def ideal_successor(batch: Batch, f: Tensor, qss: MLP) -> tuple[Tensor, Tensor]:
    """The better of the proposal f (S, N, B, O) and the sampled s' under Qss, and its Qss(s, s'*): (S, N, B)."""
    proposed, seen = value(qss, batch.obs, f), value(qss, batch.obs, batch.next_obs)
    return torch.where((proposed > seen)[..., None], f, batch.next_obs), torch.maximum(proposed, seen)


def q_target(agents: Agents, batch: Batch, cfg: Config) -> Tensor:
    """Q's target at the ideal successor s'*: (S, N, B).

    Rule 1, (14): y = r + gamma (1 - d) Q'(s'*, pi'(s'*)). Rule 2, (15): y = Qss'(s, s'*). Released: the lower of (14)
    at the online networks' s'* and of DDPG's target.
    """
    if cfg.rule == "released":
        best, _ = ideal_successor(batch, agents.f(batch.obs, batch.act), agents.qss)
        return torch.minimum(
            td_target(agents, batch, best, cfg.gamma), td_target(agents, batch, batch.next_obs, cfg.gamma)
        )
    best, best_qss = ideal_successor(batch, agents.f(batch.obs, batch.act, agents.f_targ), agents.qss_targ)
    return best_qss if cfg.rule == "2" else td_target(agents, batch, best, cfg.gamma)


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

    agents.pi_targ.polyak_(agents.pi_net, cfg.polyak)
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
    env = envs.make(cfg.env, run.seeds, obs=cfg.obs, max_ep_len=cfg.max_ep_len, legacy_actuators=cfg.legacy_actuators)
    test_seeds = [seed for seed in run.seeds for _ in range(cfg.num_test_episodes)]
    test_env = envs.make(
        cfg.env, test_seeds, obs=cfg.obs, max_ep_len=cfg.test_ep_len, legacy_actuators=cfg.legacy_actuators
    )
    run.say(env.table())
    agents = Agents(env, cfg, run.seeds)
    actor = Actor(agents.pi_net)
    replay = Replay(run.seeds, env.n_agents, env.n_obs, env.n_act, cfg.replay_size, cfg.device)
    noise = Streams(run.seeds, "exploration")
    fast_update = run.record(update)
    env.reset()
    run.track(env=env, agents=agents, replay=replay, noise=noise)
    actor.refresh()
    for step in run.steps():
        obs = env.obs
        act = explore(cfg, np.tanh(actor(obs)), env.act_mask, step, run.log.episode, noise)
        next_obs, rew, terminated, truncated = env.step(act)
        run.check(step, action=act, observation=next_obs, reward=rew)
        replay.store(obs, act, next_obs, rew, terminated)
        run.log.step(rew, terminated | truncated)
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
