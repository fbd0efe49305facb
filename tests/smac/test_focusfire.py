"""The didactic skirmish: its rules, masks and deaths."""

import numpy as np
import pytest

from smac import envs

NOTHING, HOLD = 0, 1


def one(n: int = 3) -> envs.MaskedEnv:
    env = envs.make(f"FocusFire-{n}", [0], 1, 20)
    env.reset()
    return env


def step(env: envs.MaskedEnv, *act: int) -> tuple[float, bool, bool]:
    rew, terminated, truncated = env.step(np.array(act).reshape(1, -1, 1))
    return float(rew[0, 0]), bool(terminated[0, 0]), bool(truncated[0, 0])


def test_killing_one_enemy_a_step_wins_the_best_return_though_an_agent_dies():
    env = one()
    assert step(env, 2, 2, 2) == (0.25, False, False)
    assert env.obs[0, 0, 0].tolist() == [0.25, 0.25, 1, 1, 0, 1, 1, 1]  # three enemies took three points of agent 0
    assert step(env, 3, 3, 3) == (0.25, False, False)
    assert not env.obs[0, 0].any()
    assert env.avail[0, 0, 0].tolist() == [True] + [False] * 5
    assert env.avail[0, 1, 0].tolist() == [False, True, False, False, True, True]
    assert step(env, NOTHING, 4, 4) == (0.25, False, False)
    assert step(env, NOTHING, 5, 5) == (1.25, True, False)
    assert env.ret[0, 0] == 2 and env.won[0, 0] == 1
    env.reset()
    assert env.ret[0, 0] == env.t[0, 0] == 0


def test_scattered_fire_fells_nobody_and_loses():
    env = one()
    assert step(env, 2, 3, 4) == (0, False, False)
    assert step(env, NOTHING, 2, 3) == (0, False, False)
    assert step(env, NOTHING, NOTHING, 2) == (0, True, False)
    assert env.won[0, 0] == 0


@pytest.mark.parametrize("n, wasted, won", [(2, 0, 0), (3, 0, 1), (3, 1, 0), (4, 0, 1), (4, 1, 0), (8, 0, 1)])
def test_three_or_more_win_by_felling_one_enemy_a_step_if_three_or_four_waste_none(n, wasted, won):
    env, over, t = one(n), False, 0
    while not over:
        enemy = HOLD if t < wasted else 2 + int(env.obs[0, :, 0, n + 1 :].max(0).argmax())  # the first that stands
        _, terminated, truncated = step(env, *np.where(env.avail[0, :, 0, NOTHING], NOTHING, enemy))
        over, t = terminated or truncated, t + 1
    assert terminated and env.won[0, 0] == won
    assert wasted or env.ret[0, 0] == pytest.approx(2 if won else 2 / 3)


def test_an_action_that_is_not_available_is_a_defect():
    env = one()
    with pytest.raises(AssertionError, match="not available"):
        step(env, NOTHING, 2, 2)


def test_time_limit_is_truncation():
    env = envs.make("FocusFire-3", [0], 1, 2)
    env.reset()
    assert step(env, 2, 2, 2)[1:] == (False, False)
    assert step(env, 3, 3, 3)[1:] == (False, True)


def test_a_loss_at_the_time_limit_is_the_end():
    env = envs.make("FocusFire-3", [0], 1, 3)
    env.reset()
    step(env, 2, 3, 4)
    step(env, NOTHING, 2, 3)
    assert step(env, NOTHING, NOTHING, 2) == (0, True, False)


def test_random_play_hardly_ever_wins():
    env, rng, won, episodes = envs.make("FocusFire-3", [0], 16, 20), np.random.default_rng(0), 0, 0
    env.reset()
    for _ in range(200):
        _, terminated, truncated = env.step(np.where(env.avail, rng.random(env.avail.shape), -1).argmax(-1))
        won, episodes = won + env.won.sum(), episodes + (terminated | truncated).sum()
        env.reset(terminated | truncated)
    assert episodes > 500 and won / episodes < 0.1
