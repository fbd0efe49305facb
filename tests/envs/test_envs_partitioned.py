"""Partitioned MuJoCo against MaMuJoCo, who sees and drives what, and states that continue bit for bit."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import envs
from envs import partitioned, robots
from envs.errors import Broken, UsageError
from envs.partitioned import LEGACY_SPLITS, SPLITS
from envs.robots import BODIES

make: Any = envs.make  # Any, as tests look inside
mamujoco = robots.load("gymnasium_robotics").mamujoco_v1
ROOT = Path(__file__).resolve().parents[2]
NAMES = partitioned.known()
FARAMA = {  # all of MaMuJoCo's own partitions that are taken over
    "HalfCheetah": ["2x3", "6x1"],
    "Ant": ["2x4", "2x4d", "4x2"],
    "Hopper": ["3x1"],
    "Walker2d": ["2x3"],
    "Swimmer": ["2x1"],
    "Humanoid": ["9|8"],
    "HumanoidStandup": ["9|8"],
}


def joints(lines):
    """Names of the joints in lines such as '0  qpos hip_1, rad' and 'hip_1, 150 N m at 1', without the root's."""
    names = {line.split(",")[0].split()[-1] for line in lines}
    return {name for name in names if not name.startswith(("root", "slider", "free"))}


def actions(env, rng):
    shape = (len(env.seeds), env.n_agents, env.n_act)
    return (rng.uniform(-1, 1, shape) * env.act_mask).astype(np.float32)


class Reference:
    """MaMuJoCo, one row: the same physics, its own builder of observations."""

    def __init__(self, name, obs):
        split, body = partitioned.parse(name)
        kwargs: dict[str, Any] = {"contact_cost_weight": 0} if body == "Ant" else {}
        if obs == "full" and body == "Ant":
            kwargs["include_cfrc_ext_in_observation"] = False
        seen: dict[str, Any] = {"agent_obsk": 0, "local_categories": [["qpos", "qvel"]], "global_categories": ()}
        if obs == "farama":
            seen = {}
        if body == "Walker2d":
            kwargs["gym_env"] = gymnasium.make("Walker2d-v4")
        if split not in FARAMA.get(body, [split]):
            whole, edges, root = mamujoco.get_parts_and_edges(body, None)
            node = {node.label: node for node in whole[0]}
            parts = [tuple(node[joint] for joint in part.split()) for part in SPLITS[body][split].split(",")]
            kwargs["agent_factorization"] = {"partition": parts, "edges": edges, "globals": root}
        self.env = mamujoco.parallel_env(body, split, **seen, **kwargs)
        self.obs, self.scale = obs, self.env.single_agent_env.action_space.high[0].astype(np.float64).round(6)

    def _seen(self, seen):
        whole = self.env.state()
        return [whole if self.obs == "full" else seen[agent] for agent in self.env.possible_agents]

    def reset(self, seed=None):
        return self._seen(self.env.reset(seed=seed)[0])

    def step(self, act):
        sizes = [self.env.action_space(agent).shape[0] for agent in self.env.possible_agents]
        act = {a: row[:n].astype(np.float64) * self.scale for a, row, n in zip(self.env.possible_agents, act, sizes)}
        seen, rew, terminated, _, _ = self.env.step(act)
        return self._seen(seen), rew["agent_0"], terminated["agent_0"]


def same(obs, mask, expected):
    """Is our padded obs (N, O) exactly MaMuJoCo's list of arrays, as float32, and zero elsewhere?"""
    if mask.sum(1).tolist() != [len(e) for e in expected] or obs[~mask].any():
        return False
    return np.array_equal(obs[mask], np.concatenate(expected).astype(np.float32))


@pytest.mark.filterwarnings("ignore")  # gymnasium's: v4 is old
@pytest.mark.parametrize("obs", envs.OBS)
@pytest.mark.parametrize("name", NAMES)
def test_observations_and_rewards_are_exactly_those_of_mamujoco(name, obs):
    env, rng = make(name, [11, 12], obs=obs, max_ep_len=50), np.random.default_rng(0)
    references = [Reference(name, obs) for _ in range(2)]
    env.reset()
    for row, reference in enumerate(references):
        assert same(env.obs[row], env.obs_mask, reference.reset(env.seeds[row]))
    for _ in range(120):
        act = actions(env, rng)
        next_obs, rew, terminated, truncated = env.step(act)
        env.reset(terminated | truncated)
        for row, reference in enumerate(references):
            expected, expected_rew, expected_terminated = reference.step(act[row])
            assert same(next_obs[row], env.obs_mask, expected)
            assert rew[row] == expected_rew
            assert terminated[row] == expected_terminated
            if terminated[row] or truncated[row]:
                assert same(env.obs[row], env.obs_mask, reference.reset())


@pytest.mark.parametrize("body", BODIES)
def test_a_robot_is_gymnasium_s_and_knows_its_constants(body):
    env = make(next(name for name in NAMES if name.endswith((body, body.removesuffix("2d")))), [0])
    module, name, _ = BODIES[body]
    whole = getattr(sys.modules[f"gymnasium.envs.mujoco.{module}"], name)
    assert isinstance(env.envs[0], whole)
    assert env.envs[0].dt == whole.dt.fget(env.envs[0])


@pytest.mark.parametrize(("name", "obs", "felt"), [
    ("2x3HalfCheetah", "farama", False), ("2x4Ant", "own", False), ("2x4Ant", "full", False),
    ("2x4Ant", "farama", True), ("9|8Humanoid", "own", True), ("9|8HumanoidStandup", "own", True),
])  # fmt: skip
def test_contact_forces_are_computed_only_where_somebody_sees_or_pays_for_them(name, obs, felt):
    env = make(name, [0], obs=obs)
    env.reset()
    for _ in range(15):  # down to the ground
        env.step(np.zeros((1, *env.act_mask.shape), np.float32))
    assert env.envs[0].data.cfrc_ext.any() == felt


@pytest.mark.parametrize(("body", "split"), [(body, split) for body in FARAMA for split in FARAMA[body]])
def test_a_partition_that_mamujoco_has_is_mamujoco_s(body, split):
    parts, _, _ = mamujoco.get_parts_and_edges(body, split)
    ours = [part.split() for part in SPLITS[body][split].split(",")]
    if body.startswith("Humanoid"):  # the order within an agent is ours to choose
        assert [sorted(part) for part in ours] == [sorted(node.label for node in part) for part in parts]
    else:
        assert ours == [[node.label for node in part] for part in parts]


@pytest.mark.parametrize(("name", "legacy", "agents"), [
    ("2|4HalfCheetah", False, "bfoot bshin, bthigh ffoot fshin fthigh"),
    ("4|2HalfCheetah", False, "bfoot bshin bthigh ffoot, fshin fthigh"),
    ("6|2Ant", False, "hip_1 ankle_1 hip_2 ankle_2 hip_3 ankle_3, hip_4 ankle_4"),
    ("8x1Ant", False, "hip_1, ankle_1, hip_2, ankle_2, hip_3, ankle_3, hip_4, ankle_4"),
    ("2|1Hopper", False, "thigh_joint leg_joint, foot_joint"),
    ("2|4Walker", False, "thigh_joint thigh_left_joint, foot_joint leg_joint foot_left_joint leg_left_joint"),
    ("3x2Walker", False, "foot_joint foot_left_joint, leg_joint leg_left_joint, thigh_joint thigh_left_joint"),
    ("6x1Walker", False, "thigh_joint, leg_joint, foot_joint, thigh_left_joint, leg_left_joint, foot_left_joint"),
    ("2x3HalfCheetah", True, "bfoot bshin bthigh, ffoot fshin fthigh"),
    ("6x1HalfCheetah", True, "bfoot, bshin, bthigh, ffoot, fshin, fthigh"),
    ("2x4dAnt", True, "hip_1 ankle_1 hip_3 ankle_3, hip_2 ankle_2 hip_4 ankle_4"),
])  # fmt: skip
def test_an_agent_of_the_released_code_sees_these_joints(name, legacy, agents):
    env = make(name, [0], legacy_actuators=legacy)
    assert [joints(env._sees(i)) for i in range(env.n_agents)] == [set(own.split()) for own in agents.split(",")]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_joint_action_sets_every_actuator_exactly_once(name, legacy):
    env = make(name, [0], legacy_actuators=legacy)
    env.reset()
    numbers = np.zeros((1, env.n_agents, env.n_act), np.float32)
    numbers[0, env.act_mask] = np.linspace(0.1, 0.9, env.act_mask.sum())  # all different
    numbers[0, ~env.act_mask] = 1.0  # padding must reach nothing
    env.step(numbers)
    set_to = np.sort(env.envs[0].data.ctrl / env.half)
    assert set_to == pytest.approx(np.linspace(0.1, 0.9, env.act_mask.sum()))


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_drives_the_joints_that_it_sees(name):
    env = make(name, [0])
    for agent in range(env.n_agents):
        assert joints(env._sees(agent)) == joints(env._drives(agent))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(("Humanoid", "HumanoidStandup"))])
def test_the_released_order_parts_sight_from_drive_in_just_these_partitions(name):
    env = make(name, [0], legacy_actuators=True)
    agrees = all(joints(env._sees(agent)) == joints(env._drives(agent)) for agent in range(env.n_agents))
    split, body = partitioned.parse(name)
    apart = {"Ant": SPLITS["Ant"], "HalfCheetah": {"6x1", "2|4", "4|2"}, "Walker2d": {"2|4", "3x2"}}
    assert agrees == (split not in apart.get(body, ()))


def test_in_the_released_order_the_first_agent_of_2x4ant_sees_legs_1_2_and_drives_legs_4_1():
    env = make("2x4Ant", [0], legacy_actuators=True)
    assert joints(env._sees(0)) == {"hip_1", "ankle_1", "hip_2", "ankle_2"}
    env.reset()
    env.step(np.array([[[1, 1, 1, 1], [0, 0, 0, 0]]], np.float32))
    model, ctrl = env.envs[0].model, env.envs[0].data.ctrl
    driven = {model.joint(model.actuator_trnid[i, 0]).name for i in np.flatnonzero(ctrl)}
    assert driven == {"hip_4", "ankle_4", "hip_1", "ankle_1"}


def test_legacy_splits_have_the_joints_of_the_partition():
    for body, splits in LEGACY_SPLITS.items():
        for split, parts in splits.items():
            assert sorted(parts.replace(",", " ").split()) == sorted(SPLITS[body][split].replace(",", " ").split())


@pytest.mark.parametrize(("name", "obs", "sizes"), [
    ("2x3HalfCheetah", "own", [6, 6]),
    ("2x4Ant", "own", [8, 8]),
    ("2x3Walker", "own", [6, 6]),
    ("2|4HalfCheetah", "own", [4, 8]),
    ("9|8Humanoid", "own", [18, 16]),
    ("2x3HalfCheetah", "full", [17, 17]),
    ("6x1Walker", "full", [17] * 6),
    ("8x1Ant", "full", [27] * 8),
])  # fmt: skip
def test_an_agent_sees_as_many_numbers_as_in_the_paper(name, obs, sizes):
    env = make(name, [0], obs=obs)
    assert env.obs_mask.sum(1).tolist() == sizes
    assert env.n_obs == max(sizes)


def test_walker_has_the_friction_of_the_paper_s_version():
    env = make("2x3Walker", [0])
    geoms = [env.envs[0].model.geom(name) for name in ("foot_geom", "foot_left_geom")]
    assert [geom.friction[0] for geom in geoms] == [0.9, 1.9]


@pytest.mark.parametrize("name", ["2-4HalfCheetah", "2|4HalfCheetah"])
def test_a_dash_stands_for_a_bar(name):
    env = make(name, [0])
    assert env.act_mask.sum(1).tolist() == [2, 4]
    assert env.family == "mujoco"


def test_walker_and_walker2d_are_the_same():
    a, b = (make(name, [0]) for name in ("2x3Walker", "2x3Walker2d"))
    assert np.array_equal(a.reset(), b.reset())


@pytest.mark.parametrize(("name", "message"), [
    ("2x5HalfCheetah", r"HalfCheetah has 6 joints, no split '2x5'; known: \['2x3', '2\|4', '4\|2', '6x1'\]"),
    ("Ant", r"Ant has 8 joints, no split ''; known: \['2x4'"),
    ("2x3Cow", r"no such environment; .*known: .*2x3HalfCheetah, "),
    ("ax2ManySegmentSwimmer", r"wants agents x segments of each before it, such as '2x3ManySegmentSwimmer'"),
    ("0x2ManySegmentSwimmer", r"wants agents x segments of each before it"),
    ("1x1ManySegmentSwimmer", r"wants agents x segments of each before it"),
])  # fmt: skip
def test_an_unknown_partition_is_refused_in_one_line_that_lists_the_known_ones(name, message):
    with pytest.raises(ValueError, match=f"^--env '{name}': .*{message}") as error:
        make(name, [0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("joints", "wrong"), [
    ("thigh_joint leg_joint, ankle_joint", "'ankle_joint': there is no such joint"),
    ("thigh_joint leg_joint, leg_joint foot_joint", "'leg_joint': is given 2 times"),
    ("thigh_joint, foot_joint", "'leg_joint': is given 0 times"),
])  # fmt: skip
def test_a_split_of_ones_own_that_does_not_give_each_joint_to_one_agent_is_refused(joints, wrong, monkeypatch):
    monkeypatch.setitem(SPLITS["Hopper"], "1|1", joints)
    with pytest.raises(UsageError) as error:
        make("1-1Hopper", [0])
    way_out = "give each of thigh_joint, leg_joint, foot_joint to one agent"
    assert str(error.value) == f"SPLITS['Hopper']['1|1']: {wrong}; {way_out}"


def test_a_line_in_splits_is_all_that_a_partition_of_ones_own_needs(monkeypatch):
    monkeypatch.setitem(SPLITS["Walker2d"], "hips|legs", (
        "thigh_joint thigh_left_joint, leg_joint foot_joint leg_left_joint foot_left_joint"
    ))  # fmt: skip
    env = make("hips-legsWalker", [0])
    env.reset()
    assert env.act_mask.sum(1).tolist() == [2, 4]
    assert joints(env._drives(0)) == {"thigh_joint", "thigh_left_joint"} == joints(env._sees(0))
    assert np.isfinite(env.step(np.ones((1, 2, 4), np.float32))[0]).all()


def test_an_unknown_observation_is_refused():
    with pytest.raises(ValueError, match="--obs 'everything': known: own, farama, full"):
        make("2x3HalfCheetah", [0], obs="everything")


@pytest.mark.parametrize(("name", "obs"), [
    ("2x3HalfCheetah", "own"), ("2x4Ant", "own"), ("2x4Ant", "farama"), ("2x3Walker", "own"), ("3x1Hopper", "farama"),
    ("9|8Humanoid", "own"), ("9|8Humanoid", "farama"), ("9|8HumanoidStandup", "full"), ("2x1Swimmer", "own"),
    ("2x2ManySegmentSwimmer", "farama"),
])  # fmt: skip
def test_a_restored_row_continues_bit_for_bit_in_mid_episode(name, obs):
    rng = np.random.default_rng(3)
    env = make(name, [1, 2], obs=obs)
    env.reset()
    for _ in range(15):  # long enough to be on the ground, with contacts that warm-start the solver
        env.step(actions(env, rng))
    fresh = make(name, [9], obs=obs)
    fresh.reset()
    fresh.step(actions(fresh, rng))
    fresh.load_state_dict(0, env.state_dict(1))
    assert np.array_equal(fresh.obs[0], env.obs[1])
    for step in range(40):
        act = actions(env, rng)
        a, b = env.step(act), fresh.step(act[1:])
        assert all(np.array_equal(x[1:], y) for x, y in zip(a, b)), step
        over = a[2] | (step == 25)
        env.reset(over)
        fresh.reset(over[1:])
        assert np.array_equal(env.obs[1:], fresh.obs)


def test_a_state_is_arrays_numbers_and_strings_and_a_copy():
    env = make("2x3HalfCheetah", [0])
    env.reset()
    state = env.state_dict(0)
    assert all(isinstance(value, (np.ndarray, int, float, str)) for value in state.values())
    kept = {key: np.array(value) for key, value in state.items()}
    env.step(np.ones((1, 2, 3), np.float32))
    assert all(np.array_equal(kept[key], state[key]) for key in kept)


def test_a_robot_s_row_behaves_the_same_alone_as_beside_others():
    rng = np.random.default_rng(4)
    several, alone = (make("3x1Hopper", seeds, max_ep_len=8) for seeds in ([5, 6, 7], [6]))
    several.reset()
    alone.reset()
    for _ in range(60):
        act = actions(several, rng)
        a, b = several.step(act), alone.step(act[1:2])
        assert all(np.array_equal(x[1:2], y) for x, y in zip(a, b))
        several.reset(a[2] | a[3])
        alone.reset(b[2] | b[3])
        assert np.array_equal(several.obs[1:2], alone.obs)


def test_a_robot_is_reset_and_stepped_by_itself():
    env = make("2x3HalfCheetah", [0, 1])
    env.reset()
    env.step(np.ones((2, 2, 3), np.float32))
    obs, time = env.obs.copy(), env.envs[1].data.time
    env.reset(np.array([True, False]))
    assert np.array_equal(env.obs[1], obs[1]) and not np.array_equal(env.obs[0], obs[0])
    env.step(np.ones((2, 2, 3), np.float32), np.array([True, False]))
    assert [robot.data.time for robot in env.envs] == [time, time]


def test_a_restored_robot_is_drawn_where_it_is():
    env, fresh = make("2x3HalfCheetah", [0]), make("2x3HalfCheetah", [0])
    fresh.reset()
    env.reset()
    for _ in range(20):
        env.step(np.ones((1, 2, 3), np.float32))

    def apart():
        return np.abs(env.envs[0].data.geom_xpos - fresh.envs[0].data.geom_xpos).max()

    before = apart()
    fresh.load_state_dict(0, env.state_dict(0))
    assert apart() < before / 5


def test_reseeding_a_robot_starts_over_as_if_newly_made():
    env, new = (make("2x3HalfCheetah", [seed]) for seed in (1, 8))
    env.reset()
    env.step(np.ones((1, 2, 3), np.float32))
    env.reseed([8])
    for _ in range(2):
        assert np.array_equal(env.reset(), new.reset())
        assert np.array_equal(env.step(np.ones((1, 2, 3), np.float32))[0], new.step(np.ones((1, 2, 3), np.float32))[0])


def test_a_robot_s_time_limit_is_not_terminal_and_a_fall_is_not_the_time_limit():
    cheetah, hopper = make("2x3HalfCheetah", [0], max_ep_len=3), make("3x1Hopper", [0])
    cheetah.reset()
    hopper.reset()
    ends = [cheetah.step(np.ones((1, 2, 3), np.float32))[2:] for _ in range(3)]
    assert [terminated.item() for terminated, _ in ends] == [False, False, False]
    assert [truncated.item() for _, truncated in ends] == [False, False, True]
    for _ in range(200):
        _, _, terminated, truncated = hopper.step(np.ones((1, 3, 1), np.float32))
        if terminated:
            break
    assert terminated and not truncated


def test_a_not_a_number_is_not_hidden():
    env = make("2x3HalfCheetah", [0])
    env.reset()
    env.envs[0].step = lambda ctrl: (None, np.nan, False, False, {})
    env.envs[0].data.qpos[:] = np.nan
    next_obs, rew, _, _ = env.step(np.zeros((1, 2, 3), np.float32))
    assert np.isnan(rew[0])
    assert np.isnan(next_obs).any()


def test_the_table_says_what_each_agent_sees_and_drives():
    table = make("2x3HalfCheetah", [0]).table().splitlines()
    assert table[0].split() == ["agent", "sees", "drives"]
    assert re.split(" {2,}", table[1]) == ["0", "0", "qpos bfoot, rad", "0", "bthigh, 120 N m at 1"]
    assert len(table) == 1 + 6 + 6


@pytest.mark.parametrize(("name", "obs", "lines"), [
    ("2x4Ant", "full", "0  qpos root, m|1-4  qpos root, quaternion|13-15  qvel root, m/s|16-18  qvel root, rad/s"),
    ("2x3HalfCheetah", "full", "0  qpos rootz, m|1  qpos rooty, rad|8  qvel rootx, m/s|10  qvel rooty, rad/s"),
    ("9|8Humanoid", "farama", "2-11  cinert body pelvis, kg m^2, kg m, kg|32-37  cvel body pelvis, rad/s, m/s"),
    ("9|8Humanoid", "own", "abdomen_x, 40 N m at 1|right_shoulder1, 10 N m at 1"),  # gears of 100 and 25, times .4
])  # fmt: skip
def test_the_table_has_units_and_puts_a_body_s_numbers_on_one_line(name, obs, lines):
    env = make(name, [0], obs=obs)
    assert set(lines.split("|")) <= {*env._sees(0), *env._drives(0)}


def test_the_schedule_of_robots_is_the_released_code_s():
    schedule = envs.schedule("2x3HalfCheetah")
    assert schedule["epochs"] * schedule["steps_per_epoch"] == schedule["replay_size"] == 500_000
    assert [envs.schedule("6x1Walker", obs)["epochs"] for obs in envs.OBS] == [50, 50, 100]
    assert (schedule["update_every"], schedule["updates"], schedule["num_test_episodes"]) == (50, 50, 10)
    assert (schedule["start_steps"], schedule["update_after"], schedule["uniform_every"]) == (10_000, 1_000, 0)
    assert make("2x3HalfCheetah", [0]).max_ep_len == schedule["test_ep_len"] == 1_000


def test_a_robot_starts_in_silence_and_leaves_no_file_behind(tmp_path):
    program = """
import numpy as np, envs
env = envs.make("2x3HalfCheetah", [0, 1])
env.reset(), env.step(np.zeros((2, 2, 3), np.float32)), env.close()
envs.make("2x2ManySegmentSwimmer", [0])
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_robot_can_be_filmed():
    env = make("2x3HalfCheetah", [0, 1])
    env.reset()
    try:
        picture = env.render(1)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert (picture.shape, picture.dtype) == ((480, 480, 3), np.uint8)
    assert picture.std() > 10
    assert not np.array_equal(picture, env.render(0))
    env.close()


def test_a_picture_may_be_larger_than_the_models_own_frame():
    env = make("2x3HalfCheetah", [0])
    env.side = 700
    env.reset()
    try:
        picture = env.render(0)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert picture.shape == (700, 700, 3) and picture[-50:, -50:].std() > 0
    env.close()


def test_a_film_runs_at_the_speed_of_the_simulation():
    assert [make(name, [0]).fps for name in ("2x3HalfCheetah", "2x4Ant", "3x1Hopper")] == [20, 20, 125]


def test_without_opengl_one_line_says_what_to_set():
    env = make("2x3HalfCheetah", [0])

    def render():
        raise ImportError("no libEGL")

    env.envs[0].render = render
    with pytest.raises(Broken, match=r"^cannot draw 2x3HalfCheetah with MUJOCO_GL=.*no libEGL.*set MUJOCO_GL to"):
        env.render(0)


def test_a_wrong_mujoco_gl_is_refused_in_one_line():
    program = "import envs\ntry:\n    envs.make('2x3HalfCheetah', [0])\nexcept ValueError as error:\n    print(error)"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MUJOCO_GL": "nonsense"}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MUJOCO_GL=nonsense: ")
    assert done.stdout.count("\n") == 1


def test_every_body_has_its_splits():
    assert set(BODIES) == set(SPLITS)
