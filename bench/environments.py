"""Environment steps: ours, gymnasium's and MaMuJoCo's."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

import envs
from bench.clock import Clock, Work, spread
from envs import partitioned, robots
from envs.vector import VectorEnv

ROBOTS = {"2x3HalfCheetah": "HalfCheetah-v5", "2x4Ant": "Ant-v5", "2x3Walker": "Walker2d-v4"}


def env_rows(clock: Clock) -> Iterator[dict[str, Any]]:
    """A step of one robot by us, by gymnasium and by MaMuJoCo, through the same episodes; a step of a game, by us.

    Restarts are part of it: Ant and Walker fall often, as in the first steps of a run.
    """
    mamujoco = robots.load("gymnasium_robotics").mamujoco_v1
    for name, whole in ROBOTS.items():
        body, kwargs = robots.BODIES[partitioned.parse(name)[1]][1].removesuffix("Env"), {}
        if body == "Ant":
            kwargs = {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}
        own = {"agent_obsk": 0, "local_categories": [["qpos", "qvel"]], "global_categories": ()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Walker2d-v4: v5 has another friction
            ours, plain = envs.make(name, [0]), gymnasium.make(whole, disable_env_checker=True, **kwargs)
            farama = mamujoco.parallel_env(body, partitioned.parse(name)[0], **own, **kwargs)
        act = np.random.default_rng(0).uniform(-1, 1, (500, 1, *ours.act_mask.shape)).astype(np.float32)
        joint = act.reshape(len(act), -1)[:, ours.source].astype(np.float64)  # pyright: ignore[reportAttributeAccessIssue]
        dicts = [dict(zip(farama.possible_agents, row[0].astype(np.float64))) for row in act]

        def step_ours(k: int, env: Any = ours, act: np.ndarray = act) -> bool:
            _, _, terminated, truncated = env.step(act[k])
            return bool(terminated[0] | truncated[0])

        def step_plain(k: int, env: Any = plain, act: np.ndarray = joint) -> bool:
            _, _, terminated, truncated, _ = env.step(act[k])
            return terminated or truncated

        def step_farama(k: int, env: Any = farama, act: list = dicts) -> bool:
            _, _, terminated, truncated, _ = env.step(act[k])
            return any(terminated.values()) or any(truncated.values())

        for env in (plain, farama):
            env.reset(seed=0)
        ours.reset()
        ways = {"ours": episodes(step_ours, ours.reset, len(act))}
        ways["gymnasium"] = episodes(step_plain, plain.reset, len(act))
        ways["mamujoco"] = episodes(step_farama, farama.reset, len(act))
        yield from _compared(name, 1, clock.turns(ways), "gymnasium")
        for env in (ours, plain, farama):
            env.close()
    for S in (1, 64):
        env = envs.make("DifferentialGame-3", range(S))
        act = np.random.default_rng(0).uniform(-1, 1, (500, S, *env.act_mask.shape)).astype(np.float32)

        def step(k: int, env: VectorEnv = env, act: np.ndarray = act) -> bool:
            env.step(act[k])
            return False

        env.reset()
        yield from _compared("DifferentialGame-3", S, clock.turns({"ours": episodes(step, env.reset, len(act))}), "")


def episodes(step: Callable[[int], bool], reset: Callable[[], Any], length: int) -> Work:
    """n steps on the same actions again and again, starting over where an episode ends or the actions do."""
    k = length

    def work(n: int) -> None:
        nonlocal k
        for _ in range(n):
            if k == length:
                reset()
                k = 0
            k = length if step(k) else k + 1

    return work


def _compared(name: str, rows: int, taken: dict[str, np.ndarray], reference: str) -> Iterator[dict[str, Any]]:
    for way, seconds in taken.items():
        yield {
            "env": name,
            "rows": rows,
            "way": way,
            "us": spread(1e6 * seconds),
            "steps_per_s": spread(rows / seconds),
            "over_gymnasium": spread(seconds / taken[reference]) if reference else None,
        }
