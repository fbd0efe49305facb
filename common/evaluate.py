"""Deterministic test episodes, all at once, in environments of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def episode_seeds(seeds: Sequence[int], step: int, episodes: int) -> list[int]:
    """Seeds of the test episodes after `step` steps: a function of these alone, so there is nothing to save."""
    return [
        int(np.random.SeedSequence([seed, step, episode]).generate_state(1)[0])
        for seed in seeds
        for episode in range(episodes)
    ]


@torch.no_grad()
def evaluate(
    env: Any, pi: Callable[[Tensor], Tensor], seeds: Sequence[int], step: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of one episode in each row of `env`, S * E rows for S seeds: both (S, E).

    pi maps obs (S, N, E, O) to act (S, N, E, A) and is followed without noise.
    """
    S, rows = len(seeds), len(env.seeds)
    env.reseed(episode_seeds(seeds, step, rows // S))
    obs = env.reset()
    returns, lengths, running = np.zeros(rows), np.zeros(rows, int), np.ones(rows, bool)
    while running.any():
        act = pi(torch.from_numpy(obs).to(device).unflatten(0, (S, -1)).transpose(1, 2))
        obs, rew, terminated, truncated = env.step(act.transpose(1, 2).flatten(0, 1).cpu().numpy(), running)
        returns[running] += rew[running]
        lengths += running
        running &= ~(terminated | truncated)
    return returns.reshape(S, -1), lengths.reshape(S, -1)
