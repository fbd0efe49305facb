"""Our environments as PettingZoo ParallelEnvs."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

import envs
from envs.errors import UsageError


class AsParallelEnv(ParallelEnv):
    """One row of any environment of ours as a PettingZoo ParallelEnv: AsParallelEnv("DifferentialGame-3")."""

    def __init__(self, name: str = "DifferentialGame-3", render_mode: str | None = None, **kwargs: Any) -> None:
        self.env = envs.make(name, [0], **kwargs)
        self.metadata = {"name": name, "render_modes": ["rgb_array"], "render_fps": self.env.fps}
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
            given, size = np.asarray(actions[agent]), self.env.act_mask[i].sum()
            if given.shape != (size,):  # numpy would repeat a single number
                raise UsageError(f"{self.env.name}: the action of {agent} has the shape {given.shape}, not ({size},)")
            act[0, i, self.env.act_mask[i]] = given
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
