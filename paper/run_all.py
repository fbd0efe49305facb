"""Train every run behind the paper's figures, those of the table FIGURES in paper/figures.py, and go on where it was.

    ./run_all.sh --scale smoke                         all of it in tiny sizes: does everything run?
    ./run_all.sh --scale short --figures 6 9           fewer seeds than the paper's, and on MuJoCo fewer steps
    ./run_all.sh --scale paper --list                  what is done, running and left, and how long it will take
    mpirun -np 8 ./run_all.sh --scale paper            eight rows at a time; under Slurm: srun -n 8 ./run_all.sh ...
    ./run_all.sh --launcher "mpirun -np 4"             a row at a time, its seeds shared out among four ranks

A row of the table is one command that trains all its seeds; --list shows it. Seeds that results/ has are not trained
again. Short runs are the beginning of the paper's, in the same folders, and are continued by --scale paper; smoke runs
are kept apart, in data/smoke. Stop it at any time and give the command again: programs go on from their checkpoints. A
row is claimed by a lock on its folder, so any number of these commands can work on one --data_dir.
"""

import argparse
import fcntl
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

import plot
from common.ranks import LAUNCHERS
from paper import figures

# milliseconds of one core for one agent's update at 256 units and a batch of 100; `python -m bench` measures them
UPDATE = {"i2q_ddpg": 2.3, "mbpo_baseline": 2.1, "iddpg": 0.9, "d3g": 2.3, "i2q_expectile": 2.2, "ippo": 0.07}
GAMES = {"trees": 1.5, "two-optima": 0.3, "qplex-game": 0.03, "qtran-game": 0.03}  # of a step, of 100 games at a time
START = 4.0  # seconds until a program trains
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def agents(task: str) -> int:
    """How many agents a task has, read off its name."""
    if match := re.search(r"Game-(\d)|(\d+)x\d", task):
        return int(match[1] or match[2])
    return 2


def cost(row: figures.Row) -> float:
    """Seconds that one core needs for a step of one seed, roughly."""
    flags = dict(zip(row.flags[::2], row.flags[1::2]))
    if row.task in GAMES:
        return 1e-3 * GAMES[row.task] * int(flags.get("--games", 100)) / 100
    game = figures.family(row.task) == "differential"
    share = int(flags.get("--updates", 10 if game else 50)) / 50  # updates a step
    width = min(1.0, (int(flags.get("--hid", 256)) / 256) ** 2 + 0.15)
    return 1e-3 * (agents(row.task) * share * width * UPDATE[row.program] + (0.05 if game else 0.4))


class State:
    """How far a row is: steps made by each of its seeds, in results/ or in the folder of the runs."""

    def __init__(self, row: figures.Row, data_dir: Path, results: Path):
        self.row, self.folder = row, data_dir / row.experiment
        self.shipped = [seed for seed in range(row.seeds) if self.made(results / row.experiment, seed)[0] >= row.steps]
        made = {seed: self.made(self.folder, seed) for seed in range(row.seeds) if seed not in self.shipped}
        self.left = {seed: row.steps - steps for seed, (steps, _) in made.items() if steps < row.steps}
        self.speeds = [seconds / (steps * cost(row) * len(made)) for steps, seconds in made.values() if seconds]
        if "5" in row.figures:  # wants what ideal_values.py makes of a checkpoint, which results/ does not have
            self.left |= {
                seed: 0
                for seed in made
                if not (self.folder / f"{self.folder.name}_s{seed}" / "ideal_values.txt").exists()
            } | self.left

    def made(self, folder: Path, seed: int) -> tuple[float, float]:
        """Steps and seconds of this seed's run with the row's settings; (0, 0) where there is none."""
        path = folder / f"{folder.name}_s{seed}"
        try:
            if not figures.matches(plot.read_config(path / "config.json"), self.row.flags):
                return 0, 0
            columns = plot.read_progress(path / "progress.txt")
            return columns["TotalEnvInteracts"][-1], columns.get("Time", [0.0])[-1]
        except (ValueError, KeyError):
            return 0, 0

    def claim(self) -> "IO[str] | None":
        """The row's lock, held until it is closed, by the program it is handed to as well; None: another has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = open(self.folder / ".run_all.lock", "w")  # noqa: SIM115 (held as long as the row runs)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            lock.close()
            return None

    def running(self) -> bool:
        """Whether some process trains it, started from here or not."""
        return any(locked(path) for path in [self.folder / ".run_all.lock", *self.folder.glob("*_s*/.lock")])

    def commands(self, launcher: Sequence[str], threads: int) -> list[list[str]]:
        """What trains the seeds that results/ does not have: one command for each block of successive seeds."""
        wanted = [seed for seed in range(self.row.seeds) if seed not in self.shipped]
        blocks: list[list[int]] = []
        for seed in wanted:
            if blocks and blocks[-1][-1] == seed - 1:
                blocks[-1].append(seed)
            else:
                blocks.append([seed])
        found = []
        for block in blocks:
            command = [sys.executable, *self.row.start, "--env", self.row.task, *self.row.flags]
            command += ["--seed", str(block[0]), "--num_runs", str(len(block)), "--data_dir", str(self.folder.parent)]
            if self.row.task not in GAMES:
                command = [*launcher, *command, "--exp_name", self.row.experiment, "--threads", str(threads)]
            found.append(command)
        if "5" in self.row.figures:
            out = self.folder / "ideal_values.png"
            found.append([sys.executable, "-m", "games.ideal_values", str(self.folder), "--out", str(out)])
        return found

    def describe(self) -> str:
        """done, running, "at step 120,000 of 550,000" or "left"."""
        if not self.left:
            return "done" if len(self.shipped) < self.row.seeds else "in results"
        steps = self.row.steps - max(self.left.values())
        at = f"at {steps / self.row.steps:.0%}" if steps else ""
        return " ".join(filter(None, ["running" if self.running() else "" if at else "left", at]))


def locked(path: Path) -> bool:
    try:
        with open(path, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


class Pool:
    """Workers that take the next row nobody has claimed, until none is left."""

    def __init__(self, args: argparse.Namespace, states: list[State], rank: int, workers: int):
        self.args, self.states, self.rank, self.workers = args, states, rank, workers
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.tried: set[str] = set()
        self.children: dict[str, subprocess.Popen] = {}
        self.failed: list[str] = []

    def say(self, text: str) -> None:
        done = sum(not state.left for state in self.states)
        left = len(self.states) - done - len(self.children)
        where = f"[rank {self.rank}] " if self.rank or self.workers > self.args.jobs else ""
        print(f"{where}{text}   [{done} done, {len(self.children)} running, {left} left, "
              f"about {clock(remaining(self.states, self.workers))}]", flush=True)  # fmt: skip

    def work(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                for i, old in enumerate(self.states):
                    if not old.left or old.row.experiment in self.tried or old.running():
                        continue
                    if lock := old.claim():
                        state = self.states[i] = State(old.row, self.args.data_dir, self.args.results)
                        if not state.left:  # another process has finished it meanwhile
                            lock.close()
                            continue
                        self.tried.add(old.row.experiment)
                        break
                else:
                    return
            with lock:
                self.train(state, lock)

    def train(self, state: State, lock: IO[str]) -> None:
        """Run the row's commands, their output to run_all.log in its folder."""
        name, began, status = state.row.experiment, time.monotonic(), 0
        environment = {key: value for key, value in os.environ.items() if key not in itertools.chain(*LAUNCHERS)}
        log_path = state.folder / "run_all.log"
        with open(log_path, "a") as log:
            for command in state.commands(shlex.split(self.args.launcher), self.args.threads):
                log.write(f"$ {shlex.join(command)}\n")
                log.flush()
                with self.lock:
                    if self.stopped.is_set():
                        return
                    child = subprocess.Popen(
                        command,
                        cwd=figures.ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # a terminal's Ctrl-C comes here alone, and is passed on once
                        pass_fds=[lock.fileno()],  # should this process be killed, the row stays claimed
                    )
                    first = name not in self.children
                    self.children[name] = child
                    if first:
                        self.say(f"start {name}")
                status = child.wait()
                if status:
                    break
        with self.lock:
            del self.children[name]
            for k, old in enumerate(self.states):  # others may work on them, too
                self.states[k] = State(old.row, self.args.data_dir, self.args.results) if old.left else old
            if self.stopped.is_set():
                self.say(f"stopped {name}")
            elif status or any(now.left for now in self.states if now.row is state.row):
                self.failed.append(name)
                self.say(f"FAILED {name}, status {status}: {log_path}")
            else:
                self.say(f"done {name} in {clock(time.monotonic() - began)}")

    def stop(self, signum: int, frame: object) -> None:
        """Every program saves and ends; no row is started any more."""
        self.stopped.set()
        for child in list(self.children.values()):
            child.terminate()

    def run(self) -> int:
        before = {signum: signal.signal(signum, self.stop) for signum in SIGNALS}
        threads = [threading.Thread(target=self.work) for _ in range(self.args.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for name in self.failed:
            print(f"run_all: {name} failed: {self.args.data_dir / name / 'run_all.log'}", file=sys.stderr)
        if self.stopped.is_set():
            print("run_all: stopped; everything is saved, and the same command goes on with it", file=sys.stderr)
            return 130
        return 1 if self.failed else 0


def remaining(states: Sequence[State], workers: int) -> float:
    """Seconds until all rows are done. The rough costs are scaled by what the runs so far took on this machine."""
    speeds = [speed for state in states for speed in state.speeds]
    factor = float(np.median(speeds)) if speeds else 1.0
    left = [sum(state.left.values()) * cost(state.row) * factor + START * bool(state.left) for state in states]
    return max([sum(left) / workers, *left], default=0.0)


def clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def table(states: Sequence[State], args: argparse.Namespace, workers: int) -> str:
    """A line a row, and what is done, running, left, and for how long."""
    lines = [f"{'figures':14} {'experiment':46} {'seeds':>5} {'state':17} {'time':>12}  command"]
    for state in states:
        row = state.row
        time_left = clock(remaining([state], 1)) if state.left else "-"
        lines.append(
            f"{' '.join(row.figures):14} {row.experiment:46} {row.seeds:5} {state.describe():17} {time_left:>12}  "
            f"{' '.join(row.start)} --env {row.task} {' '.join(row.flags)}"
        )
    running = sum(state.running() for state in states if state.left)
    done = sum(not state.left for state in states)
    lines.append(
        f"{len(states)} rows: {done} done, {running} running, {len(states) - done - running} left; about "
        f"{clock(remaining(states, workers))} with {workers} at a time. Runs: {args.data_dir}; "
        f"figures: python plot.py results {args.data_dir} --all-figures"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 a row failed, 2 usage, 130 stopped and saved."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("run_all.sh", description=description, epilog=epilog, formatter_class=layout)
    add = parser.add_argument
    add("--scale", choices=list(figures.SCALES), default="smoke", help="sizes of the runs [%(default)s]")
    known = list(figures.FIGURES)
    add("--figures", nargs="+", default=[], choices=known, metavar="N", help=f"only what these need: {' '.join(known)}")
    add("--only", default="", metavar="STR", help="only experiments whose name holds this")
    text = "rows at a time; of each rank, where there are several [as many as cores, or 1 a rank]"
    add("--jobs", type=int, metavar="N", help=text)
    add("--threads", type=int, default=0, metavar="N", help="threads of a program [cores / rows at a time]")
    add("--launcher", default="", metavar="CMD", help='what to start a row with, as "mpirun -np 4"')
    add("--data_dir", type=Path, metavar="DIR", help="where runs are kept [data, or data/smoke]")
    text = "runs that are not made again [results]"
    add("--results", type=Path, default=figures.ROOT / "results", metavar="DIR", help=text)
    add("--list", action="store_true", help="show the table and what is left; start nothing")
    args = parser.parse_args(argv)
    args.data_dir = (args.data_dir or figures.ROOT / ("data/smoke" if args.scale == "smoke" else "data")).absolute()
    place = [(int(os.environ[size]), int(os.environ[rank])) for size, rank in LAUNCHERS if size in os.environ]
    size, rank = place[0] if place else (1, 0)
    cores = os.cpu_count() or 1
    if args.jobs is None:
        args.jobs = 1 if place or args.launcher else cores
    if args.jobs < 1 or args.threads < 0:
        parser.error("--jobs is 1 or more, --threads 0 or more")
    workers = args.jobs * size
    if not args.threads and not args.launcher:  # with a launcher each program sees how many ranks share its host
        args.threads = max(1, cores // workers)

    if args.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for: ./run_all.sh --list | head
    chosen = [row for row in figures.rows(args.scale, args.figures) if args.only in row.experiment]
    states = [State(row, args.data_dir, args.results) for row in chosen]
    if rank == 0:
        print(table(states, args, workers), flush=True)
    return 0 if args.list else Pool(args, states, rank, workers).run()


if __name__ == "__main__":
    sys.exit(main())
