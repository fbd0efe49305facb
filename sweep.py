"""A grid of flags in one command: every flag of an algorithm may be given several values.

    python sweep.py i2q_ddpg.py --env DifferentialGame-3 --lam 0.01 0.05 0.1 --num_runs 2 --jobs 2

trains every combination, an experiment each, named after what varies: i2q_ddpg_DifferentialGame-3_lam0.05. Stop it at
any time and rerun the same command to resume: finished runs are not trained again. Nothing is trained where a value of
any combination is wrong. What an experiment prints goes to sweep.log in its folder. At the end plot.py draws all
experiments, and prints a table of their final returns.
Exit status: 0 all trained, 1 an experiment failed, 2 a mistake in the flags, 130 stopped and saved.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import DEVNULL
from typing import NamedTuple

from common.console import say
from common.errors import UsageError
from common.layout import PROGRESS, reason
from common.parser import Parser, number
from common.ranks import LAUNCHERS

ROOT = Path(__file__).resolve().parent


class Experiment(NamedTuple):
    name: str  # of its folder
    label: str  # what sets it apart from the others, for a plot
    command: list[str]


def read_flags(words: list[str]) -> dict[str, list[str]]:
    """The values of each of the algorithm's flags, by its name; none for a flag that takes none."""
    given: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in given:
                raise UsageError(f"--{name}: given twice; give all of its values after one")
            given[name] = [value] if equals else []
        elif not given:
            raise UsageError(f"{word!r}: not a flag; flags are given as --lam 0.01 0.05")
        else:
            given[next(reversed(given))].append(word)
    return given


def grid(args: argparse.Namespace, given: dict[str, list[str]]) -> list[Experiment]:
    """One experiment for each combination of values, in the order of the command line."""
    varied = [name for name, values in given.items() if len(values) > 1]
    shared = ["--seed", str(args.seed), "--num_runs", str(args.num_runs), "--data_dir", str(args.data_dir)]
    if args.jobs > 1 and "threads" not in given:
        shared += ["--threads", str(max(1, (os.cpu_count() or 1) // args.jobs))]
    found: dict[str, Experiment] = {}
    for values in itertools.product(*(values or [""] for values in given.values())):
        chosen = dict(zip(given, values))
        base = args.exp_name or f"{args.script.stem}_{re.sub(r'[^A-Za-z0-9-]+', '-', chosen['env'])}"
        named = [name for name in varied if args.exp_name or name != "env"]
        name = "_".join([base, *(flag + re.sub(r"[^A-Za-z0-9.+-]+", "-", chosen[flag]) for flag in named)])
        if name in found:
            raise UsageError(f"two combinations of flags are both called {name}; give each value once")
        label = " ".join(f"{flag} {chosen[flag]}" for flag in varied if flag != "env") or name
        words = [word for flag, value in chosen.items() for word in (f"--{flag}", value) if word]
        found[name] = Experiment(name, label, [str(args.script), *words, *shared, "--exp_name", name])
    return list(found.values())


def environment() -> dict[str, str]:
    """Ours, in which algorithms in other folders, as examples/itd3.py, find the modules of this one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def check(script: Path, experiments: list[Experiment]) -> None:
    """Raise UsageError, before anything is trained, where the algorithm refuses the flags of an experiment."""
    commands = {experiment.name: experiment.command[1:] for experiment in experiments}
    command = [sys.executable, "-m", "common.dry_run", str(script)]  # a program of its own, as it needs torch
    done = subprocess.run(
        command, input=json.dumps(commands), env=environment(), stderr=subprocess.PIPE, stdout=DEVNULL, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode == 2:
        reason = done.stderr.strip().removesuffix("; --help explains the flags")  # which is said at the end anyway
        raise UsageError(f"{reason}; nothing was trained")


class Pool:
    """Trains experiments, so many at a time; a signal lets all of them save and end."""

    def __init__(self, data_dir: Path):
        self.data_dir, self.children, self.failed, self.stopped = data_dir, set(), False, False
        self.lock = threading.RLock()  # `stop` may come while this thread holds it

    def train(self, experiment: Experiment) -> None:
        """Run it, its output to sweep.log in its folder; where the system refuses that, it has failed."""
        path = self.data_dir / experiment.name / "sweep.log"
        try:
            self._train(experiment, path)
        except OSError as error:
            self.failed = True
            say(f"FAILED  {experiment.name}: {reason(error)} ({path})", sys.stderr)

    def _train(self, experiment: Experiment, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as log:
            with self.lock:
                if self.stopped:
                    return
                say(f"start   {experiment.name}")
                command = [sys.executable, *experiment.command]
                # a session of its own: a terminal's Ctrl-C comes here alone, and is passed on once
                child = subprocess.Popen(
                    command, env=environment(), stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
                self.children.add(child)
            status = child.wait()
            self.children.discard(child)
        if status == 0:
            say(f"done    {experiment.name}")
        elif not self.stopped:
            self.failed = True
            last = path.read_text(errors="replace").strip().rpartition("\n")[2]
            say(f"FAILED  {experiment.name}, status {status}: {last} ({path})", sys.stderr)

    def stop(self, *_: object) -> None:
        with self.lock:
            self.stopped = True
            for child in list(self.children):
                child.terminate()


def plot(experiments: list[Experiment], args: argparse.Namespace) -> bool:
    """Draw all experiments, and print the table of their final returns, as far as they are. False where that fails."""
    picture = args.data_dir / f"{args.exp_name or args.script.stem}.png"
    experiments = [e for e in experiments if any((args.data_dir / e.name).glob(f"*/{PROGRESS}"))]
    if not experiments:  # each has failed, which was said
        return True
    folders = [str(args.data_dir / experiment.name) for experiment in experiments]
    flags = ["-l", *(experiment.label for experiment in experiments), "--out", str(picture)]
    say(f"python plot.py {shlex.join([*folders, *flags])}")
    return subprocess.run([sys.executable, ROOT / "plot.py", *folders, *flags], check=False).returncode == 0


def arguments(argv: list[str]) -> tuple[argparse.Namespace, list[Experiment]]:
    parser = Parser("sweep.py", __doc__)
    parser.allow_abbrev = False
    add = parser.add_argument
    add("script", type=Path, metavar="ALGORITHM.py", help="the algorithm's file; it gets all other flags")
    add("--env", nargs="+", required=True, metavar="TASK", help="one task or several")
    add("--jobs", type=number(1), default=1, metavar="K", help="experiments at a time [%(default)s]")
    add("--num_runs", type=number(1), default=1, metavar="K", help="seeds of each [%(default)s]")
    add("--seed", "-s", type=number(0), default=0, help="the first of them [%(default)s]")
    add("--exp_name", default="", metavar="NAME", help="beginning of the names [algorithm and task]")
    add("--data_dir", type=Path, default="data", metavar="DIR", help="where experiments are kept [%(default)s]")
    # of a flag --num-runs=2, only the dashes of its name
    dashes = re.compile(r"(?<=\w)-(?=[\w-]*(=|$))")
    args, words = parser.parse_known_args([dashes.sub("_", word) if word[:2] == "--" else word for word in argv])
    try:
        if not args.script.is_file():
            raise UsageError(f"{args.script}: no such file; name an algorithm's, as i2q_ddpg.py")
        if any(os.environ.get(size, "1") != "1" for size, _ in LAUNCHERS):
            raise UsageError("started by an MPI launcher; start it alone: --jobs trains experiments side by side")
        experiments = grid(args, {"env": args.env, **read_flags(words)})
        check(args.script, experiments)
        args.data_dir.mkdir(parents=True, exist_ok=True)
        return args, experiments
    except UsageError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--data_dir {str(args.data_dir)!r}: cannot write there ({error}); give another --data_dir")


def main(argv: list[str]) -> int:
    args, experiments = arguments(argv)
    pool = Pool(args.data_dir)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup's wish is obeyed
            signal.signal(signum, pool.stop)
    seeds = f"{args.num_runs} seed{'s' * (args.num_runs > 1)}"
    say(f"{len(experiments)} experiment{'s' * (len(experiments) > 1)} of {seeds}, {args.jobs} at a time")
    with ThreadPoolExecutor(args.jobs) as workers:
        list(workers.map(pool.train, experiments))
    if pool.stopped:
        say("sweep.py: stopped and saved; rerun the same command to resume", sys.stderr)
        return 130
    drawn = plot(experiments, args)
    return int(pool.failed or not drawn)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
