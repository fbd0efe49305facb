"""Independent PPO: its parts against oracles by hand or in numpy, its update against a torch module for each agent."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.checks import compiled, kept, rows_of
from helpers.toys import WIDTHS, Toy
from torch import Tensor, nn

import envs
import ippo
import watch
from common.checkpoint import Checkpoints
from common.nets import MLP, Adam
from common.policy import load_policy
from envs import VectorEnv

S, N, B = 2, 3, 40
N_ACT = WIDTHS[1]  # of three agents of unequal width
GAMMA, LAM = 0.9, 0.8


ENV = Toy(range(S))


def make_agents(dtype: torch.dtype = torch.float32, **flags: Any) -> tuple[ippo.Agents, ippo.Config]:
    cfg = ippo.Config(**{"hid": 8, "gamma": GAMMA, "lam": LAM, "train_pi_iters": 12, "train_v_iters": 5, **flags})
    agents = ippo.Agents(ENV, cfg, ENV.seeds)
    rng = torch.Generator().manual_seed(0)
    for bias in (*agents.pi.biases, *agents.v.biases):
        bias += 0.1 * torch.randn(bias.shape, generator=rng)
    if dtype == torch.float64:  # where an oracle can be compared to ten digits
        agents.pi, agents.v = (net.like(net.flat.detach().double().requires_grad_()) for net in (agents.pi, agents.v))
        agents.log_std = agents.log_std.detach().double().requires_grad_()
        agents.pi_adam = ippo.StoppingAdam(agents.pi, agents.log_std, cfg.pi_lr)
        agents.v_adam = Adam(agents.v, cfg.vf_lr)
    return agents, cfg


def make_steps(seed: int = 0, dtype: torch.dtype = torch.float32) -> ippo.Steps:
    """A rollout with episodes that were terminated and truncated in its midst, at steps of each seed's own."""
    rng = np.random.default_rng(seed)
    obs, next_obs = (rng.normal(size=(S, N, B, ENV.n_obs)) * ENV.obs_mask[:, None] for _ in range(2))
    act = rng.normal(size=(S, N, B, ENV.n_act)) * ENV.act_mask[:, None]
    terminated, truncated = np.zeros((S, N, B)), np.zeros((S, N, B))
    terminated[0, :, 7] = terminated[1, :, 20] = 1
    truncated[0, :, 25] = truncated[1, :, 3] = 1
    parts = obs, act, next_obs, rng.normal(size=(S, N, B)), terminated, np.maximum(terminated, truncated)
    return ippo.Steps(*(torch.tensor(part, dtype=dtype) for part in parts))


def constant_value(agents: ippo.Agents, v: float) -> None:
    agents.v.flat.detach().zero_()
    agents.v.biases[-1].fill_(v)


def everything(agents: ippo.Agents, row: int, agent: int | None = None) -> bytes:
    """The bytes of all that is learned, optimisers included, of one seed, or of one of its agents."""
    adam, at = agents.pi_adam, row if agent is None else (row, agent)
    tensors = [agents.v.flat, *adam.params, *(moment for pair in adam.moments for moment in pair)]
    return b"".join(tensor.detach()[at].numpy().tobytes() for tensor in tensors)


# what an agent did, and what came of it


@pytest.mark.parametrize("length", [1, 2, 3, 8, 37])
def test_discounting_in_doubling_rounds_is_the_recursion(length):
    rng = np.random.default_rng(length)
    x, keep = rng.normal(size=(S, N, length)), rng.uniform(size=(S, N, length))
    y, after = np.zeros_like(x), np.zeros((S, N))
    for t in reversed(range(length)):
        after = y[..., t] = x[..., t] + keep[..., t] * after
    np.testing.assert_allclose(ippo.discounted(torch.tensor(x), torch.tensor(keep)), y, rtol=1e-12)


def test_advantages_and_returns_by_hand():
    agents, _ = make_agents()
    constant_value(agents, 10.0)
    steps = make_steps()
    three = ippo.Steps(*(part[:, :, :3].clone() for part in steps))
    three.rew[:] = torch.tensor([1.0, 2.0, 3.0])
    three.terminated[:], three.ended[:] = 0, 0
    three.terminated[..., 1] = three.ended[..., 1] = 1
    adv, returns = ippo.advantages(agents, three, gamma=0.5, lam=0.5)
    # delta = 1 + 5 - 10, 2 - 10, 3 + 5 - 10: the second step was the task's end, the third only the rollout's
    torch.testing.assert_close(adv[0, 0], torch.tensor([-4 + 0.25 * -8, -8.0, -2.0]))
    torch.testing.assert_close(returns[0, 0], torch.tensor([1 + 0.5 * 2, 2.0, 3 + 0.5 * 10]))


def test_advantages_and_returns_equal_the_recursions_with_terminal_and_truncated_steps_within():
    agents, _ = make_agents()
    steps = make_steps()
    with torch.no_grad():
        v, next_v = (ippo.value(agents.v, obs).double().numpy() for obs in (steps.obs, steps.next_obs))
        adv, returns = ippo.advantages(agents, steps, GAMMA, LAM)
    assert np.abs(v[..., 1:] - next_v[..., :-1]).min() > 1e-4, "V(o') has to differ from the next step's V(o)"
    for s, i in np.ndindex(S, N):
        after_adv, after_return = 0.0, 0.0
        for t in reversed(range(B)):
            terminated, ended = (bool(part[s, i, t]) for part in (steps.terminated, steps.ended))
            follows = 0.0 if terminated else next_v[s, i, t]
            if ended or t == B - 1:
                after_adv, after_return = 0.0, follows
            r = float(steps.rew[s, i, t])
            after_adv = r + GAMMA * follows - v[s, i, t] + GAMMA * LAM * after_adv
            after_return = r + GAMMA * after_return
            assert float(adv[s, i, t]) == pytest.approx(after_adv, abs=1e-5)
            assert float(returns[s, i, t]) == pytest.approx(after_return, abs=1e-5)


@pytest.mark.parametrize(("t", "seed", "bootstraps"), [(7, 0, False), (25, 0, True), (3, 1, True), (20, 1, False)])
def test_a_time_limit_bootstraps_from_its_true_successor_and_a_terminal_step_does_not(t, seed, bootstraps):
    agents, _ = make_agents()
    steps = make_steps()
    adv, returns = ippo.advantages(agents, steps, GAMMA, LAM)
    steps.next_obs[seed, :, t, 0] += 1
    other_adv, other_returns = ippo.advantages(agents, steps, GAMMA, LAM)
    for before, after in ((adv, other_adv), (returns, other_returns)):
        assert (before[seed, :, t] != after[seed, :, t]).all() == bootstraps


def test_nothing_reaches_back_over_the_end_of_an_episode():
    agents, _ = make_agents()
    steps = make_steps()
    adv, returns = ippo.advantages(agents, steps, GAMMA, LAM)
    steps.rew[:, :, 26:] += 1  # seed 0's last episode ended at step 25, seed 1's at 20
    other_adv, other_returns = ippo.advantages(agents, steps, GAMMA, LAM)
    for before, after in ((adv, other_adv), (returns, other_returns)):
        assert torch.equal(before[0, :, :26], after[0, :, :26])
        assert (before[1, :, 21:26] != after[1, :, 21:26]).all()


# the losses


def test_log_prob_is_that_of_independent_normals_over_the_real_dims():
    agents, _ = make_agents()
    agents.log_std.detach()[:] = torch.randn(agents.log_std.shape, generator=torch.Generator().manual_seed(0))
    steps = make_steps()
    logp, mean = ippo.log_prob(agents, steps.obs, steps.act), agents.pi(steps.obs)
    for s, i in np.ndindex(S, N):
        real = slice(0, N_ACT[i])
        normal = torch.distributions.Normal(mean[s, i, :, real], agents.log_std[s, i, real].exp())
        torch.testing.assert_close(logp[s, i], normal.log_prob(steps.act[s, i, :, real]).sum(-1))
        torch.testing.assert_close(ippo.entropy(agents)[s, i], normal.entropy()[0].sum().detach())


def test_padded_action_dims_are_no_part_of_likelihood_entropy_or_learning():
    agents, cfg = make_agents()
    steps = make_steps()
    logp, entropy = ippo.log_prob(agents, steps.obs, steps.act), ippo.entropy(agents)
    padded = ~ENV.act_mask
    steps.act[:, padded.nonzero()[0], :, padded.nonzero()[1]] = 5
    agents.log_std.detach()[:, padded] = 3
    assert torch.equal(ippo.log_prob(agents, steps.obs, steps.act), logp)
    assert torch.equal(ippo.entropy(agents), entropy)
    ippo.update(agents, steps, cfg)
    assert (agents.log_std[:, padded] == 3).all()
    assert (agents.log_std[:, ENV.act_mask] != ippo.LOG_STD).all()


@pytest.mark.parametrize(("ratio", "adv", "loss", "gradient"), [
    (1.0, 2.0, -2.0, -1),  # a good action: down the loss is up in likelihood
    (1.0, -2.0, 2.0, 1),
    (1.5, 2.0, -2.4, 0),  # good, and likelier by enough already
    (0.5, 2.0, -1.0, -1),  # good, but less likely than it was: nothing is clipped
    (0.5, -2.0, 1.6, 0),  # bad, and less likely by enough already
    (1.5, -2.0, 3.0, 1),
])  # fmt: skip
def test_the_surrogate_is_clipped_only_where_more_would_be_gained(ratio, adv, loss, gradient):
    logp = torch.tensor(np.log(ratio), requires_grad=True)
    out = ippo.pi_loss(logp, torch.tensor(0.0), torch.tensor(adv), clip_ratio=0.2)
    out.backward()
    assert out.item() == pytest.approx(loss)
    assert logp.grad is not None and np.sign(logp.grad.item()) == gradient


def test_the_kl_estimate_is_the_mean_loss_of_log_likelihood_of_each_agent():
    old, logp = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), torch.tensor([[[0.5, 1.0], [0.25, 0.5]]])
    assert ippo.kl(logp, old).tolist() == [[0.75, -0.375]]


def test_the_value_loss_is_the_squared_distance_to_the_return():
    assert ippo.v_loss(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 3.0])).tolist() == [4.0, 1.0]


# the update


class Naive:
    """One agent of Spinning Up's PPO, with our two departures in the networks: ReLU, and a tanh on the mean."""

    def __init__(self, agents: ippo.Agents, at: tuple[int, int], cfg: ippo.Config):
        i = at[1]
        self.cfg, self.at, self.seen, self.driven = cfg, at, ENV.obs_mask[i], ENV.act_mask[i]
        self.pi, self.v = (self.module(agents, net, n) for net, n in ((agents.pi, N_ACT[i]), (agents.v, 1)))
        self.log_std = nn.Parameter(agents.log_std.detach()[at][self.driven].clone())
        self.pi_adam = torch.optim.Adam([*self.pi.parameters(), self.log_std], lr=cfg.pi_lr)
        self.v_adam = torch.optim.Adam(self.v.parameters(), lr=cfg.vf_lr)

    def module(self, agents: ippo.Agents, net: MLP, n_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        sizes = [int(self.seen.sum()), *net.sizes[1:-1], n_out]
        for k, (n_in, n_out) in enumerate(pairwise(sizes)):
            linear = nn.Linear(n_in, n_out, dtype=torch.float64)
            linear.weight.data.copy_(net.weights[k][self.at][:n_out, :n_in])
            linear.bias.data.copy_(net.biases[k][self.at][:n_out])
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def logp(self, obs: Tensor, act: Tensor) -> Tensor:
        return torch.distributions.Normal(torch.tanh(self.pi(obs)), self.log_std.exp()).log_prob(act).sum(-1)

    def update(self, steps: ippo.Steps, adv: Tensor, returns: Tensor) -> int:
        obs, act = steps.obs[self.at][:, self.seen], steps.act[self.at][:, self.driven]
        adv = adv[self.at]
        adv = (adv - adv.mean()) / adv.std(correction=0)
        old = self.logp(obs, act).detach()
        stop = self.cfg.train_pi_iters
        for k in range(self.cfg.train_pi_iters):
            logp = self.logp(obs, act)
            if float((old - logp).detach().mean()) > 1.5 * self.cfg.target_kl:
                stop = k
                break
            limit = torch.where(adv > 0, (1 + self.cfg.clip_ratio) * adv, (1 - self.cfg.clip_ratio) * adv)
            self.pi_adam.zero_grad()
            (-torch.min(torch.exp(logp - old) * adv, limit).mean()).backward()
            self.pi_adam.step()
        for _ in range(self.cfg.train_v_iters):
            self.v_adam.zero_grad()
            ((self.v(obs)[:, 0] - returns[self.at]) ** 2).mean().backward()
            self.v_adam.step()
        return stop

    def assert_equals(self, agents: ippo.Agents) -> None:
        torch.testing.assert_close(agents.log_std.detach()[self.at][self.driven], self.log_std.data)
        for module, net in ((self.pi, agents.pi), (self.v, agents.v)):
            linears = [layer for layer in module if isinstance(layer, nn.Linear)]
            for k, linear in enumerate(linears):
                n_out, n_in = linear.weight.shape
                torch.testing.assert_close(net.weights[k][self.at][:n_out, :n_in], linear.weight.data)
                torch.testing.assert_close(net.biases[k][self.at][:n_out], linear.bias.data)


def test_three_updates_equal_those_of_a_naive_learner_for_each_agent_each_stopping_when_it_would_alone():
    agents, cfg = make_agents(torch.float64, pi_lr=1e-2, target_kl=0.02)
    learners = {at: Naive(agents, (at[0], at[1]), cfg) for at in np.ndindex(S, N)}
    stops = []
    for k in range(3):  # the second and third meet moments, and counts of steps, of unlike length
        steps = make_steps(k, torch.float64)
        with torch.no_grad():
            adv, returns = ippo.advantages(agents, steps, GAMMA, LAM)
        stop_iter = ippo.update(agents, steps, cfg)["StopIter"]
        for at, learner in learners.items():
            stops.append(learner.update(steps, adv, returns))
            assert stop_iter[at] == stops[-1]
            learner.assert_equals(agents)
    assert min(stops) < cfg.train_pi_iters == max(stops) and len(set(stops)) > 3, "choose a target_kl that tells"


def test_a_policy_stops_behind_the_step_that_took_it_too_far():
    agents, cfg = make_agents(target_kl=1e-9, pi_lr=1e-2)
    before = agents.pi.flat.detach().clone()
    diagnostics = ippo.update(agents, make_steps(), cfg)
    stop_iter = diagnostics["StopIter"]
    assert (diagnostics["KL"] > 1.5e-9)[stop_iter < cfg.train_pi_iters].all()
    assert (stop_iter == 1).any(), "before the first step nothing has drifted"
    moved = (agents.pi.flat.detach() - before).abs().amax(-1)[stop_iter == 1]
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-3, atol=0)  # Adam's first step's size


def test_a_stopped_agent_neither_moves_nor_counts_whatever_its_gradient_and_the_others_take_adams_steps():
    agents, _ = make_agents(torch.float64)
    adam = agents.pi_adam
    net = [nn.Parameter(row.clone()) for row in agents.pi.flat.detach()[0]]
    plain = [torch.optim.Adam([row], lr=adam.lr) for row in net]
    going = torch.ones(S, N, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    for k in range(6):
        going[0] = torch.tensor([k < 2, True, k % 2 == 0])  # the last one goes on after it was stopped, as a rollout on
        slope = torch.randn(adam.net.flat.shape, generator=rng, dtype=torch.float64)
        loss = (slope * adam.net.flat).sum() + (agents.log_std * 0).sum()
        before = everything(agents, 0, 0)
        bad = torch.where(going, 1.0, torch.nan)[..., None]
        adam.descend(loss + (bad * adam.net.flat).sum(), going)
        assert (everything(agents, 0, 0) == before) == (k >= 2)
        for i, (row, optimiser) in enumerate(zip(net, plain)):
            if going[0, i]:
                row.grad = slope[0, i] + 1
                optimiser.step()
            torch.testing.assert_close(agents.pi.flat.detach()[0, i], row.data)
    torch.testing.assert_close(adam.decays[0][0], torch.tensor([0.9**2, 0.9**6, 0.9**3], dtype=torch.float64))


def test_policy_and_value_step_by_their_own_flags():
    """Adam's first step is as long as the step size, whatever the gradient."""
    agents, cfg = make_agents(pi_lr=1e-3, vf_lr=2e-3, train_pi_iters=1, train_v_iters=1)
    learned = agents.pi.flat, agents.log_std, agents.v.flat
    before = [part.detach().clone() for part in learned]
    ippo.update(agents, make_steps(), cfg)
    moved = [float((part.detach() - old).abs().max()) for part, old in zip(learned, before)]
    assert moved == pytest.approx([1e-3, 1e-3, 2e-3], rel=0.01)


def test_diagnostics_are_of_the_networks_after_the_update():
    agents, cfg = make_agents(torch.float64, pi_lr=1e-2, target_kl=0.5, clip_ratio=0.1)
    steps = make_steps(dtype=torch.float64)
    with torch.no_grad():
        adv, returns = (part.numpy() for part in ippo.advantages(agents, steps, GAMMA, LAM))
        old = ippo.log_prob(agents, steps.obs, steps.act).numpy()
    shown = {name: value.detach().numpy() for name, value in ippo.update(agents, steps, cfg).items()}
    with torch.no_grad():
        ratio = np.exp(ippo.log_prob(agents, steps.obs, steps.act).numpy() - old)
        v = ippo.value(agents.v, steps.obs).numpy()
    adv = (adv - adv.mean(-1, keepdims=True)) / adv.std(-1, keepdims=True)
    expected = {
        "LossPi": -np.minimum(ratio * adv, np.clip(ratio, 0.9, 1.1) * adv).mean(-1),
        "LossV": ((v - returns) ** 2).mean(-1),
        "VVals": v.mean(-1),
        "KL": -np.log(ratio).mean(-1),
        "ClipFrac": ((ratio < 0.9) | (ratio > 1.1)).mean(-1),
    }
    assert (expected["ClipFrac"] > 0).all() and (expected["ClipFrac"] < 1).all()
    for name, values in expected.items():
        np.testing.assert_allclose(shown[name], values, rtol=1e-5, err_msg=name)


def test_advantages_are_normalised_for_each_agent_and_seed_alone():
    updated = []
    for scale in (1.0, 1000.0):
        agents, cfg = make_agents(torch.float64, vf_lr=0.0)
        constant_value(agents, 0.0)
        steps = make_steps(dtype=torch.float64)
        steps.rew[0, 1] *= scale
        ippo.update(agents, steps, cfg)
        updated.append(agents.pi.flat.detach())
    torch.testing.assert_close(*updated, rtol=0, atol=1e-7)


def test_a_rollout_without_any_reward_or_value_teaches_the_policy_nothing():
    agents, cfg = make_agents()
    constant_value(agents, 0.0)
    steps = make_steps()
    steps.rew.zero_()
    before = agents.pi.flat.detach().clone()
    ippo.update(agents, steps, cfg)
    assert torch.equal(agents.pi.flat.detach(), before)


@pytest.mark.parametrize("part", ippo.Steps._fields)
def test_agent_i_never_learns_from_agent_j(part):
    (agents, cfg), (others, _) = (make_agents(pi_lr=1e-2) for _ in range(2))
    stops = []
    for k in range(2):
        steps, changed = make_steps(k), make_steps(k)
        getattr(changed, part)[0, 1] = 1 - getattr(changed, part)[0, 1]
        stops.append(ippo.update(agents, steps, cfg)["StopIter"] - ippo.update(others, changed, cfg)["StopIter"])
    same = {at: everything(agents, *at) == everything(others, *at) for at in np.ndindex(S, N)}
    assert same == {at: at != (0, 1) for at in np.ndindex(S, N)}
    assert part not in ("obs", "act") or stops[0][0, 1] != 0, "agent 1 is to stop elsewhere for this to tell"


def test_a_nan_of_one_agent_stays_with_it():
    (agents, cfg), (others, _) = (make_agents() for _ in range(2))
    steps, changed = make_steps(), make_steps()
    changed.rew[0, 1, 5] = torch.nan
    ippo.update(agents, steps, cfg)
    diagnostics = ippo.update(others, changed, cfg)
    assert diagnostics["LossV"].isnan().nonzero().tolist() == [[0, 1]]
    assert [at for at in np.ndindex(S, N) if everything(agents, *at) != everything(others, *at)] == [(0, 1)]


# acting


def test_actions_are_drawn_around_the_mean_with_the_policys_std_and_are_not_clipped():
    noise = ippo.Streams([0, 1], "exploration")
    pi, std = np.full((2, N, 3), 0.9, np.float32), np.full((2, N, 3), 0.5, np.float32)
    std[1] = 0.1
    drawn = np.stack([ippo.explore(pi, std, ENV.act_mask, noise) for _ in range(4000)])
    assert (drawn[:, :, ~ENV.act_mask] == 0).all()
    real = drawn[:, :, ENV.act_mask]
    np.testing.assert_allclose(real.mean((0, 2)), 0.9, atol=0.02)
    np.testing.assert_allclose(real.std((0, 2)), [0.5, 0.1], rtol=0.02)
    assert real.max() > 1.5


def test_a_rollout_gives_back_its_steps_in_order_and_starts_over_when_full():
    rollout = ippo.Rollout(S, N, 4, 3, size=3)
    rng = np.random.default_rng(0)
    stored = []
    for t in range(6):
        stored.append([rng.normal(size=shape).astype(np.float32) for shape in ((S, N, 4), (S, N, 3), (S, N, 4))])
        ends = np.array([t == 4, False]), np.array([t != 4, t == 5])
        obs, act, next_obs = stored[-1]
        rollout.store(obs, act, next_obs, np.array([t, -t]), *ends)
    steps = rollout.steps("cpu")
    for k, part in enumerate((steps.obs, steps.act, steps.next_obs)):
        np.testing.assert_array_equal(part, np.stack([step[k] for step in stored[3:]], 2))
    assert steps.rew[:, 2].tolist() == [[3, 4, 5], [-3, -4, -5]]
    assert steps.terminated[:, 2].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert steps.ended[:, 2].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_cut_ends_the_episode_of_the_last_step_of_its_seed_and_lets_it_bootstrap():
    rollout = ippo.Rollout(S, N, 4, 3, size=3)
    step, nothing = (np.zeros((S, N, 4)), np.zeros((S, N, 3)), np.zeros((S, N, 4))), np.zeros(S, bool)
    for t in range(6):
        rollout.store(*step, np.zeros(S), nothing, nothing)
        if t == 4:  # the second one of this rollout
            rollout.cut(1, np.array(True))
    steps = rollout.steps("cpu")
    assert steps.ended.tolist() == [[[0, 0, 0]] * N, [[0, 1, 0]] * N]
    assert not steps.terminated.any()


# whole runs

TINY = {"env": "DifferentialGame-2", "hid": 8, "rollout": 32, "train_pi_iters": 4, "train_v_iters": 4, "pi_lr": 1e-2}
TINY |= {"steps_per_epoch": 50, "epochs": 3, "num_test_episodes": 2, "max_ep_len": 7, "test_ep_len": 5, "threads": 1}


def train(data_dir: Path, **flags: Any) -> int:
    """The status that ippo.py ends with when it is started with these flags, beside the tiny ones."""
    argv = [f"--{name}={value}" for name, value in {**TINY, "data_dir": data_dir, "exp_name": "x", **flags}.items()]
    with mock.patch.object(sys, "argv", ["ippo.py", *argv]), pytest.raises(SystemExit) as end:
        ippo.main(ippo.Config, ippo.defaults, ippo.train, ippo.__doc__)
    return int(end.value.code or 0)


@pytest.mark.parametrize("steps_per_epoch", [50, 64], ids=["in mid-rollout", "at a rollout's end"])
@pytest.mark.parametrize("env", ["DifferentialGame-2", "2-4HalfCheetah"])
def test_a_run_stopped_and_resumed_equals_one_never_stopped(env, steps_per_epoch, tmp_path):
    flags = {"env": env, "steps_per_epoch": steps_per_epoch, "num_runs": 2}
    for name, pieces in {"straight": [3], "resumed": [1, 3]}.items():
        for epochs in pieces:
            assert train(tmp_path / name, epochs=epochs, **flags) == 0
    for seed in range(2):
        straight, resumed = (kept(tmp_path / name / "x" / f"x_s{seed}") for name in ("straight", "resumed"))
        assert straight == resumed and straight["step"] == 3 * steps_per_epoch


@pytest.mark.parametrize("env", ["DifferentialGame-2", "2-4HalfCheetah"])
def test_a_recorded_run_equals_one_that_runs_as_written(env, tmp_path):
    compiled()
    for record in ("on", "off"):
        assert train(tmp_path / record, env=env, epochs=4, num_runs=2, record=record) == 0
    for seed in range(2):
        recorded, written = (kept(tmp_path / record / "x" / f"x_s{seed}") for record in ("on", "off"))
        assert recorded == written and written["step"] == 200, "six updates, of which three are replayed and not tested"


@pytest.mark.parametrize("env", ["DifferentialGame-3", "2-4HalfCheetah"])
def test_a_seed_learns_the_same_alone_as_beside_others(env, tmp_path):
    assert train(tmp_path / "beside", env=env, seed=4, num_runs=3) == 0
    assert train(tmp_path / "alone", env=env, seed=5) == 0
    beside, alone, other = (kept(tmp_path / run) for run in ("beside/x/x_s5", "alone/x/x_s5", "beside/x/x_s4"))
    assert alone == beside and alone["pi.0.weight"] != other["pi.0.weight"]


def test_a_rollout_holds_true_successors_and_episodes_that_time_ended(tmp_path, monkeypatch):
    seen = []
    update = ippo.update
    monkeypatch.setattr(ippo, "update", lambda agents, steps, cfg: (seen.append(steps), update(agents, steps, cfg))[1])
    assert train(tmp_path, steps_per_epoch=64, epochs=1, record="off") == 0
    obs, next_obs = (torch.cat([getattr(steps, name)[0, 0] for steps in seen]) for name in ("obs", "next_obs"))
    ended = torch.cat([steps.ended[0, 0] for steps in seen]).nonzero()[:, 0].tolist()
    assert ended == list(range(6, 64, 7)), "episodes of seven steps, over the end of the first rollout at step 32 too"
    assert (next_obs[:-1] != obs[1:]).any(-1).nonzero()[:, 0].tolist() == ended
    assert sum(float(steps.terminated.sum()) for steps in seen) == 0


def test_a_run_draws_from_the_policy_that_the_update_takes_it_to_have_drawn_from(tmp_path, monkeypatch):
    z = []
    update = ippo.update

    def look_and_update(agents: ippo.Agents, steps: ippo.Steps, cfg: ippo.Config) -> dict[str, Tensor]:
        z.append((steps.act - agents.pi(steps.obs).detach()) / agents.log_std.detach()[:, :, None].exp())
        return update(agents, steps, cfg)

    monkeypatch.setattr(ippo, "update", look_and_update)
    assert train(tmp_path, epochs=2, record="off") == 0
    noise = ippo.Streams([0], "exploration")
    drawn = torch.stack([torch.from_numpy(noise.normal(2, 1)) for _ in range(3 * TINY["rollout"])], 2)
    torch.testing.assert_close(torch.cat(z, 2), drawn, rtol=0, atol=1e-5)


def test_a_reward_that_is_not_finite_fails_its_own_seed(tmp_path, monkeypatch, capsys):
    make = envs.make

    def broken(name: str, seeds: Sequence[int], **settings: Any) -> VectorEnv:
        env = make(name, seeds, **settings)
        step = env.step

        def bad_step(*args: Any) -> Any:
            next_obs, rew, *ends = step(*args)
            return next_obs, np.where((env.t == 5) & (np.array(env.seeds) == 1), np.nan, rew), *ends

        monkeypatch.setattr(env, "step", bad_step)
        return env

    monkeypatch.setattr(envs, "make", broken)
    assert train(tmp_path, num_runs=2) == 1
    assert "[s1] failed: step 5: reward is not finite" in capsys.readouterr().err
    assert kept(tmp_path / "x" / "x_s0")["step"] == 150


def test_the_saved_policy_is_the_mean_and_watch_plays_it(tmp_path, capsys):
    assert train(tmp_path, seed=3) == 0
    run = tmp_path / "x" / "x_s3"
    env = envs.make("DifferentialGame-2", [3])
    agents = ippo.Agents(env, ippo.Config(hid=8), (3,))
    agents.load_state_dict(0, Checkpoints(run / "checkpoint").load(150)["agents"])
    obs = env.reset()
    with torch.no_grad():
        mean = agents.pi(torch.from_numpy(obs)[:, :, None])[:, :, 0]
    np.testing.assert_allclose(load_policy(run)(obs), mean, atol=1e-6)
    assert watch.main([str(run), "--episodes=1"]) == 0


def test_every_diagnostic_is_a_column_of_the_log(tmp_path):
    assert train(tmp_path) == 0
    for row in rows_of(tmp_path / "x" / "x_s0"):
        assert all(np.isfinite(row[name]) for name in ("LossPi", "LossV", "VVals", "KL", "Entropy", "ClipFrac"))
        assert 1 <= row["StopIter"] <= 4


@pytest.mark.parametrize("flags", [{"rollout": 151}, {"lam": 1.5}, {"train_pi_iters": 0}, {"vf_lr": -1}])
def test_a_flag_out_of_range_ends_in_one_line_that_names_it(flags, tmp_path, capsys):
    assert train(tmp_path, **flags) == 2
    err = capsys.readouterr().err
    assert " ".join(f"--{name} {value}" for name, value in flags.items()) in err and err.count("\n") == 1


def test_settings_are_spinning_ups_ppos():
    cfg = ippo.Config()
    assert (cfg.hid, cfg.l, cfg.gamma, cfg.lam, cfg.clip_ratio) == (64, 2, 0.99, 0.97, 0.2)
    assert (cfg.pi_lr, cfg.vf_lr, cfg.train_pi_iters, cfg.train_v_iters, cfg.target_kl) == (3e-4, 1e-3, 80, 80, 0.01)
    assert float(np.exp(ippo.LOG_STD)) == pytest.approx(0.61, abs=0.01)


@pytest.mark.parametrize(("epochs", "rollout"), [(3, 1000), (4, 4000), (50, 4000)])
def test_a_rollout_has_4000_steps_or_an_epoch_where_the_run_is_shorter(epochs, rollout):
    assert ippo.Config(epochs=epochs, steps_per_epoch=1000).rollout == rollout


def test_a_tasks_schedule_sets_lengths_and_tests_and_nothing_of_ppos_own():
    assert ippo.defaults("DifferentialGame-3", "own") == {
        "epochs": 55, "steps_per_epoch": 10_000, "num_test_episodes": 200, "max_ep_len": 25, "test_ep_len": 100
    }  # fmt: skip
    assert ippo.defaults("6x1Walker", "full")["epochs"] == 100


def test_it_learns_to_hold_the_centre_where_uniform_actions_return_8(tmp_path):
    flags = {"env": "DifferentialGame-1", "max_ep_len": 25, "test_ep_len": 100, "num_test_episodes": 50, "hid": 32}
    flags |= {"rollout": 1000, "steps_per_epoch": 5000, "pi_lr": 1e-3, "train_pi_iters": 40, "train_v_iters": 40}
    assert train(tmp_path, num_runs=2, **flags) == 0
    for seed in range(2):
        assert rows_of(tmp_path / "x" / f"x_s{seed}")[-1]["AverageTestEpRet"] > 70
