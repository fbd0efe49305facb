"""What a run's folder holds, for whoever reads one: the names of its files, its settings, its rows. No torch.

    <data_dir>/<experiment>/<experiment>_s<seed>/   config.json  progress.txt  policy.safetensors  checkpoint/

`python -m games.ideal_values` adds ideal_values.txt.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError

CONFIG, PROGRESS, POLICY, CHECKPOINT = "config.json", "progress.txt", "policy.safetensors", "checkpoint"
IDEAL_VALUES = "ideal_values.txt"

# Settings in which a run and its continuation, or the seeds of one curve, may differ: how long it is, where it is kept,
# and what computes the same numbers
FREE = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "compile", "record"}
FREE |= {"stop_on_divergence", "tensorboard", "wandb", "versions"}


def run_folder(data_dir: str | Path, experiment: str, seed: int) -> Path:
    """Where one seed of an experiment is kept."""
    return Path(data_dir) / experiment / f"{experiment}_s{seed}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """How the settings of two runs differ, as "lam 1.0, not 0.2"; empty where they do not."""
    names = sorted({*old, *new} - FREE)
    return ", ".join(f"{k} {old.get(k)!r}, not {new.get(k)!r}" for k in names if old.get(k) != new.get(k))


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run. Raises UsageError, a line that names the file, where they cannot be read."""
    path = run / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} holds no settings but {str(config)[:40]}")
    return config


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def read_progress(run: Path, note: Callable[[str], None] = _to_stderr) -> dict[str, np.ndarray]:
    """The columns of a run's progress.txt; see read_table."""
    return read_table(run / PROGRESS, note)


def read_table(path: Path, note: Callable[[str], None] = _to_stderr) -> dict[str, np.ndarray]:
    """The columns of a tab-separated table; a cell that is no number is NaN. Raises UsageError where there is no row.

    A last line without its newline is still being written and does not count: its last number may be half a number.
    A line with more or fewer cells than the header is left out, and noted.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    except OSError as error:
        raise UsageError(f"{path}: {reason(error)}") from error
    header, rows, damaged = lines[0].split("\t") if lines else [], [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if line.strip() and len(cells) == len(header):
            rows.append([_number(cell) for cell in cells])
        elif line.strip():
            damaged.append(f"line {number} has {len(cells)} cells, the header {len(header)}")
    if damaged:
        more = f" ({len(damaged) - 1} more like it)" if len(damaged) > 1 else ""
        note(f"{path}: {damaged[0]}; the line is left out{more}")
    if not rows:
        raise UsageError(f"{path} has no row yet")
    return dict(zip(header, np.array(rows).T))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def reason(error: OSError) -> str:
    """What the system says of it, in lower case."""
    return (error.strerror or str(error)).lower()
