"""Meet: two points on a square shall come together. A task of your own as a PettingZoo ParallelEnv.

Each agent sees (index, meaning, unit): 0-1 its own position in [-1, 1]; 2-3 the way to the other, in [-2, 2]. It moves
by up to SPEED along each axis. Both are paid the negative distance between them, and nothing is terminal.

python iddpg.py --env examples.meet:make_env --max_ep_len 25 --test_ep_len 25
"""

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

SPEED = 0.1  # length a step


class Meet(ParallelEnv):
    metadata = {"name": "meet"}  # noqa: RUF012 (PettingZoo's interface)

    def __init__(self) -> None:
        self.possible_agents = ["a", "b"]
        self.agents: list[str] = []
        self.observation_spaces = {agent: Box(-2, 2, (4,)) for agent in self.possible_agents}
        self.action_spaces = {agent: Box(-1, 1, (2,)) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.agents = list(self.possible_agents)
        self.x = np.random.default_rng(seed).uniform(-1, 1, (2, 2))
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        moves = np.stack([actions[agent] for agent in self.agents])
        self.x = np.clip(self.x + SPEED * moves, -1, 1)
        rew = -float(np.linalg.norm(self.x[0] - self.x[1]))
        rews, ends, cuts = (dict.fromkeys(self.agents, value) for value in (rew, False, False))
        return self._seen(), rews, ends, cuts, {agent: {} for agent in self.agents}

    def _seen(self) -> dict[str, np.ndarray]:
        ways = self.x[::-1] - self.x
        return {agent: np.concatenate([self.x[i], ways[i]]).astype(np.float32) for i, agent in enumerate(self.agents)}


def make_env() -> Meet:
    return Meet()
