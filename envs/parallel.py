"""PettingZoo both ways: any cooperative ParallelEnv with Box spaces as one of ours, and ours as ParallelEnvs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

import envs
from envs.vector import VectorEnv, mask


class ParallelEnvs(VectorEnv):
    """S copies of the ParallelEnv that `package.module:factory` returns; the factory is called without arguments, or
    with render_mode="rgb_array" if it takes that.

    Observations of any shape are flattened. Actions in [-1, 1] are scaled to the agent's Box. The team reward is the
    mean of the agents' rewards (a cooperative game gives all of them the same). An episode ends for all agents at once.
    Every episode starts with `reset(seed=...)`, a number from the row's generator, so that this number and the actions
    since then make up the state: a resumed run plays them again.
    """

    family = "parallel"

    def __init__(self, name: str, seeds: Sequence[int], max_ep_len: int) -> None:
        self.envs = [_create(name) for _ in seeds]
        self.agents = list(self.envs[0].possible_agents)
        self.fps = round(getattr(self.envs[0], "metadata", {}).get("render_fps", self.fps))
        self.boxes = [_box(name, self.envs[0].action_space(agent), agent, "action") for agent in self.agents]
        shown = [_box(name, self.envs[0].observation_space(agent), agent, "observation") for agent in self.agents]
        widths = [int(np.prod(box.shape)) for box in shown], [int(np.prod(box.shape)) for box in self.boxes]
        for agent, box in zip(self.agents, self.boxes):
            if not box.is_bounded():
                raise ValueError(f"--env {name!r}: the actions of {agent} have no bounds to scale [-1, 1] to: {box}")
        super().__init__(name, seeds, mask(widths[0]), mask(widths[1]), max_ep_len)

    def reseed(self, seeds: Sequence[int]) -> None:
        super().reseed(seeds)
        self.episode_seed = [0] * len(seeds)  # the seed that each row's episode started with
        self.played = np.zeros((len(seeds), self.max_ep_len, self.n_agents, self.n_act), np.float32)

    def _restart(self, rows: np.ndarray) -> None:
        for row in rows:
            self.episode_seed[row] = int(self.rngs[row].integers(2**31))
            self.obs[row] = self._see(self.envs[row].reset(seed=self.episode_seed[row])[0])

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
        self.played[np.arange(len(act)), self.t % self.max_ep_len] = act
        for row in rows:
            env = self.envs[row]
            shown, rewards, ends, cuts, _ = env.step(self._joint(act[row]))
            next_obs[row], rew[row] = self._see(shown), np.mean([rewards[agent] for agent in self.agents])
            terminated[row], self.cut[row] = all(ends.values()), any(cuts.values())
            if any(ends.values()) and not (terminated[row] or self.cut[row]):
                raise ValueError(f"--env {self.name!r}: agents leave one by one ({ends}); they have to stay together")
        return next_obs, rew, terminated

    def _joint(self, act: np.ndarray) -> dict[str, np.ndarray]:
        """Row's act (N, A) in [-1, 1] -> an action of each agent in its Box."""
        joint = {}
        for agent, box, real, numbers in zip(self.agents, self.boxes, self.act_mask, act):
            centre, half = (box.high / 2 + box.low / 2), (box.high / 2 - box.low / 2)
            joint[agent] = (centre + half * numbers[real].reshape(box.shape)).astype(box.dtype)
        return joint

    def _see(self, shown: dict[str, Any]) -> np.ndarray:
        obs = np.zeros((self.n_agents, self.n_obs), np.float32)
        for i, agent in enumerate(self.agents):
            obs[i, self.obs_mask[i]] = np.ravel(shown[agent])
        return obs

    def _save(self, row: int) -> dict[str, Any]:
        return {"episode_seed": self.episode_seed[row], "played": self.played[row, : self.t[row]].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        env, self.episode_seed[row] = self.envs[row], state["episode_seed"]
        self.played[row, : len(state["played"])] = state["played"]
        shown, _ = env.reset(seed=self.episode_seed[row])
        for act in state["played"]:
            shown = env.step(self._joint(act))[0]
        if not np.array_equal(self._see(shown), state["obs"], equal_nan=True):
            where = f"{self.name}: does not repeat itself from the same seed and actions"
            print(f"{where}, so the resumed run starts a new episode instead", file=sys.stderr)
            self.reset(np.arange(len(self.envs)) == row)

    def _sees(self, agent: int) -> list[str]:
        return [f"0-{self.obs_mask[agent].sum() - 1}  observation of {self.agents[agent]}"]

    def _drives(self, agent: int) -> list[str]:
        box = self.boxes[agent]
        return [f"[{low:g}, {high:g}]" for low, high in zip(box.low.flat, box.high.flat)]

    def render(self, row: int = 0) -> np.ndarray:
        picture = self.envs[row].render()
        if not isinstance(picture, np.ndarray):
            raise RuntimeError(f"cannot draw {self.name}: its render() returns {type(picture).__name__}, not an array")
        return picture

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _create(name: str) -> Any:
    module, _, factory = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(f"--env {name!r}: {error}; it has to be package.module:factory") from error
    try:
        env = make(render_mode="rgb_array")
    except TypeError:
        env = make()
    if not isinstance(env, ParallelEnv):
        raise ValueError(f"--env {name!r}: returns a {type(env).__name__}, not a pettingzoo ParallelEnv")
    return env


def _box(name: str, space: Any, agent: str, what: str) -> Box:
    if not isinstance(space, Box):
        raise ValueError(f"--env {name!r}: the {what} space of {agent} is {space}; only Box can be learnt on here")
    return space


class AsParallelEnv(ParallelEnv):
    """One row of any environment of ours as a PettingZoo ParallelEnv: AsParallelEnv("DifferentialGame-3")."""

    def __init__(self, name: str = "DifferentialGame-3", render_mode: str | None = None, **kwargs: Any) -> None:
        self.env = envs.make(name, [0], **kwargs)
        self.metadata = {"name": name, "render_modes": ["rgb_array"]}
        self.render_mode = render_mode
        self.possible_agents = [f"agent_{i}" for i in range(self.env.n_agents)]
        self.agents: list[str] = []
        self.seeded = False
        bound = 1.0 if self.env.family == "differential" else np.inf
        sizes = zip(self.possible_agents, self.env.obs_mask.sum(1), self.env.act_mask.sum(1))
        spaces = {agent: (Box(-bound, bound, (o,)), Box(-1.0, 1.0, (a,))) for agent, o, a in sizes}
        self.observation_spaces = {agent: box for agent, (box, _) in spaces.items()}
        self.action_spaces = {agent: box for agent, (_, box) in spaces.items()}

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None or not self.seeded:
            self.env.reseed([int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed])
            self.seeded = True
        self.env.reset()
        self.agents = list(self.possible_agents)
        return self._shown(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        act = np.zeros((1, self.env.n_agents, self.env.n_act), np.float32)
        for i, agent in enumerate(self.agents):
            act[0, i, self.env.act_mask[i]] = actions[agent]
        _, rew, terminated, truncated = self.env.step(act)
        rews, ends, cuts = (dict.fromkeys(self.agents, value.item()) for value in (rew[0], terminated[0], truncated[0]))
        infos = {agent: {} for agent in self.agents}
        if terminated[0] or truncated[0]:
            self.agents = []
        return self._shown(), rews, ends, cuts, infos

    def _shown(self) -> dict[str, np.ndarray]:
        return {a: self.env.obs[0, i, self.env.obs_mask[i]] for i, a in enumerate(self.possible_agents)}

    def render(self) -> np.ndarray | None:
        return self.env.render(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.env.close()
