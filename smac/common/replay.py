"""The replay of episodes: what every agent of every seed saw, might do, did and was paid, step by step."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import UsageError
from common.seeding import Streams


class Batch(NamedTuple):
    """B whole episodes of each agent, packed: R observations and M steps, time after time, without padding.

    Of time 0 there are all B episodes, the longest first, of each later time those that still run.
    """

    obs: Tensor  # (S, N, R, O), the last one of an episode included: that of the final successor
    last: Tensor  # (S, N, R) int64, the action before it, -1 where there was none
    running: tuple[int, ...]  # how many observations there are of each time
    now: Tensor  # (M,) int64, the row of obs that each step starts from
    next: Tensor  # (M,) int64, the row that it leads to
    avail: Tensor  # (S, N, M, A) bool, the actions that might be taken
    act: Tensor  # (S, N, M) int64
    rew: Tensor  # (S, N, M), the team's reward
    terminated: Tensor  # (S, N, M), 0 or 1; 0 where only the time ran out
    next_avail: Tensor  # (S, N, M, A) bool, the actions that may be taken after it
    real: Tensor  # (S, N, M), 0 for what fills up where an agent's episodes are shorter than another's


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
        seen = [("obs", np.float16, (env.n_obs,)), ("avail", np.bool_, (env.n_act,))]
        paid = [("rew", np.float32), ("act", np.uint8), ("terminated", np.bool_)]
        record, final = np.dtype([*seen, *paid]), np.dtype(seen)  # unaligned: padding would be saved, whatever is in it
        try:  # numpy's zeros take no memory until they are written
            self.rows = np.zeros((self.n_seeds, self.copies * self.n_agents, self.size), record)
            self.finals = np.zeros((self.n_seeds, size, self.n_agents), final)
            self.table = np.zeros((self.n_seeds, size, 3), np.int64)  # environment, first row and length of an episode
        except (MemoryError, ValueError) as error:
            raise UsageError(
                f"--replay_steps {steps}, --replay_size {size}: more than this machine has ({error}); give smaller ones"
            ) from None
        self.capacity, self.episodes = size, np.zeros(self.n_seeds, np.int64)  # ended in each seed
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
        copy, start, length = np.moveaxis(self.table[row, slots], -1, 0)  # (N, B) each
        times = np.arange(int(length.max()) + 1)
        running = (times <= length[..., None]).sum(1).max(0)  # the most that an agent has
        t, b = np.repeat(times, running), np.arange(running.sum()) - np.repeat(np.cumsum(running) - running, running)
        copy, start, length, agents = copy[:, b], start[:, b], length[:, b], np.arange(self.n_agents)[:, None]
        lanes, inside = copy * self.n_agents + agents, t < length  # (N, R); at t = length stands the final observation
        steps = self.rows[row, lanes, (start + np.minimum(t, length - 1)) % self.size]
        final = self.finals[row, slots[:, b], agents]
        obs = np.where(inside[..., None], steps["obs"], final["obs"]).astype(np.float32)
        avail = np.where(inside[..., None], steps["avail"], final["avail"])
        now = np.flatnonzero(b < np.append(running, 0)[t + 1])  # the episode has a next observation
        following, real = np.cumsum(running)[t[now]] + b[now], inside[:, now]
        act, last = steps["act"][:, now].astype(np.int64), np.full(inside.shape, -1)
        last[:, following] = act
        rew, terminated = (np.where(real, steps[name][:, now], 0).astype(np.float32) for name in ("rew", "terminated"))
        put, single = self._put, tuple(running.tolist())
        packed = put(avail[:, now]), put(act), put(rew), put(terminated), put(avail[:, following])
        return Batch(put(obs), put(last), single, put(now)[0], put(following)[0], *packed, put(real.astype(np.float32)))

    def _put(self, x: np.ndarray) -> Tensor:
        """As a tensor of one seed."""
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
