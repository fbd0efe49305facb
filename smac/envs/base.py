"""What every environment of the recurrent learners is: S seeds times L copies of a game with one team reward.

Agents choose among numbered actions, not all of which are legal at all times, and may die before the episode ends.
Narrower agents are padded: `obs_mask` (N, O) and `act_mask` (N, A) say what is real, and what is padded is never legal.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.errors import UsageError
from envs.errors import each_row
from smac.common.picture import Units


class MaskedEnv:
    """A subclass fills in `_start` and `_play`, or `_restart` and `_advance` for many games at once, `_save`, `_load`.

    obs    (S, N, L, O) float32, rounded to float16: what the next action is chosen on; zero for an agent that is dead
    avail  (S, N, L, A) bool: the actions that are legal now; each agent has one, a dead one too
    t      (S, L) int: steps since the episode began
    anew   (S, L) bool: those that began a new episode in load_state_dict, as their game does not repeat itself
    won    (S, L) float: 1 where the step just taken won the episode, else 0; NaN in a game that does not tell
    """

    def __init__(
        self, name: str, seeds: Sequence[int], copies: int, obs_mask: np.ndarray, act_mask: np.ndarray, max_ep_len: int
    ):
        self.name, self.seeds, self.copies, self.max_ep_len = name, tuple(seeds), copies, max_ep_len
        self.obs_mask, self.act_mask = obs_mask, act_mask
        (self.n_agents, self.n_obs), self.n_act = obs_mask.shape, act_mask.shape[1]
        if self.n_act > 256:
            raise UsageError(f"--env {name!r}: {self.n_act} actions; the replay stores at most 256")
        S, N, L = len(seeds), self.n_agents, copies
        self.obs, self.avail = np.zeros((S, N, L, self.n_obs), np.float32), np.zeros((S, N, L, self.n_act), bool)
        self.t, self.won = np.zeros((S, L), np.int64), np.zeros((S, L))
        self.ret = np.zeros((S, L))  # of the episode so far
        self.anew = np.zeros((S, L), bool)
        self.reseed([seed if k == 0 else _further(seed, k) for seed in seeds for k in range(copies)])

    def reseed(self, seeds: Sequence[int]) -> None:
        """Fresh generators, one for each copy of each seed; `reset` comes next."""
        self.rngs = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self.t[:], self.ret[:] = 0, 0

    def reset(self, where: np.ndarray | None = None) -> None:
        """Start a new episode where `where` (S, L) is True, everywhere if None."""
        where = np.ones(self.t.shape, bool) if where is None else where
        self.obs, self.avail = self.obs.copy(), self.avail.copy()  # the caller may still hold the last ones
        self.t[where], self.ret[where] = 0, 0
        self._restart(where)
        self._check(where)

    def step(self, act: np.ndarray, where: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One step with act (S, N, L) where `where` (S, L) is True; sets obs and avail to those of the true successor.

        Returns the team reward, terminated and truncated, each (S, L). Truncated is the time limit, never terminal.
        Nothing restarts by itself: call `reset(terminated | truncated)`. Raises RowsBroken where a seed's game fails.
        """
        where = np.ones(self.t.shape, bool) if where is None else where
        legal = np.take_along_axis(self.avail, act[..., None], -1)[..., 0]
        assert legal.swapaxes(1, 2)[where].all(), "an action that is not available"
        self.obs, self.avail, self.won = self.obs.copy(), self.avail.copy(), np.zeros(self.t.shape)
        rew, terminated, truncated = np.zeros(self.t.shape), np.zeros(self.t.shape, bool), np.zeros(self.t.shape, bool)
        self._advance(act, where, rew, terminated, truncated)
        self._check(where)
        self.t += where
        self.ret += rew
        return rew, terminated, (truncated | (self.t >= self.max_ep_len)) & ~terminated

    def _check(self, where: np.ndarray) -> None:
        try:
            with np.errstate(over="raise"):
                self.obs = self.obs.astype(np.float16).astype(np.float32)  # what the replay can hold
        except FloatingPointError:
            largest = np.abs(self.obs[np.isfinite(self.obs)]).max()
            raise UsageError(
                f"--env {self.name!r}: an agent sees the number {largest:.3g}, and observations are kept as float16, "
                "within 65504 of zero: scale yours"
            ) from None
        assert self.avail.any(-1).swapaxes(1, 2)[where].all(), f"{self.name}: an agent without a legal action"

    def _restart(self, where: np.ndarray) -> None:
        """Begin the episodes of `where`: write obs and avail there."""

        def start(row: int, copy: int) -> None:
            self.obs[row, :, copy], self.avail[row, :, copy] = self._start(row, copy)

        self._each(where, start)

    def _advance(
        self, act: np.ndarray, where: np.ndarray, rew: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> None:
        """Play act (S, N, L) in `where`: write obs, avail and won there, and into the last three, (S, L)."""

        def play(row: int, copy: int) -> None:
            at = row, copy
            seen, avail, *paid = self._play(row, copy, act[row, :, copy])
            self.obs[row, :, copy], self.avail[row, :, copy] = seen, avail
            rew[at], terminated[at], truncated[at], self.won[at] = paid

        self._each(where, play)

    def _each(self, where: np.ndarray, do: Callable[[int, int], None]) -> None:
        """do(row, copy) in all of `where` (S, L), also after a seed's game has failed. Raises RowsBroken for those."""

        def do_row(row: int) -> None:
            for copy in np.flatnonzero(where[row]).tolist():
                do(row, copy)

        each_row(range(len(where)), do_row, len(self.seeds))

    def rng(self, row: int, copy: int) -> np.random.Generator:
        return self.rngs[row * self.copies + copy]

    def state_dict(self, row: int) -> dict[str, Any]:
        """Everything of this seed, as arrays, numbers and strings."""
        rngs = [json.dumps(self.rng(row, copy).bit_generator.state) for copy in range(self.copies)]
        arrays = {name: getattr(self, name)[row].copy() for name in ("t", "ret", "obs", "avail")}
        return {**arrays, "rngs": rngs, **{f"game{k}": self._save(row, k) for k in range(self.copies)}}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was taken, in this or another process, in this or another row."""
        self.obs, self.avail = self.obs.copy(), self.avail.copy()
        for name in ("t", "ret", "obs", "avail"):
            getattr(self, name)[row] = state[name]
        for copy, text in enumerate(state["rngs"]):
            self.rng(row, copy).bit_generator.state = json.loads(text)
            self._load(row, copy, state[f"game{copy}"])

    def table(self) -> str:
        """What each agent sees and may do."""
        raise NotImplementedError

    def describe(self, row: int = 0, copy: int = 0) -> str:
        """One line on how the game stands, for watching."""
        raise NotImplementedError

    def units(self, row: int = 0, copy: int = 0) -> Units:
        """Where all units stand, for pictures. Raises UsageError where a task does not tell."""
        raise UsageError(f"{self.name} does not tell where its units stand, so there is no picture of it")

    def target(self, act: np.ndarray) -> np.ndarray:
        """The number of the enemy that each of these actions attacks, negative where it attacks none."""
        return np.full(act.shape, -1)

    def action_name(self, act: int) -> str:
        return str(act)

    def close(self) -> None:
        """Give back windows and processes."""

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        """Begin an episode of one game: obs (N, O) and avail (N, A)."""
        raise NotImplementedError

    def _play(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        """One step of one game with act (N,): obs (N, O), avail (N, A), reward, terminated, truncated, won."""
        raise NotImplementedError

    def _save(self, row: int, copy: int) -> dict[str, Any]:
        """What one game is in, beside t, generator, obs and avail."""
        raise NotImplementedError

    def _load(self, row: int, copy: int, state: dict[str, Any]) -> None:
        raise NotImplementedError


def _further(seed: int, copy: int) -> int:
    return int(np.random.SeedSequence([seed, copy]).generate_state(1)[0])
