"""Replays whose contents tell where they come from."""

import numpy as np

from common.replay import Replay

S, N, O, A = 2, 3, 2, 1


def filled(steps: int, size: int = 50, seeds: tuple[int, ...] = (3, 4)) -> Replay:
    """Agent i of seed s sees s + i / 10 + t at step t, and is paid -t - s / 1000; every fifth step is terminal."""
    replay = Replay(seeds, N, O, A, size)
    agents = np.arange(N)[:, None] / 10
    for t in range(steps):
        obs = np.array([np.repeat(seed * 1000 + agents + t, O, 1) for seed in seeds], np.float32)
        rew = np.array([-t - seed / 1000 for seed in seeds])
        replay.store(obs, obs[..., :A] / 2, obs + 1, rew, np.full(len(seeds), t % 5 == 4))
    return replay
