"""Seeds over ranks, run folders, logs, signals: all that surrounds an algorithm's training loop."""

import argparse
import contextlib
import dataclasses
import fcntl
import importlib.metadata
import io
import json
import math
import re
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from safetensors.numpy import save
from torch import Tensor
from tqdm import tqdm

from common.checkpoint import Checkpoints, Damaged, write_atomic
from common.ranks import Ranks

# flags that may differ between a run and its continuation: they change no number that it computes
FREE = {"seed", "num_runs", "exp_name", "data_dir", "epochs", "save_freq", "device", "threads", "tensorboard"}


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
    threads: int = 0  # threads of this process; 0: cores of this host / ranks on it
    tensorboard: bool = False  # also write TensorBoard's event files

    def __post_init__(self) -> None:
        count = (1, math.inf)
        within(self, seed=(0, 2**32 - 1), num_runs=(0, math.inf), threads=(0, math.inf), epochs=count, save_freq=count)
        within(self, steps_per_epoch=count, num_test_episodes=count, max_ep_len=count, test_ep_len=count)
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"--device {self.device!r}: known are cpu, cuda and cuda:<number>")


def within(config: Any, **ranges: tuple[float, float]) -> None:
    """Raise ValueError for a flag outside of its closed range."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ValueError(
                f"--{name} {value}: must be " + (f"{low} or more" if high == math.inf else f"within {low} .. {high}")
            )


class SeedFailure(Exception):
    """Some seeds of a group cannot go on; `reasons` says why, by row. The others are not touched by it."""

    def __init__(self, reasons: dict[int, str]):
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons


class Stopped(Exception):
    """A signal asked this process to end; everything is saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Log:
    """What happened since the last row of progress.txt, by seed."""

    def __init__(self, n_seeds: int):
        self.ep_ret, self.ep_len, self.episode = np.zeros(n_seeds), np.zeros(n_seeds, int), np.zeros(n_seeds, int)
        self.returns: list[list[float]] = [[] for _ in range(n_seeds)]  # of the episodes that ended
        self.lengths: list[list[int]] = [[] for _ in range(n_seeds)]
        self.sums: dict[str, Tensor] = {}  # of the update's diagnostics
        self.n_updates = 0
        self.elapsed, self.since = 0.0, time.monotonic()

    def step(self, rew: np.ndarray, ended: np.ndarray) -> None:
        """One environment step: the team's rewards (S,) and where an episode ended (S,)."""
        self.ep_ret += rew
        self.ep_len += 1
        for row in np.flatnonzero(ended):
            self.returns[row].append(float(self.ep_ret[row]))
            self.lengths[row].append(int(self.ep_len[row]))
        self.episode += ended
        self.ep_ret[ended], self.ep_len[ended] = 0, 0

    def update(self, diagnostics: dict[str, Tensor]) -> None:
        """Diagnostics of one update, each (S, N)."""
        for name, value in diagnostics.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros(len(value), dtype=torch.float64, device=value.device)
            self.sums[name] += value.detach().mean(-1)
        self.n_updates += 1

    def row(self, row: int) -> dict[str, float]:
        """The means since the last row of progress.txt."""
        columns = {**_summary("EpRet", self.returns[row]), "EpLen": float(np.mean(self.lengths[row] or [math.nan]))}
        return columns | {name: float(total[row]) / self.n_updates for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start the next row."""
        for values in (*self.returns, *self.lengths):
            values.clear()
        for total in self.sums.values():
            total.zero_()
        self.n_updates = 0

    def time(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.elapsed + time.monotonic() - self.since

    def state_dict(self, row: int) -> dict[str, Any]:
        return {
            "ep_ret": float(self.ep_ret[row]),
            "ep_len": int(self.ep_len[row]),
            "episode": int(self.episode[row]),
            "returns": self.returns[row],
            "lengths": self.lengths[row],
            "sums": {name: float(total[row]) for name, total in self.sums.items()},
            "n_updates": self.n_updates,
            "elapsed": self.time(),
        }

    def load_state_dict(self, row: int, state: dict[str, Any], device: str) -> None:
        self.ep_ret[row], self.ep_len[row], self.episode[row] = state["ep_ret"], state["ep_len"], state["episode"]
        self.returns[row], self.lengths[row] = list(state["returns"]), list(state["lengths"])
        for name, total in state.get("sums", {}).items():
            if name not in self.sums:
                self.sums[name] = torch.zeros(len(self.returns), dtype=torch.float64, device=device)
            self.sums[name][row] = total
        self.n_updates, self.elapsed, self.since = state["n_updates"], state["elapsed"], time.monotonic()


class Folder:
    """One seed's run folder: locked while it is open, refused where it holds another configuration."""

    def __init__(self, path: Path, config: dict[str, Any]):
        self.path = path
        self.progress = path / "progress.txt"
        self.checkpoints = Checkpoints(path / "checkpoint")
        path.mkdir(parents=True, exist_ok=True)
        self.lock = open(path / ".lock", "w")  # noqa: SIM115 (held as long as the folder is)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{path}: another process is training in this folder; wait for it or give another --exp_name"
            ) from None
        if (path / "config.json").exists():
            self._compare(config)
        versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")}
        data = json.dumps({**config, "versions": versions}, indent=1) + "\n"
        write_atomic(path / "config.json", data.encode())

    def _compare(self, config: dict[str, Any]) -> None:
        path = self.path / "config.json"
        try:
            old = json.loads(path.read_text())
        except ValueError:
            raise ValueError(f"{path}: not readable as JSON; mend it or give another --exp_name") from None
        for name in sorted((set(old) | set(config)) - FREE - {"versions"}):
            if old.get(name) != config.get(name):
                raise ValueError(
                    f"{self.path}: holds a run with {name} = {old.get(name)!r}, not {config.get(name)!r}; "
                    "give another --exp_name, or the flags of that run"
                )

    def rows(self) -> int:
        """Whole rows of progress.txt, the header not counted."""
        return max(0, self.progress.read_text().count("\n") - 1) if self.progress.exists() else 0

    def steps(self, say: Callable[[str], None]) -> list[int]:
        """Steps that an undamaged checkpoint stands at, oldest first."""
        steps = []
        for step in self.checkpoints.steps():
            try:
                self.checkpoints.verify(step)
                steps.append(step)
            except Damaged as damage:
                say(f"WARNING: damaged checkpoint of step {step}, using the one before it: {damage}")
        if not steps and self.checkpoints.steps():
            raise ValueError(
                f"{self.checkpoints.folder}: every checkpoint is damaged; move the folder away to start over"
            )
        return steps

    def append(self, columns: dict[str, float]) -> None:
        """Add one row to progress.txt, header first."""
        new = not self.progress.exists() or self.progress.stat().st_size == 0
        line = "\t".join(f"{value:.10g}" for value in columns.values()) + "\n"
        with open(self.progress, "a") as file:
            file.write(("\t".join(columns) + "\n" if new else "") + line)

    def truncate(self, length: int) -> None:
        """Cut progress.txt back to what it was at a checkpoint: the rows behind it will be made again."""
        if self.progress.exists() and self.progress.stat().st_size > length:
            write_atomic(self.progress, self.progress.read_bytes()[:length])


class Run:
    """A group of seeds that train in step: what an algorithm's `train` is given."""

    def __init__(self, config: Any, seeds: Sequence[int], folders: Sequence[Folder], start: int, ranks: Ranks):
        self.config, self.seeds, self.folders, self.ranks = config, tuple(seeds), folders, ranks
        self.start, self.total = start, config.epochs * config.steps_per_epoch
        self.log = Log(len(seeds))
        self.parts: dict[str, Any] = {}
        self.actor: Callable[[int], dict[str, np.ndarray]] | None = None
        self.signum = 0
        self.bar: Any = None
        self.writers: list[Any] = []

    def say(self, text: str) -> None:
        """Print on rank 0 what every rank would say."""
        if self.ranks.rank == 0:
            _print(text)

    def track(self, **parts: Any) -> None:
        """Name what a checkpoint holds, objects with state_dict(row), load_state_dict(row, state), and restore it."""
        self.parts = parts
        if self.start == 0:
            for folder in self.folders:
                folder.truncate(0)
        for row, folder in enumerate(self.folders if self.start else ()):
            state = folder.checkpoints.load(self.start, parts.get("replay"), row)
            for name, part in parts.items():
                part.load_state_dict(row, state[name])
            self.log.load_state_dict(row, state["log"], self.config.device)
            folder.truncate(state["folder"]["progress"])
        self.start_time = time.monotonic()
        if self.config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writers = [SummaryWriter(str(f.path / "tensorboard"), purge_step=self.start) for f in self.folders]

    def steps(self) -> Iterator[int]:
        """The environment steps still to do, counted from 1; saves between them when it is time or a signal came."""
        every = self.config.save_freq * self.config.steps_per_epoch
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        tty = sys.stderr.isatty() and self.ranks.size == 1
        self.bar = tqdm(total=self.total, initial=self.start, unit=" steps", disable=not tty, dynamic_ncols=True)
        try:
            for step in range(self.start + 1, self.total + 1):
                yield step
                self.bar.update()
                if step % every == 0 or step == self.total or self.signum:
                    self.save(step)
                if self.signum and step < self.total:
                    raise Stopped(self.signum)
        finally:
            self.bar.close()
            for writer in self.writers:
                writer.close()
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: Any) -> None:
        self.signum = signum

    def save(self, step: int) -> None:
        """Checkpoint every seed at `step`, and write its policy beside it. Nothing that is not finite is saved."""
        self._check_losses(step)
        for row, folder in enumerate(self.folders):
            parts = {name: part.state_dict(row) for name, part in self.parts.items()}
            parts["log"] = self.log.state_dict(row)
            parts["folder"] = {"progress": folder.progress.stat().st_size if folder.progress.exists() else 0}
            folder.checkpoints.save(step, parts, self.parts.get("replay"), row)
            if "agents" in self.parts:
                write_atomic(folder.path / "policy.safetensors", save(self.parts["agents"].policy(row)))

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
                hint = "the update diverged; a smaller --q_lr or --pi_lr may help"
                raise SeedFailure({int(row): f"step {step}: {name} is {float(total[row])}: {hint}" for row in bad})

    def end_epoch(self, step: int, returns: np.ndarray, lengths: np.ndarray) -> None:
        """Write and show one row a seed: the log's means, and the tests' returns and lengths (S, E)."""
        self._check_losses(step)
        seconds = self.log.time()
        rate = (step - self.start) / (time.monotonic() - self.start_time)
        left = _clock((self.total - step) / rate)
        for row, folder in enumerate(self.folders):
            log = self.log.row(row)
            episodes = {name: log.pop(name) for name in list(log) if "Ep" in name}
            columns = {"Epoch": step // self.config.steps_per_epoch, **episodes}
            columns |= {**_summary("TestEpRet", returns[row].tolist()), "TestEpLen": lengths[row].mean()}
            columns |= {"TotalEnvInteracts": step, **log, "Time": seconds}
            folder.append(columns)
            if self.writers:
                for name, value in columns.items():
                    self.writers[row].add_scalar(name, value, step)
            line = (
                f"[s{self.seeds[row]}] epoch {columns['Epoch']}/{self.config.epochs}  step {step}  "
                f"train {columns['AverageEpRet']:.1f}  "
                f"test {columns['AverageTestEpRet']:.1f} +- {columns['StdTestEpRet']:.1f}  "
                + "".join(f"{name} {value:.3g}  " for name, value in log.items())
                + f"{rate:.0f} steps/s  {left} left"
            )
            if self.bar is None or self.bar.disable:
                _print(line)
            else:
                self.bar.write(line)
        self.log.clear()


def main(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    train: Callable[[Any, Run], None],
    doc: str | None,
) -> None:
    """Parse the flags, share out the seeds, train them, report, and exit with a status that tells how it went.

    defaults(env, obs) are the settings that the paper used with a task; flags override them. Status 0: all seeds
    finished; 1: some failed; 2: a usage error; 130 or 143: interrupted, and saved.
    """
    algorithm = Path(sys.argv[0]).stem
    ranks = Ranks()
    try:
        ranks = Ranks.detect()
        config = parse(config_class, defaults, doc, algorithm, quiet=ranks.rank > 0)
        status = _train_all(config, train, algorithm, ranks)
    except ValueError as error:
        status = 2
        if ranks.rank == 0:
            _print(f"{algorithm}.py: {error}", sys.stderr)
    sys.exit(status)


def parse(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    doc: str | None,
    algorithm: str,
    quiet: bool = False,
) -> Any:
    """The configuration of sys.argv: the class's defaults, the task's, the flags. Raises ValueError, SystemExit."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--env", default=config_class.env)
    first.add_argument("--obs", default=config_class.obs)
    known, _ = first.parse_known_args()
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
            raise ValueError(f"{' '.join(text.split())}; --help explains the flags") from None
        raise
    name = config.exp_name or f"{algorithm}_{re.sub(r'[^A-Za-z0-9-]+', '-', config.env)}"
    return dataclasses.replace(config, exp_name=name)


def _train_all(config: Any, train: Callable[[Any, Run], None], algorithm: str, ranks: Ranks) -> int:
    if config.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {config.device}: this PyTorch sees no CUDA device; use --device cpu")
    torch.set_num_threads(config.threads or ranks.threads())
    seeds = [config.seed + k for k in range(config.num_runs or ranks.size)]
    status, mine = 0, seeds[ranks.rank :: ranks.size]
    try:
        folders = {}
        for seed in mine:
            path = Path(config.data_dir) / config.exp_name / f"{config.exp_name}_s{seed}"
            folders[seed] = Folder(path, {"algorithm": algorithm, **dataclasses.asdict(config), "seed": seed})
        pending = _pending(config, folders)
        while pending:
            status = max(status, _train_group(config, train, folders, pending, ranks))
    except Stopped as stop:
        status = 128 + stop.signum
        if ranks.rank == 0:
            launcher = f"mpirun -np {ranks.size} " if ranks.size > 1 else ""
            _print(
                f"stopped by {stop} and saved; this goes on with it: {launcher}python {shlex.join(sys.argv)}",
                sys.stderr,
            )
    except ValueError as error:
        status = 2
        _print(f"{algorithm}.py: {error}", sys.stderr)
    except OSError as error:
        status = 1
        _print(
            f"{algorithm}.py: {error}; checkpoints made before it are whole: mend it and give the command again",
            sys.stderr,
        )
    except Exception:  # a defect of ours: the other ranks go on, the status tells
        status = 1
        _print(traceback.format_exc(), sys.stderr)
    ranks.wait()
    if ranks.rank == 0 and status < 128:
        _print(_table(config, seeds))
    return status


def _pending(config: Any, folders: dict[int, Folder]) -> list[tuple[int, list[int]]]:
    """(step, seeds) of every group still to train: seeds that can go on from the same step go on together."""
    total, at = config.epochs * config.steps_per_epoch, {}
    for seed, folder in folders.items():
        steps = folder.steps(lambda text, seed=seed: _print(f"[s{seed}] {text}", sys.stderr)) or [0]
        if steps[-1] >= total or (steps == [0] and folder.rows() >= config.epochs):
            _print(f"[s{seed}] finished already: {folder.path}")
        else:
            at[seed] = steps
    common = set.intersection(*map(set, at.values())) if at else set()
    if common:
        at = {seed: [max(common)] for seed in at}
    groups: dict[int, list[int]] = {}
    for seed, steps in at.items():
        groups.setdefault(steps[-1], []).append(seed)
    if len(groups) > 1:
        text = ", ".join(f"seeds {seeds} at step {step}" for step, seeds in sorted(groups.items()))
        _print(f"these seeds stand at different steps and train one group after another: {text}")
    return sorted(groups.items())


def _train_group(
    config: Any,
    train: Callable[[Any, Run], None],
    folders: dict[int, Folder],
    pending: list[tuple[int, list[int]]],
    ranks: Ranks,
) -> int:
    """Train the first pending group; seeds that fail are left out, the rest queued again from their checkpoints."""
    start, seeds = pending.pop(0)
    try:
        train(config, Run(config, seeds, [folders[seed] for seed in seeds], start, ranks))
        return 0
    except SeedFailure as failure:
        for row, reason in failure.reasons.items():
            _print(
                f"[s{seeds[row]}] failed: {reason}; its last checkpoint is kept in {folders[seeds[row]].path}",
                sys.stderr,
            )
        rest = {seed: folders[seed] for row, seed in enumerate(seeds) if row not in failure.reasons}
        pending[:0] = _pending(config, rest)
        return 1


def _table(config: Any, seeds: Sequence[int]) -> str:
    """The last test return of every seed, on whichever rank it was trained, and their mean, IQM and spread."""
    parent = Path(config.data_dir) / config.exp_name
    scores: dict[int, tuple[str, float]] = {}
    for seed in seeds:
        with contextlib.suppress(OSError, IndexError, ValueError):
            header, *rows = (parent / f"{config.exp_name}_s{seed}" / "progress.txt").read_text().splitlines()
            row = dict(zip(header.split("\t"), rows[-1].split("\t"), strict=True))
            scores[seed] = row["TotalEnvInteracts"], float(row["AverageTestEpRet"])
    lines = [f"{config.exp_name}: mean return of the last test episodes", f"{'seed':>8} {'steps':>10} {'return':>12}"]
    lines += [
        f"{seed:>8} {scores[seed][0]:>10} {scores[seed][1]:>12.2f}" if seed in scores else f"{seed:>8} none"
        for seed in seeds
    ]
    values = np.sort([score for _, score in scores.values()])
    if len(values):
        cut = len(values) // 4
        iqm = values[cut : len(values) - cut].mean()
        lines.append(
            f"mean {values.mean():.2f}   IQM {iqm:.2f}   std {values.std(ddof=1) if len(values) > 1 else 0.0:.2f}   "
            f"min {values[0]:.2f}   max {values[-1]:.2f}"
        )
    lines.append(f"curve: python plot.py {parent}")
    return "\n".join(lines)


def _summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Spinning Up's four columns of a quantity; NaN where nothing was measured."""
    array = np.array(values or [math.nan])
    return {
        f"Average{name}": array.mean(),
        f"Std{name}": array.std(),
        f"Max{name}": array.max(),
        f"Min{name}": array.min(),
    }


def _first_bad(array: np.ndarray) -> str:
    index = np.argwhere(~np.isfinite(np.atleast_1d(array)))[0]
    return f"{np.atleast_1d(array)[tuple(index)]} at index {tuple(int(i) for i in index)}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def _print(text: str, file: Any = None) -> None:
    file = file or sys.stdout
    file.write(text + "\n")
    file.flush()
