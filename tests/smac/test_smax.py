"""SMAX as a task: masks, deaths, victories, and bits that do not depend on what stands beside."""

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
from helpers.recurrent import assert_same, command, left

from common.errors import UsageError
from smac import envs, i2q_drqn, iql, scripted

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jaxmarl") is None, reason="needs the extra: pip install '.[smax]' (Python 3.11 or newer)"
)


def steps_of(env: envs.MaskedEnv, n: int, seed: int = 0) -> list[np.ndarray]:
    """Random legal play of the first seed's games, each by a generator of its own; what was seen."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(n):
        chance = np.broadcast_to(rng.random(env.avail.shape[1:]), env.avail.shape)
        _, terminated, truncated = env.step(np.where(env.avail, chance, -1).argmax(-1))
        seen.append(env.obs[0].copy())
        env.reset(terminated | truncated)
    return seen


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, data_dir, capfd):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    assert command(iql, data_dir, env="smax:3m") == 2
    err = capfd.readouterr().err
    assert "--env 'smax:3m': needs JaxMARL" in err and "pip install '.[smax]'" in err
    assert len(err.strip().splitlines()) == 1


@needs_jax
def test_the_map_has_the_sizes_that_it_is_known_for():
    env = envs.make("smax:3m", [0], 2, 100)
    env.reset()
    assert (env.n_agents, env.n_obs, env.n_act) == (3, 75, 8)
    assert env.obs.shape == (1, 3, 2, 75) and np.abs(env.obs).max() <= 1
    assert env.avail[0, 0, 0].tolist() == [True] * 5 + [False] * 3  # nobody is in range yet


@needs_jax
def test_an_unknown_map_is_refused_and_the_papers_is_there():
    with pytest.raises(UsageError, match=r"no such map; known: .*2s3z.*3s_vs_4z.*8m"):
        envs.make("smax:9m", [0], 1, 100)
    assert envs.make("smax:3s_vs_4z", [0], 1, 100).n_act == 9


@needs_jax
def test_attack_k_is_on_the_enemy_that_units_calls_the_k_th():
    env = envs.make("smax:3m", [0], 1, 100)
    env.reset()
    looked = 0
    for _ in range(20):
        moves = np.where(env.avail[..., scripted.RIGHT], scripted.RIGHT, 4)
        env.step(np.where(env.avail[..., 5:].any(-1), env.avail[..., 5:].argmax(-1) + 5, moves))
        units, legal = env.units(), env.avail[0, :, 0, 5:]
        for i in np.flatnonzero(units.health[:3] > 0):
            distance = np.linalg.norm(units.place[3:] - units.place[i], axis=-1)
            out = ~legal[i] & (units.health[3:] > 0)
            looked += legal[i].any() and out.any()
            assert not (legal[i].any() and out.any()) or distance[legal[i]].max() < distance[out].min()
    assert looked > 3


@needs_jax
def test_scripts_win_games_that_agents_who_have_learned_nothing_lose(data_dir, capsys):
    assert command(iql, data_dir, env="smax:3m", epochs=1, replay_steps=1000) == 0
    capsys.readouterr()
    assert scripted.main([str(data_dir / "x" / "x_s0"), "--episodes", "8"]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "smax:3m, 8 episodes each"
    won = {row[:24].strip(): float(row[24:].split()[1]) for row in rows}
    assert len(won) == 8 and won["none"] == 0 and won["walk and attack weakest"] > 0.2


@needs_jax
def test_random_play_dies_loses_and_is_paid_for_damage_alone():
    env, rng = envs.make("smax:3m", [0], 8, 100), np.random.default_rng(0)
    env.reset()
    dead = ended = 0
    for _ in range(60):
        before = env.t.copy()
        rew, terminated, truncated = env.step(np.where(env.avail, rng.random(env.avail.shape), -1).argmax(-1))
        health = np.stack([env.units(0, k).health for k in range(8)])
        for k in np.flatnonzero((health[:, :3] <= 0).any(1)):
            for i in np.flatnonzero(health[k, :3] <= 0):
                assert not env.obs[0, i, k].any() and env.avail[0, i, k].tolist() == [False] * 4 + [True] + [False] * 3
                dead += 1
        assert np.array_equal(terminated[0], (health[:, :3] <= 0).all(1) | (health[:, 3:] <= 0).all(1))
        assert np.array_equal(env.won[0] == 1, terminated[0] & (health[:, :3] > 0).any(1))
        assert (rew[0] <= 10).all() and not truncated.any() and (env.t == before + 1).all()
        ended += terminated.sum()
        env.reset(terminated)
    assert dead and ended


@needs_jax
def test_a_victory_is_paid_twenty_and_counted():
    env = envs.make("smax:3m", [0], 1, 100)
    env.reset()
    leaf = [k for k, part in enumerate(env.leaves[0]) if part.shape == (1, 6) and part.max() == 45]  # pyright: ignore
    health = np.array(env.leaves[0][leaf[0]])  # pyright: ignore
    health[0, 3:] = 0.01
    env.leaves[0][leaf[0]] = health  # pyright: ignore
    for _ in range(60):
        attack = env.avail[0, :, 0, 5:]
        act = np.where(attack.any(-1), 5 + attack.argmax(-1), np.where(env.avail[0, :, 0, 1], 1, 4))
        _, terminated, _ = env.step(act.reshape(1, -1, 1))
        if terminated.any():
            break
    assert env.won[0, 0] == 1 and 10 < env.ret[0, 0] < 10.01


@needs_jax
def test_both_teams_dead_is_no_victory():
    env = envs.make("smax:3m", [0], 1, 100)
    env.reset()
    leaf = [k for k, part in enumerate(env.leaves[0]) if part.shape == (1, 6) and part.max() == 45]  # pyright: ignore
    env.leaves[0][leaf[0]] = np.zeros((1, 6), np.float32)  # pyright: ignore
    _, terminated, _ = env.step(np.full((1, 3, 1), 4))
    assert terminated[0, 0] and env.won[0, 0] == 0


@needs_jax
def test_the_time_limit_is_ours_and_truncates():
    env = envs.make("smax:3m", [0], 1, 5)
    env.reset()
    for t in range(5):
        _, terminated, truncated = env.step(np.full((1, 3, 1), 4))
        assert not terminated.any() and truncated[0, 0] == (t == 4)


@needs_jax
@pytest.mark.parametrize("copies", [1, 3])
def test_a_seed_sees_the_same_alone_as_beside_others(copies):
    alone, beside = (envs.make("smax:3m", seeds, copies, 100) for seeds in ([7], [7, 8, 9]))
    for env in (alone, beside):
        env.reset()
    for a, b in zip(steps_of(alone, 40), steps_of(beside, 40)):
        assert np.array_equal(a, b)


@needs_jax
def test_a_game_goes_on_bit_for_bit_in_another_row():
    old, new = envs.make("smax:3m", [0, 1], 2, 100), envs.make("smax:3m", [5, 6, 7], 2, 100)
    old.reset()
    new.reset()
    steps_of(old, 30)
    new.load_state_dict(0, old.state_dict(0))
    for a, b in zip(steps_of(old, 30, 1), steps_of(new, 30, 1)):
        assert np.array_equal(a, b)


@needs_jax
@pytest.mark.parametrize("module", [iql, i2q_drqn])
def test_learners_train_on_it_and_go_on_bit_for_bit(module, data_dir):
    flags: dict[str, Any] = {"env": "smax:3m", "steps_per_epoch": 120, "replay_steps": 300, "n_envs": 2}
    assert command(module, data_dir / "straight", **flags) == 0
    for epochs in (1, 2):
        assert command(module, data_dir / "resumed", **{**flags, "epochs": epochs}) == 0
    assert_same(*(left(data_dir / name / "x" / "x_s0") for name in ("straight", "resumed")))
