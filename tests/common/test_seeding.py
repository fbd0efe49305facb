"""Generators by seed and purpose: who draws what."""

import re

import numpy as np
import pytest

from common.errors import UsageError
from common.seeding import PURPOSES, Streams
from envs.vector import VectorEnv


def test_a_seed_draws_the_same_alone_as_beside_others():
    beside, alone = Streams([3, 4, 5], "update"), Streams([4], "update")
    for name, args in {"uniform": (2, 3), "normal": (5,), "integers": (10, 4)}.items():
        assert np.array_equal(getattr(beside, name)(*args)[1:2], getattr(alone, name)(*args)), name


def test_no_two_purposes_or_seeds_and_no_environment_draw_the_same_numbers():
    mask = np.ones((1, 1), bool)
    environments = VectorEnv("game", [0, 1], mask, mask, max_ep_len=1).rngs
    rngs = [*environments, *(rng for purpose in PURPOSES for rng in Streams([0, 1], purpose).rngs)]
    assert len({rng.random() for rng in rngs}) == 2 * (1 + len(PURPOSES))


@pytest.mark.parametrize("purpose", ["environment", "smoothing"])
def test_a_purpose_that_there_is_not_is_refused_by_name(purpose):
    """Streams of "environment" drew the numbers that the environments' own generators draw."""
    text = f"Streams(seeds, '{purpose}'): the purposes are exploration, replay, weights, update; 'update' is free"
    with pytest.raises(UsageError, match=re.escape(text)):
        Streams([0], purpose)
