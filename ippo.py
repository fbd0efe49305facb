"""Independent PPO (IPPO): every agent runs PPO on what it sees, does and is paid, as if it were alone.

Agent i sees its own o_i, acts a_i and shares the team's reward r. It acts from a Gaussian policy for a rollout of
steps, judges what it did by GAE, moves the policy by a clipped surrogate until that has drifted too far, fits its value
V(o), and throws the rollout away.

Papers: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; Schulman et al. 2016, "High-Dimensional
Continuous Control Using Generalized Advantage Estimation"; the on-policy reference of Jiang & Lu 2022. Losses, order of
the updates and defaults are Spinning Up's PPO.

Departures from Spinning Up:
- The policy's mean is tanh(net(o)), not net(o), and hidden layers are ReLU, not tanh: a saved policy and a stack of
  networks are then what they are in the other files. Weights start uniform Glorot, biases zero, as everywhere here.
- A rollout that ends inside an episode bootstraps there, as Spinning Up's does, but the episode goes on in the next
  rollout: starting anew would show early steps of episodes more often than late ones.
- A fall at exactly the last step of an episode or of a rollout is terminal; Spinning Up bootstraps there.
- Early stopping is each agent's own. Spinning Up's stops the one network that there is; here an agent that has drifted
  too far stands still, its Adam too, while the others go on.
- Advantages are divided by their std plus ADV_EPS: a rollout without any reward may have none.
- Lengths of runs, episodes and tests are the task's (envs.schedule). In a run of fewer than 4,000 steps a rollout is an
  epoch long.
- Diagnostics are taken after the update, Spinning Up's losses before it: LossPi would then be 0 by construction.
  Entropy is a sum over action dims, not a mean; StopIter is the number of steps made, Spinning Up's ends at 79 of 80.
- Test episodes follow the mean, from their own seeds, and leave training untouched.

mpirun -np 5 python ippo.py --env 2x3HalfCheetah trains five seeds side by side. Ranks are independent runs: unlike
Spinning Up's MPI, which averages the gradients of one run, nothing is shared between them.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import envs
from common.agents import Actor, Stacks
from common.errors import UsageError
from common.evaluate import evaluate
from common.flags import Count, Natural, NonNegative, RunConfig, Unit
from common.nets import Adam, Net
from common.run import Run, repeated
from common.runs import main
from common.seeding import Streams

LOG_STD = -0.5  # log of the policy's std at the start, in units of the action range [-1, 1]
ROLLOUT = 4_000  # environment steps between updates, as in Spinning Up's PPO
ADV_EPS = 1e-8  # added to the std of advantages, in units of the return

# what envs.schedule holds for learners without a replay; PPO's own settings do not depend on the task
SETTINGS = ("epochs", "steps_per_epoch", "num_test_episodes", "max_ep_len", "test_ep_len")


@dataclass(frozen=True)
class Config(RunConfig):
    hid: Count = 64  # units of a hidden layer
    l: Count = 2  # hidden layers of every network
    gamma: Unit = 0.99  # discount of a step
    lam: Unit = 0.97  # GAE's lambda: 0 trusts V after one step, 1 only what was paid
    clip_ratio: Unit = 0.2  # how far the likelihood ratio may leave 1 before the objective is flat
    pi_lr: NonNegative = 3e-4  # Adam's step size for the policy
    vf_lr: NonNegative = 1e-3  # Adam's step size for the value
    rollout: Natural = 0  # environment steps between updates, per seed; 0: 4000, or an epoch where the run is shorter
    train_pi_iters: Count = 80  # steps of the policy on a rollout, at most
    train_v_iters: Count = 80  # steps of the value on a rollout
    target_kl: NonNegative = 0.01  # an agent's policy stops for this rollout once its KL passes 1.5 times this

    def __post_init__(self) -> None:
        super().__post_init__()
        steps = self.epochs * self.steps_per_epoch
        if not self.rollout:
            object.__setattr__(self, "rollout", ROLLOUT if steps >= ROLLOUT else self.steps_per_epoch)
        if self.rollout > steps:
            raise UsageError(
                f"--rollout {self.rollout}: longer than the run of {steps} steps (--epochs {self.epochs} of "
                f"--steps_per_epoch {self.steps_per_epoch}), which would end before its first update"
            )


class Steps(NamedTuple):
    """B steps of each agent of each seed, in the order in which they were made."""

    obs: Tensor  # (S, N, B, O)
    act: Tensor  # (S, N, B, A) as drawn; the environment clips it to [-1, 1]
    next_obs: Tensor  # (S, N, B, O), the true successor, never the first observation of the next episode
    rew: Tensor  # (S, N, B), the team's reward
    terminated: Tensor  # (S, N, B), 0 or 1; 0 where only the time ran out
    ended: Tensor  # (S, N, B), 0 or 1; the episode was over, for whichever reason


class Rollout:
    """The steps since the last update, on the host; a step is one row of floats."""

    def __init__(self, n_seeds: int, n_agents: int, n_obs: int, n_act: int, size: int):
        self.size, self.count = size, 0  # steps stored so far, those of older rollouts included
        self.splits = [n_obs, n_act, n_obs, 1, 1, 1]
        self.rows = np.zeros((n_seeds, n_agents, size, sum(self.splits)), np.float32)

    def store(
        self,
        obs: np.ndarray,
        act: np.ndarray,
        next_obs: np.ndarray,
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Add one step of every seed: (S, N, O), (S, N, A), (S, N, O), (S,), (S,), (S,)."""
        S, N = obs.shape[:2]
        flags = np.broadcast_to(np.stack([rew, terminated, terminated | truncated], -1)[:, None], (S, N, 3))
        self.rows[:, :, self.count % self.size] = np.concatenate([obs, act, next_obs, flags], -1, dtype=np.float32)
        self.count += 1

    def steps(self, device: str) -> Steps:
        """A copy of the whole rollout, once it is full."""
        parts = (part.contiguous() for part in torch.from_numpy(self.rows).to(device).split(self.splits, -1))
        obs, act, next_obs, rew, terminated, ended = parts  # contiguous, as each is read some 80 times
        return Steps(obs, act, next_obs, rew.squeeze(-1), terminated.squeeze(-1), ended.squeeze(-1))

    def state_dict(self, row: int) -> dict[str, Any]:
        return {"count": self.count, "rows": self.rows[row, :, : self.count % self.size]}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.rows[row, :, : self.count % self.size] = state["rows"]

    def cut(self, row: int, where: np.ndarray) -> None:
        """The last step ended its episode: the environment went on with a new one."""
        self.rows[row, :, (self.count - 1) % self.size, -1] = 1


class StoppingAdam:
    """One Adam (Kingma & Ba 2015) per agent and seed, over its network and its log_std; each can stop by itself.

    common.nets.Adam counts steps for the whole stack. Here an agent counts its own: with another's count its moments
    would be corrected wrongly, and by what another agent did.
    """

    betas, eps = (0.9, 0.999), 1e-8

    def __init__(self, net: Net, log_std: Tensor, lr: float):
        self.net, self.params, self.lr = net, (net.flat, log_std), lr
        self.moments = [(torch.zeros_like(param), torch.zeros_like(param)) for param in self.params]
        # beta^t after the t steps that an agent made, by repeated product: pow may round by where a number stands
        shape, device = net.flat.shape[:2], net.flat.device
        self.decays = [torch.ones(shape, dtype=torch.float64, device=device) for _ in self.betas]  # (S, N) each

    @torch.no_grad()
    def descend(self, loss: Tensor, going: Tensor) -> None:
        """One step down `loss`, a sum over seeds and agents, of the agents that are `going` (S, N) bool."""
        for decay, beta in zip(self.decays, self.betas):
            self._keep(decay, decay * beta, going)
        # what the moments lack, as they started at 0
        one, two = ((1 - decay).to(loss.dtype)[..., None] for decay in self.decays)
        for param, grad, (mean, square) in zip(self.params, torch.autograd.grad(loss, self.params), self.moments):
            self._keep(mean, mean.lerp(grad, 1 - self.betas[0]), going[..., None])
            self._keep(square, square.lerp(grad.square(), 1 - self.betas[1]), going[..., None])
            step = self.lr * (mean / one) / ((square / two).sqrt() + self.eps)
            self._keep(param, param - step, going[..., None])

    def _keep(self, old: Tensor, new: Tensor, going: Tensor) -> None:
        """old <- new where going, in place and without a branch: also a NaN does not reach who has stopped."""
        old.copy_(torch.where(going, new, old))


class Agents(Stacks):
    """The networks of S seeds times N agents: policy pi, its log_std that no state changes, and value V."""

    def __init__(self, env: envs.VectorEnv, cfg: Config, seeds: tuple[int, ...]):
        super().__init__(env, seeds, [cfg.hid] * cfg.l, cfg.device)
        obs, act = env.obs_mask, env.act_mask
        self.pi = self.net([obs], act, squash=True)
        self.v = self.net([obs], 1)
        shape = len(seeds), env.n_agents, env.n_act
        self.log_std = torch.full(shape, LOG_STD, device=cfg.device, requires_grad=True)
        self.pi_adam, self.v_adam = StoppingAdam(self.pi, self.log_std, cfg.pi_lr), Adam(self.v, cfg.vf_lr)

    def std(self) -> np.ndarray:
        """The policy's std: (S, N, A)."""
        return self.log_std.detach().exp().cpu().numpy()


def value(net: Net, *inputs: Tensor) -> Tensor:
    """V(o): (S, N, B)."""
    return net(*inputs).squeeze(-1)


def log_prob(agents: Agents, obs: Tensor, act: Tensor) -> Tensor:
    """log N(a; pi(o), std) = sum over real dims of -((a - pi(o)) / std)^2 / 2 - log std - log(2 pi) / 2: (S, N, B)."""
    log_std = agents.log_std[:, :, None]
    error = (act - agents.pi(obs)) * torch.exp(-log_std)
    return ((-0.5 * error.square() - log_std - 0.5 * math.log(2 * math.pi)) * agents.act_mask).sum(-1)


def entropy(agents: Agents) -> Tensor:
    """Sum over real dims of 1/2 + log(2 pi) / 2 + log std, in nats: (S, N)."""
    return ((0.5 + 0.5 * math.log(2 * math.pi) + agents.log_std.detach()) * agents.act_mask[:, 0]).sum(-1)


def discounted(x: Tensor, keep: Tensor) -> Tensor:
    """y_t = x_t + keep_t y_{t+1}, nothing after the last: (S, N, B). In log2 B rounds, each of twice the reach."""
    reach = 1
    while reach < x.shape[-1]:
        x = torch.cat([x[..., :-reach] + keep[..., :-reach] * x[..., reach:], x[..., -reach:]], -1)
        keep = torch.cat([keep[..., :-reach] * keep[..., reach:], keep[..., -reach:]], -1)
        reach *= 2
    return x


def advantages(agents: Agents, steps: Steps, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE's A_t = delta_t + gamma lam A_{t+1} and the value's target R_t = r_t + gamma R_{t+1}: both (S, N, B).

    delta_t = r_t + gamma (1 - d) V(o') - V(o). Neither reaches into the next episode. Where the time, or the rollout,
    ran out, R goes on as V(o') of the true successor; where the task was over (d = 1), nothing follows.
    Schulman et al. 2016, (16); Spinning Up's rewards-to-go.
    """
    next_v = (1 - steps.terminated) * value(agents.v, steps.next_obs)
    delta = steps.rew + gamma * next_v - value(agents.v, steps.obs)
    cut = steps.ended.clone()
    cut[..., -1] = 1
    returns = discounted(steps.rew + gamma * cut * next_v, gamma * (1 - cut))
    return discounted(delta, gamma * lam * (1 - cut)), returns


def pi_loss(logp: Tensor, old: Tensor, adv: Tensor, clip_ratio: float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A), ratio = pi / pi_old: (S, N, B). Schulman et al. 2017, (7)."""
    ratio = torch.exp(logp - old)
    return -torch.minimum(ratio * adv, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * adv)


def v_loss(v: Tensor, returns: Tensor) -> Tensor:
    """(V - R)^2: (S, N, B)."""
    return (v - returns).square()


def kl(logp: Tensor, old: Tensor) -> Tensor:
    """Estimate of KL(pi_old, pi), mean of log pi_old - log pi over the rollout, in nats: (S, N). Spinning Up's."""
    return (old - logp).mean(-1)


def update(agents: Agents, steps: Steps, cfg: Config) -> dict[str, Tensor]:
    """All steps of every network of every agent on its own rollout; returns diagnostics, each (S, N).

    Losses are means over the rollout and sums over seeds and agents: every network gets the gradient it would have
    alone. The number of iterations is fixed; an agent that has stopped computes on, but no longer moves.
    """
    with torch.no_grad():
        adv, returns = advantages(agents, steps, cfg.gamma, cfg.lam)
        centred = adv - adv.mean(-1, keepdim=True)  # over an agent's own steps: a bare mean() would couple agents
        adv = centred / (centred.square().mean(-1, keepdim=True).sqrt() + ADV_EPS)
        old = log_prob(agents, steps.obs, steps.act)
    stop_iter = torch.zeros(old.shape[:2], device=old.device)
    for _ in repeated(cfg.train_pi_iters):
        logp = log_prob(agents, steps.obs, steps.act)
        going = kl(logp.detach(), old) <= 1.5 * cfg.target_kl  # who stops stays put, so its KL stays above, too
        stop_iter += going
        agents.pi_adam.descend(pi_loss(logp, old, adv, cfg.clip_ratio).mean(-1).sum(), going)

    for _ in repeated(cfg.train_v_iters):
        agents.v_adam.descend(v_loss(value(agents.v, steps.obs), returns).mean(-1).sum())

    with torch.no_grad():
        logp, v = log_prob(agents, steps.obs, steps.act), value(agents.v, steps.obs)
        clipped = (torch.exp(logp - old) - 1).abs() > cfg.clip_ratio
    return {
        "LossPi": pi_loss(logp, old, adv, cfg.clip_ratio).mean(-1),
        "LossV": v_loss(v, returns).mean(-1),
        "VVals": v.mean(-1),
        "KL": kl(logp, old),
        "Entropy": entropy(agents),
        "ClipFrac": clipped.to(logp.dtype).mean(-1),
        "StopIter": stop_iter,
    }


def explore(pi: np.ndarray, std: np.ndarray, act_mask: np.ndarray, noise: Streams) -> np.ndarray:
    """pi + std N(0, 1), not clipped: the policy's likelihood is of what was drawn. (S, N, A)."""
    return (pi + std * noise.normal(*act_mask.shape)) * act_mask


def train(cfg: Config, run: Run) -> None:
    """Train the seeds of `run` from where its checkpoint stands."""
    env, test_env = envs.training_and_test(cfg, run.seeds)
    run.say(env.table())
    agents = Agents(env, cfg, run.seeds)
    actor = Actor(agents.pi)
    rollout = Rollout(len(run.seeds), env.n_agents, env.n_obs, env.n_act, cfg.rollout)
    noise = Streams(run.seeds, "exploration")
    fast_update = run.record(update)
    env.reset()
    run.track(env=env, agents=agents, rollout=rollout, noise=noise)
    actor.refresh()
    std = agents.std()
    for step in run.steps():
        obs = env.obs
        act = explore(actor(obs), std, env.act_mask, noise)
        next_obs, rew, terminated, truncated = env.step(act)
        run.store(rollout, step, obs, act, next_obs, rew, terminated, truncated)
        env.reset(terminated | truncated)
        if step % cfg.rollout == 0:
            run.log.update(fast_update(agents, rollout.steps(cfg.device), cfg))
            actor.refresh()
            std = agents.std()
        if step % cfg.steps_per_epoch == 0:
            run.end_epoch(step, *evaluate(test_env, agents.pi, run.seeds, step, cfg.device))


def defaults(env: str, obs: str) -> dict[str, Any]:
    """The settings that the paper used with a task, where they differ from Config's."""
    schedule = envs.schedule(env, obs)
    return {name: schedule[name] for name in SETTINGS}


if __name__ == "__main__":
    main(Config, defaults, train, __doc__)
