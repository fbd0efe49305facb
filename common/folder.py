"""A seed's run folder: its lock, its configuration, its rows and its checkpoints."""

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoint import Checkpoints, Damaged, write_atomic
from common.errors import UsageError

# flags that may differ between a run and its continuation: how long, where, and by what the same numbers are computed
FREE = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "compile"}
FREE |= {"record", "stop_on_divergence", "tensorboard", "wandb"}
LATER = {"batches": "apart"}  # flags that older runs do not have, and what these runs did


class Usage(UsageError):
    """An empty one is said by another rank."""


class Folder:
    """One seed's run folder, locked while it is entered."""

    def __init__(self, config: Any, algorithm: str, seed: int):
        self.config = {"algorithm": algorithm, **dataclasses.asdict(config), "seed": seed}
        self.path = Path(config.data_dir) / config.exp_name / f"{config.exp_name}_s{seed}"
        self.progress = self.path / "progress.txt"
        self.checkpoints = Checkpoints(self.path / "checkpoint")
        # what the run began with: other threads or kernels take sums in another order
        self.threads, self.compile = 0, ""

    def conflict(self) -> str:
        """How its configuration differs from this one; empty where it does not."""
        path = self.path / "config.json"
        try:
            old = json.loads(path.read_text()) if path.exists() else self.config
            self.threads, self.compile = int(old.get("threads", 0)), str(old.get("compile", ""))
            old = {**{name: value for name, value in LATER.items() if name in self.config}, **old}
            names = sorted((set(old) | set(self.config)) - FREE - {"versions"})
            different = [name for name in names if old.get(name) != self.config.get(name)]
        except (ValueError, TypeError, AttributeError):
            return f"{path}: not readable as JSON; mend it or give another --exp_name"
        text = ", ".join(f"{name} {old.get(name)!r}, not {self.config.get(name)!r}" for name in different)
        return text and f"{self.path}: holds a run with {text}; give the flags of that run, or another --exp_name"

    def __enter__(self) -> "Folder":
        """Make it and lock it. Raises Usage where another process has it, or where nothing can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.path / ".lock", "a+")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.lock.truncate(0)
            print(f"process {os.getpid()} on {platform.node()}", file=self.lock, flush=True)
            return self
        except BlockingIOError:
            with self.lock as lock:
                lock.seek(0)
                owner = lock.read().strip() or "another process"
            text = "is training in this folder; wait for it or give another --exp_name"
            raise Usage(f"{self.path}: {owner} {text}") from None
        except OSError as error:
            raise Usage(
                f"--data_dir {self.config['data_dir']!r}: cannot write there ({error}); give another --data_dir"
            ) from None

    def __exit__(self, *_: Any) -> None:
        self.lock.close()

    def begin(self, progress: str) -> None:
        """Write config.json, and set progress.txt back to what it was at a checkpoint: later rows are made again."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")}
        began = {"threads": self.threads, "compile": self.compile, "versions": versions}
        data = json.dumps({**self.config, **began}, indent=1) + "\n"
        write_atomic(self.path / "config.json", data.encode())
        if progress != self.rows():
            write_atomic(self.progress, progress.encode())

    def rows(self) -> str:
        """progress.txt as it is."""
        return self.progress.read_text() if self.progress.exists() else ""

    def steps(self, say: Callable[[str], None]) -> list[int]:
        """Steps that an undamaged checkpoint stands at, oldest first. Raises Usage where all are damaged."""
        steps, damages = [], []
        for step in self.checkpoints.steps():
            try:
                self.checkpoints.verify(step)
                steps.append(step)
            except Damaged as damage:
                damages.append(f"the checkpoint of step {step} is damaged ({damage})")
        if damages and not steps:
            raise Usage(f"{'; '.join(damages)}, and there is no other; move {self.path} away to start over")
        for damage in damages:
            say(f"WARNING: {damage}; using that of step {steps[-1]}")
        return steps

    def append(self, columns: dict[str, float]) -> None:
        """Add one row to progress.txt. Where columns are new, as losses at the first update, they are nan above it."""
        header, row = "\t".join(columns), "\t".join(f"{value:.10g}" for value in columns.values())
        old, *above = self.rows().splitlines() or [""]
        if old == header:
            with open(self.progress, "a") as file:
                file.write(row + "\n")
        else:
            cells = [dict(zip(old.split("\t"), line.split("\t"))) for line in above]
            above = ["\t".join(line.get(name, "nan") for name in columns) for line in cells]
            write_atomic(self.progress, "".join(f"{line}\n" for line in [header, *above, row]).encode())


def learner_folder(config: Any, learner: str, seed: int) -> Path:
    """Where a program that trains several learners keeps one seed of one of them."""
    return Path(config.data_dir) / f"{config.exp_name}_{learner}" / f"{config.exp_name}_{learner}_s{seed}"


def finished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether this run is done. Makes its folder; raises ValueError where that holds a run of other settings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = json.loads((folder / "config.json").read_text()) if (folder / "config.json").exists() else config
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: {error}; give another --exp_name or --data_dir") from None
    for name in sorted({*old, *config} - {"data_dir", "num_runs"}):
        if old.get(name) != config.get(name):
            raise ValueError(
                f"{folder}: holds a run with {name} {old.get(name)!r}, not {config.get(name)!r}; "
                "give another --exp_name, or the flags of that run"
            )
    write_atomic(folder / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    return (folder / "progress.txt").exists()


def write_table(path: Path, names: Sequence[str], columns: Sequence[np.ndarray] | np.ndarray) -> None:
    """Tab-separated, header first."""
    rows = ["\t".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)]
    write_atomic(path, "\n".join(["\t".join(names), *rows, ""]).encode())
