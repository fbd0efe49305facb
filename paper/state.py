"""How far the rows of the table are, what trains the rest, and how long that will take."""

import fcntl
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from common.layout import IDEAL_VALUES, read_config, read_progress, run_folder
from paper.runs import Row, family, settings, unlike

# milliseconds of one core for one agent's update at 256 units and a batch of 100; `python -m bench` measures them
UPDATE = {"i2q_ddpg": 2.3, "mbpo_baseline": 2.1, "iddpg": 0.9, "d3g": 2.3, "i2q_expectile": 2.2, "ippo": 0.07}
ANOTHER = 2.3  # of a program that is not measured
UPDATE |= {"examples.maddpg": 1.2}
GAMES = {"trees": 1.5, "two-optima": 0.3, "qplex-game": 0.03, "qtran-game": 0.03}  # of a step, of 100 games at a time
SMAX = {"smac.iql": 1.5, "smac.i2q_drqn": 2.1, "smac.d3g_discrete": 4.5}  # of a step, with SMAX of paper/figures.py
START = 4.0  # seconds until a program trains


def agents(task: str) -> int:
    """How many agents a task has, read off its name."""
    if match := re.search(r"Game-(\d)|(\d+)x\d", task):
        return int(match[1] or match[2])
    return 2


def cost(row: Row) -> float:
    """Seconds that one core needs for a step of one seed, roughly."""
    flags = dict(zip(row.flags[::2], row.flags[1::2]))
    if row.task in GAMES:
        return 1e-3 * GAMES[row.task] * int(flags.get("--games", 100)) / 100
    if row.needs_smax:
        return 1e-3 * SMAX.get(row.program, ANOTHER)
    game = family(row.task) == "differential"
    share = int(flags.get("--updates", 10 if game else 50)) / 50  # updates a step
    width = min(1.0, (int(flags.get("--hid", 256)) / 256) ** 2 + 0.15)
    return 1e-3 * (agents(row.task) * share * width * UPDATE.get(row.program, ANOTHER) + (0.05 if game else 0.4))


class State:
    """How far a row is: steps made by each of its seeds, in results/ or in the folder of the runs."""

    def __init__(self, row: Row, data_dir: Path, results: Path):
        self.row, self.folder = row, data_dir / row.experiment
        self.shipped = [seed for seed in row.members if self.made(results / row.experiment, seed)[0] >= row.steps]
        made = {seed: self.made(self.folder, seed) for seed in row.members if seed not in self.shipped}
        self.left = {seed: row.steps - steps for seed, (steps, _) in made.items() if steps < row.steps}
        self.speeds = [seconds / (steps * cost(row) * len(made)) for steps, seconds in made.values() if seconds]
        if "5" in row.figures:  # wants what games.ideal_values makes of a checkpoint, which results/ does not have
            self.left |= {
                seed: 0 for seed in made if not (run_folder(data_dir, row.experiment, seed) / IDEAL_VALUES).exists()
            } | self.left

    def made(self, folder: Path, seed: int) -> tuple[float, float]:
        """Steps and seconds of this seed's run with the row's settings; (0, 0) where there is none."""
        path = run_folder(folder.parent, folder.name, seed)
        try:
            if unlike(read_config(path), settings(self.row.program, self.row.task, self.row.flags)):
                return 0, 0
            columns = read_progress(path)
            return columns["TotalEnvInteracts"][-1], columns.get("Time", [0.0])[-1]
        except (ValueError, KeyError):
            return 0, 0

    def claim(self) -> "IO[str] | None":
        """The row's lock, held until it is closed, by the program it is handed to as well; None: another has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = open(self.folder / f".run_all{self.row.suffix}.lock", "w")  # noqa: SIM115 (held as long as the row runs)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            lock.close()
            return None

    @property
    def log(self) -> Path:
        """Where its commands and their output go."""
        return self.folder / f"run_all{self.row.suffix}.log"

    def running(self) -> bool:
        """Whether some process trains it, started from here or not."""
        if self.row.seed is None:
            locks = [*self.folder.glob(".run_all*.lock"), *self.folder.glob("*_s*/.lock")]
        else:  # other seeds of the experiment may be trained beside it
            run = run_folder(self.folder.parent, self.folder.name, self.row.seed)
            locks = [run / ".lock", *(self.folder / f".run_all{name}.lock" for name in ("", self.row.suffix))]
        return any(map(locked, locks))

    def commands(self, launcher: Sequence[str], threads: int) -> list[list[str]]:
        """What trains the seeds that results/ does not have: one command for each block of successive seeds."""
        found = []
        for block in blocks([seed for seed in self.row.members if seed not in self.shipped]):
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
            return "done" if len(self.shipped) < len(self.row.members) else "in results"
        steps = self.row.steps - max(self.left.values())
        at = f"at {steps / self.row.steps:.0%}" if steps else ""
        return " ".join(filter(None, ["running" if self.running() else "" if at else "left", at]))


def blocks(seeds: Sequence[int]) -> list[list[int]]:
    """[0, 1, 2, 5] -> [[0, 1, 2], [5]]."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and found[-1][-1] == seed - 1:
            found[-1].append(seed)
        else:
            found.append([seed])
    return found


def locked(path: Path) -> bool:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # none there, or not for us to read
        pass
    return False


def shard(rows: Sequence[Row], i: int, n: int) -> list[Row]:
    """The i-th of n parts of the rows, i = 1 .. n: each row goes to the part with the least work so far.

    A seed's longer run goes where the shorter one went, for it continues that. All of it follows from the rows alone,
    not from what is done: machines that do not know of one another agree on it.
    """
    loads, found = [0.0] * n, []
    homes: dict[tuple[str, int | None], tuple[int, int]] = {}  # -> part, steps
    for row in rows:
        part, steps = homes.get((row.experiment, row.seed), (loads.index(min(loads)), 0))
        loads[part] += max(0, row.steps - steps) * len(row.members) * cost(row)
        homes[row.experiment, row.seed] = part, max(steps, row.steps)
        if part == i - 1:
            found.append(row)
    return found


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
