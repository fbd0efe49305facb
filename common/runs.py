"""Flags, seeds over ranks, signals, and a group of seeds in step: all that surrounds an algorithm's training loop."""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import io
import math
import os
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from safetensors.numpy import save
from tqdm import tqdm

from common.checkpoint import flatten, write_atomic
from common.errors import UsageError
from common.fast import kernels
from common.fast.kernels import Kernels
from common.fast.record import Plain, Recorded, Update, cuda_graph, operations
from common.folder import Folder, Usage
from common.log import Log, summary
from common.ranks import Ranks


@dataclass(frozen=True)
class RunConfig:
    """The flags that every algorithm has and no paper mentions."""

    env: str = "2x3HalfCheetah"  # task, as 2x3HalfCheetah, 2-4HalfCheetah, DifferentialGame-3, module:factory
    seed: Annotated[int, tyro.conf.arg(aliases=["-s"])] = 0  # first seed
    num_runs: int = 0  # seeds to train, seed .. seed + num_runs - 1, shared out among the ranks; 0: one a rank
    exp_name: str = ""  # name of the experiment's folder; default: algorithm and task
    data_dir: str = "data"  # where experiments are kept
    obs: Literal["own", "farama", "full"] = "own"  # agents see their own joints, Farama's default, or the whole state
    legacy_actuators: bool = False  # drive the actuators in the order of the authors' environment, which crosses limbs
    epochs: int = 50  # epochs to train; a finished run goes on where more are asked for
    steps_per_epoch: int = 10_000  # environment steps an epoch, per seed; a test and a row of progress.txt end it
    num_test_episodes: int = 10  # deterministic test episodes at the end of an epoch, per seed
    max_ep_len: int = 1000  # steps after which a training episode is truncated
    test_ep_len: int = 1000  # steps after which a test episode is truncated
    save_freq: int = 1  # epochs between checkpoints
    device: str = "cpu"  # where to train: cpu, cuda, cuda:1
    threads: int = 0  # threads of this process; 0: as many as the run began with, at first cores / ranks of this host
    compile: Literal["auto", "on", "off"] = "auto"  # kernels compiled for this CPU; auto: where a C++ compiler is found
    record: Literal["auto", "on", "off"] = "auto"  # replay a record of the update; auto: where that gives the same bits
    stop_on_divergence: bool = False  # end a seed, with status 1, whose values pass what any return can be
    tensorboard: bool = False  # also write TensorBoard's event files

    def __post_init__(self) -> None:
        count = (1, math.inf)
        within(self, seed=(0, 2**32 - 1), num_runs=(0, math.inf), threads=(0, math.inf), epochs=count, save_freq=count)
        within(self, steps_per_epoch=count, num_test_episodes=count, max_ep_len=count, test_ep_len=count)
        if "/" in self.exp_name or self.exp_name.startswith("."):
            raise ValueError(f"--exp_name {self.exp_name!r}: is a folder below --data_dir; no / and no leading dot")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"--device {self.device!r}: known are cpu, cuda and cuda:<number>")


FAR = 2.0  # times the largest possible return: a warning is due
RETRY = 2.0  # seconds before a compiler that failed is tried again, where a run needs it to resume
DIVERGED = "the update diverged; start anew with smaller step sizes"


def within(config: Any, **ranges: tuple[float, float]) -> None:
    """Raise ValueError for a flag outside of its closed range."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"finite, {low} or more" if high == math.inf else f"within {low} .. {high}"
            raise ValueError(f"--{name} {value}: must be {limits}")


class SeedFailure(Exception):
    """Some seeds of a group cannot go on; `reasons` says why, by row. The others are not touched by it."""

    def __init__(self, reasons: dict[int, str]):
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class Stopped(Exception):
    """A signal asked this process to end."""

    def __init__(self, signum: int, text: str = ""):
        super().__init__(text or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Signals:
    """What SIGINT, SIGTERM and SIGHUP do: while `held` the first is noted, for a run to save; others end it at once.

    Ending at once is safe anywhere, as files are written whole or not at all.
    """

    def __init__(self, speaks: bool = True):
        self.held, self.signum, self.speaks = False, 0, speaks
        self.before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for signum, handler in self.before.items():
            if handler is not signal.SIG_IGN:  # nohup's wish is obeyed
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self.signum or not self.held:
            raise Stopped(signum)
        self.signum = signum
        text = f"\n{signal.Signals(signum).name}: saving after this step; again to end at once\n"
        with contextlib.suppress(OSError):  # after SIGHUP nobody hears it
            os.write(2, text.encode() if self.speaks else b"")  # sys.stderr's lock may be held by what is interrupted

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)


class Run:
    """A group of seeds that train in step: what an algorithm's `train` is given."""

    said: ClassVar[set[str]] = set()

    def __init__(
        self,
        config: Any,
        seeds: Sequence[int],
        folders: Sequence[Folder],
        start: int,
        ranks: Ranks,
        signals: Signals,
        kernels: Kernels | None = None,
    ):
        self.config, self.seeds, self.folders, self.ranks, self.signals = config, tuple(seeds), folders, ranks, signals
        self.start, self.total = start, config.epochs * config.steps_per_epoch
        self.kernels = kernels
        self.log = Log(len(seeds))
        self.diverged: set[int] = set()  # rows that were warned of
        self.names: set[str] = set()  # of all that a checkpoint holds of the agents
        self.parts: dict[str, Any] = {}
        self.writers: list[Any] = []
        self.bar = tqdm(disable=True)
        self.name = " ".join(f"s{seed}" for seed in seeds)

    def say(self, text: str) -> None:
        """Print on rank 0, once, what every rank and group would say."""
        if self.ranks.rank == 0 and text not in self.said:
            self.said.add(text)
            say(text)

    def track(self, **parts: Any) -> None:
        """Name what a checkpoint holds, objects with state_dict(row), load_state_dict(row, state), and restore it."""
        self.parts = parts
        if hasattr(parts["agents"], "use"):
            parts["agents"].use(self.kernels)
        for row, folder in enumerate(self.folders):
            if self.start == 0:
                folder.begin("")
                continue
            state = folder.checkpoints.load(self.start, parts.get("replay"), row)
            for name, part in parts.items():
                part.load_state_dict(row, state[name])
            self.log.load_state_dict(row, state["log"], self.config.device)
            folder.begin(state["folder"]["progress"])
        if self.start == 0:
            self.save(0)  # a disk that cannot be written to is found now, and rows never stand without a checkpoint
        else:
            say(f"[{self.name}] goes on from step {self.start} of {self.total}")
        if self.config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writers = [SummaryWriter(str(f.path / "tensorboard"), purge_step=self.start + 1) for f in self.folders]

    def record(self, update: Update) -> Update:
        """`update`, replayed from a record where --record allows it and the record gives the same; see Recorded."""
        on_cpu, wish = self.config.device == "cpu", self.config.record
        if wish == "off" or (wish == "auto" and on_cpu and self.kernels is None):
            return Plain(update)
        make = functools.partial(operations, self.kernels) if on_cpu else cuda_graph
        return Recorded(update, make, self.say, required=wish == "on", exact=on_cpu)

    def steps(self) -> Iterator[int]:
        """The environment steps still to do, counted from 1; saves between them when it is time or a signal came."""
        every = self.config.save_freq * self.config.steps_per_epoch
        tty = sys.stderr.isatty() and self.ranks.size == 1
        self.bar = tqdm(total=self.total, initial=self.start, unit=" steps", disable=not tty, dynamic_ncols=True)
        self.since = self.start, time.monotonic()
        self.signals.held = True
        self.check(self.start, observation=self.parts["env"].obs)
        for step in range(self.start + 1, self.total + 1):
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
        with contextlib.suppress(OSError):  # the terminal may be gone
            self.bar.close()
        for writer in self.writers:
            writer.close()

    def save(self, step: int) -> None:
        """Checkpoint every seed at `step`, and write its policy beside it. Nothing that is not finite is saved."""
        self._check_losses(step)
        states = [{name: part.state_dict(row) for name, part in self.parts.items()} for row in range(len(self.seeds))]
        names = set(states[0]["agents"])
        self.names = self.names or names
        if late := sorted(names ^ self.names):
            raise UsageError(f"agents.{late[0]} came or went after the run began: define it in Agents.__init__")
        bad = {row: name for row, state in enumerate(states) for name in _not_finite(state["agents"])[:1]}
        if bad:
            raise SeedFailure({row: f"step {step}: {name} is not finite: {DIVERGED}" for row, name in bad.items()})
        for row, (folder, state) in enumerate(zip(self.folders, states)):
            state |= {"log": self.log.state_dict(row), "folder": {"progress": folder.rows()}}
            # the policy first: where a checkpoint stands, its policy does too
            write_atomic(folder.path / "policy.safetensors", save(self.parts["agents"].policy(row)))
            folder.checkpoints.save(step, state, self.parts.get("replay"), row)

    def check(self, step: int, **arrays: np.ndarray) -> None:
        """Raise SeedFailure where something (S, ...) that this step used is NaN or infinite."""
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(-1))
                raise SeedFailure(
                    {int(row): f"step {step}: {name} is not finite: {_first_bad(array[row])}" for row in bad}
                )

    def _check_losses(self, step: int) -> None:
        for name, total in self.log.sums.items():
            bad = np.flatnonzero(~np.isfinite(total.cpu().numpy()))
            if len(bad):
                raise SeedFailure({int(row): f"step {step}: {name} is {float(total[row])}: {DIVERGED}" for row in bad})

    def _check_values(self, step: int) -> None:
        """Warn once of a seed whose values pass what any return can be by FAR; with --stop_on_divergence, end it."""
        bound = self.log.largest_rew / max(1 - getattr(self.config, "gamma", 1.0), 1e-12)
        for name, values in self.log.last.items():
            if not name.endswith("Vals"):
                continue
            largest = values.detach().abs().amax(-1).cpu().numpy()  # (S,)
            rows = [row for row in np.flatnonzero(largest > FAR * bound + 1) if row not in self.diverged]
            texts = {
                int(row): f"step {step}: the mean {name} of a batch is {largest[row]:.3g}, where no return can pass "
                f"{bound[row]:.3g} (the largest reward seen, {self.log.largest_rew[row]:.3g}, over 1 - gamma)"
                for row in rows
            }
            self.diverged |= texts.keys()
            if texts and self.config.stop_on_divergence:
                raise SeedFailure({row: f"{text}: {DIVERGED}" for row, text in texts.items()})
            for row, text in texts.items():
                say(f"[s{self.seeds[row]}] WARNING: {text}; the learner diverges", sys.stderr)

    def end_epoch(self, step: int, returns: np.ndarray, lengths: np.ndarray, **more: np.ndarray) -> None:
        """Write and show one row a seed: the log's means, those of the tests' returns, lengths and `more`, (S, E)."""
        self._check_losses(step)
        self._check_values(step)
        self.check(step, **{"return of a test episode": returns})
        seconds, now = self.log.time(), time.monotonic()
        rate = (step - self.since[0]) / (now - self.since[1])  # of this epoch: early ones without updates are faster
        left, self.since = _clock((self.total - step) / rate), (step, now)
        for row, folder in enumerate(self.folders):
            log = self.log.row(row)
            episodes = {name: log.pop(name) for name in list(log) if "Ep" in name}
            columns = {"Epoch": step // self.config.steps_per_epoch, **episodes}
            columns |= {**summary("TestEpRet", returns[row].tolist()), "TestEpLen": lengths[row].mean()}
            columns |= {name: values[row].mean() for name, values in more.items()}
            columns |= {"TotalEnvInteracts": step, **log, "Time": seconds}
            folder.append(columns)
            if self.writers:
                for name, value in columns.items():
                    self.writers[row].add_scalar(name, value, step)
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


def main(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    train: Callable[[Any, Run], None],
    doc: str | None,
) -> None:
    """Parse the flags, share out the seeds, train them, report, and exit with a status that tells how it went.

    defaults(env, obs) are the settings that the paper used with a task; flags override them. Status 0: all seeds
    finished; 1: some failed; 2: a usage error; 129, 130 or 143: interrupted, and saved.
    """
    algorithm = Path(sys.argv[0]).stem
    try:
        ranks = Ranks.detect()
        config = parse(config_class, defaults, doc, algorithm, quiet=ranks.rank > 0)
    except ValueError as error:
        if Ranks.claimed() == 0:
            say(f"{algorithm}.py: {error}", sys.stderr)
        sys.exit(2)
    signals = Signals(speaks=ranks.rank == 0)
    try:
        sys.exit(_train_all(config, train, algorithm, ranks, signals))
    except Stopped as stop:  # while it waited for the other ranks
        sys.exit(128 + stop.signum)
    finally:
        signals.restore()


def parse(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    doc: str | None,
    algorithm: str,
    quiet: bool = False,
) -> Any:
    """The configuration of sys.argv: the class's defaults, the task's, the flags. Raises ValueError, SystemExit."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--env", default=config_class.env)
    first.add_argument("--obs", default=config_class.obs)
    try:
        known, _ = first.parse_known_args()
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; --help explains the flags") from None
    default = config_class(env=known.env, **defaults(known.env, known.obs))
    out, err = (io.StringIO() if quiet else sys.stdout), io.StringIO()  # one rank's --help is enough
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            config = tyro.cli(
                config_class, prog=f"{algorithm}.py", description=doc, default=default, use_underscores=True
            )
    except SystemExit as end:
        if end.code:  # tyro draws a box of its message under a title: one line of it is asked for here
            box = [line.strip("│╭╰╮╯─ ") for line in err.getvalue().splitlines()]
            text = re.sub(r"Error parsing \w+: |For full helptext.*|Argument helptext:.*", "", " ".join(box[1:]))
            text = " ".join(text.split()).rstrip(".").replace(" Perhaps you meant:", "; perhaps you meant")
            raise ValueError(f"{text}; --help explains the flags") from None
        raise
    name = config.exp_name or f"{algorithm}_{re.sub(r'[^A-Za-z0-9-]+', '-', config.env)}"
    return dataclasses.replace(config, exp_name=name)


def _train_all(config: Any, train: Callable[[Any, Run], None], algorithm: str, ranks: Ranks, signals: Signals) -> int:
    """Train this rank's seeds and wait for the other ranks; the exit status. Rank 0 shows all seeds in a table."""
    seeds = [config.seed + k for k in range(config.num_runs or ranks.size)]
    status, last_word = 0, ""
    try:
        status = _train_seeds(config, train, algorithm, ranks, signals, seeds)
    except Stopped as stop:
        status, last_word = 128 + stop.signum, str(stop)
    except Usage as error:
        status, last_word = 2, f"{algorithm}.py: {error}" if str(error) else ""
    except OSError as error:
        mend = "what was saved before is whole: make room or mend it, and give the command again"
        status, last_word = 1, f"{algorithm}.py: {error}; {mend}"
    except Exception:  # a defect of ours: the other ranks go on, the status tells
        status, last_word = 1, traceback.format_exc()
    if last_word:
        say(last_word, sys.stderr)
    signals.held = True  # a signal that comes now lets the others save
    ranks.wait()
    if signals.signum and ranks.size > 1:  # this rank may have had nothing left to do, but others had
        status = 128 + signals.signum
    if ranks.rank == 0 and status > 128:
        mpirun = Path(sys.executable).with_name("mpirun")
        launcher = [str(mpirun if mpirun.exists() else "mpirun"), "-np", str(ranks.size)] if ranks.size > 1 else []
        say(f"to go on: {shlex.join([*launcher, *sys.orig_argv])}", sys.stderr)
    elif ranks.rank == 0 and status < 2:
        say(_table(config, seeds))
    return status


def _train_seeds(
    config: Any,
    train: Callable[[Any, Run], None],
    algorithm: str,
    ranks: Ranks,
    signals: Signals,
    seeds: Sequence[int],
) -> int:
    """Train this rank's share of the seeds, group after group: 0, or 1 if some failed. Raises Usage, Stopped."""
    if config.device != "cpu" and int(config.device[5:] or 0) >= torch.cuda.device_count():
        raise Usage(f"--device {config.device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise Usage("--tensorboard: it is not installed; pip install tensorboard")
    mine = seeds[ranks.rank :: ranks.size]
    folders = {seed: Folder(config, algorithm, seed) for seed in seeds}
    for seed, folder in folders.items():  # every rank looks at all, so that none starts where another one refuses
        if conflict := folder.conflict():
            raise Usage(conflict if seed in mine else "")
    status = 0
    with contextlib.ExitStack() as stack:
        pending = _pending(config, {seed: stack.enter_context(folders[seed]) for seed in mine})
        while pending:
            start, group = pending.pop(0)
            threads = config.threads or max(folders[seed].threads for seed in group) or ranks.threads
            compiled, engine = _compile(config, max(folders[seed].compile for seed in group), threads)
            for seed in group:
                folders[seed].threads, folders[seed].compile = threads, compiled
            run = Run(config, group, [folders[seed] for seed in group], start, ranks, signals, engine)
            try:
                train(config, run)
            except SeedFailure as failure:
                status = 1
                for row, reason in failure.reasons.items():
                    say(f"[s{group[row]}] failed: {reason} (up to its last checkpoint it is kept)", sys.stderr)
                rest = {seed: folders[seed] for row, seed in enumerate(group) if row not in failure.reasons}
                pending = [*_pending(config, rest), *pending]
            except ValueError as error:
                if signals.held:  # raised by a step: no mistake in the flags
                    raise
                raise Usage(str(error)) from None
            finally:
                run.close()
    return status


def _compile(config: Any, began: str, threads: int) -> tuple[str, Kernels | None]:
    """What networks are computed with: as asked, or else as the run `began`, "on" or "off". Raises Usage where not."""
    torch.set_num_threads(threads)
    if config.device != "cpu" or "off" in (config.compile, began if config.compile == "auto" else ""):
        return "off", None
    for last in (False, True):
        try:
            found = kernels.load(say)
            found.threads(threads)
            torch.set_num_threads(1)  # two pools would wait for each other's cores; what is left to PyTorch is small
            return "on", found
        except RuntimeError as error:
            if config.compile == "on":
                raise Usage(f"--compile on: {error}; --compile off does without") from None
            if began == "on" and last:  # without them the run would go on with other last bits
                raise Usage(
                    f"this run began with compiled kernels, and they cannot be had now: {error}; mend that, or give "
                    "--compile off to go on without them, to the same curve but for its last bits"
                ) from None
            if began != "on":
                say(f"not compiled, and less than half as fast: {error}", sys.stderr)
                return "off", None
            time.sleep(RETRY)
    raise AssertionError("either returned or raised")


def _pending(config: Any, folders: dict[int, Folder]) -> list[tuple[int, list[int]]]:
    """(step, seeds) of every group still to train: seeds that can go on from the same step go on together."""
    total, at = config.epochs * config.steps_per_epoch, {}
    for seed, folder in folders.items():
        steps = folder.steps(lambda text, seed=seed: say(f"[s{seed}] {text}", sys.stderr))
        epochs = max(0, folder.rows().count("\n") - 1)
        if (steps and steps[-1] >= total) or (not steps and epochs >= config.epochs):
            say(f"[s{seed}] finished already: {folder.path}; a larger --epochs would go on")
        elif epochs and not steps:
            raise Usage(
                f"{folder.path}: its checkpoint is gone, so it cannot go on from epoch {epochs}; "
                "move it away to start over, or give another --exp_name"
            )
        else:
            at[seed] = steps or [0]
    common = set.intersection(*map(set, at.values())) if at else set()
    if common:
        at = {seed: [max(common)] for seed in at}
    groups: dict[int, list[int]] = {}
    for seed, steps in at.items():
        groups.setdefault(steps[-1], []).append(seed)
    if len(groups) > 1:
        text = ", ".join(f"seeds {seeds} at step {step}" for step, seeds in sorted(groups.items()))
        say(f"these seeds stand at different steps and train one group after another: {text}")
    return sorted(groups.items())


def _table(config: Any, seeds: Sequence[int]) -> str:
    """The last test return of every seed, whoever trained it, and mean, IQM and spread of those that finished.

    The interquartile mean leaves out the lower and the upper quarter.
    """
    total, parent = config.epochs * config.steps_per_epoch, Path(config.data_dir) / config.exp_name
    lines, scores = [], []
    for seed in seeds:
        try:
            header, *rows = (parent / f"{config.exp_name}_s{seed}" / "progress.txt").read_text().splitlines()
            row = dict(zip(header.split("\t"), rows[-1].split("\t")))
            step, score = int(row["TotalEnvInteracts"]), float(row["AverageTestEpRet"])
        except (OSError, ValueError, IndexError, KeyError):
            step, score = 0, math.nan
        lines.append(f"{seed:>8} {step:>10} {score:>12.2f}" + ("" if step >= total else "  unfinished"))
        scores += [score] if step >= total else []
    if len(scores) > 1:
        values, cut = np.sort(scores), len(scores) // 4
        lines.append(
            f"mean {values.mean():.2f}   IQM {values[cut : len(values) - cut].mean():.2f}   "
            f"std {values.std(ddof=1):.2f}   min {values[0]:.2f}   max {values[-1]:.2f}"
        )
    title = f"{config.exp_name}: mean return of the last test episodes"
    return "\n".join([title, f"{'seed':>8} {'steps':>10} {'return':>12}", *lines, f"curve: python plot.py {parent}"])


def _not_finite(state: dict[str, Any]) -> list[str]:
    """Names of the arrays that hold a NaN or an infinity."""
    return [name for name, array in flatten(state)[0].items() if not np.isfinite(array).all()]


def _first_bad(array: np.ndarray) -> str:
    """'nan, agent 1, number 0' for an array (N, O), 'inf, episode 3' for one (E,), 'nan' for a number."""
    index = tuple(np.argwhere(~np.isfinite(array))[0])
    names = ((), ("episode",), ("agent", "number"), ("agent", "environment", "number"))[array.ndim]
    return ", ".join([str(array[index]), *(f"{name} {i}" for name, i in zip(names, index))])


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def say(text: str, file: Any = None) -> None:
    """Print whole lines at once. Where nobody listens any more, training goes on: progress.txt has it all."""
    file = file or sys.stdout
    with contextlib.suppress(OSError):
        file.write(text + "\n")  # one write: lines of several ranks do not mix
        file.flush()
