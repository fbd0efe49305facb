"""The one entrance to the environments of the recurrent learners: `make(name, seeds, copies)`.

FocusFire-3                     a didactic task of our own, N = 2 .. 8 agents       smac/envs/focusfire.py
smax:3m, smax:2s3z, smax:8m     JaxMARL's SMAX, if the extra `smax` is installed    smac/envs/smax.py
package.module:factory          any PettingZoo ParallelEnv with Discrete actions    smac/envs/parallel.py
"""

import re
from collections.abc import Sequence
from typing import Any

from common.errors import UsageError
from smac.envs.base import MaskedEnv

__all__ = ["MaskedEnv", "make", "schedule"]

NAMES = "FocusFire-3, smax:3m or package.module:factory"


def make(name: str, seeds: Sequence[int], copies: int, max_ep_len: int) -> MaskedEnv:
    """`copies` games of this name for each seed. Raises UsageError, in one line, if there is no such environment."""
    if match := re.fullmatch(r"FocusFire-([2-8])", name):
        from smac.envs.focusfire import FocusFire

        return FocusFire(name, int(match[1]), seeds, copies, max_ep_len)
    if name.startswith("smax:"):
        from smac.envs.smax import Smax

        return Smax(name, seeds, copies, max_ep_len)
    if ":" in name:
        from smac.envs.parallel import ParallelGames

        return ParallelGames(name, seeds, copies, max_ep_len)
    if "DifferentialGame" in name or re.match(r"\d[\dx|-]*d?[A-Z]", name):  # 2x3HalfCheetah, 2x4dAnt, 9|8Humanoid
        raise UsageError(f"--env {name!r}: a task of the continuous learners; use python iddpg.py or another beside it")
    raise UsageError(f"--env {name!r}: no such task; names are like {NAMES}, with FocusFire-2 .. FocusFire-8")


def schedule(name: str) -> dict[str, Any]:
    """Settings that go with a task: PyMARL's, but for the small task and for the length of an episode."""
    if name.startswith("FocusFire"):
        return {"epochs": 4, "steps_per_epoch": 2000, "epsilon_steps": 4000, "max_ep_len": 20, "test_ep_len": 20}
    if name.startswith("smax:"):
        return {"epochs": 50, "max_ep_len": 100, "test_ep_len": 100}
    return {"epochs": 205, "max_ep_len": 500, "test_ep_len": 500}
