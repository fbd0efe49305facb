"""The one entrance to the environments: `make(name, seeds)`.

    DifferentialGame-3, StochasticDifferentialGame-3      n = 1..5 agents            envs/differential.py
    2x3HalfCheetah, 2|4HalfCheetah or 2-4HalfCheetah, ... one robot, several agents  envs/partitioned.py
    package.module:factory                                a PettingZoo ParallelEnv   envs/parallel.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envs import differential
from envs.vector import VectorEnv

__all__ = ["OBS", "VectorEnv", "family", "make", "schedule"]

OBS = ("own", "farama", "full")


def family(name: str) -> str:
    """Which kind of environment this is: "differential", "mujoco" or "parallel". Raises ValueError if there is none of this name."""
    if ":" in name:
        return "parallel"
    if "DifferentialGame" in name:
        _differential(name)
        return "differential"
    from envs import partitioned  # late: importing MuJoCo takes a while, and a differential game does without

    partitioned.parse(name)
    return "mujoco"


def make(
    name: str, seeds: Sequence[int], *, obs: str = "own", max_ep_len: int | None = None, legacy_actuators: bool = False
) -> VectorEnv:
    """The environment of this name, a row for each seed. obs is what an agent sees of a robot: "own", "farama" or "full".

    Raises ValueError, in one line, if there is no such environment.
    """
    kind = family(name)
    if obs not in OBS:
        raise ValueError(f"--obs {obs!r}: known: {list(OBS)}")
    max_ep_len = max_ep_len or schedule(name, obs)["max_ep_len"]
    if kind == "differential":
        game, n = _differential(name)
        return game(name, seeds, n, max_ep_len)
    from envs import partitioned

    return partitioned.PartitionedMujoco(name, seeds, obs, max_ep_len, legacy_actuators)


def schedule(name: str, obs: str = "own") -> dict[str, Any]:
    """The settings that the released code used with this kind of environment; a parallel environment gets those of MuJoCo.

    epochs, steps_per_epoch, replay_size and start_steps count environment steps, num_test_episodes and uniform_every episodes
    (every 4th episode acts uniformly, 0: none); update_after is the first step that learns, then `updates` follow every update_every steps.
    """
    if family(name) == "differential":
        return dict(
            epochs=55, steps_per_epoch=10_000, replay_size=550_000, start_steps=0, uniform_every=4, update_after=50_000, update_every=50,
            updates=10, num_test_episodes=200, max_ep_len=25, test_ep_len=100,
        )  # fmt: skip
    epochs = 100 if obs == "full" else 50
    return dict(
        epochs=epochs, steps_per_epoch=10_000, replay_size=epochs * 10_000, start_steps=10_000, uniform_every=0, update_after=1_000,
        update_every=50, updates=50, num_test_episodes=10, max_ep_len=1_000, test_ep_len=1_000,
    )  # fmt: skip


def _differential(name: str) -> tuple[type[differential.DifferentialGame], int]:
    games = {"DifferentialGame": differential.DifferentialGame, "StochasticDifferentialGame": differential.StochasticDifferentialGame}
    match = re.fullmatch(r"(\w+)-(\d+)", name)
    if not match or match[1] not in games or int(match[2]) not in differential.RADIUS:
        raise ValueError(f"--env {name!r}: known differential games: {[f'{game}-n' for game in games]} with n in {list(differential.RADIUS)}")
    return games[match[1]], int(match[2])
