"""Decentralised D3G: targets, losses and update against oracles in numpy, its policy, and the two ways it fails."""

import functools

import numpy as np
import pytest
import torch
from helpers import checks
from helpers.checks import run_net
from helpers.toys import Toy, make_agents, make_batch, nets_of, parameters, same_bits, train
from safetensors.numpy import load_file

import d3g
import envs
import watch
from common.log import Log
from common.policy import load_policy
from common.replay import Batch

ENV = Toy(seeds=[3, 4])  # three agents of unequal width
GAMMA, POLYAK = 0.9, 0.9
REAL_OBS, REAL_ACT = ENV.obs_mask[:, None], ENV.act_mask[:, None]
TARGETS = {"q1_targ": "q1", "q2_targ": "q2", "tau_targ": "tau"}


class Oracle:
    """The formulas on one batch, as functions of the networks; all (S, N, B)."""

    def __init__(self, batch: Batch):
        self.obs, self.act, self.next_obs, self.rew, self.terminated = (part.numpy() for part in batch)

    def goal(self, nets, obs, tau):
        return obs + run_net(nets[tau], obs) * REAL_OBS

    def inverse(self, nets, obs, next_obs):
        return np.tanh(run_net(nets["inverse"], obs, next_obs)) * REAL_ACT

    def reached(self, nets, obs, goal):
        return obs + run_net(nets["f_net"], obs, self.inverse(nets, obs, goal)) * REAL_OBS

    def y(self, nets):
        c = self.reached(nets, self.next_obs, self.goal(nets, self.next_obs, "tau_targ"))
        further = np.minimum(*(run_net(nets[q], self.next_obs, c)[..., 0] for q in ("q1_targ", "q2_targ")))
        return self.rew + np.where(self.terminated == 1, 0, GAMMA * further)

    def critic_loss(self, nets, q):
        return (run_net(nets[q], self.obs, self.next_obs)[..., 0] - self.y(nets)) ** 2

    def inverse_loss(self, nets):
        error = self.inverse(nets, self.obs, self.next_obs) - self.act
        return (error**2).sum(-1) / REAL_ACT.sum(-1)

    def f_loss(self, nets):
        error = self.obs + run_net(nets["f_net"], self.obs, self.act) - self.next_obs
        return (error**2 * REAL_OBS).sum(-1) / REAL_OBS.sum(-1)

    def tau_loss(self, nets):
        m = self.goal(nets, self.obs, "tau")
        c = self.reached(nets, self.obs, m)
        return ((c - m) ** 2).sum(-1) / REAL_OBS.sum(-1) - run_net(nets["q1"], self.obs, c)[..., 0]


def set_up(**flags):
    agents, cfg = make_agents(d3g, ENV, torch.float64, gamma=GAMMA, polyak=POLYAK, hid=5, **flags)
    batch = make_batch(ENV, dtype=torch.float64)
    return agents, cfg, batch, Oracle(batch)


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_critics_regress_to_the_lower_target_value_of_the_successor_reached_for_the_goal():
    agents, cfg, batch, oracle = set_up()
    assert 0 < batch.terminated.mean() < 1
    assert_equal(d3g.critic_target(agents, batch, cfg.gamma), oracle.y(checks.snapshot(agents)))


def test_losses_are_means_over_real_dims():
    agents, _, batch, oracle = set_up()
    nets = checks.snapshot(agents)
    assert_equal(d3g.inverse_loss(agents, batch), oracle.inverse_loss(nets))
    assert_equal(d3g.f_loss(agents, batch), oracle.f_loss(nets))
    assert_equal(d3g.tau_loss(agents, batch), oracle.tau_loss(nets))


def test_an_update_descends_each_loss_in_order_and_moves_the_targets_last():
    agents, cfg, batch, oracle = set_up(tau_every=1)
    before = checks.snapshot(agents)
    d3g.update(agents, batch, cfg)
    order = {
        "q1": lambda nets: oracle.critic_loss(nets, "q1").mean(-1),
        "q2": lambda nets: oracle.critic_loss(nets, "q2").mean(-1),
        "inverse": lambda nets: oracle.inverse_loss(nets).mean(-1),
        "f_net": lambda nets: oracle.f_loss(nets).mean(-1),
        "tau": lambda nets: oracle.tau_loss(nets).mean(-1),
    }
    checks.assert_descends_in_order(before, agents, order)
    checks.assert_tracks(before, agents, TARGETS, POLYAK)


def test_the_loss_of_tau_reaches_tau_alone():
    agents, _, batch, _ = set_up()
    nets = nets_of(agents)
    grads = torch.autograd.grad(d3g.tau_loss(agents, batch).sum(), [nets["tau"].flat], retain_graph=True)
    assert all(grad.abs().sum() > 0 for grad in grads)
    others = [net.flat for name, net in nets.items() if name in ("inverse", "f_net", "q1", "q2")]
    grads = torch.autograd.grad(d3g.tau_loss(agents, batch).sum(), others, allow_unused=True)
    assert grads == (None,) * 4


def test_tau_and_the_targets_move_only_where_they_are_to():
    agents, cfg, batch, _ = set_up()
    moved = []
    for move_tau in (False, True) * 2:
        before = parameters(agents, 0)
        d3g.update(agents, batch, cfg, move_tau)
        moved.append({name for name, same in same_bits(before, parameters(agents, 0)).items() if not same})
    always = {"q1", "q2", "inverse", "f_net"}
    assert moved == [always, always | {"tau", *TARGETS}] * 2


def test_a_run_moves_tau_at_every_second_update_also_where_an_epoch_has_an_odd_number(data_dir):
    """Fifteen updates an epoch: seven and eight of them move tau, a resumed run's too."""
    flags = {"env": "DifferentialGame-2", "exp_name": "x", "data_dir": data_dir, "tau_every": 2}
    for epochs, updates, moves in ((1, 15, 7), (2, 33, 16)):
        assert checks.command(d3g, epochs=epochs, **flags) == 0
        state = checks.kept(data_dir / "x" / "x_s0")
        counts = {name: np.frombuffer(state[f"agents/{name}_adam.step"], np.float32) for name in ("q1", "tau")}
        assert counts == {"q1": [updates], "tau": [moves]}


def test_the_logged_loss_of_tau_is_the_mean_of_those_it_descended():
    log, (agents, cfg, batch, oracle) = Log(2), set_up(q_lr=0.0)
    descended = []
    for turn in range(6):
        if turn % 3 == 2:
            descended.append(oracle.tau_loss(checks.snapshot(agents)).mean((-2, -1)))
        log.update(d3g.update(agents, batch, cfg, turn % 3 == 2))
    np.testing.assert_allclose([log.row(row)["LossPi"] for row in range(2)], np.mean(descended, 0), rtol=1e-10)
    assert list(log.row(0))[-5:] == ["LossPi", "LossQ", "LossInverse", "LossF", "QVals"]


def test_diagnostics_are_those_of_each_network():
    agents, cfg, batch, oracle = set_up(q_lr=0.0, pi_lr=0.0)  # nothing moves
    nets = checks.snapshot(agents)
    expected = {
        "LossPi": oracle.tau_loss(nets),
        "LossQ": oracle.critic_loss(nets, "q1") + oracle.critic_loss(nets, "q2"),
        "LossInverse": oracle.inverse_loss(nets),
        "LossF": oracle.f_loss(nets),
        "QVals": run_net(nets["q1"], oracle.obs, oracle.next_obs)[..., 0],
    }
    shown = d3g.update(agents, batch, cfg)
    assert shown.keys() == expected.keys()
    for name, values in expected.items():
        assert_equal(shown[name], values.mean(-1))


def test_authors_settings_are_those_of_the_released_code_and_kept_in_the_configuration():
    cfg = d3g.Config(authors_settings=True)
    assert (cfg.pi_lr, cfg.q_lr, cfg.batch_size) == (3e-4, 3e-4, 256)
    assert (d3g.Config().pi_lr, d3g.Config().q_lr, d3g.Config().batch_size) == (1e-3, 1e-3, 100)


def test_authors_settings_beside_another_batch_size_are_refused():
    with pytest.raises(ValueError, match="--batch_size 50: --authors_settings makes it 256"):
        d3g.Config(authors_settings=True, batch_size=50)


@pytest.mark.parametrize("env", ["DifferentialGame-2", "2x3HalfCheetah"])
def test_it_trains(env, data_dir):
    checks.assert_trains(d3g, data_dir, {"LossPi", "LossQ", "LossInverse", "LossF"}, env=env)


def test_a_run_stopped_and_resumed_equals_one_never_stopped(data_dir):
    checks.assert_resumes_exactly(d3g, data_dir, update_after=40)  # an odd number of updates lies on either side


def test_agent_i_never_learns_from_agent_j():
    checks.assert_decentralised(d3g)


def test_without_noise_a_run_follows_the_goal_and_the_inverse_model(tmp_path):
    flags = {**checks.TINY, "replay_size": 100, "start_steps": 0, "uniform_every": 0, "act_noise": 0.0, "epochs": 1}
    flags |= {"update_after": 40, "update_every": 40}
    run = train(d3g, tmp_path, [5], "2-4HalfCheetah", **flags)  # agent 0 is narrower than agent 1
    replay = run.parts["replay"]
    obs, act, *_ = replay.rows[:, :, :60].split(replay.splits, -1)
    pi = run.parts["agents"].pi(obs).detach().numpy()
    np.testing.assert_allclose(act[:, :, 40:], pi[:, :, 40:], atol=1e-5)
    assert np.abs(act.numpy() - pi)[:, :, :40].max() > 1e-4  # it has learnt since


def test_what_is_watched_acts_like_what_was_trained(tmp_path):
    run = train(d3g, tmp_path, [5], "2-4HalfCheetah", **checks.TINY, epochs=1)
    env, agents = envs.make("2-4HalfCheetah", [0]), run.parts["agents"]
    tensors = load_file(run.folders[0].path / "policy.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"tau", "inverse"}
    watched = load_policy(run.folders[0].path)(env.reset())
    trained = agents.pi(torch.from_numpy(env.obs)[:, :, None])[:, :, 0].detach().numpy()
    np.testing.assert_allclose(watched, trained, rtol=1e-5, atol=1e-6)
    assert np.abs(trained).max() > 1e-3
    with pytest.raises(ValueError, match="the environment \\(6"):
        watch.read_policy(run.folders[0].path, envs.make("6x1HalfCheetah", [0]))


# The two failures. x starts at 0; agents do -.8 or .8 and x becomes the product of both actions over .8.


@functools.cache
def learn_product(partner_varies: bool) -> d3g.Agents:
    """Agent 0's D3G after 300 batches of its own transitions, uniform actions, its partner's free or fixed to .8."""
    env, rng = Toy([0], n_obs=[1], n_act=[1]), np.random.default_rng(0)
    cfg = d3g.Config(hid=32, batch_size=64, q_lr=3e-3)
    agents = d3g.Agents(env, cfg, env.seeds)
    for _ in range(300):
        own, other = rng.choice([-0.8, 0.8], (2, 1, 1, cfg.batch_size, 1)).astype(np.float32)
        other = other if partner_varies else np.full_like(other, 0.8)
        act, next_obs = torch.from_numpy(own), torch.from_numpy(own * other / 0.8)
        nothing = torch.zeros(1, 1, cfg.batch_size)
        d3g.update(agents, Batch(torch.zeros_like(act), act, next_obs, nothing, nothing), cfg)
    return agents


def ask(agents: d3g.Agents) -> tuple[float, float]:
    """The action that the inverse model gives for reaching .8, and the successor that f expects of doing .8."""
    start, eight = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.8)
    with torch.no_grad():
        return float(agents.inverse(start, eight)), float(agents.f(start, eight))


def test_the_inverse_model_averages_actions_that_led_to_the_same_successor_and_the_mean_leads_elsewhere():
    action, _ = ask(learn_product(partner_varies=True))  # (.8, .8) and (-.8, -.8) both lead to .8
    assert abs(action) < 0.1
    assert abs(action * action / 0.8) < 0.02  # where both lead x if both act so: not .8, but where x was


def test_the_forward_model_expects_a_successor_that_never_comes_where_the_partner_varies():
    _, successor = ask(learn_product(partner_varies=True))
    assert abs(successor) < 0.1  # it was -.8 or .8 every time


def test_both_models_are_right_where_the_partner_stands_still():
    action, successor = ask(learn_product(partner_varies=False))
    assert action == pytest.approx(0.8, abs=0.1)
    assert successor == pytest.approx(0.8, abs=0.1)
