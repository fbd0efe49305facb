"""A group of seeds that train in step: what an algorithm's `train` is given."""

import contextlib
import functools
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from common import checks, limits, writers
from common.checkpoint import NONSENSE, Damaged, flatten
from common.console import Once, clock, say
from common.disk import write_atomic
from common.errors import SeedFailure, UsageError, defect, exit_status, files, of_seeds, trace
from common.fast.kernels import Kernels
from common.fast.record import Plain, Recorded, Update
from common.fast.recorders import cuda_graph, operations
from common.fast.recorders import repeated as repeated  # for the updates of algorithms, which see nothing of fast
from common.folder import Folder, Usage
from common.layout import NETWORKS, POLICY, one_line
from common.log import Log, summary
from common.ranks import Ranks
from common.signals import Signals, Stopped
from common.turns import Turns

DIVERGED = "the update diverged; start over with smaller learning rates"


@dataclass(frozen=True)
class Process:
    """What the groups of seeds that one process trains have in common."""

    config: Any
    ranks: Ranks
    signals: Signals
    once: Once  # says what every rank and group would say


class Run:
    """A group of seeds that train in step: what an algorithm's `train` is given."""

    def __init__(self, process: Process, folders: Mapping[int, Folder], start: int = 0, kernels: Kernels | None = None):
        """`folders` are those of its seeds, which go on from step `start`."""
        self.config, self.signals, self.say = process.config, process.signals, process.once
        self.seeds, self.folders = tuple(folders), list(folders.values())
        self.start, self.total = start, self.config.epochs * self.config.steps_per_epoch
        self.step = 0  # that is being made; 0: none yet
        self.kernels, self.alone = kernels, process.ranks.size == 1
        self.turns = process.ranks.turns if self.config.device == "cpu" else Turns()
        self.log = Log(len(folders))
        self.diverged: set[int] = set()  # rows that were warned of
        self.stuck: set[int] = set()  # likewise
        self.names: set[str] = set()  # of all that a checkpoint holds of the agents
        self.parts: dict[str, Any] = {}
        self.writers: list[list[Any]] = []  # by row, beside progress.txt
        self.bar = tqdm(disable=True)
        self.name = " ".join(f"s{seed}" for seed in folders)

    def track(self, **parts: Any) -> None:
        """Name what a checkpoint holds, objects with state_dict(row), load_state_dict(row, state), and restore it."""
        self.parts = parts
        for name, part in parts.items():
            if name != "replay" and hasattr(part, "read") and hasattr(part, "write"):
                raise UsageError(
                    f"run.track({name}=...): the transitions of one replay are saved, which is tracked as replay=...; "
                    "keep what another one holds in arrays of its own, with state_dict and load_state_dict"
                )
        limits.check(self.config, len(self.seeds), parts["env"])
        if hasattr(parts["agents"], "use"):
            parts["agents"].use(self.kernels)
        if self.start == 0:
            for state in self._states(0):
                flatten(state)  # refuses what cannot be saved while nothing is written yet
        progress = [self._restore(row) if self.start else "" for row in range(len(self.seeds))]
        self._warn_of_versions()
        with files():
            for folder, text in zip(self.folders, progress):  # nothing is changed before all of them are restored
                folder.begin(text)
        if self.start == 0:
            self.save(0)  # a disk that cannot be written to is found now, and rows never stand without a checkpoint
        else:
            say(f"[{self.name}] resuming from step {self.start} of {self.total}")
        with files():
            for folder in self.folders:
                self.writers.append(writers.open_writers(self.config, folder.path, folder.config, self.start))

    def _warn_of_versions(self) -> None:
        changed = {} if self.start == 0 else dict(item for folder in self.folders for item in folder.changed().items())
        if changed:
            text = ", ".join(f"{name} {old} and now {new}" for name, (old, new) in changed.items())
            why = "the numbers may differ from those of a run that was never stopped"
            say(f"[{self.name}] WARNING: trained with {text}: {why}", sys.stderr)

    def _restore(self, row: int) -> str:
        """Put back one seed's checkpoint: its progress.txt. Raises Usage where it does not hold what it has to."""
        folder, part = self.folders[row], None
        try:
            state = folder.checkpoints.load(self.start, self.parts.get("replay"), row)
            for name in (*self.parts, "log", "folder"):
                if name in state or (name in self.parts and not self.parts[name].state_dict(row)):
                    continue  # an empty state leaves no trace
                raise Damaged(f"no {name}")
            for name, part in self.parts.items():
                part.load_state_dict(row, state.get(name, {}))
            part = None
            self.log.load_state_dict(row, state["log"], self.config.device)
            if np.any(anew := self.parts["env"].anew[row]):
                for part in (self.log, *self.parts.values()):
                    if hasattr(part, "cut"):
                        part.cut(row, anew)
            return str(state["folder"]["progress"])
        except UsageError:
            raise
        except (Damaged, RuntimeError, *NONSENSE) as error:
            if part is not None and not part.load_state_dict.__module__.startswith(("common.", "envs.", "smac.")):
                raise  # an author's defect keeps its traceback
            path = folder.checkpoints.folder / f"{self.start}.json"
            raise Usage(
                f"{path}: does not hold what this run saves ({one_line(error)}); move it away to resume from the one "
                f"before it, or move {folder.path} away to start over"
            ) from error

    def record(self, update: Update) -> Update:
        """`update`, replayed from a record where --record allows it and the record gives the same; see Recorded."""
        on_cpu, wish = self.config.device == "cpu", self.config.record
        if wish == "off" or (wish == "auto" and on_cpu and self.kernels is None):
            return Plain(update)
        make = functools.partial(operations, self.kernels) if on_cpu else cuda_graph
        return Recorded(update, make, self.say, required=wish == "on", exact=on_cpu, others=self._others)

    def _others(self) -> dict[str, bytes]:
        """The state of each tracked part but the agents."""
        found = {}
        for name, part in self.parts.items():
            if name != "agents":
                arrays, values = flatten({str(row): part.state_dict(row) for row in range(len(self.seeds))})
                found[name] = save(arrays) + json.dumps(values).encode()
        return found

    def steps(self) -> Iterator[int]:
        """The environment steps still to do, counted from 1; saves between them when it is time or a signal came."""
        every = self.config.save_freq * self.config.steps_per_epoch
        tty = sys.stderr.isatty() and self.alone
        self.bar = tqdm(total=self.total, initial=self.start, unit=" steps", disable=not tty, dynamic_ncols=True)
        self.since = self.start, time.monotonic()
        self.signals.held = True
        self.check(self.start, observation=self.parts["env"].obs)
        for step in range(self.start + 1, self.total + 1):
            self.step = step
            self.turns.take()
            yield step
            self.check(step, observation=self.parts["env"].obs)  # an episode's first, which no step has returned
            if step % every == 0 or step == self.total or self.signals.signum:
                self.save(step)
            if self.signals.signum and step < self.total:
                stop = signal.Signals(self.signals.signum)
                raise Stopped(stop, f"[{self.name}] stopped by {stop.name}, saved at step {step}")
            self.bar.update()

    def close(self) -> None:
        """End of the steps, whether they are done or not."""
        self.signals.held = False
        self.turns.give()
        with contextlib.suppress(OSError):  # the terminal may be gone
            self.bar.close()
        for writer in itertools.chain(*self.writers):
            writer.close()

    def save(self, step: int) -> None:
        """Checkpoint every seed at `step`, and write its policy beside it. Nothing that is not finite is saved."""
        states = self._states(step)
        with files():
            for row, (folder, state) in enumerate(zip(self.folders, states)):
                state |= {"log": self.log.state_dict(row), "folder": {"progress": folder.rows()}}
                # the policy first: where a checkpoint stands, its policy does too
                write_atomic(folder.path / POLICY, save(self.parts["agents"].policy(row)))
                folder.checkpoints.save(step, state, self.parts.get("replay"), row)

    def _keep(self, row: int, step: int) -> None:
        """Put a copy of one seed's networks beside its checkpoints, which are overwritten."""
        parts = self.parts["agents"].state_dict(row)
        networks = {name: part.detach().cpu().numpy() for name, part in parts.items() if name.endswith(".flat")}
        path = self.folders[row].path / NETWORKS / f"{step}.safetensors"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, save(networks))

    def _states(self, step: int) -> list[dict[str, Any]]:
        """The state of every part, by row. Raises UsageError or SeedFailure where it must not be saved."""
        self._check_losses(step)
        states = [{name: part.state_dict(row) for name, part in self.parts.items()} for row in range(len(self.seeds))]
        self.names = self.names or set(states[0]["agents"])
        if late := sorted(set().union(*(self.names ^ set(state["agents"]) for state in states))):
            raise UsageError(f"agents.{late[0]} was added or removed during the run: define it in Agents.__init__")
        bad = {row: name for row, state in enumerate(states) for name in checks.bad_arrays(state["agents"])[:1]}
        if bad:
            raise SeedFailure({row: f"step {step}: {name} is not finite: {DIVERGED}" for row, name in bad.items()})
        return states

    def failed(self, error: BaseException) -> list[int]:
        """The seeds that `error` ends, after saying why. Raises what ends the whole program, if only as a Defect."""
        when = f"step {self.step}" if self.step else f"before step {self.start + 1}"
        failure = of_seeds(error, when, len(self.seeds))
        if not isinstance(failure, SeedFailure):
            raise error if exit_status(error) else defect(error, f"[{self.name}] {when}")
        said = ""
        for row, why in failure.reasons.items():
            kept = " (kept up to its last checkpoint)" if self.folders[row].checkpoints.last is not None else ""
            text, cause = f"[s{self.seeds[row]}] failed: {why}{kept}", trace(failure.causes.get(row))
            say(f"{text}\n{cause}" if cause not in ("", said) else text, sys.stderr)
            said = cause or said
        return [self.seeds[row] for row in failure.reasons]

    def store(
        self,
        replay: Any,
        step: int,
        obs: np.ndarray,
        act: np.ndarray,
        next_obs: np.ndarray,
        rew: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """See that one environment step is finite, store it and log it. Raises SeedFailure where it is not."""
        self.check(step, action=act, observation=next_obs, reward=rew)
        replay.store(obs, act, next_obs, rew, terminated, truncated)
        self.log.step(rew, terminated | truncated)

    def check(self, step: int, **arrays: np.ndarray) -> None:
        """Raise SeedFailure where something (S, ...) that this step used is NaN or infinite."""
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise SeedFailure({row: f"step {step}: {text}" for row, text in checks.not_finite(name, array).items()})

    def _check_losses(self, step: int) -> None:
        for name, total in self.log.sums.items():
            bad = np.flatnonzero(~np.isfinite(total.cpu().numpy()))
            if len(bad):
                raise SeedFailure({int(row): f"step {step}: {name} is {float(total[row])}: {DIVERGED}" for row in bad})

    def _check_values(self, step: int) -> None:
        """Warn once of a seed whose values pass what any return can be; with --stop_on_divergence, end it."""
        found = checks.beyond_returns(self.log, getattr(self.config, "gamma", 1.0))
        texts = {row: f"step {step}: {text}" for row, text in found.items() if row not in self.diverged}
        self.diverged |= texts.keys()
        if texts and self.config.stop_on_divergence:
            raise SeedFailure({row: f"{text}: {DIVERGED}" for row, text in texts.items()})
        for row, text in texts.items():
            say(f"[s{self.seeds[row]}] WARNING: {text}; training diverges", sys.stderr)

    def _check_policies(self, step: int, stuck: np.ndarray) -> None:
        """Warn once of a seed with an agent whose policy is saturated."""
        found = checks.stuck_agents(stuck)
        for row in found.keys() - self.stuck:
            say(f"[s{self.seeds[row]}] WARNING: step {step}: {found[row]}", sys.stderr)
        self.stuck |= found.keys()

    def end_epoch(
        self,
        step: int,
        returns: np.ndarray,
        lengths: np.ndarray,
        stuck: np.ndarray | None = None,
        **more: np.ndarray,
    ) -> None:
        """Write and show one row a seed: the log's means, those of the tests' returns, lengths and `more`, (S, E).

        `stuck` (S, N), where that is known, is the share of an agent's actions whose tanh is saturated.
        """
        self._check_losses(step)
        self._check_values(step)
        if stuck is not None:
            self._check_policies(step, stuck)
        self.check(step, **{"return of a test episode": returns})
        now = time.monotonic()
        rate = (step - self.since[0]) / (now - self.since[1])  # of this epoch: early ones without updates are faster
        left, self.since = clock((self.total - step) / rate), (step, now)
        for row, folder in enumerate(self.folders):
            log = self.log.row(row)
            episodes = {name: log.pop(name) for name in list(log) if "Ep" in name}
            columns = {"Epoch": step // self.config.steps_per_epoch, **episodes}
            columns |= {**summary("TestEpRet", returns[row].tolist()), "TestEpLen": lengths[row].mean()}
            columns |= {} if stuck is None else {"TestStuck": stuck[row].mean()}
            columns |= {name: values[row].mean() for name, values in more.items()}
            columns |= {"TotalEnvInteracts": step, **log, "Time": self.log.time(row)}
            with files():
                folder.append(columns)
                if self.config.keep and columns["Epoch"] % self.config.keep == 0:
                    self._keep(row, step)
                for writer in self.writers[row]:
                    writer.add(columns, step)
            line = (
                f"[s{self.seeds[row]}] epoch {columns['Epoch']}/{self.config.epochs}  step {step}  "
                f"train {columns['AverageEpRet']:.1f}  "
                f"test {columns['AverageTestEpRet']:.1f} +- {columns['StdTestEpRet']:.1f}  "
                + "".join(f"{name} {columns[name]:.3g}  " for name in [*more, *log])
                + f"{rate:.0f} steps/s  {left} left"
            )
            with tqdm.external_write_mode():  # above the bar, where there is one
                say(line)
        self.log.clear()
