"""The interface of every environment here: S copies (rows) of one cooperative game, one row a seed.

Shapes: S rows, N agents, O observation and A action numbers of the widest agent. Narrower agents are padded with zeros;
`obs_mask` and `act_mask` say which numbers are real. A row has its own generator and behaves the same whatever other
rows stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from envs.errors import UsageError, each_row


class VectorEnv:
    """S rows of a game with one team reward. A subclass fills in the methods at the end.

    obs       (S, N, O) float32: what the next action is chosen on
    obs_mask  (N, O) bool, act_mask (N, A) bool: False where a dimension is padding
    t         (S,) int: steps since the row was reset
    episode   (S,) int: episodes that ended before the present one, since the row was seeded
    anew      (S,) bool: rows that began a new episode in load_state_dict, as their game does not repeat itself
    """

    family = ""
    fps = 25  # steps per second of a film; MuJoCo's robots have a time step of their own
    side = 480  # pixels, of the square that `render` draws; to be set before the first picture

    def __init__(
        self, name: str, seeds: Sequence[int], obs_mask: np.ndarray, act_mask: np.ndarray, max_ep_len: int
    ) -> None:
        if max_ep_len < 1:
            raise UsageError(f"--max_ep_len {max_ep_len}: an episode has at least 1 step")
        self.name = name
        self.obs_mask, self.act_mask = obs_mask, act_mask
        self.n_agents, self.n_obs = obs_mask.shape
        self.n_act = act_mask.shape[1]
        # arrays as large as what they meet: numpy takes twice the time to make one of a number, or to broadcast one
        acts = len(seeds), *act_mask.shape
        self.least, self.most = np.full(acts, -1, np.float32), np.full(acts, 1, np.float32)
        self.one, self.limit = np.full(len(seeds), 1), np.full(len(seeds), max_ep_len)
        self.max_ep_len = max_ep_len
        self.seeds, self.rows = tuple(seeds), np.arange(len(seeds))
        self.reseed(seeds)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Fresh generators from these ints, one a row, as if the environment were newly made; `reset` comes next."""
        assert len(seeds) == len(self.seeds), f"{len(seeds)} seeds for {len(self.seeds)} rows"
        self.seeds = tuple(int(seed) for seed in seeds)
        self.rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in self.seeds]
        self.obs = np.zeros((len(self.seeds), self.n_agents, self.n_obs), np.float32)
        self.t = np.zeros(len(self.seeds), np.int64)
        self.episode = np.full(len(self.seeds), -1)  # before the first reset
        self.anew = np.zeros(len(self.seeds), bool)

    def reset(self, where: np.ndarray | None = None) -> np.ndarray:
        """Start a new episode in the rows where `where` (S,) is True, in all if None. Returns obs (S, N, O)."""
        rows = self.rows if where is None else np.flatnonzero(where)
        if len(rows):
            self.obs = self.obs.copy()  # the caller may still hold the last successor
            self.t[rows] = 0
            self.episode[rows] += 1
            self._restart(rows)
        return self.obs

    def step(
        self, act: np.ndarray, where: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every row with act (S, N, A) in [-1, 1], clipped to it.

        Returns the true successor (S, N, O) float32, the team reward (S,) float64, terminated (S,) and truncated (S,).
        Nothing restarts by itself: call `reset(terminated | truncated)`. Truncated is the time limit, never terminal.
        Rows where `where` (S,) is False need no step: it is spared where it costs, and what is returned of them means
        nothing until they are reset. Raises RowsBroken where an environment of a row fails by itself, UsageError where
        the actions are of another shape.
        """
        if np.shape(act) != self.least.shape:  # numpy would repeat a single agent's, number's or row's
            raise UsageError(
                f"{self.name}: actions of the shape {np.shape(act)}, not {self.least.shape}: rows, agents, action "
                "numbers of the widest agent"
            )
        rows = self.rows if where is None else np.flatnonzero(where)
        self.obs, rew, terminated = self._advance(clip(act, self.least, self.most), rows)
        self.t = self.t + self.one  # half the time of += for so few
        return self.obs, rew, terminated, self.t >= self.limit

    def state_dict(self, row: int) -> dict[str, np.ndarray | int | float | str]:
        """Everything of this row, as arrays, numbers and strings."""
        rng = json.dumps(self.rngs[row].bit_generator.state)  # JSON, as its integers have 128 bits
        counts = {"t": int(self.t[row]), "episode": int(self.episode[row])}
        return {**counts, "rng": rng, "obs": self.obs[row].copy(), **self._save(row)}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was taken, in this or another process, in this or another row."""
        self.t[row], self.episode[row] = state["t"], state["episode"]
        self.rngs[row].bit_generator.state = json.loads(state["rng"])
        self.obs = self.obs.copy()
        self.obs[row] = state["obs"]
        self._load(row, state)

    def table(self) -> str:
        """What each agent sees and drives: index, meaning, unit."""
        sees = [self._sees(i) for i in range(self.n_agents)]
        drives = [[f"{k}  {text}" for k, text in enumerate(self._drives(i))] for i in range(self.n_agents)]
        lines = [("agent", "sees", "drives")]
        if all(seen == sees[0] for seen in sees):  # say once what all of them see
            lines += [("all", seen, "") for seen in sees[0]]
            sees = [[] for _ in sees]
        for i in range(self.n_agents):
            for k, (seen, driven) in enumerate(zip_longest(sees[i], drives[i], fillvalue="")):
                lines.append((str(i) if k == 0 else "", seen, driven))
        width = max(len(seen) for _, seen, _ in lines)
        return "\n".join(f"{agent:5}  {seen:{width}}  {driven}".rstrip() for agent, seen, driven in lines)

    def close(self) -> None:
        """Give back windows and contexts."""

    def render(self, row: int = 0) -> np.ndarray:
        """A picture of this row: (side, side, 3) uint8; a ParallelEnv of yours draws at its own size."""
        raise NotImplementedError

    def _each(self, rows: np.ndarray, do: Callable[[int], None]) -> None:
        """do(row) in all of these rows, also after one of them has failed. Raises RowsBroken where some have."""
        each_row(rows.tolist(), do, len(self.seeds))  # numpy's integers index lists slowly

    def _restart(self, rows: np.ndarray) -> None:
        """Start an episode in these rows; write self.obs[rows]."""
        raise NotImplementedError

    def _advance(self, act: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """act (S, N, A) in [-1, 1] -> fresh next_obs (S, N, O), rew (S,), terminated (S,), of which `rows` count."""
        raise NotImplementedError

    def _save(self, row: int) -> dict[str, Any]:
        """What this row's game is in, beside t, generator and obs."""
        raise NotImplementedError

    def _load(self, row: int, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def _sees(self, agent: int) -> list[str]:
        """One line for each number (or run of numbers) of the agent's observation, with its index and unit."""
        raise NotImplementedError

    def _drives(self, agent: int) -> list[str]:
        """One line for each number of the agent's action."""
        raise NotImplementedError


def steps(n_rows: int, max_ep_len: int, *shape: int, dtype: type = np.float32) -> np.ndarray:
    """Zeros for each step of an episode: (n_rows, max_ep_len, *shape). ValueError where there is no memory for them."""
    try:
        return np.zeros((n_rows, max_ep_len, *shape), dtype)
    except (MemoryError, ValueError) as error:
        raise UsageError(f"an episode of {max_ep_len} steps (--max_ep_len, --test_ep_len): {error}") from None


def clip(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """np.clip, which spends 5 us on its way to these two; NaN stays NaN."""
    return np.minimum(np.maximum(x, low), high)


def mask(widths: Iterable[int]) -> np.ndarray:
    """(N, widest) bool: row i has its first widths[i] entries True."""
    counts = np.array(list(widths))
    return np.arange(counts.max()) < counts[:, None]
