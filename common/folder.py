"""A seed's run folder: its lock, its configuration, its rows and its checkpoints."""

import contextlib
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

from common.checkpoint import NONSENSE, Checkpoints, Damaged, read_whole, reason, write_atomic
from common.errors import UsageError
from common.limits import most_threads

# flags that may differ between a run and its continuation: how long, where, and by what the same numbers are computed
FREE = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "compile"}
FREE |= {"record", "stop_on_divergence", "tensorboard"}
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
        self.made: list[Path] = []  # folders that were not there before, the innermost first
        # what the run began with: other threads or kernels take sums in another order
        self.threads, self.compile = 0, ""

    def conflict(self) -> str:
        """Why this run cannot train in its folder, by the folder's name and by what lies there; empty where it can."""
        path = self.path / "config.json"
        try:
            refuse_names(self.path)
            refuse_strays(self.path)
            old = read_config(path) or self.config
            self._take_over(path, old)
        except UsageError as error:
            return str(error)
        old = {**{name: value for name, value in LATER.items() if name in self.config}, **old}
        names = sorted((set(old) | set(self.config)) - FREE - {"versions"})
        different = [name for name in names if old.get(name) != self.config.get(name)]
        text = ", ".join(
            f"{name if name.isidentifier() else repr(name)} {short(repr(old.get(name)))}, not {self.config.get(name)!r}"
            for name in different
        )
        return text and f"{self.path}: holds a run with {text}; give the flags of that run, or another --exp_name"

    def _take_over(self, path: Path, old: dict[str, Any]) -> None:
        """Remember what the run began with. Raises UsageError where that is nothing to go on with."""
        threads, compiled, most = old.get("threads", 0), old.get("compile", ""), most_threads()
        if not self.config["threads"] and not (type(threads) is int and 0 <= threads <= most):
            raise UsageError(
                f"{path}: threads {short(repr(threads))}: must be a whole number within 0 .. {most}; mend it, or give "
                "--threads"
            )
        if compiled not in ("", "auto", "on", "off"):
            raise UsageError(f"{path}: compile {short(repr(compiled))}: must be 'on' or 'off'; mend it")
        self.threads, self.compile = (0 if self.config["threads"] else threads), compiled

    def __enter__(self) -> "Folder":
        """Make it and lock it. Raises Usage where another process has it, or where nothing can be written."""
        self.made = [path for path in (self.path, *self.path.parents) if not os.path.exists(path)]
        try:
            self._lock()
            print(f"process {os.getpid()} on {platform.node()}", file=self.lock, flush=True)
            return self
        except BlockingIOError:
            with self.lock as lock:
                lock.seek(0)
                owner = lock.read(200).partition("\n")[0].strip() or "another process"
            text = "is training in this folder; wait for it or give another --exp_name"
            raise Usage(f"{self.path}: {owner} {text}") from None
        except OSError as error:
            self._unmake()
            raise Usage(
                f"--data_dir {self.config['data_dir']!r}: cannot write there ({error}); give another --data_dir"
            ) from None

    def _lock(self) -> None:
        """Hold the folder's lock, emptied. Raises OSError; BlockingIOError where another process has it."""
        path = self.path / ".lock"
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(path, "a+", errors="replace")  # noqa: SIM115
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(self.lock.fileno()), path.stat()):
                break
            self.lock.close()  # who had it before has just removed it, see _unmake
        self.lock.truncate(0)

    def _unmake(self) -> None:
        """Remove the folders that this process made, where nothing was written into them."""
        with contextlib.suppress(OSError):
            if self.made and os.listdir(self.path) == [".lock"]:
                (self.path / ".lock").unlink()
        for path in self.made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()

    def __exit__(self, *_: Any) -> None:
        self._unmake()  # while it is locked
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
        """progress.txt as it is; what is no UTF-8 in it is replaced."""
        return read_whole(self.progress).decode(errors="replace") if self.progress.exists() else ""

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


def read_config(path: Path) -> dict[str, Any] | None:
    """What a config.json holds; None where there is none. Raises UsageError where it cannot be read."""
    if not os.path.lexists(path):
        return None
    try:
        config = json.loads(read_whole(path))
        assert isinstance(config, dict), "it is no object"
        return config
    except (AssertionError, *NONSENSE) as error:
        text = "mend it, or give another --exp_name"
        raise UsageError(f"{path}: not readable as JSON ({reason(error)}); {text}") from None


def refuse_strays(folder: Path) -> None:
    """Raise UsageError where something stands in a run's folder in the place of one of its files."""
    for name in (".lock", "config.json", "progress.txt", "policy.safetensors", "checkpoint"):
        path = folder / name
        if os.path.lexists(path) and not (path.is_dir() if name == "checkpoint" else path.is_file()):
            kind = "folder" if name == "checkpoint" else "regular file"
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


def short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]}..."


def learner_folder(config: Any, learner: str, seed: int) -> Path:
    """Where a program that trains several learners keeps one seed of one of them."""
    return Path(config.data_dir) / f"{config.exp_name}_{learner}" / f"{config.exp_name}_{learner}_s{seed}"


def finished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether this run is done. Makes its folder; raises UsageError where that holds a run of other settings."""
    refuse_names(folder)
    refuse_strays(folder)
    old = read_config(folder / "config.json") or config
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error}; give another --exp_name or --data_dir") from None
    for name in sorted({*old, *config} - {"data_dir", "num_runs"}):
        if old.get(name) != config.get(name):
            raise UsageError(
                f"{folder}: holds a run with {name} {short(repr(old.get(name)))}, not {config.get(name)!r}; "
                "give another --exp_name, or the flags of that run"
            )
    write_atomic(folder / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    return (folder / "progress.txt").exists()


def write_table(path: Path, names: Sequence[str], columns: Sequence[np.ndarray] | np.ndarray) -> None:
    """Tab-separated, header first."""
    rows = ["\t".join(f"{value:.10g}" for value in row) for row in zip(*columns, strict=True)]
    write_atomic(path, "\n".join(["\t".join(names), *rows, ""]).encode())
