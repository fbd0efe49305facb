"""I2Q's targets, losses and update against oracles that go agent by agent and transition by transition in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.toys import Toy, make_agents, make_batch, nets_of
from torch import Tensor

import i2q_ddpg
from bench import naive
from common.nets import MLP
from common.replay import Batch

ENV = Toy(seeds=[3, 4])  # three agents of unequal width
RULES = ["1", "2", "released"]
FORMS = ["bounded", "residual"]
GAMMA, LAM = 0.9, 0.5


def agents_and_batch(rule: str = "1", forward: str = "bounded"):
    agents, cfg = make_agents(i2q_ddpg, ENV, torch.float64, rule=rule, forward=forward, lam=LAM, gamma=GAMMA)
    return agents, cfg, make_batch(ENV, dtype=torch.float64)


class One:
    """One agent of one seed for one transition, in numpy and without padding."""

    def __init__(self, agents: i2q_ddpg.Agents, s: int, i: int):
        self.at, self.nets, self.bounded = (s, i), nets_of(agents), agents.forward == "bounded"
        self.seen, self.driven = ENV.obs_mask[i], ENV.act_mask[i]

    def net(self, name: str, x: list[np.ndarray], columns: list[np.ndarray]) -> np.ndarray:
        h = np.zeros(self.nets[name].sizes[0])
        h[np.concatenate(columns)] = np.concatenate(x)
        layers = list(zip(self.nets[name].weights, self.nets[name].biases))
        for k, (weight, bias) in enumerate(layers):
            h = weight[self.at].numpy() @ h + bias[self.at].numpy()
            h = np.maximum(h, 0) if k < len(layers) - 1 else h
        return h

    def pi(self, name: str, obs: np.ndarray) -> np.ndarray:
        return np.tanh(self.net(name, [obs], [self.seen])[self.driven])

    def q(self, name: str, obs: np.ndarray, act: np.ndarray) -> float:
        return self.net(name, [obs, act], [self.seen, self.driven])[0]

    def qss(self, name: str, obs: np.ndarray, next_obs: np.ndarray) -> float:
        return self.net(name, [obs, next_obs], [self.seen, self.seen])[0]

    def f(self, name: str, obs: np.ndarray, act: np.ndarray) -> np.ndarray:
        out = self.net(name, [obs, act], [self.seen, self.driven])[self.seen]
        return np.clip(obs + 0.1 * np.tanh(out), -1, 1) if self.bounded else obs + out

    def td(self, next_obs: np.ndarray, rew: float, terminated: float) -> float:
        """r, or r + gamma Q'(o', pi'(o')) where the episode went on."""
        return rew if terminated else rew + GAMMA * self.q("q_targ", next_obs, self.pi("pi_targ", next_obs))

    def ideal(self, f: str, qss: str, obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
        """argmax of Qss(s, .) over what was seen and what f proposes; the former where they tie, as dead units do."""
        return max(next_obs, self.f(f, obs, act), key=lambda successor: self.qss(qss, obs, successor))


def each(agents: i2q_ddpg.Agents, batch: Batch, number: Callable) -> Tensor:
    """number(one, obs, act, next_obs, rew, terminated) for every seed, agent and transition: (S, N, B)."""
    out = torch.zeros_like(batch.rew)
    for s, i, b in np.ndindex(*out.shape):
        one = One(agents, s, i)
        obs, act, next_obs = (part[s, i, b].numpy() for part in batch[:3])
        args = obs[one.seen], act[one.driven], next_obs[one.seen], float(batch.rew[s, i, b])
        out[s, i, b] = float(number(one, *args, float(batch.terminated[s, i, b])))
    return out


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_td_target_is_the_discounted_target_value_and_the_reward_alone_where_terminated():
    agents, _, batch = agents_and_batch()
    y = i2q_ddpg.td_target(agents, batch, batch.next_obs, GAMMA)
    assert 0 < batch.terminated.mean() < 1
    assert_equal(y, each(agents, batch, lambda one, o, a, o2, r, d: one.td(o2, r, d)))


@pytest.mark.parametrize("forward", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_qss_regresses_to_its_own_value_of_the_next_proposal_or_as_released_to_the_td_target(rule, forward):
    agents, cfg, batch = agents_and_batch(rule, forward)

    def expected(one, o, a, o2, r, d):
        if rule == "released":
            return one.td(o2, r, d)
        further = one.f("f_targ", o2, one.pi("pi_targ", o2))
        return r + GAMMA * (1 - d) * one.qss("qss_targ", o2, further)

    assert_equal(i2q_ddpg.qss_target(agents, batch, cfg), each(agents, batch, expected))


@pytest.mark.parametrize("forward", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_qs_target_by_rule(rule, forward):
    agents, cfg, batch = agents_and_batch(rule, forward)

    def expected(one, o, a, o2, r, d):
        if rule == "1":
            return one.td(one.ideal("f_targ", "qss_targ", o, a, o2), r, d)
        if rule == "2":
            return max(one.qss("qss_targ", o, one.f("f_targ", o, a)), one.qss("qss_targ", o, o2))
        return min(one.td(one.ideal("f_net", "qss", o, a, o2), r, d), one.td(o2, r, d))

    assert_equal(i2q_ddpg.q_target(agents, batch, cfg), each(agents, batch, expected))


def test_the_ideal_successor_is_the_better_of_proposal_and_sample():
    agents, _, batch = agents_and_batch()
    f = agents.f(batch.obs, batch.act)
    best, best_qss = i2q_ddpg.ideal_successor(batch, f, agents.qss)
    took_f = (best == f).all(-1) & (best != batch.next_obs).any(-1)
    assert 0.1 < took_f.double().mean() < 0.9  # both cases are seen

    def better(one, o, a, o2, r, d):
        return max(one.qss("qss", o, one.f("f_net", o, a)), one.qss("qss", o, o2))

    def proposal_won(one, o, a, o2, r, d):
        return one.qss("qss", o, one.f("f_net", o, a)) > one.qss("qss", o, o2)

    assert_equal(best_qss, each(agents, batch, better))
    assert_equal(took_f.double(), each(agents, batch, proposal_won))
    assert torch.equal(best, torch.where(took_f[..., None], f, batch.next_obs))


def test_a_proposal_that_is_no_better_is_not_taken():
    agents, _, batch = agents_and_batch()
    agents.qss.weights[-1].zero_()  # every successor is worth the same
    best, _ = i2q_ddpg.ideal_successor(batch, agents.f(batch.obs, batch.act), agents.qss)
    assert torch.equal(best, batch.next_obs)


def test_a_bounded_model_moves_no_further_than_a_step_and_stays_in_the_box():
    agents, _ = make_agents(i2q_ddpg, ENV, torch.float64, forward="bounded")
    agents.f_net.biases[-1].fill_(100)  # as far up as it can
    batch = make_batch(ENV, dtype=torch.float64)
    f = agents.f(batch.obs, batch.act)
    assert_equal(f, (batch.obs + 0.1).clamp(max=1) * agents.obs_mask)
    assert float(f.detach().max()) == 1


def f_loss_parts(agents: i2q_ddpg.Agents, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean square error over real dims, and Qss(s, f): (S, N, B) each, by loops."""
    error = each(agents, batch, lambda one, o, a, o2, r, d: np.mean((one.f("f_net", o, a) - o2) ** 2))
    return error, each(agents, batch, lambda one, o, a, o2, r, d: one.qss("qss", o, one.f("f_net", o, a)))


@pytest.mark.parametrize("forward", FORMS)
def test_f_loss_weighs_value_by_the_mean_of_each_agent_and_seed_alone(forward):
    agents, _, batch = agents_and_batch(forward=forward)
    error, qss = f_loss_parts(agents, batch)
    expected = error.clone()
    for s, i in np.ndindex(*qss.shape[:2]):
        mean = np.mean([abs(float(value)) for value in qss[s, i]])
        assert mean > i2q_ddpg.QSS_FLOOR
        expected[s, i] -= LAM / mean * qss[s, i]
    assert_equal(i2q_ddpg.f_loss(agents, batch, LAM), expected)


def test_f_loss_weight_has_a_ceiling_where_an_agents_values_vanish():
    agents, _, batch = agents_and_batch()
    for part in (agents.qss.weights[-1], agents.qss.biases[-1]):
        part[0, 1] *= 1e-6
    error, qss = f_loss_parts(agents, batch)
    assert qss[0, 1].abs().mean() < i2q_ddpg.QSS_FLOOR < min(qss[0, 0].abs().mean(), qss[1, 1].abs().mean())
    loss = i2q_ddpg.f_loss(agents, batch, LAM)
    assert_equal(loss[0, 1], (error - LAM / i2q_ddpg.QSS_FLOOR * qss)[0, 1])
    assert_equal(loss[1, 1], error[1, 1] - LAM / qss[1, 1].abs().mean() * qss[1, 1])


def test_f_descends_error_less_weighted_value_with_the_weight_held_still():
    agents, _, batch = agents_and_batch()
    agents.qss.biases[-1] += 3  # values of one sign: a weight that takes part would cancel their whole gradient
    (grad,) = torch.autograd.grad(i2q_ddpg.f_loss(agents, batch, LAM).mean(-1).sum(), agents.f_net.flat)

    weight = LAM / f_loss_parts(agents, batch)[1].abs().mean(-1, keepdim=True)
    rng, small = np.random.default_rng(0), 1e-6
    for k, part in enumerate((*agents.f_net.weights, *agents.f_net.biases)):
        at = tuple(int(rng.integers(n)) for n in part.shape)
        ends = []
        for sign in (1, -1):
            part[at] += sign * small
            error, qss = f_loss_parts(agents, batch)
            ends.append(float((error - weight * qss).mean(-1).sum()))
            part[at] -= sign * small
        layers = MLP(agents.f_net.sizes, grad)
        expected = (ends[0] - ends[1]) / (2 * small)
        assert float((*layers.weights, *layers.biases)[k][at]) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_f_follows_values_but_values_do_not_follow_f():
    agents, _, batch = agents_and_batch()
    loss = i2q_ddpg.f_loss(agents, batch, LAM).sum()
    grads = torch.autograd.grad(loss, [net.flat for net in (agents.f_net, agents.qss, agents.q)], allow_unused=True)
    assert [grad is None for grad in grads] == [False, True, True]


def compare_updates(rule: str, forward: str, dtype: torch.dtype, atol: float, B: int = 6, hid: int = 8) -> None:
    flags = {"rule": rule, "forward": forward, "lam": LAM, "polyak": 0.9, "hid": hid}
    agents, cfg = make_agents(i2q_ddpg, ENV, dtype, **flags)
    learners = naive.learners_like(naive.I2q, agents, ENV, cfg)
    for turn in range(3):
        batch = make_batch(ENV, B, turn, dtype)
        i2q_ddpg.update(agents, batch, cfg)
        naive.update(learners, batch, ENV)
    for (s, i), learner in learners.items():
        for name, own, stacked in naive.pairs(learner, agents, ENV, s, i):
            torch.testing.assert_close(
                stacked, own.detach(), rtol=0, atol=atol, msg=lambda text, at=(name, s, i): f"{at}: {text}"
            )


@pytest.mark.parametrize("forward", FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_three_updates_equal_those_of_a_naive_learner_for_each_agent(rule, forward):
    compare_updates(rule, forward, torch.float64, atol=1e-9)  # three steps of Adam move a weight by up to 3e-3


def test_three_updates_in_single_precision_are_as_near_as_that_allows():
    compare_updates("1", "residual", torch.float32, atol=5e-6, B=100, hid=64)


@pytest.mark.parametrize("rule", RULES)
def test_diagnostics_are_those_of_each_network(rule):
    agents, cfg = make_agents(i2q_ddpg, ENV, torch.float64, rule=rule, lam=LAM, q_lr=0.0, pi_lr=0.0)  # nothing moves
    batch = make_batch(ENV, dtype=torch.float64)
    with torch.no_grad():
        q, pursued = (i2q_ddpg.value(agents.q, batch.obs, act) for act in (batch.act, agents.pi(batch.obs)))
        qss = i2q_ddpg.value(agents.qss, batch.obs, batch.next_obs)
        expected = {
            "LossPi": -pursued,
            "LossQ": (q - i2q_ddpg.q_target(agents, batch, cfg)).square(),
            "LossQss": (qss - i2q_ddpg.qss_target(agents, batch, cfg)).square(),
            "LossF": i2q_ddpg.f_loss(agents, batch, LAM),
            "QVals": q,
        }
    shown = i2q_ddpg.update(agents, batch, cfg)
    assert shown.keys() == expected.keys()
    for name, values in expected.items():
        assert_equal(shown[name].detach(), values.mean(-1))


@pytest.mark.parametrize(
    "env, obs, settings",
    [
        ("DifferentialGame-3", "own", ("2", 1.0, "bounded")),
        ("2x3HalfCheetah", "own", ("1", 0.01, "residual")),
        ("2x3HalfCheetah", "farama", ("1", 0.01, "residual")),
        ("2x3HalfCheetah", "full", ("released", 0.01, "residual")),
        ("package.module:factory", "own", ("1", 0.01, "residual")),
    ],
)
def test_rule_lambda_and_model_are_the_papers_by_task_and_ours_for_whole_robots(env, obs, settings):
    chosen = i2q_ddpg.defaults(env, obs)
    assert (chosen["rule"], chosen["lam"], chosen["forward"]) == settings
