"""I2Q without a forward model: both forms' targets, losses and update against oracles in numpy."""

import numpy as np
import pytest
import torch
from helpers import checks
from helpers.checks import run_net
from helpers.toys import Toy, make_agents, make_batch

import i2q_expectile

ENV = Toy(seeds=[3, 4])  # three agents of unequal width
FORMS = ["b7", "released"]
GAMMA, TAU, POLYAK = 0.9, 0.7, 0.9
every_form = pytest.mark.parametrize("form", FORMS)


class Oracle:
    """The formulas on one batch, as functions of the networks; all (S, N, B)."""

    def __init__(self, batch, form):
        self.obs, self.act, self.next_obs, self.rew, self.terminated = (part.numpy() for part in batch)
        self.released = form == "released"

    def pi(self, net, obs):
        return np.tanh(run_net(net, obs)) * ENV.act_mask[:, None]

    def r_plus(self, further):
        return self.rew + np.where(self.terminated == 1, 0, GAMMA * further)

    def qss_target(self, nets):
        return self.r_plus(run_net(nets["v"], self.next_obs)[..., 0])

    def v_loss(self, nets):
        qss = run_net(nets["qss_targ"], self.obs, self.next_obs)[..., 0]
        v = run_net(nets["v"], self.obs)[..., 0]
        return np.where(qss >= v, TAU, 1 - TAU) * (qss - v) ** 2

    def ddpg_target(self, nets, q):
        return self.r_plus(run_net(nets[q], self.next_obs, self.pi(nets["pi_targ"], self.next_obs))[..., 0])

    def q_target(self, nets):
        if self.released:
            return self.ddpg_target(nets, "q_targ")
        own, seen = run_net(nets["q_targ"], self.obs, self.act), run_net(nets["qss_targ"], self.obs, self.next_obs)
        return np.maximum(own, seen)[..., 0]

    def q2_target(self, nets):
        return np.maximum(self.qss_target(nets), self.ddpg_target(nets, "q2_targ"))

    def pi_loss(self, nets):
        act = self.pi(nets["pi"], self.obs)
        critics = ["q", "q2"] if self.released else ["q"]
        return -np.mean([run_net(nets[q], self.obs, act)[..., 0] for q in critics], 0)

    def losses(self, before):
        """By network, in the order of the update; what they regress to is held still, so taken from the start."""

        def regress(name, target, second):
            def loss(nets):
                held = {**nets, name: before[name]}  # moving the network must not move its own target
                return ((run_net(nets[name], self.obs, second)[..., 0] - target(held)) ** 2).mean(-1)

            return loss

        out = {
            "qss": regress("qss", self.qss_target, self.next_obs),
            "v": lambda nets: self.v_loss(nets).mean(-1),
            "q": regress("q", self.q_target, self.act),
        }
        if self.released:
            out["q2"] = regress("q2", self.q2_target, self.act)
        return {**out, "pi": lambda nets: self.pi_loss(nets).mean(-1)}


def set_up(form, **more):
    flags = {"form": form, "gamma": GAMMA, "tau_expectile": TAU, "polyak": POLYAK, "hid": 5, **more}
    agents, cfg = make_agents(i2q_expectile, ENV, torch.float64, **flags)
    batch = make_batch(ENV, dtype=torch.float64)
    return agents, cfg, batch, Oracle(batch, form)


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@every_form
def test_qss_regresses_to_the_reward_and_v_of_the_successor(form):
    agents, cfg, batch, oracle = set_up(form)
    assert 0 < batch.terminated.mean() < 1
    assert_equal(i2q_expectile.qss_target(agents, batch, cfg.gamma), oracle.qss_target(checks.snapshot(agents)))


@every_form
def test_v_loss_weighs_errors_by_their_sign_and_looks_at_the_target_network(form):
    agents, cfg, batch, oracle = set_up(form)
    assert_equal(i2q_expectile.v_loss(agents, batch, cfg), oracle.v_loss(checks.snapshot(agents)))


@pytest.mark.parametrize("v, loss", [(1.0, 0.7), (3.0, 0.3), (2.0, 0.0), (0.0, 2.8)])
def test_v_loss_by_hand(v, loss):
    agents, cfg, batch, _ = set_up("b7")  # Qss is 2 everywhere; tau is .7
    for net, value in ((agents.qss_targ, 2), (agents.v, v)):
        net.weights[-1].zero_()
        net.biases[-1].fill_(value)
    assert_equal(i2q_expectile.v_loss(agents, batch, cfg), np.full(batch.rew.shape, loss))


@pytest.mark.parametrize("tau", [0.5, 0.8])
def test_v_learns_the_expectile(tau):
    """Of 0 and 1 in equal parts: tau (1 - V) = (1 - tau) V, so V = tau."""
    env, even = Toy([0], n_obs=[2], n_act=[1]), torch.arange(10) % 2 == 0
    agents, cfg = make_agents(i2q_expectile, env, tau_expectile=tau, gamma=0.0, q_lr=0.01, hid=16, polyak=0.9)
    batch = make_batch(env, 10)
    batch.obs[:] = 0.5  # one state with two successors, worth 0 and 1
    batch.next_obs[:] = torch.where(even, -0.5, 0.5)[:, None]
    batch.rew[:] = torch.where(even, 0, 1)
    for _ in range(200):
        i2q_expectile.update(agents, batch, cfg)
    np.testing.assert_allclose(agents.v(batch.obs).detach(), tau, atol=0.02)


def test_v_follows_qss_but_qss_does_not_follow_v():
    agents, cfg, batch, _ = set_up("b7")
    loss = i2q_expectile.v_loss(agents, batch, cfg).sum()
    grads = torch.autograd.grad(loss, [agents.v.flat, agents.qss.flat], allow_unused=True)
    assert [grad is None for grad in grads] == [False, True]
    assert not agents.qss_targ.flat.requires_grad


@every_form
def test_qs_target_by_form(form):
    agents, cfg, batch, oracle = set_up(form)
    assert_equal(i2q_expectile.q_target(agents, batch, cfg), oracle.q_target(checks.snapshot(agents)))


def test_in_b7_both_sides_of_qs_maximum_occur():
    agents, cfg, batch, oracle = set_up("b7")
    own = run_net(checks.layers_of(agents.q_targ), oracle.obs, oracle.act)[..., 0]
    assert 0 < (i2q_expectile.q_target(agents, batch, cfg).detach().numpy() > own + 1e-9).mean() < 1


def test_q2_regresses_to_the_better_of_v_and_its_own_target():
    agents, cfg, batch, oracle = set_up("released")
    nets = checks.snapshot(agents)
    assert_equal(i2q_expectile.q2_target(agents, batch, cfg.gamma), oracle.q2_target(nets))
    assert 0 < (oracle.qss_target(nets) > oracle.ddpg_target(nets, "q2_targ")).mean() < 1


@every_form
def test_an_update_descends_each_loss_in_order_and_moves_the_targets_last(form):
    agents, cfg, batch, oracle = set_up(form)
    before = checks.snapshot(agents)
    i2q_expectile.update(agents, batch, cfg)
    checks.assert_descends_in_order(before, agents, oracle.losses(before))
    targets = {"q_targ": "q", "qss_targ": "qss"}
    targets |= {"q2_targ": "q2", "pi_targ": "pi"} if form == "released" else {}
    checks.assert_tracks(before, agents, targets, POLYAK)


@every_form
def test_diagnostics_are_those_of_each_network(form):
    agents, cfg, batch, oracle = set_up(form, q_lr=0.0, pi_lr=0.0)  # nothing moves
    nets = checks.snapshot(agents)
    names = {"qss": "LossQss", "v": "LossV", "q": "LossQ", "q2": "LossQ2", "pi": "LossPi"}
    expected = {names[net]: loss(nets) for net, loss in oracle.losses(nets).items()}
    expected["QVals"] = run_net(nets["q"], oracle.obs, oracle.act)[..., 0].mean(-1)
    shown = i2q_expectile.update(agents, batch, cfg)
    assert shown.keys() == expected.keys()
    for name, values in expected.items():
        assert_equal(shown[name], values)


@pytest.mark.parametrize("tau", [-0.1, 1.5])
def test_an_expectile_outside_of_0_1_is_refused(tau):
    with pytest.raises(ValueError, match="tau_expectile"):
        i2q_expectile.Config(tau_expectile=tau)


@pytest.mark.parametrize("env", ["DifferentialGame-2", "2x3HalfCheetah"])
@every_form
def test_it_trains(form, env, data_dir):
    losses = {"LossPi", "LossQ", "LossQss", "LossV"} | ({"LossQ2"} if form == "released" else set())
    checks.assert_trains(i2q_expectile, data_dir, losses, env=env, form=form)


@every_form
def test_a_run_stopped_and_resumed_equals_one_never_stopped(form, data_dir):
    checks.assert_resumes_exactly(i2q_expectile, data_dir, form=form)


@every_form
def test_agent_i_never_learns_from_agent_j(form):
    checks.assert_decentralised(i2q_expectile, form=form)


@pytest.mark.parametrize("form, learns", [("b7", False), ("released", True)])
def test_a_negative_reward_is_learned_in_the_released_form_only(form, learns):
    """Nothing lowers Q in b7. The value of -1 for ever is -2 here; the networks start near 0."""
    env = Toy([3])
    agents, cfg = make_agents(i2q_expectile, env, form=form, gamma=0.5, q_lr=1e-2, polyak=0.9)
    before = i2q_expectile.value(agents.q, *make_batch(env)[:2]).detach().mean()
    for turn in range(200):
        batch = make_batch(env, seed=turn)
        rew, ends = -torch.ones_like(batch.rew), torch.zeros_like(batch.rew)
        i2q_expectile.update(agents, batch._replace(rew=rew, terminated=ends), cfg)
    after = i2q_expectile.value(agents.q, *make_batch(env)[:2]).detach().mean()
    assert (after < -1.8) if learns else (after > before - 0.2)


def test_each_family_of_tasks_has_the_form_that_can_learn_it():
    assert i2q_expectile.defaults("DifferentialGame-2", "own")["form"] == "b7"
    assert i2q_expectile.defaults("2x3HalfCheetah", "own")["form"] == "released"
    assert i2q_expectile.Config().tau_expectile == 0.6  # the middle one of those that the authors ran
