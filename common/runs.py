"""A program from its flags to its exit status: seeds shared out over ranks, trained group after group."""

import contextlib
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import limits, writers
from common.console import Once, say
from common.errors import exit_status, last_words, of_run
from common.estimates import iqm
from common.fast import kernels
from common.fast.kernels import Kernels
from common.flags import parse
from common.folder import Folder, Usage
from common.layout import read_progress, run_folder
from common.ranks import Ranks
from common.run import Process, Run
from common.signals import Signals, Stopped

Train = Callable[[Any, Run], None]  # an algorithm's train(cfg, run)
RETRY = 2.0  # seconds before a compiler that failed is tried again, where a run needs it to resume


def main(config_class: type, defaults: Callable[[str, str], dict[str, Any]], train: Train, doc: str | None) -> None:
    """Parse the flags, share out the seeds, train them, report, and exit with a status that tells how it went.

    defaults(env, obs) are the settings that the paper used with a task; flags override them. Status 0: all seeds
    finished; 1: some failed, or the program has a defect; 2: a usage error; 129, 130 or 143: interrupted, and saved.
    """
    algorithm = Path(sys.argv[0]).stem
    try:
        ranks = Ranks.detect()
        config = parse(config_class, defaults, doc, algorithm, quiet=ranks.rank > 0)
    except ValueError as error:
        if not exit_status(error):
            raise
        if Ranks.claimed() == 0:
            say(last_words(f"{algorithm}.py", error), sys.stderr)
        sys.exit(exit_status(error))
    signals = Signals(speaks=ranks.rank == 0)
    try:
        sys.exit(_train_all(Process(config, ranks, signals, Once(ranks.rank)), train, algorithm))
    except Stopped as stop:  # while it waited for the other ranks
        sys.exit(128 + stop.signum)
    finally:
        signals.restore()


def _train_all(process: Process, train: Train, algorithm: str) -> int:
    """Train this rank's seeds and wait for the other ranks; the exit status. Rank 0 shows all seeds in a table."""
    config, ranks, signals = process.config, process.ranks, process.signals
    seeds = range(config.seed, config.seed + (config.num_runs or ranks.size))
    status, last_word = 0, ""
    try:
        status = _train_seeds(process, train, algorithm, seeds)
    except Stopped as stop:
        status, last_word = 128 + stop.signum, str(stop)
    except Exception as error:  # the other ranks go on, the status tells
        error = of_run(error) if isinstance(error, OSError) else error
        status, last_word = exit_status(error) or 1, last_words(f"{algorithm}.py", error)
    if last_word:
        say(last_word, sys.stderr)
    signals.held = True  # a signal that comes now lets the others save
    ranks.wait()
    if signals.signum and ranks.size > 1:  # this rank may have had nothing left to do, but others had
        status = 128 + signals.signum
    if ranks.rank == 0 and status > 128:
        mpirun = Path(sys.executable).with_name("mpirun")
        launcher = [str(mpirun if mpirun.exists() else "mpirun"), "-np", str(ranks.size)] if ranks.size > 1 else []
        say(f"to resume: {shlex.join([*launcher, *sys.orig_argv])}", sys.stderr)
    elif ranks.rank == 0 and status < 2 and (Path(config.data_dir) / config.exp_name).exists():  # one that began
        say(_table(config, seeds))
    return status


def _train_seeds(process: Process, train: Train, algorithm: str, seeds: Sequence[int]) -> int:
    """Train this rank's share of the seeds, group after group: 0, or 1 if some failed. Raises UsageError, Stopped."""
    config, ranks = process.config, process.ranks
    _refuse_what_is_not_here(config)
    mine = seeds[ranks.rank :: ranks.size]
    limits.check_seeds(len(mine))
    limits.check(config, len(mine))
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
            run = Run(process, {seed: folders[seed] for seed in group}, start, engine)
            try:
                train(config, run)
            except (Exception, SystemExit) as error:
                status = 1
                if isinstance(error, MemoryError) and not process.signals.held:
                    raise Usage(f"not enough memory for these flags ({error}); give smaller numbers") from None
                failed = run.failed(error)
                pending = [*_pending(config, {seed: folders[seed] for seed in group if seed not in failed}), *pending]
            finally:
                run.close()
    return status


def _refuse_what_is_not_here(config: Any) -> None:
    """Raise Usage where a flag asks for a device or a package that this machine does not have."""
    if config.device != "cpu" and int(config.device[5:] or 0) >= torch.cuda.device_count():
        raise Usage(
            f"--device {config.device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices; give --device cpu"
        )
    writers.check(config)


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
            os.environ.setdefault("MKL_CBWR", "AVX2")  # PyTorch's tanh is MKL's, whose last bits depend on the CPU
            return "on", found
        except RuntimeError as error:
            if config.compile == "on":
                raise Usage(f"--compile on: {error}; --compile off does without") from None
            if began == "on" and last:  # without them the run would go on with other last bits
                raise Usage(
                    f"this run began with compiled kernels, and they are not available now: {error}; fix that, or give "
                    "--compile off to go on without them, the curve then differs in its last bits"
                ) from None
            if began != "on":
                say(f"kernels not compiled, so updates take 1.5 to 2.9 times as long: {error}", sys.stderr)
                return "off", None
            time.sleep(RETRY)
    raise AssertionError("either returned or raised")


def _pending(config: Any, folders: dict[int, Folder]) -> list[tuple[int, list[int]]]:
    """(step, seeds) of every group still to train: seeds that can go on from the same step go on together."""
    total, at, rows_of = config.epochs * config.steps_per_epoch, {}, {}
    for seed, folder in folders.items():
        steps = folder.steps(lambda text, seed=seed: say(f"[s{seed}] {text}", sys.stderr))
        rows = folder.rows()
        epochs = max(0, rows.count("\n") - 1)
        if (steps and steps[-1] >= total) or (not steps and epochs >= config.epochs):
            edited = "".join(f" with another {name}" for name in folder.program if name in folder.changed())
            instead = " or, to train anew, another --exp_name" if edited else ""
            say(f"[s{seed}] finished already{edited}: {folder.path}; give a larger --epochs to extend it{instead}")
        elif rows and not steps:
            raise Usage(
                f"{folder.path}: its checkpoint is gone, so it cannot resume from epoch {epochs}; "
                "move it away to start over, or give another --exp_name"
            )
        else:
            at[seed], rows_of[seed] = steps or [0], epochs
    # a save that was interrupted: some seeds have it and the others only the one before, but all have the same rows
    lasts, epochs = sorted({steps[-1] for steps in at.values()}), {*rows_of.values()}
    if len(lasts) == 2 and len(epochs) == 1 and any(epochs) and all(lasts[0] in steps for steps in at.values()):
        saved = [seed for seed, steps in at.items() if steps[-1] == lasts[1]]
        say(f"not all seeds were saved at step {lasts[1]}: seeds {saved} go back to step {lasts[0]} with the others")
        at = dict.fromkeys(at, lasts[:1])
    groups: dict[Any, list[int]] = {}
    for seed, steps in at.items():
        groups.setdefault((steps[-1], *(_backend(config, folders[seed]) if steps[-1] else ())), []).append(seed)
    if len(groups) > 1:
        alike = len({step for step, *_ in groups}) == 1
        text = ", ".join(f"seeds {seeds} at step {step}" for (step, *_), seeds in sorted(groups.items()))
        why = "began with other kernels or threads" if alike else "are at different steps"
        say(f"these seeds {why} and train one group after another: {text}")
    return [(step, seeds) for (step, *_), seeds in sorted(groups.items())]


def _backend(config: Any, folder: Folder) -> tuple[str, int]:
    """What a begun run goes on computing with, as far as its bits depend on it: kernels have those of any threads."""
    compiled = folder.compile if config.compile == "auto" else config.compile
    return compiled, 0 if compiled == "on" else folder.threads


def _table(config: Any, seeds: Sequence[int]) -> str:
    """The last test return of every seed, whoever trained it, and mean, IQM and spread of those that finished.

    The interquartile mean leaves out the lower and the upper quarter.
    """
    total, parent = config.epochs * config.steps_per_epoch, Path(config.data_dir) / config.exp_name
    lines, scores, begun = [], [], False
    for seed in seeds:
        try:
            rows = read_progress(run_folder(config.data_dir, config.exp_name, seed))
            step, score = int(rows["TotalEnvInteracts"][-1]), float(rows["AverageTestEpRet"][-1])
            begun = True
        except (ValueError, KeyError):
            step, score = 0, math.nan
        lines.append(f"{seed:>8} {step:>10} {score:>12.2f}" + ("" if step >= total else "  unfinished"))
        scores += [score] if step >= total else []
    if len(scores) > 1:
        values = np.sort(scores)
        lines.append(
            f"mean {values.mean():.2f}   IQM {iqm(values[:, None])[0]:.2f}   "
            f"std {values.std(ddof=1):.2f}   min {values[0]:.2f}   max {values[-1]:.2f}"
        )
    title = f"{config.exp_name}: mean return of the last test episodes"
    curve = [f"curve: python plot.py {shlex.quote(str(parent))}"] if begun else []  # there is none before the first row
    return "\n".join([title, f"{'seed':>8} {'steps':>10} {'return':>12}", *lines, *curve])
