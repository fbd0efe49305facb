"""Small PettingZoo ParallelEnvs, shaped as real SMAC's wrapper is and as today's API asks.

Marines stand in a row of six places, the enemy at place 5. Who is there may attack; each attack takes a point of the
enemy's four. Every third step the enemy hits the first marine alive; two hits kill.
"""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

PLACES, LIMIT = 6, 12
WIDTH = 5  # own place, own health, the enemy's points, time, something random


class Game:
    """What SMAC's wrapper holds as .env."""

    win_counted = False


class Battle:
    """As smac.env.pettingzoo.StarCraft2PZEnv: masks in the observation, reset gives no infos and ignores a seed,
    the dead leave, and at the time limit all are terminated and truncated. Actions: 0 stop, 1 back, 2 on, 3 attack.
    """

    def __init__(self) -> None:
        self.possible_agents = ["marine_0", "marine_1", "marauder_2"]
        self.agents: list[str] = []
        self.env = Game()
        self.rng = np.random.default_rng(5)

    def observation_space(self, agent: str) -> Any:
        low = Box(-1, 1, (WIDTH,), np.float32)
        return Dict({"observation": low, "action_mask": Box(0, 1, (4,), np.int8)})

    def action_space(self, agent: str) -> Any:
        return Discrete(4)

    def restart(self) -> dict[str, Any]:
        self.agents = list(self.possible_agents)
        self.place = dict.fromkeys(self.agents, 1)
        self.health = dict.fromkeys(self.agents, 2)
        self.enemy, self.time, self.env.win_counted = 4, 0, False
        return self.shown()

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return self.restart()

    def shown(self) -> dict[str, Any]:
        return {agent: {"observation": self.sight(agent), "action_mask": self.legal(agent)} for agent in self.agents}

    def sight(self, agent: str) -> np.ndarray:
        numbers = [self.place[agent] / PLACES, self.health[agent] / 2, self.enemy / 4, self.time / LIMIT]
        return np.array([*numbers, self.rng.random()], np.float32)

    def legal(self, agent: str) -> np.ndarray:
        at = self.place[agent]
        return np.array([1, at > 0, at < PLACES - 1, at == PLACES - 1], np.int8)

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        acting, before = list(self.agents), self.enemy
        assert set(actions) <= set(acting), "a dead agent acted"
        for agent, act in actions.items():
            assert self.legal(agent)[act], "an action that is not available"
            self.place[agent] += (0, -1, 1, 0)[act]
            self.enemy -= act == 3
        self.time += 1
        if self.time % 3 == 0 and self.enemy > 0:
            self.health[acting[0]] -= 1
        won = self.enemy <= 0
        self.env.win_counted = won
        dead = {agent for agent in acting if self.health[agent] == 0}
        late = self.time >= LIMIT
        shown = self.shown()
        ends = {agent: won or agent in dead or late for agent in acting}
        cuts = dict.fromkeys(acting, late)
        self.agents = [] if won or late else [agent for agent in acting if agent not in dead]
        reward = (before - max(self.enemy, 0)) / 4 + won
        return {a: shown[a] for a in acting}, dict.fromkeys(acting, reward), ends, cuts, {a: {} for a in acting}


def parallel_env() -> Battle:
    return Battle()


class Today(Battle):
    """Masks and victories in infos, reset as the API has it now, a time limit that only truncates, unequal agents."""

    def observation_space(self, agent: str) -> Any:
        return Box(-1, 1, (WIDTH - (agent == "marine_1"),), np.float32)

    def action_space(self, agent: str) -> Any:
        return Discrete(3 if agent == "marauder_2" else 4)  # it cannot attack

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.rng = np.random.default_rng(seed)
        return self.restart(), self.infos(self.agents)

    def shown(self) -> dict[str, Any]:
        return {agent: self.sight(agent) for agent in self.agents}

    def sight(self, agent: str) -> np.ndarray:
        return super().sight(agent)[agent == "marine_1" :]

    def infos(self, agents: list[str]) -> dict[str, Any]:
        n = {agent: self.action_space(agent).n for agent in agents}
        return {a: {"action_mask": self.legal(a)[: n[a]], "battle_won": self.env.win_counted} for a in agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        acting = list(self.agents)
        shown, rewards, ends, _, _ = super().step(actions)
        late = self.time >= LIMIT and not self.env.win_counted
        ends = {a: self.env.win_counted or self.health[a] == 0 for a in acting} if late else ends
        return shown, rewards, ends, dict.fromkeys(acting, late), self.infos(acting)


def today() -> Today:
    return Today()


def wrong() -> Any:
    game = Battle()
    game.action_space = lambda agent: Box(-1, 1, (2,))  # pyright: ignore
    return game


def dumb() -> Any:
    return object()


def narrow() -> Battle:
    game = Battle()
    game.legal = lambda agent: np.ones(3, np.int8)
    return game


def far() -> Battle:
    game = Battle()
    game.sight = lambda agent: np.full(WIDTH, 1e6, np.float32)
    return game


def bare() -> Battle:
    """Observations in dicts, without masks."""
    game = Battle()
    game.shown = lambda: {agent: {"observation": game.sight(agent)} for agent in game.agents}
    return game


class Split(Today):
    """Observations in dicts, masks in infos."""

    def observation_space(self, agent: str) -> Any:
        return Dict({"observation": super().observation_space(agent)})

    def shown(self) -> dict[str, Any]:
        return {agent: {"observation": self.sight(agent)} for agent in self.agents}


def split() -> Split:
    return Split()


def broken() -> Any:
    raise AttributeError("a mistake of its own")
