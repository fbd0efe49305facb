"""What happened in a run since the last row of its progress.txt."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Log:
    """What happened since the last row of progress.txt, by seed."""

    def __init__(self, n_seeds: int):
        self.ep_ret, self.ep_len, self.episode = np.zeros(n_seeds), np.zeros(n_seeds, int), np.zeros(n_seeds, int)
        self.returns: list[list[float]] = [[] for _ in range(n_seeds)]  # of the episodes that ended
        self.lengths: list[list[int]] = [[] for _ in range(n_seeds)]
        self.names: list[str] = []  # of the update's diagnostics
        self.total = torch.zeros(0, n_seeds, dtype=torch.float64)  # their sums, a row each
        self.n_updates = 0
        self.elapsed, self.since = 0.0, time.monotonic()

    def step(self, rew: np.ndarray, ended: np.ndarray) -> None:
        """One environment step: the team's rewards (S,) and where an episode ended (S,)."""
        self.ep_ret += rew
        self.ep_len += 1
        for row in np.flatnonzero(ended):
            self.returns[row].append(float(self.ep_ret[row]))
            self.lengths[row].append(int(self.ep_len[row]))
        self.episode += ended
        self.ep_ret[ended], self.ep_len[ended] = 0, 0

    def update(self, diagnostics: dict[str, Tensor]) -> None:
        """Diagnostics of one update, each (S, N)."""
        if not self.names:
            self._name(diagnostics, next(iter(diagnostics.values())).device)
        with torch.no_grad():
            self.total += torch.stack([diagnostics[name] for name in self.names]).mean(-1)
        self.n_updates += 1

    def _name(self, names: Iterable[str], device: torch.device | str) -> None:
        self.names = list(names)
        self.total = torch.zeros(len(self.names), self.total.shape[1], dtype=torch.float64, device=device)

    @property
    def sums(self) -> dict[str, Tensor]:
        """Of each diagnostic, by seed."""
        return dict(zip(self.names, self.total, strict=True))

    def row(self, row: int) -> dict[str, float]:
        """The means since the last row of progress.txt."""
        columns = {**summary("EpRet", self.returns[row]), "EpLen": float(np.mean(self.lengths[row] or [math.nan]))}
        count = self.n_updates or math.nan  # an epoch without an update has no losses
        return columns | {name: float(total[row]) / count for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start the next row."""
        for values in (*self.returns, *self.lengths):
            values.clear()
        self.total.zero_()
        self.n_updates = 0

    def time(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.elapsed + time.monotonic() - self.since

    def state_dict(self, row: int) -> dict[str, Any]:
        return {
            "ep_ret": float(self.ep_ret[row]),
            "ep_len": int(self.ep_len[row]),
            "episode": int(self.episode[row]),
            "returns": self.returns[row],
            "lengths": self.lengths[row],
            "sums": {name: float(total[row]) for name, total in self.sums.items()},
            "n_updates": self.n_updates,
            "elapsed": self.time(),
        }

    def load_state_dict(self, row: int, state: dict[str, Any], device: str) -> None:
        self.ep_ret[row], self.ep_len[row], self.episode[row] = state["ep_ret"], state["ep_len"], state["episode"]
        self.returns[row], self.lengths[row] = list(state["returns"]), list(state["lengths"])
        sums = state.get("sums", {})
        if sums and not self.names:
            self._name(sums, device)
        for total, name in zip(self.total, self.names, strict=True):
            total[row] = sums[name]
        self.n_updates, self.elapsed, self.since = state["n_updates"], state["elapsed"], time.monotonic()


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Spinning Up's four columns of a quantity; NaN where nothing was measured."""
    array = np.array(values or [math.nan])
    return {
        f"Average{name}": array.mean(),
        f"Std{name}": array.std(),
        f"Max{name}": array.max(),
        f"Min{name}": array.min(),
    }
