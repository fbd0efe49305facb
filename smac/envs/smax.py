"""SMAX, JaxMARL's StarCraft-like skirmishes, against its scripted enemy: smax:3m, smax:2s3z, smax:8m, ...

It is not SMAC: other physics, another enemy, no shields or healing, a limit of 100 steps on every map. Numbers of the
one say nothing about the other. Needs JaxMARL, which brings JAX: the extra `smax`, on Python 3.11 or newer.

reward = 10 (the share of all enemies' health taken in the step + 1 for the victory): the best return is 20, as in SMAC.
Won: all enemies are dead and an ally lives. Both teams dead is no victory.

| index                | observation of an agent                                           | range     |
|----------------------|-------------------------------------------------------------------|-----------|
| 13 a unit            | of each other ally, then of each enemy, zeros where out of sight: | [-1, 1]   |
|                      | health, position x and y from here, last move x and y, last       |           |
|                      | target, cooldown, six bits of its type                            |           |
| the last 10          | own health, position x and y, cooldown, six bits of its type      | [-1, 1]   |

Actions: 0-3 move up, right, down, left; 4 stop; 5 + k attack enemy k, while in range. A dead agent may only stop.
"""

import contextlib
import functools
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np

from common.errors import UsageError
from smac.common.picture import Units
from smac.envs.base import MaskedEnv

SCALE = 10.0  # of rewards, as JaxMARL's own Q-learners have it: SMAC's best return is 20, SMAX's 2
ATTACKS = 5  # the first action that attacks; those before it move and stop
NEVER = 10**6  # steps: the limit is ours, so that truncation can be told from the end


class Smax(MaskedEnv):
    """See above. The games of a seed are stepped by one vectorised call, those of other seeds by others: what a seed
    sees depends on how many games it has at once (in the last bits) and not on what stands beside it.
    """

    def __init__(self, name: str, seeds: Sequence[int], copies: int, max_ep_len: int):
        self.jax, self.game, self.start_one, self.play_all = _load(name)
        n, shape = self.game.num_agents, (len(seeds), copies)
        leaves, self.tree = self.jax.tree.flatten(self.jax.eval_shape(self.start_one, np.zeros(2, np.uint32))[0])
        self.leaves = [[np.zeros((copies, *leaf.shape), leaf.dtype) for leaf in leaves] for _ in seeds]
        self.keys = np.zeros((*shape, 2), np.uint32)  # of each episode
        obs_mask, act_mask = (np.ones((n, k), bool) for k in (self.game.obs_size, self.game.num_ally_actions))
        super().__init__(name, seeds, copies, obs_mask, act_mask, max_ep_len)

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        self.keys[row, copy] = self.rng(row, copy).integers(2**32, size=2, dtype=np.uint32)
        state, obs, avail = self.start_one(self.keys[row, copy])
        self.leaves[row] = [np.array(leaf) for leaf in self.leaves[row]]
        for leaf, new in zip(self.leaves[row], self.jax.tree.leaves(state), strict=True):
            leaf[copy] = new
        return np.asarray(obs), np.asarray(avail)

    def _advance(
        self, act: np.ndarray, where: np.ndarray, rew: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> None:
        for row in np.flatnonzero(where.any(1)):
            state = self.jax.tree.unflatten(self.tree, self.leaves[row])
            moves, times = act[row].T.astype(np.int32), self.t[row].astype(np.int32)
            state, obs, avail, paid, over, won = self.play_all(self.keys[row], times, state, moves)
            self.leaves[row] = self.jax.tree.leaves(state)
            at = where[row]
            self.obs[row][:, at] = np.asarray(obs).swapaxes(0, 1)[:, at]
            self.avail[row][:, at] = np.asarray(avail).swapaxes(0, 1)[:, at]
            rew[row, at], terminated[row, at] = SCALE * np.asarray(paid)[at], np.asarray(over)[at]
            self.won[row, at] = np.asarray(won)[at]

    def _save(self, row: int, copy: int) -> dict[str, Any]:
        leaves = {f"leaf{k}": np.array(leaf)[copy] for k, leaf in enumerate(self.leaves[row])}
        return {"key": self.keys[row, copy].copy(), **leaves}

    def _load(self, row: int, copy: int, state: dict[str, Any]) -> None:
        self.keys[row, copy] = state["key"]
        self.leaves[row] = [np.array(leaf) for leaf in self.leaves[row]]
        for k, leaf in enumerate(self.leaves[row]):
            leaf[copy] = state[f"leaf{k}"]

    def units(self, row: int = 0, copy: int = 0) -> Units:
        state = self.jax.tree.unflatten(self.tree, [np.asarray(leaf)[copy] for leaf in self.leaves[row]]).state
        ground = (0.0, 0.0), (float(self.game.map_width), float(self.game.map_height))
        return Units(np.asarray(state.unit_positions), np.asarray(state.unit_health), self.n_agents, ground)

    def target(self, act: np.ndarray) -> np.ndarray:
        return act - ATTACKS

    def table(self) -> str:
        n, enemies = self.n_agents, self.game.num_enemies
        lines = [
            "agent  sees",
            f"all    0-{self.n_obs - 1}  13 numbers of each of {n - 1} allies and {enemies} enemies, 10 of its own",
            "       may do",
            f"       0-3  move up, right, down, left, 4  stop, {ATTACKS}-{ATTACKS + enemies - 1}  attack enemy "
            f"0-{enemies - 1}",
        ]
        return "\n".join(lines)

    def describe(self, row: int = 0, copy: int = 0) -> str:
        units, n = self.units(row, copy), self.n_agents
        texts = [
            f"({x:.1f} {y:.1f}) {health:.0f}" if health > 0 else "dead"
            for (x, y), health in zip(units.place, units.health)
        ]
        return f"allies {', '.join(texts[:n])}  enemies {', '.join(texts[n:])}"

    def action_name(self, act: int) -> str:
        return ("up", "right", "down", "left", "stop")[act] if act < ATTACKS else f"attack {act - ATTACKS}"


@functools.cache  # compiling takes seconds
def _load(name: str) -> tuple[Any, Any, Any, Any]:
    """JAX, the game of this name, and its `_compiled`. Raises UsageError where JaxMARL or the map is missing."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    try:
        sink = io.StringIO()  # it reports on parts of its own that are not installed, and sets stdout anew meanwhile
        with contextlib.redirect_stdout(sink), mock.patch.object(sys, "__stdout__", sink):
            import jaxmarl  # noqa: F401  # pyright: ignore[reportMissingImports]
        # JAX warns whenever a program is started, as ffmpeg for a film: that takes a fork, but one without risk
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        import jax  # pyright: ignore[reportMissingImports]
        from jaxmarl.environments.smax import (  # pyright: ignore[reportMissingImports]
            HeuristicEnemySMAX,
            map_name_to_scenario,
        )
        from jaxmarl.environments.smax.smax_env import (  # pyright: ignore[reportMissingImports]
            MAP_NAME_TO_SCENARIO,
            Scenario,
        )
    except ImportError as error:
        python = "" if sys.version_info >= (3, 11) else ", on Python 3.11 or newer"
        raise UsageError(f"--env {name!r}: needs JaxMARL ({error}): pip install '.[smax]'{python}") from None
    zealots = jax.numpy.array([2, 2, 2, 3, 3, 3, 3], jax.numpy.uint8)
    maps = {"3s_vs_4z": Scenario(zealots, 3, 4, False, False), **MAP_NAME_TO_SCENARIO}  # the paper's; SMAX lacks it
    title = name.partition(":")[2]
    if title not in maps:
        raise UsageError(f"--env {name!r}: no such map; known: {', '.join(sorted(maps))}")
    scenario = maps[title] if title == "3s_vs_4z" else map_name_to_scenario(title)
    game = HeuristicEnemySMAX(scenario=scenario, max_steps=NEVER)
    return jax, game, *_compiled(jax, game)


def _compiled(jax: Any, game: Any) -> tuple[Any, Any]:
    """start(key): state, obs, avail of one game; play(keys, times, states, acts): these of several, reward, over, won.

    The randomness of a step depends on the episode's key and on the time alone.
    """

    def stacked(parts: dict[str, Any]) -> Any:
        return jax.numpy.stack([parts[agent] for agent in game.agents])

    def shown(obs: dict[str, Any], state: Any) -> tuple[Any, Any]:
        alive = state.state.unit_alive[: game.num_agents, None]
        return stacked(obs) * alive, stacked(game.get_avail_actions(state)).astype(bool)

    def start(key: Any) -> tuple[Any, ...]:
        obs, state = game.reset(key)
        return state, *shown(obs, state)

    def play(key: Any, time: Any, state: Any, act: Any) -> tuple[Any, ...]:
        moves = {agent: act[i] for i, agent in enumerate(game.agents)}
        obs, state, rew, over, _ = game.step_env(jax.random.fold_in(key, time), state, moves)
        alive = state.state.unit_alive
        won = alive[: game.num_agents].any() & ~alive[game.num_agents :].any()
        return state, *shown(obs, state), rew[game.agents[0]], over["__all__"], won

    return jax.jit(start), jax.jit(jax.vmap(play))
