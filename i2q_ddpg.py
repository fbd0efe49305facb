"""I2Q on DDPG: every agent learns on the successor that the team would choose, not on the one that it happened to see.

Agent i sees its own o_i (written s), acts a_i and shares the team's reward r. A prime marks a target network.

    f     descends  mean_dims (f(s, a) - s')^2 - lam / mean|Qss(s, f)| Qss(s, f),  f = f(s, a)        (12)
    Qss   descends  (Qss(s, s') - r - gamma (1 - d) Qss'(s', f'(s', pi'(s'))))^2                      (13)
    s'*   is the better of f'(s, a) and the sampled s' under Qss'
    Q     descends  (Q(s, a) - y)^2
          --rule 1:         y = r + gamma (1 - d) Q'(s'*, pi'(s'*))                                   (14)
          --rule 2:         y = Qss'(s, s'*)                                                          (15)
          --rule released:  y = min over s'' in {s', s'*} of r + gamma (1 - d) Q'(s'', pi'(s''))
    pi    ascends   Q(s, pi(s))

As all agents' models f are drawn to the same valuable successor, Q regresses to the team's optimum although nobody sees
the others. The paper uses rule 1 on Multi-Agent MuJoCo and rule 2 on differential games. "released" is what the
authors' Multi-Agent MuJoCo code does: Qss regresses to DDPG's target, and so no optimism enters.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. We had its appendix and the released
code only: equation numbers are the paper's, but (13)-(15) are our reconstruction.

Departures from the released code (docs/i2q_ddpg.md gives the reasons):
- The weight of f's value term divides by mean|Qss|, floored here at QSS_FLOOR: that mean can be zero.
- An update steps Qss, f, Q and pi in turn; the released code takes all gradients first. Adam's eps acts after its bias
  correction, TensorFlow's before.
- Each agent draws its own batch (--batches), with replacement; the released code draws one set of indices for all.
- Padded dims of unequal agents are masked; the released code trains on them.
- A fall at exactly the last step of an episode is terminal; in the released code it is not.
- With the whole state of a robot (--obs full) the released rule is the default: rule 1 overestimates there.
- Tests run after a block of updates, on seeds of their own, and leave training untouched.

mpirun -np 5 python i2q_ddpg.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs: unlike
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

QSS_FLOOR = 1e-2  # of mean|Qss| in lam's scale: below it, values are noise to which no successor should be bent

# the paper's choices by family of tasks, MuJoCo's for your own; envs.schedule has those that all algorithms share
SETTINGS: dict[str, dict[str, Any]] = {
    "differential": {"rule": "2", "lam": 1.0, "forward": "bounded"},
    "mujoco": {"rule": "1", "lam": 0.01, "forward": "residual"},
    "parallel": {"rule": "1", "lam": 0.01, "forward": "residual"},
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
    lam: NonNegative = 0.01  # weight of value against accuracy in the forward model; 0: a mean model
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


def f_loss(agents: Agents, batch: Batch, lam: float) -> Tensor:
    """-(12): mean_dims (f - s')^2 - sg(lam / mean_B |Qss(s, f)|) Qss(s, f) where f = f(s, a): (S, N, B)."""
    f = agents.f(batch.obs, batch.act)
    qss = value(agents.qss.frozen, batch.obs, f)
    # a bare mean() would couple agents and seeds; the floor is a departure, see above
    scale = lam / qss.detach().abs().mean(-1, keepdim=True).clamp(min=QSS_FLOOR)
    error = ((f - batch.next_obs).square() * agents.obs_mask).sum(-1) / agents.obs_mask.sum(-1)
    return error - scale * qss


def update(agents: Agents, batch: Batch, cfg: Config) -> dict[str, Tensor]:
    """One step of every network of every agent on its own batch; returns diagnostics, each (S, N).

    Losses are means over the batch and sums over seeds and agents: every network gets the gradient it would have alone.
    """
    with torch.no_grad():
        y = qss_target(agents, batch, cfg)
    loss_qss = (value(agents.qss, batch.obs, batch.next_obs) - y).square().mean(-1)
    agents.qss_adam.descend(loss_qss.sum())

    loss_f = f_loss(agents, batch, cfg.lam).mean(-1)
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
