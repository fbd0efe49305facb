"""Partitioned MuJoCo: one robot, its joints divided among agents that share gymnasium's reward.

Truth: Farama's MaMuJoCo (gymnasium-robotics, `mamujoco_v1`). What an agent sees is read off MaMuJoCo's own builder
once, as indices into MuJoCo's qpos, qvel, ...; from then on a step is gymnasium's and a gather, where MaMuJoCo calls
its Python builder every time.

Departures from MaMuJoCo's defaults, and why:
* Walker is gymnasium's Walker2d-v4: v5 raised the friction of the right foot from .9 to 1.9; the paper's runs had .9.
* Ant has no contact cost and no contact forces in its whole state, as in the paper's runs.
* Actions are in [-1, 1] and scaled to the actuator's range (Humanoid's is [-.4, .4]).
* SPLITS has the released code's partitions too.
* CoupledHalfCheetah and ManySegmentAnt are left out: MaMuJoCo shows their agents joints that are not theirs (both see
  the second cheetah; the ants' indices run into the root). So are Reacher and Pusher, which show more than entries of
  the state. `--env package.module:factory` takes any of them as PettingZoo environments.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from envs import robots
from envs.errors import Broken, UsageError
from envs.vector import VectorEnv, clip, mask

ALIASES = {"Walker": "Walker2d"}

_ARMS = "right_shoulder1 right_shoulder2 right_elbow left_shoulder1 left_shoulder2 left_elbow"
_UPPER = f"abdomen_x abdomen_y abdomen_z {_ARMS}"
_LOWER = "right_hip_x right_hip_y right_hip_z right_knee left_hip_x left_hip_y left_hip_z left_knee"
# body -> split -> agents, comma between them: the joints that each drives, in the order of its action, by the names
# they have in MaMuJoCo. (r): only in the released code.
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
        "6x1": "thigh_joint, leg_joint, foot_joint, thigh_left_joint, leg_left_joint, foot_left_joint",  # (r)
    },
    "Swimmer": {"2x1": "rot2, rot3"},
    "Humanoid": {"9|8": f"{_UPPER}, {_LOWER}"},
    "HumanoidStandup": {"9|8": f"{_UPPER}, {_LOWER}"},
    "ManySegmentSwimmer": {},  # AxB: A agents of B segments each, for any A and B
}
_LEGACY_HUMANOID = (
    "left_shoulder1 left_shoulder2 abdomen_x abdomen_y abdomen_z right_shoulder1 right_shoulder2 right_elbow left_elbow"
    ", left_hip_x left_hip_y left_hip_z right_hip_x right_hip_y right_hip_z right_knee left_knee"
)
# Where the released code divides otherwise than MaMuJoCo does today.
LEGACY_SPLITS: dict[str, dict[str, str]] = {
    "HalfCheetah": {
        "2x3": "bfoot bshin bthigh, ffoot fshin fthigh",
        "6x1": "bfoot, bshin, bthigh, ffoot, fshin, fthigh",
    },
    "Ant": {"2x4d": "hip1 ankle1 hip3 ankle3, hip2 ankle2 hip4 ankle4"},
    "Humanoid": {"9|8": _LEGACY_HUMANOID},
    "HumanoidStandup": {"9|8": _LEGACY_HUMANOID},
}

# All of MjData that an observation is made of, with units where they do not depend on the joint
FIELDS = {
    "qpos": "",
    "qvel": "",
    "cinert": "kg m^2, kg m, kg",
    "cvel": "rad/s, m/s",
    "qfrc_actuator": "N m",
    "cfrc_ext": "N m, N",
}
# Side of the map that shadows are drawn from: without a GPU, MuJoCo's own 4096 takes half of a picture's time
SHADOWS = 1024
# Body positions: the rewards of Ant and Humanoid read them at the start of a step, before MuJoCo computes them anew
STAGE_BEHIND = ("xpos", "xipos")


def parse(name: str) -> tuple[str, str]:
    """'2|4Walker' or '2-4Walker' -> ('2|4', 'Walker2d'). Raises UsageError if there is no such environment."""
    found = body_of(name)
    if not found:
        raise UsageError(f"--env {name!r}: no such environment; known: {', '.join(known())}")
    split, body = name[: -len(found)].replace("-", "|"), ALIASES.get(found, found)
    if not SPLITS[body]:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", split) or split == "1x1":
            raise UsageError(f"--env {name!r}: {body} wants agents x segments of each before it, such as '2x3{body}'")
    elif split not in SPLITS[body]:
        n = sum(len(part.split()) for part in next(iter(SPLITS[body].values())).split(","))
        raise UsageError(f"--env {name!r}: {found} has {n} joints, no split {split!r}; known: {sorted(SPLITS[body])}")
    return split, body


def body_of(name: str) -> str:
    """The body that a name ends with, as it is written there; empty if there is none."""
    bodies = sorted([*SPLITS, *ALIASES], key=len, reverse=True)  # ManySegmentSwimmer before Swimmer
    return next((body for body in bodies if name.endswith(body)), "")


def known() -> list[str]:
    """The names of all partitions; those of the bodies with any number of segments by an example."""
    return [split + body for body, splits in SPLITS.items() for split in splits or ("2x3",)]


class PartitionedMujoco(VectorEnv):
    """S robots of one partition. The reward, in gymnasium's units, is that of the whole robot.

    obs="own"     qpos and qvel of the agent's own joints, nothing of the root: the paper's (Swimmer's agents also see
                  a velocity of the root each, which MaMuJoCo counts among theirs)
    obs="farama"  MaMuJoCo's default: also qpos of the joints next to them, the root, and contact forces (Ant) or
                  inertias, velocities and forces (Humanoid)
    obs="full"    the whole state for every agent, as gymnasium gives it

    legacy_actuators gives the k-th action of all agents in a row to actuator k, as the released code did, whoever the
    actuator belongs to: in some partitions an agent then sees one limb and drives another. Right by default.
    """

    family = "mujoco"

    def __init__(self, name: str, seeds: Sequence[int], obs: str, max_ep_len: int, legacy_actuators: bool) -> None:
        self.split, self.body = parse(name)
        self.graph = robots.load("gymnasium_robotics.envs.multiagent_mujoco.obsk")
        segments = 0 if SPLITS[self.body] else math.prod(map(int, self.split.split("x")))
        self.envs = robots.make(self.body, segments, len(seeds))
        self.parts, edges, root = self._partition(legacy_actuators)

        def observe(data: Any) -> list[np.ndarray]:
            """What each agent would be shown of this data, by MaMuJoCo, or by gymnasium for "full"."""
            if obs == "full":
                data, self.envs[0].data = self.envs[0].data, data
                whole = self.envs[0]._get_obs()
                self.envs[0].data = data
                return [whole] * len(self.parts)
            shown = [["qpos", "qvel"]] if obs == "own" else _shown(self.body)
            near = [self.graph.get_joints_at_kdist(part, edges, len(shown) - 1) for part in self.parts]
            of_root = () if obs == "own" else ("qpos", "qvel")
            return [self.graph.build_obs(data, joints, shown, root, of_root) for joints in near]

        index, low, high = _trace(observe, {field: getattr(self.envs[0].data, field).shape for field in FIELDS})
        super().__init__(name, seeds, mask(map(len, index)), mask(map(len, self.parts)), max_ep_len)
        self.fps = round(1 / self.envs[0].dt)
        self._gather(index, low, high)
        self._connect(legacy_actuators)

    def _partition(self, legacy: bool) -> tuple[list[tuple], list, list]:
        """Per agent MaMuJoCo's nodes of its joints; MaMuJoCo's edges between neighbours; its nodes of the root.

        Raises UsageError where a line of SPLITS does not give each of the body's joints to one agent.
        """
        if not SPLITS[self.body]:
            return self.graph.get_parts_and_edges(self.body, self.split)
        whole, edges, root = self.graph.get_parts_and_edges(self.body, None)
        node = {node.label: node for node in whole[0]}
        old = LEGACY_SPLITS.get(self.body, {}) if legacy else {}
        agents = [joints.split() for joints in old.get(self.split, SPLITS[self.body][self.split]).split(",")]
        given = list(itertools.chain(*agents))
        for joint in {**dict.fromkeys(given), **node}:
            if joint not in node or given.count(joint) != 1:
                wrong = "there is no such joint" if joint not in node else f"is given {given.count(joint)} times"
                raise UsageError(
                    f"{'LEGACY_SPLITS' if self.split in old else 'SPLITS'}[{self.body!r}][{self.split!r}]: "
                    f"{joint!r}: {wrong}; give each of {', '.join(node)} to one agent"
                )
        return [tuple(node[joint] for joint in joints) for joints in agents], edges, root

    def _gather(self, index: list[np.ndarray], low: list[np.ndarray], high: list[np.ndarray]) -> None:
        """Lay out a buffer (S, slots) of the fields that are seen, with a zero at its end for padding."""
        data = self.envs[0].data
        ends = dict(zip(FIELDS, np.cumsum([getattr(data, field).size for field in FIELDS])))
        seen = np.concatenate(index)
        spans = {f: np.arange(end - getattr(data, f).size, end) for f, end in ends.items()}
        spans = {f: span for f, span in spans.items() if np.isin(span, seen).any()}
        slots = np.concatenate(list(spans.values()))
        self.names = [(field, i) for field, span in spans.items() for i in range(len(span))]
        self.buffer = np.zeros((len(self.envs), len(slots) + 1), np.float32)
        self.index = np.full(self.obs_mask.shape, len(slots))
        self.index[self.obs_mask] = np.searchsorted(slots, seen)
        self.low, self.high = np.zeros(self.obs_mask.shape, np.float32), np.zeros(self.obs_mask.shape, np.float32)
        self.low[self.obs_mask], self.high[self.obs_mask] = np.concatenate(low), np.concatenate(high)
        self.clips = bool(np.isfinite(self.high[self.obs_mask]).any())

        self.views = []  # per row: (a part of the buffer, MuJoCo's own memory)
        for row, env in enumerate(self.envs):
            robots.simplify(env, feels="cfrc_ext" in spans or self.body in robots.PAYS_CONTACTS)
            parts = np.split(self.buffer[row, :-1], np.cumsum([len(span) for span in spans.values()])[:-1])
            self.views.append([(part, getattr(env.data, field).reshape(-1)) for part, field in zip(parts, spans)])

    def _connect(self, legacy: bool) -> None:
        """Which of the flattened (N, A) actions drives each actuator; every actuator is driven exactly once."""
        real = np.flatnonzero(self.act_mask)
        own = np.array([node.act_ids for part in self.parts for node in part])
        self.drives = np.arange(len(own)) if legacy else own  # the actuator of the k-th action of all agents in a row
        limits = self.envs[0].model.actuator_ctrlrange
        assert sorted(self.drives) == list(range(len(limits))), f"{self.name}: drives {self.drives} of {len(limits)}"
        self.source = real[np.argsort(self.drives)]
        self.in_order = np.array_equal(self.source, np.arange(self.act_mask.size))
        self.centre, self.half = limits.mean(1), (limits[:, 1] - limits[:, 0]) / 2
        self.scales = bool((np.abs(limits) != 1).any())

    def reseed(self, seeds: Sequence[int]) -> None:
        super().reseed(seeds)
        for env, rng in zip(self.envs, self.rngs):
            env.np_random = rng

    def _restart(self, rows: np.ndarray) -> None:
        self._each(rows, lambda row: self.envs[row].reset())
        self.obs[rows] = self._see(rows)[rows]

    def _advance(self, act: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # float64 as in MaMuJoCo: gymnasium's control cost is computed in the type of the action
        ctrl = act.reshape(len(act), -1).astype(np.float64)
        if not self.in_order:
            ctrl = ctrl.take(self.source, axis=1)
        if self.scales:
            ctrl = self.centre + self.half * ctrl
        rew, terminated = np.zeros(len(act)), np.zeros(len(act), bool)

        def advance(row: int) -> None:
            _, rew[row], terminated[row], _, _ = self.envs[row].step(ctrl[row])

        self._each(rows, advance)
        return self._see(rows), rew, terminated

    def _see(self, rows: np.ndarray) -> np.ndarray:
        """obs (S, N, O), of which these rows are up to date."""
        for row in rows.tolist():
            for part, field in self.views[row]:
                part[:] = field
        obs = self.buffer.take(self.index, axis=1)
        return clip(obs, self.low, self.high) if self.clips else obs

    def _save(self, row: int) -> dict[str, Any]:
        mujoco, env = sys.modules["mujoco"], self.envs[row]
        what = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(env.model, what))
        mujoco.mj_getState(env.model, env.data, physics, what)
        return {"physics": physics, **{field: getattr(env.data, field).copy() for field in STAGE_BEHIND}}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        mujoco, env = sys.modules["mujoco"], self.envs[row]
        what = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(env.model, env.data, state["physics"], what)
        mujoco.mj_forward(env.model, env.data)  # all that is derived, for pictures
        mujoco.mj_setState(env.model, env.data, state["physics"], what)  # some 3.x overwrite the warm start in it
        # after a step these lag behind qpos by an integrator's stage: no forward pass gives them
        for field in STAGE_BEHIND:
            getattr(env.data, field)[:] = state[field]

    def _sees(self, agent: int) -> list[str]:
        names = [self._slot(*self.names[slot]) for slot in self.index[agent, self.obs_mask[agent]]]
        first = [k for k, name in enumerate(names) if k == 0 or name != names[k - 1]]  # a body's numbers on one line
        runs = zip(first, [*first[1:], len(names)])
        return [f"{a}  {names[a]}" if b == a + 1 else f"{a}-{b - 1}  {names[a]}" for a, b in runs]

    def _slot(self, field: str, i: int) -> str:
        """'qpos bthigh, rad' for entry i of this field of MjData."""
        model = self.envs[0].model
        if field in ("cinert", "cvel", "cfrc_ext"):
            body = i // (10 if field == "cinert" else 6)
            return f"{field} body {model.body(body).name or body}, {FIELDS[field]}"
        joint = int(np.searchsorted(model.jnt_qposadr, i, "right") - 1 if field == "qpos" else model.dof_jntid[i])
        kind, name = model.jnt_type[joint], model.joint(joint).name
        if kind == 0:  # free: 3 positions, then a quaternion; 3 velocities, then 3 rates of turning
            linear = i - (model.jnt_qposadr if field == "qpos" else model.jnt_dofadr)[joint] < 3
            units = {"qpos": "m", "qvel": "m/s"} if linear else {"qpos": "quaternion", "qvel": "rad/s"}
        else:
            units = {"qpos": "m", "qvel": "m/s"} if kind == 2 else {"qpos": "rad", "qvel": "rad/s"}
        return f"{field} {name}, {units.get(field, FIELDS[field])}"

    def _drives(self, agent: int) -> list[str]:
        model, start = self.envs[0].model, self.act_mask[:agent].sum()
        lines = []
        for actuator in self.drives[start : start + self.act_mask[agent].sum()]:
            joint = model.joint(model.actuator_trnid[actuator, 0]).name
            lines.append(f"{joint}, {model.actuator_gear[actuator, 0] * self.half[actuator]:g} N m at 1")
        return lines

    def render(self, row: int = 0) -> np.ndarray:
        """MuJoCo's own picture, (side, side, 3) uint8. Raises Broken where there is no OpenGL."""
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            os.environ.setdefault("MUJOCO_GL", "egl")
        env = self.envs[row]
        env.model.vis.quality.shadowsize = SHADOWS
        frame = env.model.vis.global_
        frame.offwidth, frame.offheight = max(frame.offwidth, self.side), max(frame.offheight, self.side)
        env.mujoco_renderer.width = env.mujoco_renderer.height = self.side
        try:
            return env.render()
        except Exception as error:  # whichever library is missing, each says so in its own way
            gl = os.environ.get("MUJOCO_GL", "glfw")
            raise Broken(
                f"cannot draw {self.name} with MUJOCO_GL={gl} ({error}); "
                "set MUJOCO_GL to egl (needs libEGL), osmesa (needs libOSMesa) or glfw (needs a display)"
            ) from None

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _shown(body: str) -> list[list[str]]:
    """What MaMuJoCo shows by default of an agent's own joints, and of those next to them."""
    own = ["qpos", "qvel"]
    if body == "Ant":
        own += ["cfrc_ext"]
    if body.startswith("Humanoid"):
        own += ["cinert", "cvel", "qfrc_actuator", "cfrc_ext"]
    return [own, ["qpos"]]


def _trace(
    observe: Callable[[Any], list[np.ndarray]], shapes: dict[str, tuple[int, ...]]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Per agent: which entry of the concatenated FIELDS each number is that `observe` shows, and the clip's two bounds.

    `observe` is run on fields that hold their own places, scaled down to pass below every clip, then on infinite ones.
    """
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])

    def show(values: np.ndarray) -> list[np.ndarray]:
        parts = np.split(values, ends[:-1])
        return observe(SimpleNamespace(**{f: part.reshape(shapes[f]) for f, part in zip(shapes, parts)}))

    tiny = 2.0**-20  # exact, and 2^20 entries stay below the smallest clip, 1
    index = [np.round(seen / tiny).astype(int) - 1 for seen in show((np.arange(ends[-1]) + 1) * tiny)]
    return index, show(np.full(ends[-1], -np.inf)), show(np.full(ends[-1], np.inf))
