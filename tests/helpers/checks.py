"""Checks that several algorithm files must pass, each called by the tests of those files."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from common.checkpoint import Checkpoints
from common.fast import kernels
from common.nets import MLP
from common.runs import main
from helpers.toys import Toy, make_agents, make_batch, nets_of, parameters, same_bits

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight (S, N, out, in) and bias (S, N, out) of each, in float64

TINY = {"steps_per_epoch": 60, "start_steps": 15, "update_after": 20, "update_every": 10, "updates": 3, "threads": 1}
TINY |= {"hid": 8, "batch_size": 5, "replay_size": 50, "num_test_episodes": 2, "max_ep_len": 7, "test_ep_len": 5}


def compiled() -> kernels.Kernels:
    """The compiled kernels; skips the test where there is no compiler."""
    try:
        return kernels.load()
    except RuntimeError as error:
        pytest.skip(str(error))


def compiled_for(compiler: str, cpu: str, monkeypatch: pytest.MonkeyPatch) -> kernels.Kernels:
    """The kernels as this compiler builds them for this CPU; skips the test where either is missing."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    if cpu == "haswell" and not {"avx2", "fma"} <= set(kernels._instructions().split()):
        pytest.skip("this CPU has no AVX2")
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(kernels, "FLAGS", [flag.replace("native", cpu) for flag in kernels.FLAGS])
    return kernels.load()


def command(module: ModuleType, **flags: Any) -> int:
    """The status that the program ends with when it is started with these flags, beside the tiny ones."""
    argv = [f"--{name}={value}" for name, value in {**TINY, **flags}.items()]
    with mock.patch.object(sys, "argv", [f"{module.__name__}.py", *argv]), pytest.raises(SystemExit) as end:
        main(module.Config, module.defaults, module.train, module.__doc__)
    return int(end.value.code or 0)


def rows_of(run: Path) -> list[dict[str, float]]:
    """progress.txt by column."""
    header, *rows = (line.split("\t") for line in (run / "progress.txt").read_text().splitlines())
    return [dict(zip(header, map(float, row), strict=True)) for row in rows]


def assert_trains(module: ModuleType, data_dir: Path, losses: set[str], **flags: Any) -> None:
    """A run of two epochs by the program's flags ends well, with these losses in its log, and moved its policy."""
    flags = {"data_dir": data_dir, "exp_name": "x", **flags}
    policies = []
    for epochs in (1, 2):
        assert command(module, epochs=epochs, **flags) == 0
        policies.append(load_file(data_dir / "x" / "x_s0" / "policy.safetensors"))
    rows = rows_of(data_dir / "x" / "x_s0")
    assert [row["TotalEnvInteracts"] for row in rows] == [60, 120]
    assert {name for name in rows[0] if name.startswith("Loss")} == losses
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert not any(same_bits(*policies).values())


def kept(run: Path) -> dict[str, Any]:
    """All that a finished run left behind, but for the time that it took."""
    last = Checkpoints(run / "checkpoint").steps()[-1]
    manifest = json.loads((run / "checkpoint" / f"{last}.json").read_text())
    values = {k: v for k, v in manifest["values"].items() if k not in ("log/elapsed", "folder/progress")}
    arrays = load_file(run / "checkpoint" / f"{last}.safetensors") | load_file(run / "policy.safetensors")
    rows = [{name: value for name, value in row.items() if name != "Time"} for row in rows_of(run)]
    return {"step": last, "values": values, "rows": repr(rows), **{k: v.tobytes() for k, v in arrays.items()}}


def assert_resumes_exactly(module: ModuleType, data_dir: Path, **flags: Any) -> None:
    """Two seeds that stopped after one epoch and went on leave the bits of two that never stopped."""
    flags = {"env": "DifferentialGame-2", "exp_name": "x", "num_runs": 2, **flags}
    for name, pieces in {"straight": [2], "resumed": [1, 2]}.items():
        for epochs in pieces:
            assert command(module, data_dir=data_dir / name, epochs=epochs, **flags) == 0
    for seed in range(2):
        straight, resumed = (kept(data_dir / name / "x" / f"x_s{seed}") for name in ("straight", "resumed"))
        assert straight == resumed
        assert straight["step"] == 120


def assert_decentralised(module: ModuleType, **flags: Any) -> None:
    """What agent 1 of the first seed sees, does and is paid is no part of what any other learns."""
    env, learned = Toy(seeds=[3, 4]), []
    for poison in (False, True):
        agents, cfg = make_agents(module, env, hid=64, batch_size=100, **flags)  # wide enough for oneDNN's kernels
        for turn in range(4):
            batch = make_batch(env, cfg.batch_size, turn)
            if poison:
                for part in batch:
                    part[0, 1] = torch.nan
            module.update(agents, batch, cfg)
        learned.append(agents)
    for s, i in np.ndindex(2, 3):
        same = same_bits(*(parameters(agents, s, i) for agents in learned))
        assert set(same.values()) == {(s, i) != (0, 1)}, f"seed {s}, agent {i}: {same}"


# Oracles: numpy in float64, no autograd


def layers_of(net: MLP) -> Layers:
    return [(w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in zip(net.weights, net.biases)]


def snapshot(agents: Any) -> dict[str, Layers]:
    """Copies of all networks by name."""
    return {name: layers_of(net) for name, net in nets_of(agents).items()}


def run_net(layers: Layers, *inputs: np.ndarray) -> np.ndarray:
    """inputs (S, N, B, .), side by side, through ReLU layers: (S, N, B, O)."""
    x = np.concatenate(inputs, -1)
    for k, (weight, bias) in enumerate(layers):
        x = np.einsum("snoi,snbi->snbo", weight, np.maximum(x, 0) if k else x) + bias[:, :, None]
    return x


def slopes(loss: Callable[[dict[str, Layers]], np.ndarray], nets: dict[str, Layers], name: str) -> Layers:
    """d loss / d each parameter of network `name`, by central differences. loss(nets): (S, N), each of its own nets."""
    nets = {**nets, name: [(w.copy(), b.copy()) for w, b in nets[name]]}
    out = [(np.zeros_like(w), np.zeros_like(b)) for w, b in nets[name]]
    for parts, gradients in zip(nets[name], out):
        for part, gradient in zip(parts, gradients):
            for at in np.ndindex(part.shape[2:]):
                here, ends = (..., *at), []
                for small in (1e-6, -2e-6):
                    part[here] += small
                    ends.append(loss(nets))
                part[here] += 1e-6
                gradient[here] = (ends[0] - ends[1]) / 2e-6
    return out


def assert_descends_in_order(
    before: dict[str, Layers],
    agents: Any,
    losses: dict[str, Callable[[dict[str, Layers]], np.ndarray]],
) -> None:
    """After one update, every network has stepped along the slope of its own loss, in the order of `losses`.

    Networks that come earlier in the order count with their new parameters, later ones and targets with the old.
    """
    now, after = dict(before), snapshot(agents)
    for name, loss in losses.items():
        net = nets_of(agents)[name]
        assert net.flat.grad is not None
        taken, expected = layers_of(MLP(net.sizes, net.flat.grad)), slopes(loss, now, name)
        assert max(np.abs(w).max() for w, _ in expected) > 1e-3  # there is a slope
        for a, b in zip(taken, expected):
            for mine, slope in zip(a, b):
                np.testing.assert_allclose(mine, slope, rtol=1e-5, atol=1e-8, err_msg=name)
        now[name] = after[name]
    online = {name for name in nets_of(agents) if not name.endswith("_targ")}
    assert online == set(losses), "an online network without a loss"


def assert_tracks(before: dict[str, Layers], agents: Any, names: dict[str, str], polyak: float) -> None:
    """Each target is polyak times its old self and the rest its online network after the update."""
    after = snapshot(agents)
    assert names.keys() == {name for name in after if name.endswith("_targ")}
    for target, online in names.items():
        for old, new, net in zip(before[target], after[target], after[online]):
            for a, b, c in zip(old, new, net):
                np.testing.assert_allclose(b, polyak * a + (1 - polyak) * c, rtol=0, atol=1e-12, err_msg=target)
