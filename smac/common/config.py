"""The flags that every recurrent learner has and no paper mentions."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from common.flags import Count, RunConfig

Unused = tyro.conf.Suppress  # of the continuous learners


@dataclass(frozen=True)
class RecurrentConfig(RunConfig):
    env: str = "FocusFire-3"  # task, as FocusFire-3, smax:3m, smax:2s3z, module:factory
    n_envs: Count = 1  # environments that a seed collects with at once; what it learns depends on it
    num_test_episodes: Count = 32  # greedy test episodes at the end of an epoch, per seed
    max_ep_len: Count = 100  # steps after which a training episode is truncated
    test_ep_len: Count = 100  # steps after which a test episode is truncated
    obs: Annotated[Literal["own"], Unused] = "own"
    legacy_actuators: Annotated[bool, Unused] = False
    record: Annotated[Literal["off"], Unused] = "off"
