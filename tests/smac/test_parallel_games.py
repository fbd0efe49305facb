"""PettingZoo ParallelEnvs with masks and deaths as tasks: of real SMAC's shape, and of today's."""

import importlib
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, battles
from helpers.recurrent import LEARNERS, assert_same, command, left, played, rows_of

from common.errors import UsageError
from envs.errors import Broken
from envs.errors import UsageError as EnvsUsageError
from smac import envs

STOP, BACK, ON, ATTACK, NOTHING = range(5)


def one(name: str = "helpers.battles:parallel_env", max_ep_len: int = 50) -> envs.MaskedEnv:
    env = envs.make(name, [0], 1, max_ep_len)
    env.reset()
    return env


def step(env: envs.MaskedEnv, *act: int) -> tuple[float, bool, bool]:
    rew, terminated, truncated = env.step(np.array(act).reshape(1, -1, 1))
    return float(rew[0, 0]), bool(terminated[0, 0]), bool(truncated[0, 0])


def go(env: envs.MaskedEnv, steps: int, act: int) -> None:
    """All who live do `act`, or stop where they cannot."""
    for _ in range(steps):
        legal = env.avail[0, :, 0]
        step(env, *[NOTHING if legal[i, NOTHING] else act if legal[i, act] else STOP for i in range(3)])


@pytest.mark.parametrize("name", ["helpers.battles:parallel_env", "helpers.battles:today"])
def test_masks_and_observations_are_those_of_the_game(name):
    env = one(name)
    assert env.avail[0, 0, 0].tolist() == [True, True, True, False, False]
    go(env, 4, ON)
    assert env.avail[0, 0, 0].tolist() == [True, True, False, True, False]
    cannot = name == "helpers.battles:today"
    assert env.avail[0, 2, 0].tolist() == [True, True, False, not cannot, False]
    assert env.obs[0, 0, 0, :2].tolist() == [np.float16(5 / 6), 0.5]
    assert env.obs_mask[1].sum() == 5 - cannot and env.act_mask[2].sum() == 5 - cannot


@pytest.mark.parametrize("name", ["helpers.battles:parallel_env", "helpers.battles:today"])
def test_the_dead_see_nothing_do_nothing_and_the_battle_goes_on_without_them(name):
    env = one(name)
    go(env, 6, STOP)
    assert not env.obs[0, 0].any() and env.avail[0, 0, 0].tolist() == [False] * 4 + [True]
    assert env.obs[0, 1].any() and not env.avail[0, 1, 0, NOTHING]
    assert step(env, NOTHING, ON, ON) == (0, False, False)


@pytest.mark.parametrize("name", ["helpers.battles:parallel_env", "helpers.battles:today"])
def test_a_victory_ends_the_battle_and_is_counted(name):
    env = one(name)
    go(env, 4, ON)
    assert step(env, ATTACK, ATTACK, STOP) == (0.5, False, False)
    assert step(env, ATTACK, ATTACK, STOP) == (1.5, True, False)
    assert env.won[0, 0] == 1 and env.ret[0, 0] == 2


@pytest.mark.parametrize("name", ["helpers.battles:parallel_env", "helpers.battles:today"])
def test_the_games_own_time_limit_is_truncation_and_what_is_seen_there_counts(name):
    env = one(name)
    go(env, 11, STOP)
    assert step(env, *[NOTHING if env.avail[0, i, 0, NOTHING] else STOP for i in range(3)]) == (0, False, True)
    assert env.obs[0, 2].any() and env.won[0, 0] == 0
    env.reset()
    assert env.obs[0, 0].any() and env.t[0, 0] == 0


def test_a_victory_at_the_time_limit_is_the_end():
    env = one()
    go(env, 4, ON)
    go(env, 6, STOP)
    assert step(env, NOTHING, ATTACK, ATTACK) == (0.5, False, False)
    assert step(env, NOTHING, ATTACK, ATTACK) == (1.5, True, False)  # the twelfth step


def test_ours_comes_first_if_it_is_shorter():
    env = one(max_ep_len=3)
    go(env, 2, STOP)
    assert step(env, STOP, STOP, STOP) == (0, False, True)


@pytest.mark.parametrize("module, flags", LEARNERS[:2] + LEARNERS[-1:])
@pytest.mark.parametrize("name", ["helpers.battles:parallel_env", "helpers.battles:today"])
def test_learners_train_on_it_and_go_on(module, flags, name, data_dir):
    flags = {**flags, "env": name, "max_ep_len": 12, "test_ep_len": 12}
    assert command(module, data_dir, **{**flags, "epochs": 1}) == 0
    assert command(module, data_dir, **{**flags, "epochs": 2}) == 0


def test_a_game_goes_on_where_it_was_saved():
    env, other = one("helpers.battles:today"), one("helpers.battles:today")
    go(env, 7, ON)
    go(other, 2, BACK)
    other.load_state_dict(0, env.state_dict(0))
    for _ in range(3):
        go(env, 1, STOP)
        go(other, 1, STOP)
        assert np.array_equal(env.obs, other.obs) and np.array_equal(env.avail, other.avail)
    third = envs.make("helpers.battles:today", [9], 1, 50)
    third.reset()
    third.load_state_dict(0, other.state_dict(0))
    assert np.array_equal(third.obs, env.obs)
    for game in (env, third):
        game.reset()
    assert np.array_equal(third.obs, env.obs)  # the next episode is the same too


def test_a_game_that_does_not_repeat_itself_starts_anew(capfd):
    env, other = one(), one()
    go(env, 7, ON)
    other.load_state_dict(0, env.state_dict(0))
    assert "does not repeat itself from the same seed and actions" in capfd.readouterr().err
    assert other.t[0, 0] == 0 and other.avail.any(-1).all()
    assert other.anew.all() and not env.anew.any()


def test_the_replay_holds_what_the_dead_saw_and_did():
    batch = played(envs.make("helpers.battles:parallel_env", [0], 2, 12), 60).sample(0, 8, True)
    dead = batch.avail[..., NOTHING]
    assert dead.any()
    assert torch.equal(batch.act[dead], torch.full_like(batch.act[dead], NOTHING))
    assert not batch.obs[:, :, batch.now][dead].any()


@pytest.mark.parametrize(
    "name, text",
    [
        ("helpers.battles:wrong", "only Discrete"),
        ("helpers.battles:dumb", "returns a object, not a ParallelEnv"),
        ("helpers.battles:gone", "must be package.module:factory"),
        ("helpers.battles:narrow", "an action_mask of marine_0 has 3 numbers, not one for each of its 4 actions"),
        ("no_such_module:gone", "must be package.module:factory"),
    ],
)
def test_what_is_no_such_game_is_refused_in_one_line(name, text):
    with pytest.raises((UsageError, EnvsUsageError), match=text):
        envs.make(name, [0], 1, 10).reset()


def test_without_a_mask_everything_is_legal_also_where_observations_are_dicts():
    assert one("helpers.battles:bare").avail[0, :, 0].tolist() == [[True] * 4 + [False]] * 3


def test_a_dict_of_observations_leaves_the_mask_in_infos():
    assert one("helpers.battles:split").avail[0, 0, 0].tolist() == [True, True, True, False, False]


def test_what_a_factory_raises_is_told_in_one_line_and_keeps_its_traceback():
    with pytest.raises(Broken, match=r"broken\(\) raised AttributeError: a mistake of its own") as error:
        one("helpers.battles:broken")
    assert isinstance(error.value.__cause__, AttributeError)


class Fragile(battles.Today):
    """`trouble(game, when)` is called where it is reset and stepped."""

    trouble: Any = staticmethod(lambda game, when: None)

    def __init__(self) -> None:
        super().__init__()
        self.episodes = 0

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        Fragile.trouble(self, "reset")
        return super().reset(seed)

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        Fragile.trouble(self, "step")
        return super().step(actions)


@pytest.fixture
def made(monkeypatch) -> list[Fragile]:
    """Every game that helpers.battles:fragile has made: first those that train, then those of the tests."""
    made: list[Fragile] = []

    def fragile() -> Fragile:
        made.append(Fragile())
        return made[-1]

    monkeypatch.setattr(battles, "fragile", fragile, raising=False)
    return made


FRAGILE = {"env": "helpers.battles:fragile", "num_runs": 2, "max_ep_len": 12, "test_ep_len": 12}


@pytest.mark.parametrize("when", ["reset", "step", "test"])
def test_a_game_that_raises_ends_its_own_seed(made, monkeypatch, data_dir, capsys, when):
    assert command(LEARNERS[0][0], data_dir / "whole", **FRAGILE) == 0
    made.clear()

    def trouble(game: Fragile, now: str) -> None:
        at = made.index(game)
        training = at == 1 and game.episodes == 3 and when == now and (now == "reset" or game.time == 2)
        if training or (when == "test" and at == 6 and now == "step"):  # the second of the second seed's tests
            raise ZeroDivisionError("no way")

    monkeypatch.setattr(Fragile, "trouble", staticmethod(trouble))
    capsys.readouterr()
    assert command(LEARNERS[0][0], data_dir, **FRAGILE) == 1
    err = capsys.readouterr().err
    assert re.match(r"\[s1\] failed: step \d+: the environment raised ZeroDivisionError: no way", err), err
    assert len(re.findall(r"\n  File \S+test_parallel_games.py", err)) == err.count("\n  File")  # the author's alone
    assert_same(left(data_dir / "x" / "x_s0"), left(data_dir / "whole" / "x" / "x_s0"))

    monkeypatch.setattr(Fragile, "trouble", staticmethod(lambda game, now: None))
    assert command(LEARNERS[0][0], data_dir, **FRAGILE) == 0
    assert_same(left(data_dir / "x" / "x_s1"), left(data_dir / "whole" / "x" / "x_s1"))


def test_a_game_that_raises_where_its_episode_is_played_again_ends_its_own_seed(made, monkeypatch, data_dir, capsys):
    assert command(LEARNERS[0][0], data_dir, **{**FRAGILE, "epochs": 1}) == 0
    made.clear()

    def trouble(game: Fragile, now: str) -> None:
        if game is made[1] and game.episodes == 2:  # the first reset is the program's own
            raise ZeroDivisionError("no way")

    monkeypatch.setattr(Fragile, "trouble", staticmethod(trouble))
    assert command(LEARNERS[0][0], data_dir, **FRAGILE) == 1
    assert "[s1] failed: before step 61: the environment raised ZeroDivisionError" in capsys.readouterr().err
    assert [rows_of(data_dir / "x" / f"x_s{seed}")[-1]["TotalEnvInteracts"] for seed in range(2)] == [120, 60]


def test_a_mistake_of_the_users_stays_one(made, monkeypatch, data_dir, capsys):
    def trouble(game: Fragile, now: str) -> None:
        if game is made[1] and game.episodes == 3:
            game.legal = lambda agent: np.zeros(4, np.int8)  # pyright: ignore

    monkeypatch.setattr(Fragile, "trouble", staticmethod(trouble))
    assert command(LEARNERS[0][0], data_dir, **FRAGILE) == 2
    assert "alive and its action_mask allows nothing" in capsys.readouterr().err


def test_a_module_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "a_game_of_mine.py").write_text("from helpers.battles import parallel_env\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert one("a_game_of_mine:parallel_env").n_agents == 3


def test_an_observation_beyond_the_replays_numbers_is_one_line(recwarn):
    with pytest.raises(UsageError, match=r"observations are kept as float16, within 65504 of zero: scale yours"):
        one("helpers.battles:far")
    assert not recwarn.list


def test_an_installed_starcraft_package_of_the_same_name_stays_within_reach(tmp_path, monkeypatch):
    wrapper = tmp_path / "smac" / "env" / "pettingzoo"
    wrapper.mkdir(parents=True)
    for folder in (wrapper, wrapper.parent, wrapper.parent.parent):
        (folder / "__init__.py").touch()
    (wrapper / "StarCraft2PZEnv.py").write_text("from helpers.battles import parallel_env\n")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    kept: dict[str, Any] = {name: part for name, part in sys.modules.items() if name.split(".")[0] == "smac"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("smac.envs")
    env = fresh.make("smac.env.pettingzoo.StarCraft2PZEnv:parallel_env", [0], 1, 12)
    assert env.n_agents == 3
    for name in [name for name in sys.modules if name.split(".")[0] == "smac"]:
        del sys.modules[name]
    sys.modules.update(kept)
