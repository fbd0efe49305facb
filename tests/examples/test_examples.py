"""The examples: independent TD3, an algorithm of one's own, and MADDPG, a centralised reference."""

import copy

import numpy as np
import pytest
import torch
from helpers.checks import (
    TINY,
    assert_descends_in_order,
    assert_resumes_exactly,
    assert_tracks,
    assert_trains,
    run_net,
    snapshot,
)
from helpers.toys import Toy, in_float64, make_agents, make_batch, nets_of, parameters, same_bits, train
from torch import nn

from common.seeding import Streams
from examples import itd3, maddpg

B = 6


def noise_for(env: Toy, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    drawn = Streams(env.seeds, "update").normal(env.n_agents, B, env.n_act)
    return torch.from_numpy(drawn).to(dtype) * 3  # beyond noise_clip in about every third number


def separate(net, s: int, i: int) -> nn.Sequential:
    """Network (s, i) of a stack as a torch module."""
    layers: list[nn.Module] = []
    for weight, bias in net.slice(s * net.flat.shape[1] + i):
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class NaiveTD3:
    """One agent's TD3 by Fujimoto et al.'s Algorithm 1, with modules of torch."""

    def __init__(self, agents, cfg, s: int, i: int):
        self.at, self.cfg, self.act_mask = (s, i), cfg, agents.act_mask[i].double()
        self.nets = {name: separate(net, s, i) for name, net in nets_of(agents).items()}
        self.adam = {name: torch.optim.Adam(self.nets[name].parameters(), cfg.q_lr) for name in ("pi", "q1", "q2")}

    def pi(self, name, obs):
        return torch.tanh(self.nets[name](obs)) * self.act_mask

    def q(self, name, obs, act):
        return self.nets[name](torch.cat([obs, act], -1))[:, 0]

    def step(self, name, loss):
        self.adam[name].zero_grad()
        loss.backward()
        self.adam[name].step()

    def update(self, batch, noise, move_pi):
        obs, act, next_obs, rew, terminated = (part[self.at] for part in batch)
        with torch.no_grad():
            smooth = (self.cfg.target_noise * noise[self.at]).clip(-self.cfg.noise_clip, self.cfg.noise_clip)
            next_act = (self.pi("pi_targ", next_obs) + smooth * self.act_mask).clip(-1, 1)
            next_q = torch.minimum(*(self.q(name, next_obs, next_act) for name in ("q1_targ", "q2_targ")))
            y = rew + self.cfg.gamma * (1 - terminated) * next_q
        for name in ("q1", "q2"):
            self.step(name, ((self.q(name, obs, act) - y) ** 2).mean())
        if move_pi:
            self.step("pi", -self.q("q1", obs, self.pi("pi", obs)).mean())
            for name in ("pi", "q1", "q2"):
                for old, new in zip(self.nets[f"{name}_targ"].parameters(), self.nets[name].parameters()):
                    old.data.mul_(self.cfg.polyak).add_((1 - self.cfg.polyak) * new.data)


def test_independent_td3_is_that_of_a_naive_learner_for_each_agent():
    env = Toy(seeds=[3, 4])
    agents, cfg = make_agents(itd3, env, torch.float64, pi_lr=1e-3, q_lr=1e-3)
    naive = {at: NaiveTD3(agents, cfg, *at) for at in np.ndindex(2, 3)}
    for turn in range(4):
        batch, noise, move_pi = make_batch(env, B, turn, torch.float64), noise_for(env), turn % 2 == 1
        itd3.update(agents, batch, cfg, noise, move_pi)
        for learner in naive.values():
            learner.update(batch, noise, move_pi)
    for at, learner in naive.items():
        for name, net in nets_of(agents).items():
            mine = separate(net, *at)
            for a, b in zip(mine.parameters(), learner.nets[name].parameters()):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=f"{name} of {at}")


def test_an_agent_of_independent_td3_never_learns_from_another():
    env, learned = Toy(seeds=[3, 4]), []
    for poison in (False, True):
        agents, cfg = make_agents(itd3, env)
        for turn in range(4):
            batch = make_batch(env, B, turn)
            for part in batch if poison else ():
                part[0, 1] = torch.nan
            itd3.update(agents, batch, cfg, noise_for(env, torch.float32), turn % 2 == 1)
        learned.append(agents)
    for s, i in np.ndindex(2, 3):
        same = same_bits(*(parameters(agents, s, i) for agents in learned))
        assert set(same.values()) == {(s, i) != (0, 1)}, f"seed {s}, agent {i}: {same}"


def test_a_run_of_td3_moves_the_policy_at_every_second_update_and_draws_noise_from_its_own_stream(
    tmp_path, monkeypatch
):
    seen, update = [], itd3.update

    def look_and_update(agents, batch, cfg, noise, move_pi):
        seen.append((noise, move_pi))
        return update(agents, batch, cfg, noise, move_pi)

    monkeypatch.setattr(itd3, "update", look_and_update)
    train(itd3, tmp_path, [5], "DifferentialGame-2", **TINY, epochs=1)  # five blocks of three updates
    assert [move_pi for _, move_pi in seen] == [False, True] * 7 + [False]
    stream = Streams([5], "update")
    for noise, _ in seen:
        np.testing.assert_array_equal(noise, stream.normal(2, TINY["batch_size"], 1))


def pi_gradients(agents, batch) -> torch.Tensor:
    (grad,) = torch.autograd.grad(maddpg.pi_loss(agents, batch).mean(-1).sum(), agents.pi.flat)
    return grad


def test_the_policies_of_maddpg_climb_the_joint_value_with_the_others_as_in_the_replay():
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(maddpg, env, torch.float64)
    batch = make_batch(env, B, 0, torch.float64)
    grad = agents.pi.like(pi_gradients(agents, batch))
    for s, i in np.ndindex(2, 3):
        pi, q = separate(agents.pi, s, i), separate(agents.q, s, 0)
        acts = [batch.act[s, j] for j in range(3)]
        acts[i] = torch.tanh(pi(batch.obs[s, i])) * agents.act_mask[i]
        (-q(torch.cat([*batch.obs[s], *acts], -1)).mean()).backward()
        for k, layer in enumerate(layer for layer in pi if isinstance(layer, nn.Linear)):
            assert layer.weight.grad is not None
            torch.testing.assert_close(grad.weights[k][s, i], layer.weight.grad, rtol=1e-8, atol=1e-12)


def test_the_value_of_maddpg_regresses_to_the_target_policies_next_joint_action():
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(maddpg, env, torch.float64)
    batch = make_batch(env, B, 0, torch.float64)
    y = maddpg.td_target(agents, batch, 0.9)
    for s in range(2):
        acts = [torch.tanh(separate(agents.pi_targ, s, j)(batch.next_obs[s, j])) * agents.act_mask[j] for j in range(3)]
        next_q = separate(agents.q_targ, s, 0)(torch.cat([*batch.next_obs[s], *acts], -1))[:, 0]
        torch.testing.assert_close(y[s, 0], batch.rew[s, 0] + 0.9 * (1 - batch.terminated[s, 0]) * next_q)


def test_an_update_of_maddpg_descends_the_value_then_the_policies_and_moves_the_targets_last():
    env = Toy(seeds=[3, 4])
    agents, cfg = make_agents(maddpg, env, torch.float64, gamma=0.9, polyak=0.9, hid=5)
    batch = make_batch(env, B, 0, torch.float64)
    obs, act, next_obs, rew, terminated = (part.numpy() for part in batch)

    def joint(x):
        return np.concatenate([x[:, i] for i in range(3)], -1)[:, None]

    def pi(net, x):
        return np.tanh(run_net(net, x)) * env.act_mask[:, None]

    def q_loss(nets):
        further = run_net(nets["q_targ"], joint(next_obs), joint(pi(nets["pi_targ"], next_obs)))[:, 0, :, 0]
        y = rew[:, 0] + np.where(terminated[:, 0] == 1, 0, 0.9 * further)
        return ((run_net(nets["q"], joint(obs), joint(act))[:, 0, :, 0] - y) ** 2).mean(-1)[:, None]

    def pi_loss(nets):
        losses = []
        for i in range(3):
            acts = act.copy()
            acts[:, i] = pi(nets["pi"], obs)[:, i]
            losses.append(-run_net(nets["q"], joint(obs), joint(acts))[:, 0, :, 0].mean(-1))
        return np.stack(losses, -1)

    before = snapshot(agents)
    maddpg.update(agents, batch, cfg)
    assert_descends_in_order(before, agents, {"q": q_loss, "pi": pi_loss})
    assert_tracks(before, agents, {"q_targ": "q", "pi_targ": "pi"}, 0.9)


def test_in_maddpg_every_policy_learns_from_what_the_others_did_and_no_seed_from_another():
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(maddpg, env, torch.float64)
    batch = make_batch(env, B, 0, torch.float64)
    other = copy.deepcopy(batch)
    other.act[0, 1] += 0.5
    moved = (pi_gradients(agents, batch) != pi_gradients(agents, other)).any(-1)
    assert moved.tolist() == [[True, False, True], [False, False, False]]  # agent 1's own action comes from its policy


@pytest.mark.parametrize("module", [itd3, maddpg])
def test_an_example_trains_resumes_exactly_and_is_recorded(module, data_dir, capfd):
    assert_resumes_exactly(module, data_dir, compile="auto")
    assert "as written" not in capfd.readouterr().out
    assert_trains(module, data_dir / "alone", {"LossPi", "LossQ"}, env="2-4HalfCheetah")


def test_in_float64_keeps_the_squashing():
    agents, _ = make_agents(itd3, Toy(seeds=[3]))
    obs = make_batch(Toy(seeds=[3])).obs
    assert (in_float64(agents).pi(obs.double()).abs() <= 1).all()
