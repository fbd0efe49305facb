"""The one entrance to the environments: `make(name, seeds)`.

DifferentialGame-3, StochasticDifferentialGame-3       n = 1..5 agents                envs/differential.py
2x3HalfCheetah, 2|4HalfCheetah or 2-4HalfCheetah, ...  one robot, several agents      envs/partitioned.py
package.module:factory                                 any PettingZoo ParallelEnv     envs/parallel.py
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from envs import differential
from envs.errors import UsageError
from envs.vector import VectorEnv

__all__ = ["OBS", "UsageError", "VectorEnv", "family", "make", "schedule", "training_and_test"]

OBS = ("own", "farama", "full")


def make(
    name: str, seeds: Sequence[int], *, obs: str = "own", max_ep_len: int | None = None, legacy_actuators: bool = False
) -> VectorEnv:
    """The environment of this name, with a row for each seed. `obs` is what an agent sees of a robot; see OBS.

    Raises UsageError if there is no such environment, Broken if the module or factory of a ParallelEnv fails.
    """
    kind = family(name)
    if obs not in OBS:
        raise UsageError(f"--obs {obs!r}: known: {', '.join(OBS)}")
    length = schedule(name, obs)["max_ep_len"] if max_ep_len is None else max_ep_len
    if kind == "differential":
        game, n = _differential(name)
        return game(name, seeds, n, length)
    if kind == "mujoco":
        from envs import partitioned

        return partitioned.PartitionedMujoco(name, seeds, obs, length, legacy_actuators)
    from envs import parallel

    return parallel.ParallelEnvs(name, seeds, length)


def training_and_test(cfg: Any, seeds: Sequence[int]) -> tuple[VectorEnv, VectorEnv]:
    """A run's environment, a row for each seed, and the one of its tests, cfg.num_test_episodes rows for each seed."""
    settings = {"obs": cfg.obs, "legacy_actuators": cfg.legacy_actuators}
    env = make(cfg.env, seeds, max_ep_len=cfg.max_ep_len, **settings)
    test_seeds = [seed for seed in seeds for _ in range(cfg.num_test_episodes)]
    return env, make(cfg.env, test_seeds, max_ep_len=cfg.test_ep_len, **settings)


def family(name: str) -> str:
    """Which kind of environment: "differential", "mujoco" or "parallel". Raises UsageError if there is none such."""
    if name.startswith(("FocusFire", "smax:")):
        raise UsageError(f"--env {name!r}: a task of the discrete learners; use python smac/iql.py or another of smac/")
    if ":" in name:
        return "parallel"
    if "DifferentialGame" in name:
        _differential(name)
        return "differential"
    from envs import partitioned

    if not partitioned.body_of(name):
        known = {task.lower(): task for task in [*_games(), *partitioned.known()]}
        meant = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {known[meant[0]]}? " if meant else ""
        raise UsageError(
            f"--env {name!r}: no such environment; {hint}known: {', '.join(known.values())}, module:factory"
        )
    partitioned.parse(name)
    return "mujoco"


def schedule(name: str, obs: str = "own") -> dict[str, int]:
    """The settings that the released code used with this kind of environment; those of MuJoCo for a ParallelEnv.

    epochs of steps_per_epoch; replay_size, start_steps (uniform actions) and update_after in environment steps; from
    then on `updates` follow every update_every steps; uniform_every 4: episodes 0, 4, 8, ... act uniformly (0: none).
    """
    if family(name) == "differential":
        return {
            "epochs": 55,
            "steps_per_epoch": 10_000,
            "replay_size": 550_000,
            "start_steps": 0,
            "uniform_every": 4,
            "update_after": 50_000,
            "update_every": 50,
            "updates": 10,
            "num_test_episodes": 200,
            "max_ep_len": 25,
            "test_ep_len": 100,
        }
    epochs = 100 if obs == "full" and family(name) == "mujoco" else 50
    return {
        "epochs": epochs,
        "steps_per_epoch": 10_000,
        "replay_size": epochs * 10_000,
        "start_steps": 10_000,
        "uniform_every": 0,
        "update_after": 1_000,
        "update_every": 50,
        "updates": 50,
        "num_test_episodes": 10,
        "max_ep_len": 1_000,
        "test_ep_len": 1_000,
    }


def _games() -> dict[str, tuple[Any, int]]:
    games = differential.DifferentialGame, differential.StochasticDifferentialGame
    return {f"{game.__name__}-{n}": (game, n) for game in games for n in differential.RADIUS}


def _differential(name: str) -> tuple[Any, int]:
    known = _games()
    if name not in known:
        raise UsageError(f"--env {name!r}: no such game; known: {', '.join(known)}")
    return known[name]
