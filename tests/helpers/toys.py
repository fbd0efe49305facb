"""Small stand-ins that the tests of networks and algorithms share."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from common.nets import MLP, Adam
from common.replay import Batch
from common.run import Run
from common.runs import main
from envs.vector import VectorEnv, mask

WIDTHS = (2, 4, 3), (2, 1, 3)  # observations and actions of three unequal agents


class Toy(VectorEnv):
    """Tells how wide its agents are, which is all that networks ask of an environment."""

    def __init__(self, seeds: Sequence[int], n_obs: Iterable[int] = WIDTHS[0], n_act: Iterable[int] = WIDTHS[1]):
        super().__init__("toy", seeds, mask(n_obs), mask(n_act), max_ep_len=10)


def nets_of(agents: Any) -> dict[str, MLP]:
    return {name: part for name, part in vars(agents).items() if isinstance(part, MLP)}


def make_agents(
    module: ModuleType, env: VectorEnv, dtype: torch.dtype = torch.float32, **flags: Any
) -> tuple[Any, Any]:
    """An algorithm's Agents and Config, small, with biases that are not zero and targets unlike the online networks."""
    small = {"hid": 8, "batch_size": 6} if hasattr(module.Config, "batch_size") else {"hid": 8}
    cfg = module.Config(**{**small, **flags})
    agents = module.Agents(env, cfg, env.seeds)
    rng = torch.Generator().manual_seed(0)
    for net in nets_of(agents).values():
        for part in (*net.weights, *net.biases):  # views of the parameters; padded ones move too, and must not matter
            part += 0.1 * torch.randn(part.shape, generator=rng)
    return (agents if dtype == torch.float32 else in_float64(agents)), cfg


def in_float64(agents: Any) -> Any:
    """The same agents in double precision, where an oracle can be compared to ten digits."""
    new = {}
    for name, net in nets_of(agents).items():
        flat = net.flat.detach().double().requires_grad_(net.flat.requires_grad)
        new[id(net)] = net.like(flat)
        setattr(agents, name, new[id(net)])
    for name, part in list(vars(agents).items()):
        if isinstance(part, Adam):
            setattr(agents, name, Adam(new[id(part.net)], part.lr))
    return agents


def make_batch(env: VectorEnv, B: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Transitions inside [-1, 1] as they come from a replay: padded dims are zero; about a third are terminated."""
    rng = torch.Generator().manual_seed(seed)
    S, N = len(env.seeds), env.n_agents
    obs_mask, act_mask = (torch.tensor(m, dtype=dtype)[:, None] for m in (env.obs_mask, env.act_mask))

    def uniform(*last: int) -> Tensor:
        return 2 * torch.rand(S, N, B, *last, generator=rng, dtype=dtype) - 1

    obs = uniform(env.n_obs) * obs_mask
    next_obs = (obs + 0.1 * uniform(env.n_obs)).clamp(-1, 1) * obs_mask
    return Batch(obs, uniform(env.n_act) * act_mask, next_obs, uniform(), (uniform() > 1 / 3).to(dtype))


def parameters(agents: Any, row: int, agent: int | None = None) -> dict[str, np.ndarray]:
    """Copies of every network's parameters of one seed, and of one agent if given."""
    at = (row,) if agent is None else (row, agent)
    return {name: net.flat.detach()[at].numpy().copy() for name, net in nets_of(agents).items()}


def same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, bool]:
    assert a.keys() == b.keys()
    return {name: a[name].tobytes() == b[name].tobytes() for name in a}


def train(module: ModuleType, data_dir: Path, seeds: Sequence[int], env: str, **flags: Any) -> Run:
    """Train these seeds, which follow on each other, by the program's own main; the run with all that it kept."""
    runs: list[Run] = []

    def kept(cfg: Any, run: Run) -> None:
        runs.append(run)
        module.train(cfg, run)

    flags = {"env": env, "seed": seeds[0], "num_runs": len(seeds), "data_dir": data_dir, "threads": 1, **flags}
    argv = [f"{module.__name__}.py", *(f"--{name}={value}" for name, value in flags.items())]
    with mock.patch.object(sys, "argv", argv), pytest.raises(SystemExit) as end:
        main(module.Config, module.defaults, kept, module.__doc__)
    assert end.value.code == 0
    return runs[0]
