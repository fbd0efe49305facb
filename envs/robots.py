"""gymnasium's robots, bare of its wrappers: its physics and rewards bit for bit, with less Python around them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.errors import UsageError

# body -> its module and class in gymnasium.envs.mujoco, and their arguments
BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "HalfCheetah": ("half_cheetah_v5", "HalfCheetahEnv", {}),
    "Ant": ("ant_v5", "AntEnv", {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}),
    "Hopper": ("hopper_v5", "HopperEnv", {}),
    "Walker2d": ("walker2d_v4", "Walker2dEnv", {}),
    "Swimmer": ("swimmer_v5", "SwimmerEnv", {}),
    "Humanoid": ("humanoid_v5", "HumanoidEnv", {}),
    "HumanoidStandup": ("humanoidstandup_v5", "HumanoidStandupEnv", {}),
    "ManySegmentSwimmer": ("swimmer_v5", "SwimmerEnv", {}),
}
# Bodies whose rewards know of contact forces
PAYS_CONTACTS = ("Humanoid", "HumanoidStandup")


def load(module: str) -> Any:
    """Import a module that stands on MuJoCo, without the noise.

    That is a notice about Adroit hands, and a warning (of every HalfCheetah) that MuJoCo would also append to
    MUJOCO_LOG.TXT in the working directory. MuJoCo's other warnings become Python's.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            loaded = importlib.import_module(module)
    except Exception as error:
        if "MUJOCO_GL" not in os.environ:
            raise
        gl = os.environ["MUJOCO_GL"]  # it is obeyed on import already
        raise UsageError(f"MUJOCO_GL={gl}: does not work here ({error}); unset it, or set it to egl") from error
    sys.modules["mujoco"].set_mju_user_warning(_warn)
    return loaded


def _warn(text: str) -> None:
    if "settotalmass" not in text:
        warnings.warn(f"MuJoCo: {text.strip()}", RuntimeWarning, stacklevel=2)


def make(body: str, segments: int, count: int) -> list[Any]:
    """`count` robots of this body; it has so many `segments` where it may have any number of them, else 0."""
    module, name, kwargs = BODIES[body]
    robot = _lean(getattr(load(f"gymnasium.envs.mujoco.{module}"), name), kwargs)
    if not segments:
        # the default camera stands still, and a fast robot leaves its picture within 50 steps
        return [robot(**kwargs, render_mode="rgb_array", camera_name="track") for _ in range(count)]
    maker = load("gymnasium_robotics.envs.multiagent_mujoco.many_segment_swimmer")
    with tempfile.TemporaryDirectory() as folder:
        maker.gen_asset(segments, f"{folder}/robot.xml")
        return [robot(f"{folder}/robot.xml", **kwargs, render_mode="rgb_array") for _ in range(count)]


def _lean(whole: Any, kwargs: dict[str, Any]) -> Any:
    """gymnasium's class, whose step finds constants ready and squares an action in a third of the time."""

    class Lean(whole):
        @functools.cached_property
        def dt(self) -> float:
            return super().dt

        def control_cost(self, action: np.ndarray) -> np.float64:
            return self._ctrl_cost_weight * np.add.reduce(np.square(action))  # np.sum takes a microsecond to get there

    if kwargs.get("contact_cost_weight") == 0:
        Lean.contact_cost = 0.0  # gymnasium clips, squares and adds up all contact forces, times nothing
    return Lean


def simplify(env: Any, feels: bool) -> None:
    """Leave out of this robot's step what nobody asks for: gymnasium's own observation, a look at the action's shape,
    and, unless it `feels` them, contact forces."""
    env._get_obs = lambda: None
    env.do_simulation = _simulation(env, feels)


def _simulation(env: Any, feels: bool) -> Callable[[np.ndarray, int], None]:
    """gymnasium's do_simulation(ctrl, n_frames), with or without contact forces."""
    mujoco = sys.modules["mujoco"]
    step, contact_forces = mujoco.mj_step, mujoco.mj_rnePostConstraint
    model, data, to = env.model, env.data, env.data.ctrl

    def do_simulation(ctrl: np.ndarray, n_frames: int) -> None:
        to[:] = ctrl
        step(model, data, n_frames)
        if feels:
            contact_forces(model, data)

    return do_simulation
