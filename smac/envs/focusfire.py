"""FocusFire-N: a didactic skirmish with masks and deaths, small enough to be solved in a minute.

N agents meet N + 1 enemies. In a step each living agent holds its fire or shoots at a living enemy; an enemy falls only
if two or more shoot at it in the same step. Then every enemy still standing takes a point of health from the first
living agent. Agents have N + 1 points each. Three agents or more who fell one enemy a step win, though some die on the
way; a step in which fire is scattered costs as many points as enemies stand, and with three or four agents one such
step at the start loses. Two agents cannot win: one is dead before the last enemy is felled.

reward = enemies felled in the step / enemies, and 1 more for the last: the best return is 2, of FocusFire-2 2/3.

| index        | observation of agent i                     | unit     | range     |
|--------------|--------------------------------------------|----------|-----------|
| 0            | its own health, over that of the start     |          | [0, 1]    |
| 1 .. N       | health of agent 0 .. N-1, likewise         |          | [0, 1]    |
| N+1 .. 2N+1  | enemy 0 .. N stands                        |          | 0 or 1    |

A dead agent sees zeros. Actions: 0 nothing, which is all that a dead agent may do and what no other may; 1 hold; 2 + k
shoot at enemy k, while it stands. Nothing is random.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from smac.common.picture import Units
from smac.envs.base import MaskedEnv


class FocusFire(MaskedEnv):
    """See above."""

    def __init__(self, name: str, n: int, seeds: Sequence[int], copies: int, max_ep_len: int):
        self.enemies = np.zeros((len(seeds), copies, n + 1), bool)
        self.health = np.zeros((len(seeds), copies, n), np.int64)
        super().__init__(name, seeds, copies, np.ones((n, 2 * n + 2), bool), np.ones((n, n + 3), bool), max_ep_len)

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        self.enemies[row, copy], self.health[row, copy] = True, self.n_agents + 1
        return self._seen(row, copy)

    def _play(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        enemies, health = self.enemies[row, copy], self.health[row, copy]
        shots = np.bincount(act[act >= 2] - 2, minlength=len(enemies))
        felled = enemies & (shots >= 2)
        enemies &= ~felled
        for _ in range(int(enemies.sum())):
            alive = np.flatnonzero(health)
            if len(alive):
                health[alive[0]] -= 1
        won = not enemies.any()
        rew = float(felled.sum()) / len(enemies) + won
        return (*self._seen(row, copy), rew, won or not health.any(), False, float(won))

    def _seen(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        n, health, enemies = self.n_agents, self.health[row, copy] / (self.n_agents + 1), self.enemies[row, copy]
        alive = health > 0
        obs = np.concatenate([health[:, None], np.tile(health, (n, 1)), np.tile(enemies, (n, 1))], 1)
        avail = np.concatenate([np.zeros((n, 1), bool), np.ones((n, 1), bool), np.tile(enemies, (n, 1))], 1)
        return obs * alive[:, None], np.where(alive[:, None], avail, np.arange(n + 3) == 0)

    def _save(self, row: int, copy: int) -> dict[str, Any]:
        return {"enemies": self.enemies[row, copy].copy(), "health": self.health[row, copy].copy()}

    def _load(self, row: int, copy: int, state: dict[str, Any]) -> None:
        self.enemies[row, copy], self.health[row, copy] = state["enemies"], state["health"]

    def table(self) -> str:
        n = self.n_agents
        lines = [
            "agent  sees",
            f"all    0  own health, 1-{n}  health of agents 0-{n - 1}, {n + 1}-{2 * n + 1}  enemies 0-{n} standing",
            "       may do",
            f"       0  nothing (dead), 1  hold, 2-{n + 2}  shoot at enemy 0-{n}; two shots in a step fell one",
        ]
        return "\n".join(lines)

    def describe(self, row: int = 0, copy: int = 0) -> str:
        standing = "".join("x" if enemy else "." for enemy in self.enemies[row, copy])
        return f"health {self.health[row, copy].tolist()}  enemies {standing}"

    def units(self, row: int = 0, copy: int = 0) -> Units:
        n = self.n_agents
        place = np.array([[0.0, n / 2 - i] for i in range(n)] + [[n, n / 2 + 0.5 - i] for i in range(n + 1)])
        return Units(place, np.concatenate([self.health[row, copy], self.enemies[row, copy]]).astype(float), n)

    def target(self, act: np.ndarray) -> np.ndarray:
        return act - 2

    def action_name(self, act: int) -> str:
        return ("nothing", "hold")[act] if act < 2 else f"shoot {act - 2}"
