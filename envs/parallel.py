"""Any cooperative PettingZoo ParallelEnv with Box spaces as one of our environments."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from envs.errors import Broken, UsageError, blaming
from envs.factory import create
from envs.vector import VectorEnv, clip, mask, steps


class ParallelEnvs(VectorEnv):
    """S copies of the ParallelEnv that `package.module:factory` returns; the factory is called without arguments, or
    with render_mode="rgb_array" if it takes that.

    Observations of any shape are flattened. Actions in [-1, 1] are scaled to the agent's Box, and rounded where that is
    of integers or bools. The team reward is the mean of the agents' rewards (a cooperative game gives all of them the
    same). An episode ends for all agents at once. It starts with `reset(seed=...)`, a number from the row's generator,
    so that this number and the actions since then make up the state: a resumed run plays them again.
    """

    family = "parallel"

    def __init__(self, name: str, seeds: Sequence[int], max_ep_len: int) -> None:
        self.envs = [_create(name) for _ in seeds]
        with blaming(f"--env {name!r}: asking for its agents and spaces"):
            self.agents = list(self.envs[0].possible_agents)
            if not self.agents:
                raise UsageError(f"--env {name!r}: its possible_agents is empty; list all agents there")
            self.fps = round(getattr(self.envs[0], "metadata", {}).get("render_fps") or self.fps)
            self.boxes = [_box(name, self.envs[0].action_space(agent), agent, "action") for agent in self.agents]
            shown = [_box(name, self.envs[0].observation_space(agent), agent, "observation") for agent in self.agents]
        self.shapes = [box.shape for box in shown]
        widths = [int(np.prod(box.shape)) for box in shown], [int(np.prod(box.shape)) for box in self.boxes]
        for agent, box in zip(self.agents, self.boxes):
            if not box.is_bounded():
                raise UsageError(f"--env {name!r}: the actions of {agent} have no bounds to scale [-1, 1] to: {box}")
        super().__init__(name, seeds, mask(widths[0]), mask(widths[1]), max_ep_len)

    def reseed(self, seeds: Sequence[int]) -> None:
        super().reseed(seeds)
        self.episode_seed = [0] * len(seeds)  # the seed that each row's episode started with
        self.played = steps(len(seeds), self.max_ep_len, self.n_agents, self.n_act)

    def _restart(self, rows: np.ndarray) -> None:
        def restart(row: int) -> None:
            self.episode_seed[row] = int(self.rngs[row].integers(2**31))
            self.obs[row] = self._see(self.envs[row].reset(seed=self.episode_seed[row])[0])

        self._each(rows, restart)

    def step(
        self, act: np.ndarray, where: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As VectorEnv.step; truncated also where the ParallelEnv says so."""
        self.cut = np.zeros(len(self.envs), bool)
        next_obs, rew, terminated, truncated = super().step(act, where)
        return next_obs, rew, terminated, truncated | self.cut

    def _advance(self, act: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        next_obs = np.zeros_like(self.obs)
        rew, terminated = np.zeros(len(act)), np.zeros(len(act), bool)
        act = act.astype(np.float32, copy=False)  # as a resumed run plays it
        self.played[np.arange(len(act)), self.t % self.max_ep_len] = act

        def advance(row: int) -> None:
            shown, rewards, ends, cuts, _ = self.envs[row].step(self._joint(act[row]))
            terminated[row], self.cut[row] = all(ends.values()), any(cuts.values())
            if any(ends.values()) and not (terminated[row] or self.cut[row]):
                raise UsageError(f"--env {self.name!r}: agents leave one by one ({ends}); they have to stay together")
            next_obs[row], rew[row] = self._see(shown), np.mean([rewards[agent] for agent in self.agents])

        self._each(rows, advance)
        return next_obs, rew, terminated

    def _joint(self, act: np.ndarray) -> dict[str, np.ndarray]:
        """Row's act (N, A) in [-1, 1] -> an action of each agent in its Box."""
        joint = {}
        for agent, box, real, numbers in zip(self.agents, self.boxes, self.act_mask, act):
            centre, half = (box.high / 2 + box.low / 2), (box.high / 2 - box.low / 2)
            scaled = centre + half * numbers[real].reshape(box.shape)
            scaled = scaled if box.dtype.kind == "f" else np.rint(scaled)  # a cast alone would drop the fraction
            joint[agent] = clip(scaled, box.low, box.high).astype(box.dtype)  # rounding may pass a limit
        return joint

    def _see(self, shown: dict[str, Any]) -> np.ndarray:
        """What the agents are shown, flattened: (N, O). Raises UsageError where it does not fill an agent's space."""
        obs = np.zeros((self.n_agents, self.n_obs), np.float32)
        for i, (agent, shape) in enumerate(zip(self.agents, self.shapes)):
            seen = np.asarray(shown[agent])
            if seen.size != math.prod(shape):  # numpy would repeat a single number
                raise UsageError(
                    f"--env {self.name!r}: the observation of {agent} has the shape {seen.shape}, its space {shape}; "
                    "return what observation_space says"
                )
            obs[i, self.obs_mask[i]] = seen.ravel()
        return obs

    def _save(self, row: int) -> dict[str, Any]:
        return {"episode_seed": self.episode_seed[row], "played": self.played[row, : self.t[row]].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        env, self.episode_seed[row] = self.envs[row], state["episode_seed"]
        self.played[row, : len(state["played"])] = state["played"]

        def replay(row: int) -> None:
            shown, _ = env.reset(seed=self.episode_seed[row])
            for act in state["played"]:
                shown = env.step(self._joint(act))[0]
            if not np.array_equal(self._see(shown), state["obs"], equal_nan=True):
                where = f"{self.name}: does not repeat itself from the same seed and actions"
                print(f"{where}, so the resumed run starts a new episode instead", file=sys.stderr)
                self.anew[row] = True
                self.reset(np.arange(len(self.envs)) == row)

        self._each(np.array([row]), replay)

    def _sees(self, agent: int) -> list[str]:
        return [f"0-{self.obs_mask[agent].sum() - 1}  observation of {self.agents[agent]}"]

    def _drives(self, agent: int) -> list[str]:
        box = self.boxes[agent]
        return [f"[{low:g}, {high:g}]" for low, high in zip(box.low.flat, box.high.flat)]

    def render(self, row: int = 0) -> np.ndarray:
        try:
            picture = self.envs[row].render()
        except NotImplementedError:  # what pettingzoo's own raises, where the task has none
            raise Broken(f"cannot draw {self.name}: it has no render() of its own") from None
        if not isinstance(picture, np.ndarray):
            raise Broken(f"cannot draw {self.name}: its render() returns {type(picture).__name__}, not an array")
        return picture

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _create(name: str) -> ParallelEnv:
    env = create(name, render_mode="rgb_array")
    if not isinstance(env, ParallelEnv):
        raise UsageError(f"--env {name!r}: returns a {type(env).__name__}, not a pettingzoo ParallelEnv")
    return env


def _box(name: str, space: Any, agent: str, what: str) -> Box:
    if not isinstance(space, Box):
        raise UsageError(f"--env {name!r}: the {what} space of {agent} is {space}; only Box spaces are supported")
    return space
