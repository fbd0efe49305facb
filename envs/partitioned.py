"""Partitioned MuJoCo: one robot, its joints divided among agents that share gymnasium's reward.

Truth: Farama's MaMuJoCo (gymnasium-robotics, `mamujoco_v1`). What an agent sees is read off MaMuJoCo's own builder once, at construction, as an
array of indices into MuJoCo's qpos, qvel, ...; a step is gymnasium's and a gather, where MaMuJoCo calls its Python builder at every step.

Departures from MaMuJoCo, each for comparison with the paper, whose runs used gym's v2 environments:
* `Walker` is gymnasium's Walker2d-v4: v5 raised the friction of the right foot from .9 to 1.9.
* `Ant` has no contact cost (`contact_cost_weight=0`), and its whole state (`full`) no contact forces.
* Actions are in [-1, 1] and scaled to the actuators (Humanoid's are [-.4, .4]).
* Partitions that only the released code has: see SPLITS.
MaMuJoCo's CoupledHalfCheetah is left out: there both agents read the joints of the second cheetah. So are Reacher and Pusher, which have no gait to share;
`--env package.module:factory` takes any of them as a PettingZoo environment.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from envs.vector import VectorEnv, mask

# body -> module and class in gymnasium.envs.mujoco, arguments
BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "HalfCheetah": ("half_cheetah_v5", "HalfCheetahEnv", {}),
    "Ant": ("ant_v5", "AntEnv", {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}),
    "Hopper": ("hopper_v5", "HopperEnv", {}),
    "Walker2d": ("walker2d_v4", "Walker2dEnv", {}),
    "Swimmer": ("swimmer_v5", "SwimmerEnv", {}),
    "Humanoid": ("humanoid_v5", "HumanoidEnv", {}),
    "HumanoidStandup": ("humanoidstandup_v5", "HumanoidStandupEnv", {}),
}
ALIASES = {"Walker": "Walker2d"}

_UPPER = "abdomen_x abdomen_y abdomen_z right_shoulder1 right_shoulder2 right_elbow left_shoulder1 left_shoulder2 left_elbow"
_LOWER = "right_hip_x right_hip_y right_hip_z right_knee left_hip_x left_hip_y left_hip_z left_knee"

# body -> split -> agents separated by a comma, each the joints it drives, in the order of its action.  (r): only in the released code
SPLITS: dict[str, dict[str, str]] = {
    "HalfCheetah": {
        "2x3": "bthigh bshin bfoot, fthigh fshin ffoot",
        "6x1": "bthigh, bshin, bfoot, fthigh, fshin, ffoot",
        "2|4": "bfoot bshin, bthigh ffoot fshin fthigh",  # (r)
        "4|2": "bfoot bshin bthigh ffoot, fshin fthigh",  # (r)
    },
    "Ant": {
        "2x4": "hip1 ankle1 hip2 ankle2, hip3 ankle3 hip4 ankle4",
        "2x4d": "hip1 ankle1 hip4 ankle4, hip2 ankle2 hip3 ankle3",
        "4x2": "hip1 ankle1, hip2 ankle2, hip3 ankle3, hip4 ankle4",
        "6|2": "hip1 ankle1 hip2 ankle2 hip3 ankle3, hip4 ankle4",  # (r)
        "8x1": "hip1, ankle1, hip2, ankle2, hip3, ankle3, hip4, ankle4",  # (r)
    },
    "Hopper": {
        "3x1": "thigh_joint, leg_joint, foot_joint",
        "2|1": "thigh_joint leg_joint, foot_joint",  # (r)
    },
    "Walker2d": {
        "2x3": "foot_joint leg_joint thigh_joint, foot_left_joint leg_left_joint thigh_left_joint",
        "2|4": "thigh_left_joint thigh_joint, foot_left_joint leg_left_joint foot_joint leg_joint",  # (r)
        "3x2": "foot_joint foot_left_joint, leg_joint leg_left_joint, thigh_joint thigh_left_joint",  # (r)
        "6x1": "thigh_joint, leg_joint, foot_joint, thigh_left_joint, leg_left_joint, foot_left_joint",  # (r), full observation
    },
    "Swimmer": {"2x1": "rot2, rot3"},
    "Humanoid": {"9|8": f"{_UPPER}, {_LOWER}"},
    "HumanoidStandup": {"9|8": f"{_UPPER}, {_LOWER}"},
}

_LEGACY_HUMANOID = (
    "left_shoulder1 left_shoulder2 abdomen_x abdomen_y abdomen_z right_shoulder1 right_shoulder2 right_elbow left_elbow, "
    "left_hip_x left_hip_y left_hip_z right_hip_x right_hip_y right_hip_z right_knee left_knee"
)
# Where the released code divides otherwise than MaMuJoCo does today; it then gives action k of all agents in a row to actuator k.
LEGACY_SPLITS: dict[str, dict[str, str]] = {
    "HalfCheetah": {"2x3": "bfoot bshin bthigh, ffoot fshin fthigh", "6x1": "bfoot, bshin, bthigh, ffoot, fshin, fthigh"},
    "Ant": {"2x4d": "hip1 ankle1 hip3 ankle3, hip2 ankle2 hip4 ankle4"},
    "Humanoid": {"9|8": _LEGACY_HUMANOID},
    "HumanoidStandup": {"9|8": _LEGACY_HUMANOID},
}

FIELDS = ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")  # of MjData, all that an observation is made of
PARTIAL = ("xpos", "xipos")  # body positions that a step reads before it computes them anew (Ant's and Humanoid's reward)


def parse(name: str) -> tuple[str, str]:
    """'2|4HalfCheetah' or '2-4HalfCheetah' -> ('2|4', 'HalfCheetah'). Raises ValueError if there is no such environment."""
    body = next((b for b in sorted([*SPLITS, *ALIASES], key=len, reverse=True) if name.endswith(b)), None)
    if body is None:
        raise ValueError(f"--env {name!r}: no such environment; known: {known()}")
    split, body = name.removesuffix(body).replace("-", "|"), ALIASES.get(body, body)
    if split not in SPLITS[body]:
        n_joints = len(next(iter(SPLITS[body].values())).replace(",", "").split())
        raise ValueError(f"--env {name!r}: {body} has {n_joints} joints, no split {split!r}; known: {sorted(SPLITS[body])}")
    return split, body


def known() -> list[str]:
    """The names of all partitions."""
    return [split + body for body, splits in SPLITS.items() for split in splits]


def load(module: str) -> Any:
    """Import what stands on MuJoCo without its noise: a notice about Adroit hands, and a warning that its C code would also append to
    MUJOCO_LOG.TXT in the working directory. Other warnings of MuJoCo become Python's."""
    with contextlib.redirect_stderr(io.StringIO()):  # gymnasium loads gymnasium-robotics as its plugin, and that prints the notice
        loaded = importlib.import_module(module)
    sys.modules["mujoco"].set_mju_user_warning(_warn)
    return loaded


def _warn(text: str) -> None:
    if "settotalmass" not in text:  # every HalfCheetah uses it
        warnings.warn(f"MuJoCo: {text.strip()}", RuntimeWarning, stacklevel=2)


class PartitionedMujoco(VectorEnv):
    """S robots of one partition.

    obs="own"     qpos and qvel of the agent's own joints, nothing of the root: the paper's
    obs="farama"  MaMuJoCo's default: also qpos of the joints next to them, the root, and contact forces (Ant) or inertias (Humanoid)
    obs="full"    the whole state, as gymnasium gives it, for every agent
    """

    family = "mujoco"

    def __init__(self, name: str, seeds: Sequence[int], obs: str, max_ep_len: int, legacy_actuators: bool) -> None:
        self.split, self.body = parse(name)
        parts = SPLITS[self.body][self.split]
        if legacy_actuators:
            parts = LEGACY_SPLITS.get(self.body, {}).get(self.split, parts)
        self.parts = [part.split() for part in parts.split(",")]
        module, cls, kwargs = BODIES[self.body]
        self.graph = load("gymnasium_robotics.envs.multiagent_mujoco.obsk")
        make = getattr(load(f"gymnasium.envs.mujoco.{module}"), cls)
        self.envs = [make(**kwargs, render_mode="rgb_array") for _ in seeds]

        nodes, edges, globals_ = self.graph.get_parts_and_edges(self.body, None)
        nodes = {node.label: node for part in nodes for node in part}
        self.parts = [tuple(nodes[label] for label in part) for part in self.parts]
        index, low, high = self._index(obs, edges, globals_)

        obs_mask, act_mask = mask(len(i) for i in index), mask(len(part) for part in self.parts)
        self._gather(index, low, high, obs_mask)
        self._actuators(act_mask, legacy_actuators)
        super().__init__(name, seeds, obs_mask, act_mask, max_ep_len)

    # -- what the agents see --

    def _index(self, obs: str, edges: list, globals_: list) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Per agent: which entry of the concatenated FIELDS each number of its observation is, and the bounds it is clipped to.

        MaMuJoCo's builder runs over fields that hold their own position, scaled to stay inside every clip; then over huge ones to find the clips.
        """
        env, build = self.envs[0], self.graph
        shapes = [getattr(env.data, field).shape for field in FIELDS]
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        self.ends = ends

        def observe(values: np.ndarray) -> list[np.ndarray]:
            pieces = {f: values[a:b].reshape(s) for f, a, b, s in zip(FIELDS, ends[:-1], ends[1:], shapes, strict=True)}
            data = SimpleNamespace(**pieces)
            if obs == "full":
                env.data, real = data, env.data
                whole = env._get_obs()
                env.data = real
                return [whole] * len(self.parts)
            k, categories = (0, [["qpos", "qvel"]]) if obs == "own" else (1, default_categories(self.body))
            return [
                build.build_obs(data, build.get_joints_at_kdist(part, edges, k), categories, globals_, () if obs == "own" else ("qpos", "qvel"))
                for part in self.parts
            ]

        scale = 2.0**-20
        index = [np.round(o / scale).astype(int) - 1 for o in observe((np.arange(ends[-1]) + 1) * scale)]
        low, high = observe(np.full(ends[-1], -1e30)), observe(np.full(ends[-1], 1e30))
        return index, low, high

    def _gather(self, index: list[np.ndarray], low: list[np.ndarray], high: list[np.ndarray], obs_mask: np.ndarray) -> None:
        """Lay out a buffer (S, slots + 1) of the fields in use, with a zero at its end for padding, and the (N, O) index into it."""
        used = [f for f in range(len(FIELDS)) if any(((i >= self.ends[f]) & (i < self.ends[f + 1])).any() for i in index)]
        self.slots = np.concatenate([np.arange(self.ends[f], self.ends[f + 1]) for f in used])  # buffer -> FIELDS
        self.buffer = np.zeros((len(self.envs), len(self.slots) + 1))
        self.index = np.full(obs_mask.shape, len(self.slots))
        self.index[obs_mask] = np.searchsorted(self.slots, np.concatenate(index))
        self.low, self.high = np.full(obs_mask.shape, -np.inf), np.full(obs_mask.shape, np.inf)
        self.low[obs_mask], self.high[obs_mask] = np.concatenate(low), np.concatenate(high)
        self.clipped = bool((np.abs(self.low[obs_mask]) < 1e30).any())
        self.views = []  # row -> (a part of the buffer, MuJoCo's own memory)
        for row, env in enumerate(self.envs):
            env._get_obs = lambda: None  # gymnasium's own observation would be built for nothing
            at = np.cumsum([0, *(self.ends[f + 1] - self.ends[f] for f in used)])
            fields = [getattr(env.data, FIELDS[f]).reshape(-1) for f in used]
            self.views.append([(self.buffer[row, a:b], field) for a, b, field in zip(at[:-1], at[1:], fields, strict=True)])

    def _look(self, rows: Sequence[int] | np.ndarray) -> None:
        for row in rows:
            for part, field in self.views[row]:
                part[:] = field

    def _see(self) -> np.ndarray:
        obs = self.buffer[:, self.index]
        return (np.clip(obs, self.low, self.high) if self.clipped else obs).astype(np.float32)

    # -- what the agents drive --

    def _actuators(self, act_mask: np.ndarray, legacy: bool) -> None:
        """Which entry of the flattened (N, A) actions drives each actuator; every actuator is driven exactly once."""
        real = np.flatnonzero(act_mask)
        actuator = np.array([node.act_ids for part in self.parts for node in part])
        self.drives = np.arange(len(real)) if legacy else actuator  # k-th action of all agents in a row -> actuator
        self.source = np.empty(len(real), int)
        self.source[self.drives] = real
        limits = self.envs[0].model.actuator_ctrlrange
        assert sorted(self.drives) == list(range(len(limits))), f"{self.body} {self.split}: actuators {self.drives}"
        self.centre, self.half = limits.mean(1), (limits[:, 1] - limits[:, 0]) / 2

    # -- VectorEnv --

    def reseed(self, seeds: Sequence[int], *, first: bool = False) -> None:
        super().reseed(seeds, first=first)
        for env, rng in zip(self.envs, self.rngs, strict=True):
            env.np_random = rng

    def _restart(self, rows: np.ndarray) -> None:
        for row in rows:
            self.envs[row].reset()
        self._look(rows)
        self.obs[rows] = self._see()[rows]

    def _advance(self, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # float64 as in MaMuJoCo: gymnasium's control cost depends on it
        ctrl = self.centre + self.half * act.reshape(len(act), -1)[:, self.source].astype(np.float64)
        rew, terminated = np.empty(len(act)), np.empty(len(act), bool)
        for row, env in enumerate(self.envs):
            _, rew[row], terminated[row], _, _ = env.step(ctrl[row])
        self._look(range(len(act)))
        return self._see(), rew, terminated

    def _save(self, row: int) -> dict[str, Any]:
        mujoco = sys.modules["mujoco"]
        env, what = self.envs[row], mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(env.model, what))
        mujoco.mj_getState(env.model, env.data, physics, what)
        return {"physics": physics, **{field: getattr(env.data, field).copy() for field in PARTIAL}}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        mujoco = sys.modules["mujoco"]
        env, what = self.envs[row], mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(env.model, env.data, state["physics"], what)
        mujoco.mj_forward(env.model, env.data)  # everything derived, for pictures; it overwrites the warm start,
        mujoco.mj_setState(env.model, env.data, state["physics"], what)  # which is put back,
        for field in PARTIAL:  # and body positions, which lag a substep behind qpos after a step and enter the next reward
            getattr(env.data, field)[:] = state[field]

    def close(self) -> None:
        for env in self.envs:
            env.close()


def default_categories(body: str) -> list[list[str]]:
    """What MaMuJoCo shows by default of an agent's own joints and of those next to them."""
    own = {"Ant": ["cfrc_ext"], "Humanoid": ["cinert", "cvel", "qfrc_actuator", "cfrc_ext"]}.get(body.removesuffix("Standup"), [])
    return [["qpos", "qvel", *own], ["qpos"]]
