"""Deterministic test episodes, all at once, in environments of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

SAME = 1e-3  # numbers that differ by less count as one; actions are in [-1, 1]


def episode_seeds(seeds: Sequence[int], step: int, episodes: int) -> list[int]:
    """Seeds of the test episodes after `step` steps: a function of these alone, so there is nothing to save."""
    return [
        int(np.random.SeedSequence([seed, step, episode]).generate_state(1)[0])
        for seed in seeds
        for episode in range(episodes)
    ]


class Range:
    """The least and the greatest of each number of arrays (S * E, N, D), over a seed's episodes: (S, N, D)."""

    def __init__(self, n_seeds: int) -> None:
        self.n_seeds, self.low, self.high = n_seeds, np.inf, -np.inf

    def add(self, x: np.ndarray, running: np.ndarray) -> None:
        """Episodes that are over (S * E,) see and do nothing."""
        x, where = x.reshape(self.n_seeds, -1, *x.shape[1:]), running.reshape(self.n_seeds, -1, 1, 1)
        low, high = x.min(1, where=where, initial=np.inf), x.max(1, where=where, initial=-np.inf)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def same(self) -> np.ndarray:
        return np.asarray(self.high - self.low) < SAME


@torch.no_grad()
def evaluate(
    env: Any, pi: Callable[[Tensor], Tensor], seeds: Sequence[int], step: int, device: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns and lengths of one episode in each row of `env`, S * E rows for S seeds, both (S, E); `stuck` (S, N).

    pi maps obs (S, N, E, O) to act (S, N, E, A) and is followed without noise. `stuck` is the share, 0 to 1, of an
    agent's actions that were at one and the same limit whatever it saw: their tanh is saturated. It is 0 for an agent
    that saw one state alone.
    """
    S, rows = len(seeds), len(env.seeds)
    env.reseed(episode_seeds(seeds, step, rows // S))
    obs = env.reset()
    returns, lengths, running = np.zeros(rows), np.zeros(rows, int), np.ones(rows, bool)
    seen, done = Range(S), Range(S)
    while running.any():
        chosen = pi(torch.from_numpy(obs).to(device).unflatten(0, (S, -1)).transpose(1, 2))
        act = chosen.transpose(1, 2).flatten(0, 1).cpu().numpy()
        seen.add(obs, running)
        done.add(act, running)
        obs, rew, terminated, truncated = env.step(act, running)
        returns[running] += rew[running]
        lengths += running
        running &= ~(terminated | truncated)
    at_limit = done.same() & (np.abs(done.low) > 1 - SAME) & env.act_mask
    stuck = at_limit.sum(-1) / env.act_mask.sum(-1) * ~seen.same().all(-1)
    return returns.reshape(S, -1), lengths.reshape(S, -1), stuck
