"""What holds for I2Q and independent DDPG alike: who learns from whom, padding, exploration, the training loop."""

import copy

import numpy as np
import pytest
import torch
from helpers.toys import Toy, make_agents, make_batch, nets_of, parameters, same_bits, train
from safetensors.numpy import load_file

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import mbpo_baseline
from common.nets import MLP, Adam
from common.replay import Replay
from common.seeding import Streams
from envs.vector import mask

CASES = [(iddpg, {}), (iddpg, {"negative_td": 0.5})]
for rule in ("1", "2", "released"):
    CASES += [(i2q_ddpg, {"rule": rule, "forward": form, "lam": 0.5}) for form in ("bounded", "residual")]
every_case = pytest.mark.parametrize(
    "module, flags", CASES, ids=["-".join([module.__name__, *map(str, flags.values())]) for module, flags in CASES]
)
both = pytest.mark.parametrize("module", [iddpg, i2q_ddpg])
FORMS = ("b7", "released")


# Who learns from whom


def filled_replay(env: Toy, size: int = 150) -> Replay:
    replay = Replay(env.seeds, env.n_agents, env.n_obs, env.n_act, size)
    rng = np.random.default_rng(0)
    for _ in range(size):
        obs, next_obs = (rng.uniform(-1, 1, (2, *env.obs.shape)) * env.obs_mask).astype(np.float32)
        act = (rng.uniform(-1, 1, (len(env.seeds), *env.act_mask.shape)) * env.act_mask).astype(np.float32)
        replay.store(obs, act, next_obs, rng.normal(size=len(env.seeds)), rng.random(len(env.seeds)) < 0.2)
    return replay


def learn(module, flags, at=None, change=None) -> list[list[dict[str, np.ndarray]]]:
    """Each seed's and agent's parameters after some updates from a replay whose part `at` was changed."""
    env = Toy(seeds=[3, 4])
    agents, cfg = make_agents(module, env, hid=64, batch_size=100, **flags)  # wide enough for oneDNN's kernels
    replay = filled_replay(env)
    if change is not None:
        replay.rows[at] = change(replay.rows[at])
    for batch in replay.sample(cfg.batch_size, 4):
        module.update(agents, batch, cfg)
    return [[parameters(agents, s, i) for i in range(env.n_agents)] for s in range(len(env.seeds))]


def poison(rows: torch.Tensor) -> torch.Tensor:
    """Whatever touches it becomes NaN, even when it is multiplied by zero."""
    return torch.full_like(rows, torch.nan)


def double(rows: torch.Tensor) -> torch.Tensor:
    return 2 * rows


@pytest.mark.parametrize("change", [double, poison])
@every_case
def test_agent_i_never_learns_from_agent_j(module, flags, change):
    plain = learn(module, flags)
    changed = learn(module, flags, at=np.s_[0, 1], change=change)  # agent 1 of the first seed
    for s, i in np.ndindex(2, 3):
        same = same_bits(plain[s][i], changed[s][i])
        assert set(same.values()) == {(s, i) != (0, 1)}, f"seed {s}, agent {i}: {same}"


@every_case
def test_a_seed_never_learns_from_another(module, flags):
    plain, changed = learn(module, flags), learn(module, flags, at=np.s_[0], change=poison)
    for s, i in np.ndindex(2, 3):
        assert set(same_bits(plain[s][i], changed[s][i]).values()) == {s == 1}


@both
def test_an_agents_action_depends_on_its_own_observation_alone(module):
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(module, env)
    obs = make_batch(env).obs
    other = obs.clone()
    other[0, 1] += 1
    differs = (agents.pi(obs) != agents.pi(other)).flatten(2).any(-1)
    assert differs.tolist() == [[False, True, False], [False, False, False]]


TINY = {"epochs": 1, "steps_per_epoch": 120, "start_steps": 20, "update_after": 40, "update_every": 10, "updates": 4}
STILL = {"replay_size": 500, "start_steps": 500, "update_after": 500}  # a run that only stores what happens
TINY |= {"batch_size": 16, "hid": 16, "num_test_episodes": 2, "max_ep_len": 7, "test_ep_len": 5, "replay_size": 90}


@pytest.mark.parametrize(
    "env, length", [("DifferentialGame-2", 7), ("2-4HalfCheetah", 7), ("3x1Hopper", 1000)], ids=lambda part: str(part)
)
@both
def test_a_seed_learns_the_same_alone_as_beside_others(module, env, length, tmp_path):
    """In Hopper every seed falls at a time of its own, so that no two are in the same episode."""
    flags = {**TINY, "hid": 64, "batch_size": 64, "max_ep_len": length, "uniform_every": 2}
    together = train(module, tmp_path / "together", [5, 6, 7], env, **flags)
    row = 1
    alone = train(module, tmp_path / "alone", [6], env, **flags)
    assert all(same_bits(parameters(together.parts["agents"], row), parameters(alone.parts["agents"], 0)).values())
    policies = [load_file(run.folders[r].path / "policy.safetensors") for run, r in ((together, row), (alone, 0))]
    assert all(same_bits(*policies).values())
    rows = [run.folders[r].progress.read_text().split("\t")[:-1] for run, r in ((together, row), (alone, 0))]
    assert rows[0] == rows[1]  # but for the last column, the time


@both
def test_seeds_differ(module, tmp_path):
    run = train(module, tmp_path, [5, 6], "DifferentialGame-2", **TINY)
    assert not any(same_bits(parameters(run.parts["agents"], 0), parameters(run.parts["agents"], 1)).values())


# Networks and padding


@both
def test_networks_start_in_the_range_of_each_agents_own_width(module):
    n_obs, n_act, hid = np.array([2, 40]), np.array([30, 1]), 50
    env = Toy(range(20), n_obs, n_act)
    agents = module.Agents(env, module.Config(hid=hid, l=2), env.seeds)
    ends = {"pi": (n_obs, n_act), "q": (n_obs + n_act, [1, 1]), "qss": (2 * n_obs, [1, 1])}
    ends["f_net"] = (n_obs + n_act, n_obs)
    for name, net in nets_of(agents).items():
        n_in, n_out = ends.get(name) or ends[{"pi_targ": "pi", "f_targ": "f_net"}.get(name, name[: -len("_targ")])]
        for i in range(2):
            fans = [(n_in[i], hid), (hid, hid), (hid, n_out[i])]
            for weight, (fan_in, fan_out) in zip(net.weights, fans):
                largest = float(weight.detach()[:, i].abs().max())
                assert largest == pytest.approx(np.sqrt(6 / (fan_in + fan_out)), rel=0.03)


@both
def test_targets_start_as_their_networks(module):
    env = Toy(seeds=[3, 4])
    agents = module.Agents(env, module.Config(hid=8), env.seeds)
    for name, net in nets_of(agents).items():
        if name.endswith("_targ"):
            online = getattr(agents, name.replace("_targ", "_net"), None) or getattr(agents, name[: -len("_targ")])
            assert torch.equal(net.flat, online.flat.detach())


@every_case
def test_weights_that_touch_padding_never_move(module, flags):
    env = Toy(seeds=[3, 4])
    agents, cfg = make_agents(module, env, torch.float64, **flags)
    before = {name: MLP(net.sizes, net.flat.detach().clone()) for name, net in nets_of(agents).items()}
    for turn in range(3):
        module.update(agents, make_batch(env, seed=turn, dtype=torch.float64), cfg)
    obs, act, one = env.obs_mask, env.act_mask, np.ones((3, 1), bool)
    ends = {"pi": ([obs], act), "q": ([obs, act], one), "qss": ([obs, obs], one), "f_net": ([obs, act], obs)}
    for name in ends.keys() & nets_of(agents).keys():
        net, (n_in, n_out) = nets_of(agents)[name], ends[name]
        first, last = (net.weights[k].detach() != before[name].weights[k] for k in (0, -1))
        last_bias = net.biases[-1].detach() != before[name].biases[-1]
        for i in range(3):
            columns = np.concatenate([part[i] for part in n_in])
            assert not first[:, i][..., ~columns].any()
            assert not last[:, i][:, ~n_out[i]].any()
            assert not last_bias[:, i][:, ~n_out[i]].any()
            assert first[:, i][..., columns].any(-1).any()
            assert last_bias[:, i][:, n_out[i]].all()


@both
def test_padded_actions_and_successors_are_zero(module):
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(module, env)
    batch = make_batch(env)
    made = [(agents.pi(batch.obs), env.act_mask)]
    for form in ("bounded", "residual") if module is i2q_ddpg else ():
        agents.forward = form
        made.append((agents.f(batch.obs, batch.act), env.obs_mask))
    for out, real in made:
        assert not out.detach().transpose(1, 2)[..., torch.from_numpy(~real)].any()
        assert out.detach().transpose(1, 2)[..., torch.from_numpy(real)].all()


@both
def test_a_row_of_the_agents_goes_on_in_another_group(module):
    env, other_env = Toy(seeds=[3, 4, 5]), Toy(seeds=[9])
    agents, cfg = make_agents(module, env)
    module.update(agents, make_batch(env, seed=0), cfg)
    saved = copy.deepcopy(
        {
            name: torch.as_tensor(part).detach() if isinstance(part, torch.Tensor) else part
            for name, part in agents.state_dict(2).items()
        }
    )
    other, _ = make_agents(module, other_env)
    other.load_state_dict(0, saved)
    batch = make_batch(env, seed=1)
    module.update(agents, batch, cfg)
    module.update(other, type(batch)(*(part[2:] for part in batch)), cfg)
    assert all(same_bits(parameters(agents, 2), parameters(other, 0)).values())


@both
def test_the_saved_policy_is_the_policy(module):
    env = Toy(seeds=[3, 4])
    agents, _ = make_agents(module, env)
    saved, obs = agents.policy(1), make_batch(env).obs
    x = obs[1].numpy()  # (N, B, O)
    for k in range(3):
        x = np.maximum(x, 0) if k else x
        x = np.einsum("noi,nbi->nbo", saved[f"pi.{k}.weight"], x) + saved[f"pi.{k}.bias"][:, None]
    np.testing.assert_allclose(
        np.tanh(x) * env.act_mask[:, None], agents.pi(obs)[1].detach().numpy(), rtol=1e-5, atol=1e-6
    )


@every_case
def test_an_update_draws_nothing_and_waits_for_no_number(module, flags, monkeypatch):
    env = Toy(seeds=[3, 4])
    (agents, cfg), batch, state = make_agents(module, env, **flags), make_batch(env), torch.get_rng_state()

    def refuse(tensor):
        raise AssertionError("on a GPU, Python would wait here for the device")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    module.update(agents, batch, cfg)
    monkeypatch.undo()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "module, flags",
    [(iddpg, {}), (i2q_ddpg, {}), (mbpo_baseline, {}), (d3g, {}), *((i2q_expectile, {"form": f}) for f in FORMS)],
)
def test_pi_lr_is_of_what_acts_alone_and_q_lr_of_all_else(module, flags):
    agents, cfg = make_agents(module, Toy(seeds=[3, 4]), pi_lr=1e-3, q_lr=2e-3, **flags)
    steps = {name: part.lr for name, part in vars(agents).items() if isinstance(part, Adam)}
    assert len(steps) >= 2
    assert steps == {name: cfg.pi_lr if name in ("pi_adam", "tau_adam") else cfg.q_lr for name in steps}


# Exploration

WIDE = mask([40, 25])


def acts(module, pi=0.0, step=1000, episode=(1, 1), seeds=(3, 4), **flags) -> np.ndarray:
    """Fifty explorations on end: (50, S, N, A)."""
    cfg = module.Config(**{"start_steps": 10, "act_noise": 0.1, **flags})
    noise, shape = Streams(seeds, "exploration"), (len(seeds), *WIDE.shape)
    means = np.full(shape, pi, np.float32)
    return np.stack([module.explore(cfg, means, WIDE, step, np.array(episode), noise) for _ in range(50)])


def assert_uniform(x: np.ndarray) -> None:
    assert x.std() == pytest.approx(1 / np.sqrt(3), rel=0.03)
    assert -1 <= x.min() < -0.99
    assert 0.99 < x.max() <= 1


@both
def test_actions_are_uniform_through_start_steps_and_noisy_from_the_next_step_on(module):
    assert_uniform(acts(module, pi=0.9, step=10)[..., WIDE])
    noisy = acts(module, pi=0.5, step=11)[..., WIDE]
    assert noisy.mean() == pytest.approx(0.5, abs=0.01)
    assert noisy.std() == pytest.approx(0.1, rel=0.05)


@both
def test_without_start_steps_the_first_step_is_not_uniform(module):
    assert acts(module, step=1, start_steps=0)[..., WIDE].std() == pytest.approx(0.1, rel=0.05)


@both
def test_act_noise_is_the_standard_deviation_and_nothing_leaves_the_range(module):
    assert acts(module, act_noise=0.02)[..., WIDE].std() == pytest.approx(0.02, rel=0.05)
    edge = acts(module, pi=1.0)[..., WIDE]
    assert edge.max() == 1
    assert 0.4 < (edge == 1).mean() < 0.6


@both
def test_every_fourth_episode_of_a_seed_is_uniform_whatever_the_others_do(module):
    for first in range(8):
        x = acts(module, uniform_every=4, episode=(first, first + 1))
        for row, episode in enumerate((first, first + 1)):
            noisy = x[:, row][..., WIDE].std() == pytest.approx(0.1, rel=0.1)
            assert noisy == (episode % 4 != 0)


@both
def test_padded_actions_stay_zero_while_exploring(module):
    for step in (1, 1000):
        x = acts(module, pi=0.5, step=step)
        assert not x[..., ~WIDE].any()
        assert x[..., WIDE].all()


@both
def test_a_seed_explores_the_same_alone_as_beside_others(module):
    for step in (1, 1000):
        together = acts(module, step=step, episode=(0, 1, 2), seeds=(3, 4, 5), uniform_every=4)
        alone = acts(module, step=step, episode=(1,), seeds=(4,), uniform_every=4)
        assert together[:, 1].tobytes() == alone[:, 0].tobytes()


@both
def test_no_two_agents_or_steps_explore_alike(module):
    x = acts(module)[..., :25]  # what both agents have
    assert len(np.unique(x)) > 0.99 * x.size  # single precision repeats itself now and then


# The training loop


def stored(run) -> tuple[np.ndarray, ...]:
    """obs (S, N, T, O), act, next_obs, rew (S, N, T), terminated (S, N, T) of a run's replay."""
    replay = run.parts["replay"]
    obs, act, next_obs, rew, terminated = replay.rows[:, :, : replay.count].split(replay.splits, -1)
    return obs.numpy(), act.numpy(), next_obs.numpy(), rew[..., 0].numpy(), terminated[..., 0].numpy()


@pytest.mark.parametrize("module", [iddpg, i2q_ddpg, d3g])  # the others' loops are the same, word for word
@pytest.mark.parametrize("batches", ["shared", "apart"])
def test_agents_learn_from_the_same_moments_where_batches_are_shared_and_there_alone(
    module, batches, tmp_path, monkeypatch
):
    seen, update = [], module.update

    def look_and_update(agents, batch, cfg, *more):
        seen.append(batch.rew.clone())
        return update(agents, batch, cfg, *more)

    monkeypatch.setattr(module, "update", look_and_update)
    train(module, tmp_path, [5], "DifferentialGame-2", **TINY, batches=batches, record="off")
    assert len(seen) == 36  # nine blocks of four
    assert all(torch.equal(rew[:, 0], rew[:, 1]) for rew in seen) == (batches == "shared")


@both
def test_a_time_limit_is_truncation_and_still_bootstraps(module, tmp_path):
    run = train(module, tmp_path, [5], "DifferentialGame-2", **{**TINY, **STILL})
    obs, act, next_obs, _, terminated = stored(run)
    assert obs.shape[2] == 120
    assert not terminated.any()
    moved = np.clip(obs[0, 0] + 0.1 * act[0, :, :, 0].T, -1, 1)
    np.testing.assert_allclose(next_obs[0, 0], moved, atol=1e-6)  # the true successor, also where the time was up
    goes_on = (obs[0, 0, 1:] == next_obs[0, 0, :-1]).all(-1)
    assert np.flatnonzero(~goes_on).tolist() == list(range(6, 119, 7))  # max_ep_len is 7


@both
def test_a_fall_is_stored_as_terminal_with_its_own_successor(module, tmp_path):
    flags = {**TINY, **STILL, "max_ep_len": 1000, "test_ep_len": 2}
    obs, _, next_obs, _, terminated = stored(train(module, tmp_path, [5], "3x1Hopper", **flags))
    ends = np.flatnonzero(terminated[0, 0])
    assert len(ends) >= 2
    assert (terminated == terminated[0, 0]).all()
    goes_on = (obs[0, :, 1:] == next_obs[0, :, :-1]).all((0, -1))
    assert np.flatnonzero(~goes_on).tolist() == [end for end in ends if end < 119]


@both
def test_updates_start_and_come_in_blocks_as_configured(module, tmp_path):
    run = train(module, tmp_path, [5], "DifferentialGame-2", **{**TINY, "update_after": 45})
    adams = [part for part in vars(run.parts["agents"]).values() if isinstance(part, Adam)]
    blocks = len([50, 60, 70, 80, 90, 100, 110, 120])
    assert [int(adam.step) for adam in adams] == [4 * blocks] * len(adams)


@both
def test_without_noise_a_run_follows_the_policy_of_its_last_block_of_updates(module, tmp_path):
    flags = {**TINY, "replay_size": 500, "start_steps": 0, "uniform_every": 0, "act_noise": 0, "max_ep_len": 120}
    run = train(module, tmp_path, [5], "DifferentialGame-2", **{**flags, "update_after": 100, "update_every": 100})
    obs, act, *_ = stored(run)
    pi = run.parts["agents"].pi(torch.from_numpy(obs)).detach().numpy()
    np.testing.assert_allclose(act[:, :, 100:], pi[:, :, 100:], atol=1e-6)  # steps 101 .. 120
    assert np.abs(act - pi)[:, :, :100].max() > 1e-4
