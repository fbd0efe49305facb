"""The replay of episodes: what every agent of every seed saw, might do, did and was paid, step by step."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import UsageError
from common.seeding import Streams


class Batch(NamedTuple):
    """B whole episodes of each agent, the longest first, padded at their ends to T steps."""

    obs: Tensor  # (S, N, B, T + 1, O), the last one that of the final successor
    avail: Tensor  # (S, N, B, T + 1, A) bool, the actions that may be taken
    act: Tensor  # (S, N, B, T) int64
    rew: Tensor  # (S, N, B, T), the team's reward
    terminated: Tensor  # (S, N, B, T), 0 or 1; 0 where only the time ran out
    mask: Tensor  # (S, N, B, T), 1 for steps that were taken, 0 for padding
    running: tuple[int, ...]  # how many episodes, counted from the first, have an observation at time 0 .. T
    index: Tensor  # (S, N, M) where in B * T the steps that were taken stand; see `pack`
    real: Tensor  # (S, N, M), 0 where an agent has fewer steps than another

    def pack(self, x: Tensor) -> Tensor:
        """The steps that were taken, without padding, of x (S, N, B, T, ...): (S, N, M, ...)."""
        S, N, M = self.index.shape
        start = torch.arange(S * N, device=x.device)[:, None] * (x.shape[2] * x.shape[3])
        rows = x.flatten(0, 3)[(start + self.index.flatten(0, 1)).flatten()]
        return rows.unflatten(0, (S, N, M))


class EpisodeReplay:
    """The last `size` episodes of every seed, of which the last `steps` environment steps have room.

    One record a step and agent. Observations are float16 (the environments round them, so nothing is lost) and are
    stored once: the next record's is the successor, and the last of an episode is kept apart. The L environments of a
    seed fill one row of the memory a step, so `count`, `size`, `read` and `write` are those of common.replay.Replay,
    and checkpoints write only what is new.
    """

    def __init__(self, env: Any, size: int, steps: int, device: torch.device | str = "cpu"):
        self.n_seeds, self.n_agents, self.copies = len(env.obs), env.n_agents, env.copies
        if steps < env.max_ep_len * self.copies:
            raise UsageError(
                f"--replay_steps {steps}: has no room for {self.copies} episodes of {env.max_ep_len} steps"
            )
        self.count, self.size, self.device = 0, steps // self.copies, device  # in rows of all environments at once
        seen = [("obs", np.float16, env.n_obs), ("avail", np.bool_, env.n_act)]
        paid = [("rew", np.float32), ("act", np.uint8), ("terminated", np.bool_)]
        record, final = (
            np.dtype([*seen, *paid]),
            np.dtype(seen),
        )  # unaligned: padding would be saved, with what lay there
        try:  # numpy's zeros take no memory until they are written
            self.rows = np.zeros((self.n_seeds, self.copies * self.n_agents, self.size), record)
        except (MemoryError, ValueError) as error:
            raise UsageError(
                f"--replay_steps {steps}: more than this machine has ({error}); give a smaller one"
            ) from None
        self.capacity, self.episodes = size, np.zeros(self.n_seeds, np.int64)  # ended in each seed
        self.finals = np.zeros((self.n_seeds, size, self.n_agents), final)
        self.table = np.zeros((self.n_seeds, size, 3), np.int64)  # environment, first row and length of each episode
        self.streams = Streams(env.seeds, "replay")

    def store(
        self, obs: np.ndarray, avail: np.ndarray, act: np.ndarray, rew: np.ndarray, terminated: np.ndarray
    ) -> None:
        """Add a step of every environment: (S, N, L, O), (S, N, L, A), (S, N, L), (S, L), (S, L)."""
        row = self.rows[:, :, self.count % self.size].reshape(self.n_seeds, self.copies, self.n_agents)
        for name, value in (("obs", obs), ("avail", avail), ("act", act)):
            row[name] = np.moveaxis(value, 2, 1)
        row["rew"], row["terminated"] = rew[..., None], terminated[..., None]
        self.rows[:, :, self.count % self.size] = row.reshape(self.n_seeds, -1)
        self.count += 1

    def end(self, obs: np.ndarray, avail: np.ndarray, lengths: np.ndarray, ended: np.ndarray) -> None:
        """Episodes are over where `ended` (S, L), at these observations, after so many steps (S, L)."""
        for row, copy in np.argwhere(ended):
            slot, length = self.episodes[row] % self.capacity, lengths[row, copy]
            self.table[row, slot] = copy, self.count - length, length
            self.finals[row, slot]["obs"], self.finals[row, slot]["avail"] = obs[row, :, copy], avail[row, :, copy]
            self.episodes[row] += 1

    def held(self, row: int) -> np.ndarray:
        """The slots of one seed's episodes that are there from first to last step."""
        n = min(int(self.episodes[row]), self.capacity)
        return np.flatnonzero(self.table[row, :n, 1] >= self.count - self.size)

    def sample(self, row: int, batch_size: int, shared: bool) -> Batch:
        """Episodes of one seed, drawn uniformly with replacement, as a batch of S = 1.

        `shared`: all agents draw the same episodes, each from its own replay, as agents do who agreed on a random seed.
        """
        held = self.held(row)
        drawn = self.streams.rngs[row].integers(len(held), size=(1 if shared else self.n_agents, batch_size))
        slots = np.broadcast_to(held[drawn], (self.n_agents, batch_size))
        longest = np.argsort(-self.table[row, slots, 2], axis=1, kind="stable")
        return self._batch(row, np.take_along_axis(slots, longest, 1))

    def _batch(self, row: int, slots: np.ndarray) -> Batch:
        """The episodes in these slots (N, B), the longest first."""
        copy, start, length = np.moveaxis(self.table[row, slots], -1, 0)[..., None]  # (N, B, 1) each
        N, T = self.n_agents, int(length.max())
        agents, time = np.arange(N)[:, None, None], np.arange(T + 1)
        taken = time < length  # (N, B, T + 1)
        at = np.where(taken, (start + time) % self.size, start % self.size)
        steps = self.rows[row, copy * N + agents, at]
        obs, avail = (np.where(taken[..., None], steps[name], False) for name in ("obs", "avail"))
        final = self.finals[row, slots, agents[..., 0]]
        for whole, last in ((obs, final["obs"]), (avail, final["avail"])):
            np.put_along_axis(whole, length[..., None], last[:, :, None], 2)
        taken = taken[..., :-1]
        index, real = _packed(taken.reshape(N, -1))
        rew, terminated = (np.where(taken, steps[name][..., :-1], 0) for name in ("rew", "terminated"))
        running = (time <= length).sum(1).max(0)
        return Batch(
            self._tensor(obs.astype(np.float32)),
            self._tensor(avail),
            self._tensor(steps["act"][..., :-1].astype(np.int64)),
            self._tensor(rew.astype(np.float32)),
            self._tensor(terminated.astype(np.float32)),
            self._tensor(taken.astype(np.float32)),
            tuple(running.tolist()),
            self._tensor(index),
            self._tensor(real),
        )

    def _tensor(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(x)[None].to(self.device)

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop-1 of one seed, counted from the run's first, as bytes: (L * N, stop - start, bytes)."""
        rows = np.ascontiguousarray(self.rows[row][:, np.arange(start, stop) % self.size])
        return rows.view(np.uint8).reshape(*rows.shape, self.rows.itemsize)

    def write(self, row: int, start: int, rows: np.ndarray) -> None:
        """Put back what `read` gave."""
        where = np.arange(start, start + rows.shape[1]) % self.size
        self.rows[row][:, where] = np.ascontiguousarray(rows).view(self.rows.dtype)[..., 0]

    def state_dict(self, row: int) -> dict[str, Any]:
        n = min(int(self.episodes[row]), self.capacity)
        finals = self.finals[row, :n].view(np.uint8).reshape(n, self.n_agents * self.finals.itemsize)
        counts = {"count": self.count, "episodes": int(self.episodes[row])}
        return {**counts, "table": self.table[row, :n].copy(), "finals": finals, **self.streams.state_dict(row)}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.count, self.episodes[row] = state["count"], state["episodes"]
        n = len(state["table"])
        self.table[row, :n] = state["table"]
        self.finals[row, :n] = np.ascontiguousarray(state["finals"]).view(self.finals.dtype).reshape(n, self.n_agents)
        self.streams.load_state_dict(row, state)


def _packed(taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) bool -> the places of True in each row (N, M) and which of these are real; M is the most that one has.

    Rows with fewer are filled up with their first: a step that never was could have values that weight 0 cannot mend.
    """
    counts = taken.sum(1)
    real = np.arange(counts.max()) < counts[:, None]
    index = np.argsort(~taken, axis=1, kind="stable")[:, : counts.max()]
    return np.where(real, index, index[:, :1]), real.astype(np.float32)
