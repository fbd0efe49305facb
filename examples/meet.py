"""A task of your own as a PettingZoo ParallelEnv: two points in the plane that have to meet.

    python iddpg.py --env examples.meet:make_env --max_ep_len 50 --test_ep_len 50

An episode starts with both points uniform in [-1, 1]^2 and ends when they are closer than REACH, or after LIMIT steps.

| agent i      | index | meaning                                         | range   |
|--------------|-------|-------------------------------------------------|---------|
| observation  | 0-1   | its own position                                | [-1, 1] |
|              | 2-3   | the other's position minus its own              | [-2, 2] |
| action       | 0-1   | its move, in units of STEP                      | [-1, 1] |
| reward       |       | minus the distance between both, after the move |         |
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

STEP, REACH, LIMIT = 0.1, 0.1, 50
SIDE = 240  # pixels of a picture
COLOURS = ((214, 39, 40), (31, 119, 180))  # red, blue


class Meet(ParallelEnv):
    metadata: ClassVar[dict[str, Any]] = {"name": "meet", "render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.possible_agents = ["red", "blue"]
        self.agents: list[str] = []
        high = np.array([1, 1, 2, 2], np.float32)
        self.observation_spaces = {agent: Box(-high, high) for agent in self.possible_agents}
        self.action_spaces = {agent: Box(-1.0, 1.0, (2,)) for agent in self.possible_agents}
        self.rng = np.random.default_rng()
        self.x, self.t = np.zeros((2, 2)), 0  # positions, steps made

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.x, self.t = self.rng.uniform(-1, 1, (2, 2)), 0
        return self._seen(), self._each({})

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        moves = np.array([actions[agent] for agent in self.possible_agents])
        self.x = np.clip(self.x + STEP * moves, -1, 1)
        self.t += 1
        distance = float(np.linalg.norm(self.x[1] - self.x[0]))
        # a meeting is terminal: nothing follows it. The limit is not, so learners bootstrap there: say which it was.
        met, late = distance < REACH, self.t >= LIMIT
        result = self._seen(), self._each(-distance), self._each(met), self._each(late and not met), self._each({})
        if met or late:
            self.agents = []
        return result

    def render(self) -> np.ndarray | None:
        """Both points on white: (SIDE, SIDE, 3) uint8."""
        if self.render_mode != "rgb_array":
            return None
        picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
        across = np.linspace(-1.1, 1.1, SIDE)
        for position, colour in zip(self.x, COLOURS):
            squares = (across - position[0]) ** 2 + (across[::-1, None] - position[1]) ** 2
            picture[squares < (REACH / 2) ** 2] = colour
        return picture

    def _seen(self) -> dict[str, np.ndarray]:
        seen = [np.concatenate([self.x[i], self.x[1 - i] - self.x[i]]).astype(np.float32) for i in range(2)]
        return dict(zip(self.possible_agents, seen))

    def _each(self, value: Any) -> dict[str, Any]:
        return dict.fromkeys(self.possible_agents, value)


def make_env(render_mode: str | None = None) -> Meet:
    """What --env names."""
    return Meet(render_mode)
