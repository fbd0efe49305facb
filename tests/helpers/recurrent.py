"""What the tests of the recurrent learners share."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from common import checkpoint
from common.nets import Net
from common.runs import main
from smac import d3g_discrete, envs, i2q_drqn, iql
from smac.common.optim import RMSprop
from smac.common.replay import Batch, EpisodeReplay

LEARNERS: list[tuple[ModuleType, dict[str, Any]]] = [
    (iql, {}),
    (i2q_drqn, {"form": "f"}),
    (i2q_drqn, {"form": "f", "rule": "1"}),
    (i2q_drqn, {"form": "no_f"}),
    (d3g_discrete, {}),
]
IDS = [module.__name__.partition(".")[2] + "".join(f" {v}" for v in flags.values()) for module, flags in LEARNERS]
TINY = {"rnn_hid": 8, "batch_size": 4, "steps_per_epoch": 60, "num_test_episodes": 3, "epochs": 2, "threads": 1}
TINY |= {"replay_size": 9, "replay_steps": 45, "target_every": 5, "epsilon_steps": 50, "compile": "off"}


def command(module: ModuleType, data_dir: Path, train: Any = None, **flags: Any) -> int:
    """The status that the program ends with when it is started with these flags, beside the tiny ones."""
    hid = {} if module is iql else {"hid": 8}
    argv = [
        f"--{name}={value}" for name, value in {**TINY, **hid, "exp_name": "x", "data_dir": data_dir, **flags}.items()
    ]
    with (
        mock.patch.object(sys, "argv", [f"{module.__name__.rpartition('.')[2]}.py", *argv]),
        pytest.raises(SystemExit) as end,
    ):
        main(module.Config, module.defaults, train or module.train, module.__doc__)
    return int(end.value.code or 0)


def nets_of(agents: Any) -> dict[str, Net]:
    return {name: net for name, net in vars(agents).items() if isinstance(net, Net)}


def make_agents(
    module: ModuleType, env: envs.MaskedEnv, dtype: torch.dtype = torch.float32, **flags: Any
) -> tuple[Any, Any]:
    """An algorithm's Agents and Config, small, with targets unlike the online networks."""
    hid = {} if module is iql else {"hid": 8}
    cfg = module.Config(**{"rnn_hid": 8, "batch_size": 5, "lr": 1e-2, **hid, **flags})
    agents, rng = module.Agents(env, cfg, env.seeds), torch.Generator().manual_seed(0)
    made = {}
    for name, net in nets_of(agents).items():
        flat = (net.flat.detach() + 0.1 * torch.randn(net.flat.shape, generator=rng)).to(dtype)
        made[id(net)] = net.like(flat.requires_grad_(net.flat.requires_grad))
        setattr(agents, name, made[id(net)])
    for name, part in list(vars(agents).items()):
        if isinstance(part, RMSprop):
            setattr(agents, name, RMSprop(made[id(part.net)], part.lr, part.alpha, part.eps, part.clip))
    return agents, cfg


def played(env: envs.MaskedEnv, steps: int, size: int = 50, seed: int = 0) -> EpisodeReplay:
    """A replay of so many steps of random legal play."""
    replay, rng = EpisodeReplay(env, size, steps * env.copies), np.random.default_rng(seed)
    env.reset()
    for _ in range(steps):
        obs, avail = env.obs, env.avail
        act = np.where(avail, rng.random(avail.shape), -1).argmax(-1)
        rew, terminated, truncated = env.step(act)
        replay.store(obs, avail, act, rew, terminated)
        replay.end(env.obs, env.avail, env.t, terminated | truncated)
        env.reset(terminated | truncated)
    return replay


def joined(batches: Sequence[Batch], dtype: torch.dtype = torch.float32) -> Batch:
    """Batches of S = 1 and of the same episodes side by side as seeds, in this precision."""
    fields = {}
    for name in Batch._fields:
        parts = [getattr(batch, name) for batch in batches]
        fields[name] = parts[0]
        if isinstance(parts[0], Tensor) and name not in ("now", "next"):
            fields[name] = torch.cat(parts)
            if parts[0].dtype == torch.float32:
                fields[name] = fields[name].to(dtype)
    return Batch(**fields)


def rows_of(path: Path) -> list[dict[str, float]]:
    header, *rows = (line.split("\t") for line in (path / "progress.txt").read_text().splitlines())
    return [dict(zip(header, map(float, row), strict=True)) for row in rows]


def left(path: Path) -> dict[str, Any]:
    """All that a run left behind, but for the time that it took."""
    last = max(int(file.stem) for file in (path / "checkpoint").glob("*.json"))
    manifest = json.loads((path / "checkpoint" / f"{last}.json").read_text())
    values = {
        k: v for k, v in manifest["values"].items() if k not in ("log/elapsed", "log/n_updates", "folder/progress")
    }
    arrays = load_file(path / "policy.safetensors")
    for name in manifest["files"]:
        for key, array in load_file(path / "checkpoint" / name).items():
            if name.startswith("replay_"):  # rows that are overwritten by now may differ
                array = array[:, max(0, manifest["replay"][0] - int(name[7:13]) * checkpoint.CHUNK) :]
            arrays[f"{name} {key}"] = array
    rows = [{k: v for k, v in row.items() if k != "Time"} for row in rows_of(path)]
    return {"values": values, "rows": repr(rows), **{k: (v.shape, v.tobytes()) for k, v in arrays.items()}}


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
