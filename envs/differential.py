"""The differential games: n agents each push one coordinate of a point, and see all of it.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm"; the formula is that of the released code.
All rows are one array; only a reset goes from row to row, as each has its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.vector import VectorEnv

RADIUS = {1: 0.10, 2: 0.12, 3: 0.25, 4: 0.38, 5: 0.51}  # m: where the reward around the centre ends, by number of agents
STEP = 0.1  # how far a full action moves its coordinate


def reward(x: np.ndarray, m: float) -> np.ndarray:
    """r(x) for x (..., n): one narrow hill at the centre, one wide and low ring around it.

        l = sqrt(2/n sum_i x_i^2)
        r = .5 (cos(pi l / m) + 1)        l < m         the centre, at most 1
            0                             m <= l < .6
            .15 (cos(15 (l - .8)) + 1)    .6 <= l < 1   the ring, at most .3
            0                             1 <= l
    """
    l = np.sqrt(2.0 / x.shape[-1] * np.square(x).sum(-1))  # noqa: E741 (the paper's letter)
    centre = 0.5 * (np.cos(np.pi * l / m) + 1)
    ring = 0.15 * (np.cos(15 * (l - 0.8)) + 1)
    return np.where(l < m, centre, np.where((l >= 0.6) & (l < 1), ring, 0.0))


class DifferentialGame(VectorEnv):
    """x_i <- clip(x_i + .1 a_i, -1, 1); the reward is that of the state BEFORE the move; never terminal.

    | index | observation, the same for every agent | unit   | range   |
    |-------|---------------------------------------|--------|---------|
    | i     | x_i, the coordinate of agent i        | length | [-1, 1] |

    | action of agent i | push on x_i, .1 a step at most | [-1, 1] |

    A reset draws x uniformly from [-1, 1]^n.
    """

    family = "differential"

    def __init__(self, name: str, seeds: Sequence[int], n: int, max_ep_len: int) -> None:
        super().__init__(name, seeds, np.ones((n, n), bool), np.ones((n, 1), bool), max_ep_len)

    def reseed(self, seeds: Sequence[int], *, first: bool = False) -> None:
        super().reseed(seeds, first=first)
        self.x = np.zeros((len(seeds), self.n_agents))  # float64: .1 steps add up exactly the same on every machine
        self.path = np.zeros((len(seeds), self.max_ep_len + 1, self.n_agents), np.float32)  # for render only

    def _restart(self, rows: np.ndarray) -> None:
        for row in rows:
            self.x[row] = self.rngs[row].uniform(-1, 1, self.n_agents)
        self.path[rows, 0] = self.x[rows]
        self.obs[rows] = self._see()[rows]

    def _advance(self, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rew = reward(self.x, RADIUS[self.n_agents])
        self.x = np.clip(self.x + STEP * self._move(act[..., 0].astype(np.float64)), -1, 1)
        self.path[np.arange(len(self.x)), np.minimum(self.t + 1, self.max_ep_len)] = self.x
        return self._see(), rew, np.zeros(len(self.x), bool)

    def _move(self, act: np.ndarray) -> np.ndarray:
        """The moves (S, N) that the actions (S, N) become."""
        return act

    def _see(self) -> np.ndarray:
        return np.repeat(self.x[:, None].astype(np.float32), self.n_agents, axis=1)

    def _save(self, row: int) -> dict[str, Any]:
        return {"x": self.x[row].copy(), "path": self.path[row, : self.t[row] + 1].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        self.x[row] = state["x"]
        self.path[row, : len(state["path"])] = state["path"]

    def table(self) -> str:
        n = self.n_agents
        sees = " ".join(f"x{i}" for i in range(n))
        lines = [f"{self.name}: {n} agents, each sees the whole state"]
        lines += [f"  agent {i}  sees {sees} (position, length)  drives x{i} ({STEP} a step at most, length)" for i in range(n)]
        return "\n".join(lines)


class StochasticDifferentialGame(DifferentialGame):
    """The differential game in which an agent's push slips: with probability .3, independently for each agent and step, it is replaced
    by a push drawn uniformly from [-1, 1]. Everything else is as in DifferentialGame.

    This definition is ours: the paper's stochastic games are not described in what we have of it, and are not in the released code.
    Why this one: an agent cannot tell a team-mate's slip from a team-mate's change of policy, which is what a decentralised learner faces,
    and s'* becomes a successor that nobody can pick for certain, which is where I2Q's theory (deterministic games) ends. The mean push
    is only scaled by .7, so the centre can still be reached and held, and the best policy stays the same.
    """

    SLIP = 0.3

    def reseed(self, seeds: Sequence[int], *, first: bool = False) -> None:
        super().reseed(seeds, first=first)
        self.noise = np.zeros((len(seeds), self.max_ep_len, 2, self.n_agents))  # drawn whole at reset: no loop over rows in step

    def _restart(self, rows: np.ndarray) -> None:
        super()._restart(rows)
        for row in rows:
            self.noise[row] = self.rngs[row].random(self.noise.shape[1:])

    def _move(self, act: np.ndarray) -> np.ndarray:
        chance, push = np.moveaxis(self.noise[np.arange(len(act)), self.t % self.max_ep_len], 1, 0)
        return np.where(chance < self.SLIP, 2 * push - 1, act)

    def _save(self, row: int) -> dict[str, Any]:
        return {**super()._save(row), "noise": self.noise[row].copy()}

    def _load(self, row: int, state: dict[str, Any]) -> None:
        super()._load(row, state)
        self.noise[row] = state["noise"]
