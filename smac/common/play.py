"""How agents with a memory act: in training's environments, and in the episodes of a test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from common.evaluate import episode_seeds

UNAVAILABLE = torch.finfo(torch.float32).min  # the value of what is not available; -inf times zero would be NaN


def inputs(obs: Tensor, last: Tensor, n_act: int) -> Tensor:
    """Observations (..., O) beside the last action as one-hot, which is zeros where it is -1: (..., O + A)."""
    return torch.cat([obs, one_hot(last + 1, n_act + 1)[..., 1:].to(obs.dtype)], -1)


class Memory:
    """What the agents of an environment remember of the episodes under way: hidden states and last actions."""

    def __init__(self, env: Any, hid: int, device: str):
        shape = (len(env.seeds), env.n_agents, env.copies)
        self.hidden, self.last = torch.zeros(*shape, hid, device=device), torch.full(shape, -1, device=device)

    @torch.no_grad()
    def values(self, learners: Sequence[Any], env: Any) -> np.ndarray:
        """The values (S, N, L, A) of each action now, after a step of every memory; seed by seed, as seeds learn."""
        q = np.zeros(env.avail.shape, np.float32)
        for row, agents in enumerate(learners):
            obs = torch.from_numpy(env.obs[row : row + 1]).to(self.last.device)
            x, part = inputs(obs, self.last[row : row + 1], env.n_act), slice(row, row + 1)
            out, self.hidden[part] = agents.values(x, self.hidden[part])
            q[row] = out[0].cpu().numpy()
        return np.where(env.avail, q, UNAVAILABLE).astype(np.float32)

    def acted(self, act: np.ndarray, ended: np.ndarray | None = None) -> None:
        """Remember act (S, N, L); forget all where an episode `ended` (S, L)."""
        self.last.copy_(torch.from_numpy(act))
        if ended is not None:
            for row in np.flatnonzero(ended.any(1)).tolist():
                self.cut(row, ended[row])

    def cut(self, row: int, where: np.ndarray) -> None:
        """Forget the episode in those of one seed's environments (L,) that go on with a new one."""
        over = torch.from_numpy(where).to(self.last.device).expand(self.last[row].shape)
        self.hidden[row][over], self.last[row][over] = 0, -1

    def state_dict(self, row: int) -> dict[str, Tensor]:
        return {"hidden": self.hidden[row], "last": self.last[row]}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.hidden[row], self.last[row] = torch.as_tensor(state["hidden"]), torch.as_tensor(state["last"])


def epsilon(step: int, steps: int, finish: float) -> float:
    """1 at the start, falling linearly to `finish` within so many steps, and staying there."""
    return max(finish, 1 - (1 - finish) * step / steps)


def evaluate(
    env: Any, learners: Sequence[Any], hid: int, step: int, device: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, lengths and victories (1, or 0, or NaN where the game does not tell) of greedy episodes, each (S, E)."""
    env.reseed(episode_seeds(env.seeds, step, env.copies))
    env.reset()
    memory, running, won = Memory(env, hid, device), np.ones(env.t.shape, bool), np.zeros(env.t.shape)
    while running.any():
        act = memory.values(learners, env).argmax(-1)
        _, terminated, truncated = env.step(act, running)
        memory.acted(act)
        won[running] = env.won[running]
        running &= ~(terminated | truncated)
    return env.ret.copy(), env.t.copy(), won


def log_episodes(run: Any, env: Any, rew: np.ndarray, ended: np.ndarray) -> None:
    """Tell a run's log of the episodes that ended (S, L), each environment's by itself."""
    run.log.largest_rew = np.maximum(run.log.largest_rew, np.abs(rew).max(1))
    for row, copy in np.argwhere(ended):
        run.log.returns[row].append(float(env.ret[row, copy]))
        run.log.lengths[row].append(int(env.t[row, copy]))


def due(before: np.ndarray, after: np.ndarray, every: int) -> list[int]:
    """The seeds whose count (S,) has passed a multiple of `every`."""
    return np.flatnonzero(before // every < after // every).tolist()
