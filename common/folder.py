"""A seed's run folder: its lock, its configuration, its rows and its checkpoints."""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from common.checkpoint import Checkpoints, Damaged
from common.disk import write_atomic, write_through
from common.errors import UsageError
from common.layout import (
    CHECKPOINT,
    CONFIG,
    LATER,
    PROGRESS,
    differences,
    read_config,
    read_whole,
    refuse_names,
    refuse_strays,
    run_folder,
    short,
)
from common.limits import most_threads
from common.provenance import commit, program, versions

Held = TypeVar("Held", bound="Lock")
PATIENCE = 0.2  # seconds for which a lock is tried: who only looks whether it is held has it for a moment


class Usage(UsageError):
    """An empty one is said by another rank."""


class Lock:
    """A run folder that one process has at a time, as long as it is entered."""

    def __init__(self, path: Path, data_dir: str):
        self.path, self.data_dir = path, data_dir
        self.made: list[Path] = []  # folders that were not there before, the innermost first

    def __enter__(self: Held) -> Held:
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
                f"--data_dir {self.data_dir!r}: cannot write there ({error}); give another --data_dir"
            ) from None

    def _lock(self) -> None:
        """Hold the folder's lock, emptied. Raises OSError; BlockingIOError where another process has it."""
        path, patience = self.path / ".lock", time.monotonic() + PATIENCE
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(path, "a+", errors="replace")  # noqa: SIM115
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise
                self.lock.close()
                time.sleep(PATIENCE / 10)
                continue
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


class Folder(Lock):
    """One seed's run folder, locked while it is entered."""

    def __init__(self, config: Any, algorithm: str, seed: int):
        self.config = {"algorithm": algorithm, **dataclasses.asdict(config), "seed": seed}
        super().__init__(run_folder(config.data_dir, config.exp_name, seed), config.data_dir)
        self.progress = self.path / PROGRESS
        self.checkpoints = Checkpoints(self.path / CHECKPOINT)
        # what the run began with: other threads or kernels take sums in another order
        self.threads, self.compile = 0, ""
        self.commits: list[str] = []  # at which it was trained so far
        self.versions: dict[str, str] = {}  # of libraries and program, likewise, as "2.12.0, 2.13.0"
        self.program = program()  # read now: the file may be edited while this trains

    def conflict(self) -> str:
        """Why this run cannot train in its folder, by the folder's name and by what lies there; empty where it can."""
        path = self.path / CONFIG
        try:
            refuse_names(self.path)
            refuse_strays(self.path)
            # looked at in this order, as another rank may be starting there: it writes config.json first
            if (self.progress.exists() or self.checkpoints.folder.exists()) and not os.path.lexists(path):
                raise UsageError(
                    f"{path}: is gone, so the flags of the run beside it are not known; put it back, or "
                    "give another --exp_name"
                )
            old = read_config(self.path) if os.path.lexists(path) else self.config
        except UsageError as error:
            text = str(error)
            return text if ";" in text else f"{text}; fix it, or give another --exp_name"
        try:
            self._take_over(path, old)
        except UsageError as error:
            return str(error)
        text = differences({**{k: v for k, v in LATER.items() if k in self.config}, **old}, self.config)
        return text and f"{self.path}: holds a run with {text}; give the flags of that run, or another --exp_name"

    def _take_over(self, path: Path, old: dict[str, Any]) -> None:
        """Remember what the run began with. Raises UsageError where that is nothing to go on with."""
        threads, compiled, most = old.get("threads", 0), old.get("compile", ""), most_threads()
        if not self.config["threads"] and not (type(threads) is int and 0 <= threads <= most):
            raise UsageError(
                f"{path}: threads {short(repr(threads))}: must be a whole number within 0 .. {most}; fix it, or give "
                "--threads"
            )
        if compiled not in ("", "auto", "on", "off"):
            raise UsageError(f"{path}: compile {short(repr(compiled))}: must be 'on' or 'off'; fix it")
        self.threads, self.compile = (0 if self.config["threads"] else threads), compiled
        commits = old.get("commits")  # which older runs do not have
        self.commits = [str(name) for name in commits] if isinstance(commits, list) else []
        known = old.get("versions")
        self.versions = {name: str(known[name]) for name in known} if isinstance(known, dict) else {}

    def begin(self, progress: str) -> None:
        """Write config.json, and set progress.txt back to what it was at a checkpoint: later rows are made again."""
        if commit() and commit() not in self.commits[-1:]:
            self.commits.append(commit())
        self.versions |= {name: f"{self.versions[name]}, {now}" for name, (_, now) in self.changed().items()}
        self.versions = {**versions(), **self.program, **self.versions}
        began = {"threads": self.threads, "compile": self.compile, "versions": self.versions, "commits": self.commits}
        data = json.dumps({**self.config, **began}, indent=1) + "\n"
        write_atomic(self.path / CONFIG, data.encode())
        if progress != self.rows():
            write_atomic(self.progress, progress.encode())

    def changed(self) -> dict[str, tuple[str, str]]:
        """Libraries, or the program, whose version in the sitting before was another one: that one, and the one now."""
        now = versions() | self.program
        last = {name: known.split(", ")[-1] for name, known in self.versions.items() if name in now}
        return {name: (version, now[name]) for name, version in last.items() if version != now[name]}

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
            write_through(self.progress, f"{row}\n".encode(), "ab")  # a finished run's rows are never made again
        else:
            cells = [dict(zip(old.split("\t"), line.split("\t"))) for line in above]
            above = ["\t".join(line.get(name, "nan") for name in columns) for line in cells]
            write_atomic(self.progress, "".join(f"{line}\n" for line in [header, *above, row]).encode())
