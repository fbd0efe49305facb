"""What happened in a run since the last row of its progress.txt."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UsageError

STATISTICS = "Average", "Std", "Max", "Min"  # of the returns of an epoch's episodes
TAKEN = {"Epoch", "EpLen", "TestEpLen", "TestStuck", "TotalEnvInteracts", "Time"}
TAKEN |= {f"{name}{kind}EpRet" for name in STATISTICS for kind in ("", "Test")}  # columns that every run has


@dataclass
class Group:
    """Updates since the last row that had the same diagnostics: sums (diagnostics, S), and how many updates (S,)."""

    total: Tensor
    count: np.ndarray


class Log:
    """What happened since the last row of progress.txt, by seed."""

    def __init__(self, n_seeds: int):
        self.ep_ret, self.ep_len = np.zeros(n_seeds), np.zeros(n_seeds, int)
        self.returns: list[list[float]] = [[] for _ in range(n_seeds)]  # of the episodes that ended
        self.lengths: list[list[int]] = [[] for _ in range(n_seeds)]
        self.groups: dict[tuple[str, ...], Group] = {}  # by the names of an update's diagnostics, which may vary
        self.last: dict[str, Tensor] = {}  # diagnostics of the last update
        self.largest_rew = np.zeros(n_seeds)  # |reward| of a step, in the whole run
        self.n_updates = 0  # in the whole run
        self.elapsed, self.since = np.zeros(n_seeds), time.monotonic()  # seconds before this sitting

    def step(self, rew: np.ndarray, ended: np.ndarray) -> None:
        """One environment step: the team's rewards (S,) and where an episode ended (S,)."""
        self.ep_ret += rew
        self.largest_rew = np.maximum(self.largest_rew, np.abs(rew))
        self.ep_len += 1
        for row in np.flatnonzero(ended):
            self.returns[row].append(float(self.ep_ret[row]))
            self.lengths[row].append(int(self.ep_len[row]))
        self.ep_ret[ended], self.ep_len[ended] = 0, 0

    def update(self, diagnostics: dict[str, Tensor], row: int | None = None) -> None:
        """Diagnostics of one update, each (S, N), or of that of one seed, (1, N), in its `row`.

        Not every update need have the same: means are over those that do. Raises UsageError for one of another shape.
        """
        names, rows = tuple(diagnostics), slice(None) if row is None else slice(row, row + 1)
        _check(diagnostics, len(self.ep_ret) if row is None else 1)
        group = self.groups.get(names)
        if group is None:
            device = next(iter(diagnostics.values())).device if diagnostics else "cpu"
            group = self.groups[names] = Group(
                torch.zeros(len(names), len(self.ep_ret), dtype=torch.float64, device=device),
                np.zeros(len(self.ep_ret), int),
            )
        if diagnostics:
            with torch.no_grad():
                group.total[:, rows] += torch.stack([*diagnostics.values()]).mean(-1)
        group.count[rows] += 1
        self.n_updates += 1
        if row is None:
            self.last = diagnostics
        for name, value in diagnostics.items() if row is not None else ():
            known = self.last.setdefault(name, value.new_zeros(len(self.ep_ret), value.shape[1]))
            known[rows] = value.detach()

    @property
    def sums(self) -> dict[str, Tensor]:
        """Of each diagnostic since the last row, by seed."""
        found: dict[str, Tensor] = {}
        for names, group in sorted(self.groups.items(), key=lambda item: -len(item[0])):
            for name, total in zip(names, group.total, strict=True):
                found[name] = found[name] + total if name in found else total
        return found

    def row(self, row: int) -> dict[str, float]:
        """The means since the last row of progress.txt."""
        columns = {**summary("EpRet", self.returns[row]), "EpLen": float(np.mean(self.lengths[row] or [math.nan]))}
        groups = self.groups.items()
        counts = {name: sum(int(g.count[row]) for names, g in groups if name in names) for name in self.sums}
        # an epoch without an update has no losses
        return columns | {name: float(total[row]) / (counts[name] or math.nan) for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start the next row."""
        for values in (*self.returns, *self.lengths):
            values.clear()
        for group in self.groups.values():
            group.total.zero_()
            group.count[:] = 0

    def time(self, row: int) -> float:
        """Seconds of training of one seed, those before an interruption included."""
        return float(self.elapsed[row]) + time.monotonic() - self.since

    def state_dict(self, row: int) -> dict[str, Any]:
        return {
            "ep_ret": float(self.ep_ret[row]),
            "ep_len": int(self.ep_len[row]),
            "returns": self.returns[row],
            "lengths": self.lengths[row],
            "groups": [[list(names), g.total[:, row].tolist(), int(g.count[row])] for names, g in self.groups.items()],
            "largest_rew": float(self.largest_rew[row]),
            "n_updates": self.n_updates,
            "elapsed": self.time(row),
        }

    def load_state_dict(self, row: int, state: dict[str, Any], device: str) -> None:
        self.ep_ret[row], self.ep_len[row] = state["ep_ret"], state["ep_len"]
        self.returns[row], self.lengths[row] = list(state["returns"]), list(state["lengths"])
        for names, totals, count in state["groups"]:
            totals_of_all = torch.zeros(len(names), len(self.ep_ret), dtype=torch.float64, device=device)
            new = Group(totals_of_all, np.zeros(len(self.ep_ret), int))
            group = self.groups.setdefault(tuple(names), new)
            group.total[:, row] = torch.tensor(totals, dtype=torch.float64)
            group.count[row] = count
        self.largest_rew[row] = state["largest_rew"]
        self.n_updates, self.elapsed[row], self.since = state["n_updates"], state["elapsed"], time.monotonic()

    def cut(self, row: int, where: np.ndarray) -> None:
        """Drop the episode under way: the environment went on with a new one."""
        self.ep_ret[row], self.ep_len[row] = 0, 0


def _check(diagnostics: dict[str, Tensor], n_seeds: int) -> None:
    """Raise UsageError for a diagnostic that is no column of the log: a mean of all of them would be logged unseen."""
    for name, value in diagnostics.items():
        if value.ndim != 2 or len(value) != n_seeds or value.shape != next(iter(diagnostics.values())).shape:
            raise UsageError(
                f"update returns {name!r} of shape {tuple(value.shape)}: must be (S, N), here {n_seeds} seeds and a "
                "number for each agent; take means over the batch alone, as loss.mean(-1)"
            )
        if name in TAKEN or not name or set(name) & set("\t\r\n"):
            text = "is a column of every run" if name in TAKEN else "is no name of a column"
            raise UsageError(f"update returns a diagnostic called {name!r}, which {text}; rename it")


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Spinning Up's four columns of a quantity; NaN where nothing was measured."""
    array = np.array(values or [math.nan])
    found = array.mean(), array.std(), array.max(), array.min()
    return {f"{statistic}{name}": value for statistic, value in zip(STATISTICS, found)}
