"""Small runs, and what they leave in their folders."""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from common import checkpoint
from common.checkpoint import Checkpoints
from common.replay import Replay

TINY = {"hid": 4, "steps_per_epoch": 40, "update_after": 20, "update_every": 10, "updates": 2, "batch_size": 4}
TINY |= {"num_test_episodes": 2, "max_ep_len": 15, "test_ep_len": 5, "epochs": 3, "threads": 1, "exp_name": "x"}
GAME = {**TINY, "env": "DifferentialGame-2", "start_steps": 25}


def folder(tmp_path: Path, seed: int = 0, data: str = "data", name: str = "x") -> Path:
    return tmp_path / data / name / f"{name}_s{seed}"


def rows(path: Path) -> list[dict[str, str]]:
    header, *lines = (path / "progress.txt").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def left(path: Path) -> dict[str, Any]:
    """All that a run leaves and that has to be equal to the bit: everything but times, and dead replay rows."""
    checkpoints = Checkpoints(path / "checkpoint")
    step = checkpoints.steps()[-1]
    config = json.loads((path / "config.json").read_text())
    names = json.loads((checkpoints.folder / f"{step}.json").read_text())
    replay = None
    if "replay" in names:
        width = load_file(checkpoints.folder / f"{step}.safetensors")["replay tail"].shape
        replay = Replay([0], width[0], 0, 0, config["replay_size"])
        replay.rows = replay.rows.new_zeros(1, width[0], config["replay_size"], width[2])
    parts = checkpoints.load(step, replay)
    parts["log"].pop("elapsed")
    parts["folder"].clear()
    arrays, values = checkpoint.flatten(parts)
    if replay is not None:
        arrays["replay rows"] = replay.rows.numpy()
    arrays |= load_file(path / "policy.safetensors")
    return {
        "step": step,
        "values": values,
        "arrays": {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()},
        "progress": [{name: cell for name, cell in row.items() if name != "Time"} for row in rows(path)],
    }


def assert_same(a: Path, b: Path) -> None:
    one, other = left(a), left(b)
    for name in one["arrays"]:
        assert one["arrays"][name] == other["arrays"][name], name
    assert one == other
