"""One random generator per seed and purpose, drawn from side by side."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import UsageError

# The key of each; none ever changes. 0 is the environments', whose own generators start from the seed s: for numpy the
# entropies (s, 0) and s are the same.
PURPOSES = {"exploration": 1, "replay": 2, "weights": 3, "update": 4}


class Streams:
    """Independent generators, one per seed, whose draws are stacked on a leading axis S.

    A draw for one seed depends on that seed and on `purpose` alone: a seed learns the same alone as beside others, and
    two Streams of one purpose draw the same numbers. Raises UsageError for a purpose that there is not.
    """

    def __init__(self, seeds: Sequence[int], purpose: str):
        if purpose not in PURPOSES:
            raise UsageError(f"Streams(seeds, {purpose!r}): the purposes are {', '.join(PURPOSES)}; 'update' is free")
        key = PURPOSES[purpose]
        self.rngs = [np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key]))) for seed in seeds]

    def uniform(self, *shape: int) -> np.ndarray:
        """U(-1, 1): (S, *shape), float32."""
        return np.stack([rng.random(shape, np.float32) for rng in self.rngs]) * 2 - 1

    def normal(self, *shape: int) -> np.ndarray:
        """N(0, 1): (S, *shape), float32."""
        return np.stack([rng.standard_normal(shape, np.float32) for rng in self.rngs])

    def integers(self, high: int, *shape: int) -> np.ndarray:
        """Uniform on 0 .. high-1: (S, *shape), int64."""
        return np.stack([rng.integers(high, size=shape) for rng in self.rngs])

    def state_dict(self, row: int) -> dict[str, Any]:
        return {"generator": json.dumps(self.rngs[row].bit_generator.state)}  # 128-bit integers: JSON keeps them exact

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        self.rngs[row].bit_generator.state = json.loads(state["generator"])
