"""PettingZoo both ways: its environments among ours, and ours as its."""

import sys
import types
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test, parallel_seed_test

import envs
from envs.errors import Broken, UsageError
from envs.pettingzoo import AsParallelEnv

make: Any = envs.make  # Any, as tests look inside
HERE = "a_module_of_this_test"


class Herd(ParallelEnv):
    """Two agents of unequal shapes; an action moves its agent by itself plus a draw; over after `limit` steps."""

    def __init__(self, limit=6, wild=False, early=False, rewards=(1.0, 1.0)):
        self.possible_agents, self.agents = ["cow", "dog"], []
        self.observation_spaces = {"cow": Box(-9, 9, (2, 2)), "dog": Box(-9, 9, (1,))}
        self.action_spaces = {"cow": Box(-1, 1, (1,)), "dog": Box(np.array([0, -4], "f4"), np.array([10, 4], "f4"))}
        self.limit, self.wild, self.early, self.rewards = limit, wild, early, rewards
        self.wildness = np.random.default_rng(0)  # survives resets, if wild

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.rng = self.wildness if self.wild else np.random.default_rng(seed)
        self.place, self.steps, self.agents = self.rng.normal(size=2), 0, list(self.possible_agents)
        return self.seen(), {agent: {} for agent in self.agents}

    def seen(self):
        cow, dog = self.place.astype(np.float32)
        return {"cow": np.array([[cow, 1], [2, dog]], np.float32), "dog": np.array([dog], np.float32)}

    def step(self, actions):
        self.last = actions
        self.place += [actions["cow"][0], actions["dog"].sum()] + self.rng.normal(size=2)
        self.steps += 1
        over = dict.fromkeys(self.agents, self.steps >= self.limit)
        ended = {"cow": self.early, "dog": False}
        return self.seen(), dict(zip(self.agents, self.rewards)), ended, over, {agent: {} for agent in self.agents}

    def close(self):
        pass


class Skew(Herd):
    """One agent whose actions have 200 limits of which many are not hit by centre + half-width in float32."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.possible_agents = ["a"]
        self.observation_spaces = {"a": Box(-9, 9, (1,))}
        self.action_spaces = {"a": Box(-rng.uniform(0, 3, 200).astype("f4"), rng.uniform(0, 3, 200).astype("f4"))}

    def seen(self):
        return {"a": np.zeros(1, np.float32)}

    def step(self, actions):
        self.last = actions
        return self.seen(), {"a": 1.0}, {"a": False}, {"a": False}, {"a": {}}


class Digital(Herd):
    """Herd, but the dog has three actions to choose from."""

    def __init__(self):
        super().__init__()
        self.action_spaces["dog"] = Discrete(3)


class Deserted(Herd):
    """Herd without agents."""

    def __init__(self):
        super().__init__()
        self.possible_agents = []


class Unbounded(Herd):
    """Herd, but the dog runs as fast as it likes, or does so forwards only."""

    def __init__(self, low=-np.inf):
        super().__init__()
        self.action_spaces["dog"] = Box(low, np.inf, (2,))


class Blind(Herd):
    """Herd, but what the cow sees is one of three things."""

    def __init__(self):
        super().__init__()
        self.observation_spaces["cow"] = Discrete(3)


class Says(Herd):
    """Herd, but in its second step it says these ends and cuts of its agents."""

    def __init__(self, ends, cuts):
        super().__init__()
        self.ends, self.cuts = ends, cuts

    def step(self, actions):
        seen, rewards, *_, infos = super().step(actions)
        ends, cuts = ({a: said and self.steps == 2 for a, said in zip(seen, x)} for x in (self.ends, self.cuts))
        return seen, rewards, ends, cuts, infos


class Dark(Herd):
    """Herd, but the dog sees what is not a number."""

    def seen(self):
        return {**super().seen(), "dog": np.array([np.nan], np.float32)}


class Drawn(Herd):
    """Herd with a picture of as many pixels as steps; in its third step it is text."""

    def __init__(self):
        super().__init__()
        self.metadata, self.open = {"render_fps": 7}, True

    def render(self):
        return np.zeros((self.steps, self.steps, 3), np.uint8) if self.steps < 3 else "a herd"

    def close(self):
        self.open = False


class Whole(Herd):
    """Herd, but its actions are integers."""

    def __init__(self):
        super().__init__()
        self.action_spaces = {"cow": Box(-3, 3, (1,), np.int64), "dog": Box(0, 255, (2,), np.uint8)}


class Switches(Herd):
    """Herd, but an action of the dog is on or off."""

    def __init__(self):
        super().__init__()
        self.action_spaces["dog"] = Box(0, 1, (2,), np.bool_)  # pyright: ignore


class Gone(Herd):
    """Herd, but the cow leaves in the first step and nothing is shown of it any more."""

    def step(self, actions):
        seen, rewards, ends, cuts, infos = super().step(actions)
        return {"dog": seen["dog"]}, {"dog": rewards["dog"]}, {**ends, "cow": True}, cuts, infos


class Exact(Herd):
    """Herd, but all is float64: its observations, and its actions in limits that float32 does not hold."""

    def __init__(self):
        super().__init__()
        self.action_spaces = {"cow": Box(-0.1, 0.1, (1,), np.float64), "dog": Box(-0.1, 0.1, (2,), np.float64)}

    def seen(self):
        return {"cow": np.full((2, 2), self.place[0]), "dog": self.place[1:]}


class Narrow(Herd):
    """Herd, but from the second step on the cow is shown the first number alone of its (2, 2)."""

    def seen(self):
        shown = super().seen()
        return shown if self.steps < 2 else {**shown, "cow": shown["cow"][0, :1]}


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """A module with factories, so that names such as 'a_module_of_this_test:herd' can be made."""
    module = types.ModuleType(HERE)
    module.__dict__.update(
        herd=lambda: Herd(),
        digital=lambda: Digital(),
        unbounded=lambda: Unbounded(),
        forwards=lambda: Unbounded(low=0),
        blind=lambda: Blind(),
        gym=lambda: gymnasium.Env(),
        dark=lambda: Dark(),
        drawn=lambda: Drawn(),
        narrow=lambda: Narrow(),
        whole=lambda: Whole(),
        switches=lambda: Switches(),
        exact=lambda: Exact(),
        gone=lambda: Gone(),
        wild=lambda: Herd(wild=True),
        early=lambda: Herd(early=True),
        unequal=lambda: Herd(rewards=(1.0, 4.0)),
        number=lambda: 3,
        deserted=lambda: Deserted(),
    )
    monkeypatch.setitem(sys.modules, HERE, module)
    return module


@pytest.mark.parametrize("name", ["DifferentialGame-1", "DifferentialGame-3", "StochasticDifferentialGame-2"])
@pytest.mark.filterwarnings("ignore:.*")  # of the test itself, about what it prefers
def test_differential_games_pass_pettingzoo_s_own_tests(name):
    parallel_api_test(AsParallelEnv(name), num_cycles=60)
    parallel_seed_test(lambda: AsParallelEnv(name), num_cycles=60)


@pytest.mark.filterwarnings("ignore:.*")
def test_a_robot_passes_pettingzoo_s_own_test():
    parallel_api_test(AsParallelEnv("2|4HalfCheetah", max_ep_len=20), num_cycles=30)


@pytest.mark.parametrize("name", ["DifferentialGame-3", "2|4HalfCheetah"])
def test_a_game_taken_through_pettingzoo_and_back_is_the_same_game(name):
    there, game = AsParallelEnv(name, max_ep_len=9), make(name, [4], max_ep_len=9)
    there.reset(seed=4)
    game.reset()
    for _ in range(9):
        act = np.random.default_rng(game.t[0]).uniform(-1, 1, (1, *game.act_mask.shape)).astype(np.float32)
        each = {agent: act[0, i, game.act_mask[i]] for i, agent in enumerate(there.possible_agents)}
        seen, rews, ends, cuts, _ = there.step(each)
        next_obs, rew, _, truncated = game.step(act * game.act_mask)
        assert np.array_equal(np.concatenate(list(seen.values())), next_obs[0, game.obs_mask])
        assert (set(rews.values()), any(ends.values())) == ({rew[0]}, False)
        assert set(cuts.values()) == {truncated[0]}
    assert there.agents == []
    assert there.render() is None  # but with render_mode="rgb_array"


def test_a_fall_ends_all_agents_of_a_robot_in_pettingzoo():
    env = AsParallelEnv("3x1Hopper")
    env.reset(seed=0)
    for _ in range(200):
        _, _, ends, cuts, _ = env.step({agent: np.ones(1, np.float32) for agent in env.agents})
        if any(ends.values()):
            break
    assert (set(ends.values()), set(cuts.values()), env.agents) == ({True}, {False}, [])


def test_a_reset_without_a_seed_draws_one_and_then_goes_on_from_the_last():
    first, other = AsParallelEnv(), AsParallelEnv()
    assert not np.array_equal(first.reset()[0]["agent_0"], other.reset()[0]["agent_0"])
    game = make("DifferentialGame-3", [0])
    for seed in (0, None, None, 0):
        game.reseed([0]) if seed == 0 else None
        assert np.array_equal(first.reset(seed=seed)[0]["agent_0"], game.reset()[0, 0])


def test_observations_are_bounded_where_ours_are():
    for name, bound in (("DifferentialGame-3", 1), ("2x3HalfCheetah", np.inf)):
        box = AsParallelEnv(name).observation_space("agent_1")
        assert (set(box.low), set(box.high)) == ({-bound}, {bound})


@pytest.mark.parametrize("act", [0.5, [0.5], [0.5] * 4, [[0.5] * 3]])
def test_an_action_of_another_shape_is_refused_and_not_repeated(act):
    env = AsParallelEnv("2x3HalfCheetah")
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"^2x3HalfCheetah: the action of agent_1 has the shape \(.*\), not \(3,\)$"):
        env.step({"agent_0": np.zeros(3), "agent_1": np.array(act)})


def test_a_parallel_environment_trains_as_any_other():
    env = make("envs.pettingzoo:AsParallelEnv", [0, 1], max_ep_len=25)
    assert (env.family, env.n_agents, env.n_obs, env.n_act, env.max_ep_len) == ("parallel", 3, 3, 1, 25)
    before = env.reset()
    next_obs, *_ = env.step(np.ones((2, 3, 1), np.float32))
    assert np.allclose(next_obs, np.minimum(before + 0.1, 1))


def test_unequal_agents_are_padded_and_actions_scaled_to_their_box():
    env = make(f"{HERE}:herd", [0])
    obs = env.reset()
    assert env.obs_mask.tolist() == [[True] * 4, [True] + [False] * 3]
    assert env.act_mask.tolist() == [[True, False], [True, True]]
    assert obs[0, 0, 1:3].tolist() == [1, 2]  # (2, 2) is flattened row by row
    assert obs[0, 1, 1:].tolist() == [0, 0, 0]
    env.step(np.array([[[0.5, 1], [1, -0.5]]], np.float32))
    assert env.envs[0].last["cow"].tolist() == [0.5]
    assert env.envs[0].last["dog"].tolist() == [10, -2]


def test_actions_of_whole_numbers_are_the_nearest_ones():
    """They were cut towards zero: 3 was out of reach but for an action of exactly 1."""
    env = make(f"{HERE}:whole", [0])
    env.reset()
    for act, cow, dog in ((0.9, 3, 242), (0.5, 2, 191), (-0.1, 0, 115), (-0.9, -3, 13), (1, 3, 255), (-1, -3, 0)):
        env.step(np.full((1, 2, 2), act, np.float32))
        assert (env.envs[0].last["cow"].tolist(), env.envs[0].last["dog"].tolist()) == ([cow], [dog, dog])
        assert env.envs[0].last["dog"].dtype == np.uint8


def test_an_action_of_bools_is_on_in_the_upper_half_alone():
    """A cast made True of all but exactly -1."""
    env = make(f"{HERE}:switches", [0])
    env.reset()
    env.step(np.array([[[0, 0], [-0.5, 0.5]]], np.float32))
    assert env.envs[0].last["dog"].tolist() == [False, True]
    assert env.envs[0].last["dog"].dtype == np.bool_


def test_the_environment_s_own_time_limit_truncates():
    env = make(f"{HERE}:herd", [0])
    env.reset()
    ends = [env.step(np.zeros((1, 2, 2), np.float32))[2:] for _ in range(6)]
    assert [truncated.item() for _, truncated in ends] == [False] * 5 + [True]
    assert not any(terminated.item() for terminated, _ in ends)


@pytest.mark.parametrize(("ends", "cuts", "terminal", "cut"), [
    ((True, True), (False, False), True, False),
    ((False, False), (True, False), False, True),  # a cut of one ends the episode of all
    ((True, False), (False, True), False, True),
    ((True, True), (True, True), True, True),
])  # fmt: skip
def test_an_end_is_terminal_if_it_is_all_agents_and_a_cut_is_never(module, ends, cuts, terminal, cut):
    module.says = lambda: Says(ends, cuts)
    env = make(f"{HERE}:says", [0, 1])
    env.reset()
    said = [[x.tolist() for x in env.step(np.zeros((2, 2, 2), np.float32))[2:]] for _ in range(2)]
    assert said == [[[False] * 2, [False] * 2], [[terminal] * 2, [cut] * 2]]


def test_a_parallel_row_is_reset_and_stepped_by_itself():
    env = make(f"{HERE}:herd", [0, 1])
    env.reset()
    env.step(np.zeros((2, 2, 2), np.float32))
    before = env.obs.copy()
    env.reset(np.array([True, False]))
    assert [game.steps for game in env.envs] == [0, 1]
    assert np.array_equal(env.obs[1], before[1])
    env.step(np.zeros((2, 2, 2), np.float32), np.array([True, False]))
    assert [game.steps for game in env.envs] == [1, 1]


def test_the_team_reward_is_the_mean_of_the_agents_rewards():
    env = make(f"{HERE}:unequal", [0])
    env.reset()
    assert env.step(np.zeros((1, 2, 2), np.float32))[1] == 2.5


def test_a_parallel_row_behaves_the_same_alone_as_beside_others():
    several, alone = (make(f"{HERE}:herd", seeds) for seeds in ([5, 6], [6]))
    several.reset()
    alone.reset()
    for _ in range(20):
        a, b = several.step(np.zeros((2, 2, 2), np.float32)), alone.step(np.zeros((1, 2, 2), np.float32))
        assert np.array_equal(a[0][1:], b[0])
        several.reset(a[3])
        alone.reset(b[3])
        assert np.array_equal(several.obs[1:], alone.obs)


def test_a_restored_parallel_row_continues_bit_for_bit_though_the_environment_saves_nothing():
    rng = np.random.default_rng(0)
    env, fresh = make(f"{HERE}:herd", [1, 2]), make(f"{HERE}:herd", [3])
    env.reset()
    for _ in range(4):
        env.step(rng.uniform(-1, 1, (2, 2, 2)).astype(np.float32))
    state = env.state_dict(1)
    fresh.load_state_dict(0, state)
    for _ in range(15):
        act = rng.uniform(-1, 1, (2, 2, 2)).astype(np.float32)
        a, b = env.step(act), fresh.step(act[1:])
        assert all(np.array_equal(x[1:], y) for x, y in zip(a, b))
        env.reset(a[3])
        fresh.reset(b[3])
        again, expected = fresh.state_dict(0), env.state_dict(1)  # a resumed run is resumed, too
        assert all(np.array_equal(again[key], expected[key]) for key in expected)
    fresh.load_state_dict(0, state)  # a copy, that later episodes leave alone
    assert not fresh.anew[0]


def test_a_parallel_row_that_got_actions_in_float64_is_restored_too():
    """They were kept in float32 and played in float64, so that the game did not repeat itself."""
    env = make(f"{HERE}:exact", [1])
    env.reset()
    for _ in range(3):
        env.step(np.full((1, 2, 2), 0.3))
    place = env.envs[0].place.copy()
    env.load_state_dict(0, env.state_dict(0))
    assert np.array_equal(env.envs[0].place, place) and not env.anew[0]


def test_what_is_not_a_number_repeats_itself():
    env = make(f"{HERE}:dark", [1])
    env.reset()
    env.load_state_dict(0, env.state_dict(0))
    assert not env.anew[0]


def test_no_action_leaves_its_box_by_rounding(module):
    module.skew = Skew
    env = make(f"{HERE}:skew", [0])
    env.reset()
    for act in (-1, 1):
        env.step(np.full((1, 1, 200), act, np.float32))
        assert env.boxes[0].contains(env.envs[0].last["a"])


def test_one_that_does_not_repeat_itself_starts_a_new_episode_and_says_so(capsys):
    env = make(f"{HERE}:wild", [1, 2])
    env.reset()
    env.step(np.zeros((2, 2, 2), np.float32))
    assert not env.anew.any()
    env.load_state_dict(0, env.state_dict(0))
    assert env.t.tolist() == [0, 1]
    assert env.anew.tolist() == [True, False]
    line = capsys.readouterr().err
    assert "starts a new episode" in line
    assert line.count("\n") == 1
    env.reseed([1, 2])
    assert not env.anew.any()


@pytest.mark.parametrize("box", [Box(-128, 127, (1,), np.int8), Box(-3e38, 3e38, (1,))])
def test_the_limits_of_a_box_may_be_those_of_its_type(module, box):
    module.skew = Skew
    env = make(f"{HERE}:skew", [0])
    env.boxes, env.act_mask = [box], np.ones((1, 1), bool)
    for act, limit in ((-1, box.low), (1, box.high)):
        assert env._joint(np.full((1, 1), act, np.float32))["a"] == limit


@pytest.mark.parametrize(("factory", "message"), [
    (f"{HERE}:missing", "missing"),
    ("no_such_module:herd", "No module named 'no_such_module'"),
    (":herd", "package.module:factory"),
    (f"{HERE}:number", "returns a int, not a pettingzoo ParallelEnv"),
    (f"{HERE}:digital", "action space of dog is Discrete"),
    (f"{HERE}:gym", "returns a Env, not a pettingzoo ParallelEnv"),
    (f"{HERE}:blind", "observation space of cow is Discrete"),
    (f"{HERE}:unbounded", "actions of dog have no bounds"),
    (f"{HERE}:forwards", "actions of dog have no bounds"),
    (f"{HERE}:deserted", "possible_agents is empty"),
])  # fmt: skip
def test_what_cannot_be_learnt_on_is_refused_in_one_line(factory, message):
    with pytest.raises(ValueError, match=f"^--env '{factory}': .*{message}") as error:
        make(factory, [0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("game", ["early", "gone"])
def test_agents_that_leave_one_by_one_are_refused(game):
    env = make(f"{HERE}:{game}", [0])
    env.reset()
    with pytest.raises(ValueError, match="agents leave one by one"):
        env.step(np.zeros((1, 2, 2), np.float32))


def test_an_observation_that_does_not_fill_its_space_is_refused_and_not_repeated():
    env = make(f"{HERE}:narrow", [0, 1])
    env.reset()
    env.step(np.zeros((2, 2, 2), np.float32))
    text = r"the observation of cow has the shape \(1,\), its space \(2, 2\); return what observation_space says$"
    with pytest.raises(UsageError, match=f"^--env '{HERE}:narrow': {text}"):
        env.step(np.zeros((2, 2, 2), np.float32))


def test_the_table_of_a_parallel_environment_names_its_agents():
    lines = make(f"{HERE}:herd", [0]).table().splitlines()
    assert lines[1].split("  ")[-1] == "[-1, 1]"
    assert "0-3  observation of cow" in lines[1]
    assert "0-0  observation of dog" in lines[2]
    assert lines[3].split() == ["1", "[-4,", "4]"]


def test_a_game_is_drawn_through_pettingzoo():
    env = AsParallelEnv("DifferentialGame-2", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture is not None and picture.shape == (480, 480, 3)


def test_a_task_that_draws_nothing_says_so_in_one_line():
    env = make(f"{HERE}:herd", [0])
    env.reset()
    with pytest.raises(Broken, match=f"^cannot draw {HERE}:herd: it has no render\\(\\) of its own$"):
        env.render()


def test_a_row_is_drawn_and_closed_as_its_task_does():
    env = make(f"{HERE}:drawn", [0, 1])
    assert (env.fps, make(f"{HERE}:herd", [0]).fps) == (7, 25)
    assert AsParallelEnv("3x1Hopper").metadata["render_fps"] == 125
    env.reset()
    env.step(np.zeros((2, 2, 2), np.float32))
    env.step(np.zeros((2, 2, 2), np.float32), np.array([False, True]))
    assert [env.render(row).shape for row in (0, 1)] == [(1, 1, 3), (2, 2, 3)]
    env.step(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(Broken, match=r"its render\(\) returns str, not an array$"):
        env.render(1)
    env.close()
    assert [game.open for game in env.envs] == [False, False]


def test_a_factory_that_takes_a_render_mode_is_asked_for_pictures():
    env = make("envs.pettingzoo:AsParallelEnv", [0])
    env.reset()
    assert env.render().shape == (480, 480, 3)


def test_obs_full_is_for_robots_and_makes_no_longer_run_of_a_parallel_env():
    assert envs.schedule(f"{HERE}:anything", "full") == envs.schedule(f"{HERE}:anything")
