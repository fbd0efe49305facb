"""The replay buffers D_i: one per agent and seed, kept as rows of floats."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import UsageError
from common.seeding import Streams


class Batch(NamedTuple):
    """B transitions of each agent of each seed; `terminated` is 0 where only the time ran out."""

    obs: Tensor  # (S, N, B, O)
    act: Tensor  # (S, N, B, A)
    next_obs: Tensor  # (S, N, B, O), the true successor, never the first observation of the next episode
    rew: Tensor  # (S, N, B), the team's reward
    terminated: Tensor  # (S, N, B), 0 or 1


class Replay:
    """The last `size` transitions of every agent; each agent draws its batches from its own.

    A transition is one row obs | act | next_obs | rew | terminated, so that sampling is one gather.
    """

    def __init__(
        self, seeds: Sequence[int], n_agents: int, n_obs: int, n_act: int, size: int, device: torch.device | str = "cpu"
    ):
        self.size, self.count = size, 0  # transitions stored so far, also those overwritten since
        self.splits = [n_obs, n_act, n_obs, 1, 1]
        shape = (len(seeds), n_agents, size, sum(self.splits))
        try:
            # numpy's zeros take no memory until they are written
            self.rows = (
                torch.from_numpy(np.zeros(shape, np.float32)) if device == "cpu" else torch.zeros(shape, device=device)
            )
        except (MemoryError, ValueError, RuntimeError):
            gib = math.prod(shape) * 4 / 2**30
            raise UsageError(
                f"--replay_size {size}: {gib:.3g} GiB for {len(seeds)} seeds are more than {device} has"
            ) from None
        self.streams = Streams(seeds, "replay")
        self.sends_late, self.waiting = device != "cpu", []  # rows wait for the next sample, not a step for the GPU

    def store(
        self,
        obs: np.ndarray,
        act: np.ndarray,
        next_obs: np.ndarray,
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray | None = None,
    ) -> None:
        """Add one transition of every seed: (S, N, O), (S, N, A), (S, N, O), (S,), (S,).

        Truncation is not kept: learning goes on across a time limit.
        """
        at, O, A = self.count % self.size, obs.shape[-1], act.shape[-1]
        late = self.sends_late
        row = np.empty((*obs.shape[:2], 2 * O + A + 2), np.float32) if late else self.rows.numpy()[:, :, at]
        row[..., :O], row[..., O : O + A], row[..., O + A : -2] = obs, act, next_obs
        row[..., -2], row[..., -1] = rew[:, None], terminated[:, None]
        self.count += 1
        if late:
            self.waiting.append(row)

    def _send(self) -> None:
        """Put rows that wait where they belong, all at once."""
        waiting, self.waiting = self.waiting[-self.size :], []
        if waiting:
            where = torch.arange(self.count - len(waiting), self.count) % self.size
            rows = torch.from_numpy(np.stack(waiting, 2))
            self.rows[:, :, where.to(self.rows.device)] = rows.to(self.rows.device)

    def sample(self, batch_size: int, n_batches: int, shared: bool = False) -> Iterator[Batch]:
        """n_batches batches of contiguous tensors, drawn uniformly with replacement, all at once.

        `shared`: all agents of a seed draw the same moments, each from its own buffer, as agents do who agreed on a
        random seed and fill their buffers in step. Else every agent draws moments of its own.
        """
        self._send()
        S, N, _, width = self.rows.shape
        index = self.streams.integers(min(self.count, self.size), 1 if shared else N, n_batches, batch_size)
        index = index + np.arange(S * N).reshape(S, N, 1, 1) * self.size
        drawn = self.rows.view(-1, width)[torch.from_numpy(index).to(self.rows.device)]
        for batch in drawn.unbind(2):
            obs, act, next_obs, rew, terminated = (part.contiguous() for part in batch.split(self.splits, -1))
            yield Batch(obs, act, next_obs, rew.squeeze(-1), terminated.squeeze(-1))

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """Transitions start .. stop-1 of one seed, counted from the run's first: (N, stop - start, width)."""
        self._send()
        return self.rows[row][:, torch.arange(start, stop) % self.size].cpu().numpy()

    def write(self, row: int, start: int, transitions: np.ndarray) -> None:
        """Put back what `read` gave."""
        self._send()
        where = torch.arange(start, start + transitions.shape[1]) % self.size
        self.rows[row][:, where] = torch.from_numpy(transitions).to(self.rows.device)

    def state_dict(self, row: int) -> dict[str, Any]:
        return {"count": self.count, **self.streams.state_dict(row)}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.streams.load_state_dict(row, state)
