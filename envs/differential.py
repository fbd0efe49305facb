"""The differential games: n agents each push one coordinate of a point, and see all of it.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm"; the formula is that of the released code.
Departure: pi is not rounded to 3.14.
All rows are one array; only a reset goes from row to row, as each has its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.vector import VectorEnv, clip, steps

RADIUS = {1: 0.10, 2: 0.12, 3: 0.25, 4: 0.38, 5: 0.51}  # m, the radius of the hill at the centre, by number of agents
STEP = 0.1  # how far a full action moves its coordinate


def length(x: np.ndarray) -> np.ndarray:
    """l = sqrt(2/n sum_i x_i^2) of x (..., n)."""
    return np.sqrt(2.0 / x.shape[-1] * np.square(x).sum(-1))


def reward(x: np.ndarray) -> np.ndarray:
    """r(x) for x (..., n): a narrow hill at the centre inside a wide and low ring; l is its length.

    r = .5 (cos(pi l / m) + 1)        l < m          the hill, at most 1
        0                             m <= l < .6
        .15 (cos(15 (l - .8)) + 1)    .6 <= l < 1    the ring, at most .3
        0                             1 <= l
    """
    l, radius = length(x), RADIUS[x.shape[-1]]
    hill = 0.5 * (np.cos(np.pi * l / radius) + 1)
    ring = 0.15 * (np.cos(15 * (l - 0.8)) + 1)
    return np.where(l < radius, hill, np.where((l >= 0.6) & (l < 1), ring, 0.0))


class DifferentialGame(VectorEnv):
    """x_i <- clip(x_i + .1 a_i, -1, 1). The reward is r of the state BEFORE the move. Never terminal.

    | index | observation, the same for every agent  | unit   | range   |
    |-------|----------------------------------------|--------|---------|
    | j     | x_j, the coordinate that agent j moves | length | [-1, 1] |

    A reset draws x uniformly from [-1, 1]^n.
    """

    family = "differential"

    def __init__(self, name: str, seeds: Sequence[int], n: int, max_ep_len: int) -> None:
        super().__init__(name, seeds, np.ones((n, n), bool), np.ones((n, 1), bool), max_ep_len)

    def reseed(self, seeds: Sequence[int]) -> None:
        super().reseed(seeds)
        self.x = np.zeros((len(seeds), self.n_agents))
        self.path = steps(len(seeds), self.max_ep_len + 1, self.n_agents)  # for `render` only

    def _restart(self, rows: np.ndarray) -> None:
        for row in rows:
            self.x[row] = self.rngs[row].uniform(-1, 1, self.n_agents)
        self.path[rows, 0] = self.x[rows]
        self.obs[rows] = self._see()[rows]

    def _advance(self, act: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rew = reward(self.x)
        self.x = clip(self.x + STEP * self._push(act[..., 0].astype(np.float64)), -1, 1)
        self.path[np.arange(len(self.x)), np.minimum(self.t + 1, self.max_ep_len)] = self.x
        return self._see(), rew, np.zeros(len(self.x), bool)

    def _push(self, act: np.ndarray) -> np.ndarray:
        """What becomes of the actions (S, N)."""
        return act

    def _see(self) -> np.ndarray:
        return np.repeat(self.x[:, None].astype(np.float32), self.n_agents, axis=1)

    def _save(self, row: int) -> dict[str, Any]:
        return {"x": self.x[row].copy(), "path": self.path[row, : self.t[row] + 1].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        self.x[row] = state["x"]
        self.path[row, : len(state["path"])] = state["path"]

    def _sees(self, agent: int) -> list[str]:
        return [f"{j}  x{j}, position, length in [-1, 1]" for j in range(self.n_agents)]

    def _drives(self, agent: int) -> list[str]:
        return [f"x{agent}, {STEP} length a step at most"]

    def render(self, row: int = 0) -> np.ndarray:
        """The reward over x0 and x1 (the others as they are now) and the path so far; for n = 1 the reward's curve."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # late; without pyplot: no display
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.8, 4.8), dpi=self.side / 4.8, layout="constrained")
        canvas, axes = FigureCanvasAgg(figure), figure.add_subplot(xlabel="x0")
        path, grid = self.path[row, : self.t[row] + 1], np.linspace(-1, 1, 201)
        if self.n_agents == 1:
            axes.plot(grid, reward(grid[:, None]), color="0.6")
            across, up = path[:, 0], reward(path.astype(np.float64))
            axes.set_ylabel("reward")
        else:
            x = np.broadcast_to(self.x[row], (201, 201, self.n_agents)).copy()
            x[..., 0], x[..., 1] = np.meshgrid(grid, grid)
            axes.imshow(reward(x), origin="lower", extent=(-1, 1, -1, 1), vmin=0, vmax=1, cmap="viridis")
            across, up = path[:, 0], path[:, 1]
            axes.set_ylabel("x1")
        axes.plot(across, up, "-", color="tab:red", linewidth=1)
        axes.plot(across[-1:], up[-1:], "o", color="tab:red")
        axes.set_title(f"{self.name}, step {self.t[row]}")
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]


class StochasticDifferentialGame(DifferentialGame):
    """The differential game in which pushes slip: with probability .3, drawn for each agent and step by itself, a push
    is replaced by one drawn uniformly from [-1, 1]. Everything else is as in DifferentialGame.

    This definition is ours: what we have of the paper does not describe its stochastic games, nor does the released
    code contain them. Why this one: a team-mate's slip looks to an agent like a team-mate's exploration, so the agent
    has to tell luck from a better joint action, which is what decentralised learning finds hard; and no successor can
    be chosen for certain any more, which is where I2Q's theory (deterministic games) ends. The mean push only shrinks,
    to .7 of what was meant, so that the centre can still be reached and nearly held.
    """

    SLIP = 0.3  # probability, per agent and step

    def reseed(self, seeds: Sequence[int]) -> None:
        super().reseed(seeds)
        # (S, T, 2, N), chance and push: drawn for a whole episode at its start, so that no step goes from row to row
        self.noise = steps(len(seeds), self.max_ep_len, 2, self.n_agents, dtype=np.float64)

    def _restart(self, rows: np.ndarray) -> None:
        super()._restart(rows)
        for row in rows:
            self.noise[row] = self.rngs[row].random(self.noise.shape[1:])

    def _push(self, act: np.ndarray) -> np.ndarray:
        noise = self.noise[np.arange(len(act)), self.t % self.max_ep_len]
        return np.where(noise[:, 0] < self.SLIP, 2 * noise[:, 1] - 1, act)

    def _save(self, row: int) -> dict[str, Any]:
        return {**super()._save(row), "noise": self.noise[row].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        super()._load(row, state)
        self.noise[row] = state["noise"]

    def _drives(self, agent: int) -> list[str]:
        return [f"{super()._drives(agent)[0]}, uniform with probability {self.SLIP}"]
