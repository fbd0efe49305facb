"""Any cooperative PettingZoo ParallelEnv with Discrete actions, whose agents may die and leave: module:factory.

So real SMAC, where StarCraft II is installed: smac.env.pettingzoo.StarCraft2PZEnv:parallel_env, or a function of your
own that calls it with the name of a map.

- A mask of legal actions comes in the observation, {"observation": ..., "action_mask": ...}, or in infos[agent]
  ["action_mask"]; without one everything is legal.
- An agent that is terminated, or is missing from the observations, is dead: it sees zeros and has one action, the last
  one, "nothing", which is not sent and no living agent has. An episode ends when all are terminated or have left.
- Where any agent is truncated, the time limit ended the episode, also if all are terminated too, as in SMAC's wrapper;
  but a battle that is won is over.
- The team reward is the mean of those that are there.
- Won is infos[agent]["battle_won"], or what the game counts in env.env.win_counted; else it is not known.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from common.errors import UsageError
from envs.errors import blaming
from envs.factory import create
from smac.envs.base import MaskedEnv


class ParallelGames(MaskedEnv):
    """See above. An episode starts with `reset(seed=...)`, a number from the game's generator, so that this number and
    the actions since then make up the state: a resumed run plays them again.
    """

    def __init__(self, name: str, seeds: Sequence[int], copies: int, max_ep_len: int):
        self.games = [[_create(name) for _ in range(copies)] for _ in seeds]
        game = self.games[0][0]
        with blaming(f"--env {name!r}: asking for its agents and spaces"):
            self.agents = list(game.possible_agents)
            acts = [_discrete(name, game.action_space(agent), agent) for agent in self.agents]
            seen = [_width(name, game.observation_space(agent), agent) for agent in self.agents]
        self.begun = np.zeros((len(seeds), copies), np.int64)  # the seed that each game's episode started with
        self.played = np.zeros((len(seeds), copies, max_ep_len, len(self.agents)), np.uint8)
        columns, numbers = np.arange(max(acts) + 1), np.arange(max(seen))
        self.real = columns < np.array(acts)[:, None]  # (N, A), without "nothing", which is the last column
        act_mask, obs_mask = self.real | (columns == max(acts)), numbers < np.array(seen)[:, None]
        super().__init__(name, seeds, copies, obs_mask, act_mask, max_ep_len)

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        self.begun[row, copy] = int(self.rng(row, copy).integers(2**31))
        return self._again(row, copy)

    def _again(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        """Reset a game to the start of its episode."""
        out = self.games[row][copy].reset(seed=int(self.begun[row, copy]))
        shown, infos = out if isinstance(out, tuple) else (out, {})  # SMAC's wrapper is older than infos
        return self._see(shown, infos, set())

    def _play(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        self.played[row, copy, self.t[row, copy] % self.max_ep_len] = act
        return self._move(row, copy, act)

    def _move(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        game, nothing = self.games[row][copy], self.n_act - 1
        shown, rewards, ends, cuts, infos = game.step({a: int(k) for a, k in zip(self.agents, act) if k != nothing})
        won, cut = _won(game, infos), any(cuts.values())
        over = not game.agents or all(ends.get(agent) or agent not in shown for agent in self.agents)
        # at a time limit SMAC's wrapper calls all of them terminated too, but what they see there still counts
        dead = {agent for agent in self.agents if ends.get(agent) and not cuts.get(agent)}
        terminated = over and (not cut or won == 1)
        rew = float(np.mean(list(rewards.values()))) if rewards else 0.0
        return *self._see(shown, infos, dead), rew, terminated, (cut or over) and not terminated, won

    def _see(self, shown: dict[str, Any], infos: dict[str, Any], dead: set[str]) -> tuple[np.ndarray, np.ndarray]:
        obs, avail = np.zeros(self.obs_mask.shape, np.float32), np.zeros(self.act_mask.shape, bool)
        for i, agent in enumerate(self.agents):
            if agent not in shown or agent in dead:
                avail[i, -1] = True
                continue
            sight, legal = shown[agent], infos.get(agent, {}).get("action_mask")
            if isinstance(sight, dict):
                legal, sight = sight.get("action_mask", legal), sight["observation"]
            obs[i, self.obs_mask[i]] = np.ravel(sight)
            if np.size(legal) != (n := self.real[i].sum()) and legal is not None:
                raise UsageError(
                    f"--env {self.name!r}: an action_mask of {agent} has {np.size(legal)} numbers, not one for each of "
                    f"its {n} actions"
                )
            avail[i, self.real[i]] = True if legal is None else np.asarray(legal, bool)
            if not avail[i].any():
                raise UsageError(f"--env {self.name!r}: {agent} is alive and its action_mask allows nothing")
        return obs, avail

    def _save(self, row: int, copy: int) -> dict[str, Any]:
        played = self.played[row, copy, : self.t[row, copy]].copy()
        return {"begun": int(self.begun[row, copy]), "played": played}

    def _load(self, row: int, copy: int, state: dict[str, Any]) -> None:
        self.begun[row, copy], played = state["begun"], state["played"]
        self.played[row, copy, : len(played)] = played
        again = np.zeros_like(self.obs[row, :, copy])

        def replay(row: int, copy: int) -> None:
            again[:], _ = self._again(row, copy)
            for act in played:
                again[:], *_ = self._move(row, copy, act)

        where = np.arange(self.t.size).reshape(self.t.shape) == row * self.copies + copy
        self._each(where, replay)
        if not np.array_equal(again.astype(np.float16).astype(np.float32), self.obs[row, :, copy], equal_nan=True):
            text = f"{self.name}: does not repeat itself from the same seed and actions"
            print(f"{text}, so the resumed run starts a new episode instead", file=sys.stderr)
            self.anew[row, copy] = True
            self.reset(where)

    def table(self) -> str:
        lines = ["agent  sees and may do"]
        for i, agent in enumerate(self.agents):
            n_obs, n_act = self.obs_mask[i].sum(), self.real[i].sum()
            lines.append(f"{i:<5}  {agent}: {n_obs} numbers, {n_act} actions, and {self.n_act - 1} nothing where dead")
        return "\n".join(lines)

    def describe(self, row: int = 0, copy: int = 0) -> str:
        dead = self.avail[row, :, copy, -1]
        return f"alive {' '.join(agent for agent, gone in zip(self.agents, dead) if not gone) or 'none'}"

    def close(self) -> None:
        for games in self.games:
            for game in games:
                game.close()


def _create(name: str) -> Any:
    game = create(name)
    missing = [part for part in ("possible_agents", "action_space", "observation_space") if not hasattr(game, part)]
    if missing:
        raise UsageError(f"--env {name!r}: returns a {type(game).__name__}, not a ParallelEnv: no {missing[0]}")
    return game


def _discrete(name: str, space: Any, agent: str) -> int:
    if not isinstance(space, Discrete) or space.start != 0:
        raise UsageError(f"--env {name!r}: the action space of {agent} is {space}; only Discrete(n) can be learnt here")
    return int(space.n)


def _width(name: str, space: Any, agent: str) -> int:
    inner = space["observation"] if isinstance(space, Dict) and "observation" in space.spaces else space
    if not isinstance(inner, Box):
        raise UsageError(f"--env {name!r}: the observation space of {agent} is {inner}; only Box can be learnt on here")
    return int(np.prod(inner.shape))


def _won(game: Any, infos: dict[str, Any]) -> float:
    for info in infos.values():
        if "battle_won" in info:
            return float(info["battle_won"])
    counted = getattr(getattr(game, "env", None), "win_counted", None)
    return float("nan") if counted is None else float(counted)
