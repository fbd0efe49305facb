"""What a run's folder holds, for whoever reads one: the names of its files, its settings, its rows. No torch.

    <data_dir>/<experiment>/<experiment>_s<seed>/   config.json  progress.txt  policy.safetensors  checkpoint/

--keep adds networks/<step>.safetensors; `python -m games.ideal_values` adds ideal_values.txt, `python -m games.trap`
trap.txt.
"""

import csv
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError

CONFIG, PROGRESS, POLICY, CHECKPOINT = "config.json", "progress.txt", "policy.safetensors", "checkpoint"
NETWORKS, IDEAL_VALUES, TRAP = "networks", "ideal_values.txt", "trap.txt"

# Settings in which a run and its continuation, or the seeds of one curve, may differ: how long it is, where it is kept,
# and what computes the same numbers
FREE = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "compile", "record"}
FREE |= {"keep", "stop_on_divergence", "tensorboard", "wandb", "versions", "commits"}

LATER = {"batches": "apart"}  # flags that older runs do not have, and what these runs did


# what reading a file of another content than expected raises
NONSENSE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


def run_folder(data_dir: str | Path, experiment: str, seed: int) -> Path:
    """Where one seed of an experiment is kept."""
    return Path(data_dir) / experiment / f"{experiment}_s{seed}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """How the settings of two runs differ, as "lam 1.0, not 0.2"; empty where they do not.

    Of another algorithm or task that alone: most other settings follow from it.
    """
    names = [name for name in sorted({*old, *new} - FREE) if old.get(name) != new.get(name)]
    names = next(([name] for name in ("algorithm", "env") if name in names), names)
    return ", ".join(_differ(name if name.isidentifier() else repr(name), name, old, new) for name in names)


def _differ(word: str, name: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    if name not in old:
        return f"no {word}, which is {new[name]!r} here"
    value = f"{word} {short(repr(old[name]))}"
    return f"{value}, not {new[name]!r}" if name in new else f"{value}, which is unknown here"


def short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]}..."


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run. Raises UsageError, a line that names the file, where they cannot be read."""
    path = run / CONFIG
    try:
        config = json.loads(read_whole(path))
    except OSError as error:
        raise UsageError(f"{path}: {reason(error)}") from error
    except NONSENSE as error:
        raise UsageError(f"{path}: not readable as JSON ({one_line(error)})") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path}: not readable as JSON settings: {str(config)[:40]}")
    return config | {"env": one_name(config["env"])} if isinstance(config.get("env"), str) else config


def one_name(env: str) -> str:
    """The name of a task that has two, as 2-4HalfCheetah for 2|4HalfCheetah."""
    return env.replace("|", "-")


def asked(config: dict[str, Any]) -> int:
    """Environment steps that a run with these settings is to make; 0 for a game's, which writes all rows at once."""
    return config.get("epochs", 0) * config.get("steps_per_epoch", 0)


def read_whole(path: Path) -> bytes:
    """The bytes of a file. Raises OSError where it is no regular file: reading a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def read_progress(run: Path, note: Callable[[str], None] = _to_stderr) -> dict[str, np.ndarray]:
    """The columns of a run's progress.txt; see read_table."""
    return read_table(run / PROGRESS, note)


def read_table(path: Path, note: Callable[[str], None] = _to_stderr) -> dict[str, np.ndarray]:
    """The columns of a table; a cell that is no number is NaN. Raises UsageError where there is no row.

    Cells end with tabs, or with commas where the header has no tab; spaces and quotes around a cell are no part of it,
    and a comma between quotes is.

    A last line without its newline is still being written and does not count: its last number may be half a number.
    A line with more or fewer cells than the header is left out, and noted.
    """
    try:
        *lines, rest = read_whole(path).decode("utf-8-sig", "replace").replace("\r\n", "\n").split("\n")
    except OSError as error:
        raise UsageError(f"{path}: {reason(error)}") from error
    if rest.strip():
        note(f"{path}: the last line has no end yet and is left out")
    between = "," if lines and "," in lines[0] and "\t" not in lines[0] else "\t"
    header = _cells(lines[0], between) if lines else []
    rows, damaged = [], []
    for number, line in enumerate(lines[1:], 2):
        cells = _cells(line, between)
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


def _cells(line: str, between: str) -> list[str]:
    """By line, so that a quote that is never closed takes no further one with it."""
    try:
        return [cell.strip() for row in csv.reader([line], delimiter=between, skipinitialspace=True) for cell in row]
    except csv.Error:  # which a damaged line can be, as one of a million zeros
        return [line]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def reason(error: OSError) -> str:
    """What the system says of it, in lower case."""
    return (error.strerror or str(error)).lower()


def one_line(error: Exception) -> str:
    """What an error says, in one line; with its kind where that alone would say little."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__} {text}" if isinstance(error, NONSENSE[2:]) else text


def refuse_strays(folder: Path) -> None:
    """Raise UsageError where something stands in a run's folder in the place of one of its files."""
    for name in (".lock", CONFIG, PROGRESS, POLICY, CHECKPOINT):
        path = folder / name
        if os.path.lexists(path) and not (path.is_dir() if name == CHECKPOINT else path.is_file()):
            kind = "folder" if name == CHECKPOINT else "regular file"
            raise UsageError(f"{path}: is no {kind}; move it away and start again, or give another --exp_name")


def refuse_names(path: Path) -> None:
    """Raise UsageError where a run's folder has a name that is too long for the file system."""
    home = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    name, whole = os.pathconf(home, "PC_NAME_MAX"), os.pathconf(home, "PC_PATH_MAX") - 80  # for the files in it
    lengths = {part: len(os.fsencode(part)) for part in path.parts}
    longest = max(lengths, key=lambda part: lengths[part])
    if lengths[longest] > name:
        text = f"a name of {lengths[longest]} bytes, where {name} are allowed"
        raise UsageError(f"{short(longest)}: {text}; give a shorter --data_dir or --exp_name")
    if len(os.fsencode(path)) > whole:
        text = f"a path of {len(os.fsencode(path))} bytes, where {whole} are allowed"
        raise UsageError(f"{short(str(path))}: {text}; give a shorter --data_dir")
