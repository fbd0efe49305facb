"""Learned against ideal values on DifferentialGame-n: is what an agent believes its actions are worth true?

    python -m games.ideal_values data/i2q_ddpg_DifferentialGame-3 data/iddpg_DifferentialGame-3 --out ideal_values.png

The ideal value of agent i's action is what it is worth if the others always do what is best for the team:

    Q_i(s, a_i) = max over a_-i of Q(s, a) = r(s) + gamma max over a_-i of V(clip(s + .1 a, -1, 1)),   V = max_a Q

V is computed by value iteration on a grid whose spacing divides a full move (see CELLS), with actions that lead from
grid point to grid point; between them it is interpolated linearly. A time limit is never terminal, so the horizon is
infinite although episodes have 25 steps. A run folder keeps its last checkpoints only, but these hold every transition
ever seen. So a run is compared in two ways:

- along the run, learned: the column QVals of progress.txt, the mean Q_i(s,a_i) over the batches of an epoch; ideal:
  the mean of the ideal Q_i(s,a_i) over the replay that these batches were drawn from. Both are means over the same
  transitions up to sampling, whatever the policy was. The rows go to ideal_values.txt in the run folder, and are taken
  from there where the checkpoint is gone.
- at the last checkpoint, state by state and agent by agent: bias, root mean square error and correlation on the latest
  10,000 transitions, and on states and actions drawn uniformly. Both correlations come from states that differ; what an
  agent's own action is worth, which is what its policy learns from, is compared over the actions of a state: the range
  of values over them, and their correlation, means over uniform states.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", figure 5. How the paper computed its ideal
values was not at hand: grid, averages and the choice of transitions are ours.
"""

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.checkpoint import Checkpoints, Damaged
from common.console import say
from common.errors import UsageError
from common.layout import CHECKPOINT, IDEAL_VALUES, read_config, read_progress, read_table
from common.nets import MLP
from common.parser import Parser, number
from common.program import status
from common.replay import Replay
from common.seeding import Streams
from curves.style import SUFFIXES, canvas, colour_of, save
from envs.differential import STEP, reward
from games.shared import run_folders, write_table

CELLS = {1: 100, 2: 20, 3: 5, 4: 2, 5: 1}  # of the grid in a full move: 1001^2 points would be no trouble, 201^3 are
LATEST = 10_000  # transitions that a checkpoint is compared on
STATES, ACTIONS = 500, np.linspace(-1, 1, 21)  # uniform states, and the actions that are compared in each of them


class Ideal:
    """The ideal values of DifferentialGame-n; x (..., n) are states."""

    def __init__(self, n: int, gamma: float, cells: int = 0):
        self.n, self.gamma, self.cells = n, gamma, cells or CELLS[n]
        self.axis = np.linspace(-1, 1, round(2 / STEP) * self.cells + 1)
        rew = reward(np.stack(np.meshgrid(*[self.axis] * n, indexing="ij"), -1))
        self.table = rew / (1 - gamma)  # of staying for ever: iteration k then has the best of k moves and staying
        old = np.zeros(1)
        while np.abs(self.table - old).max() > 1e-9:
            old = self.table
            self.table = rew + gamma * self._best_move(self.table, range(n))
        self.onward = [self._best_move(self.table, [j for j in range(n) if j != i]) for i in range(n)]

    def _best_move(self, table: np.ndarray, movers: Any) -> np.ndarray:
        """Largest value within a full move of these coordinates; a box's maximum is one axis' after the other's."""
        for axis in movers:
            ends = [(self.cells, self.cells) if k == axis else (0, 0) for k in range(self.n)]
            padded = np.pad(table, ends, constant_values=-np.inf)
            table = np.lib.stride_tricks.sliding_window_view(padded, 2 * self.cells + 1, axis).max(-1)
        return table

    def value(self, x: np.ndarray) -> np.ndarray:
        """V(x): (...)."""
        return self._interpolate(self.table, x)

    def q(self, agent: int, x: np.ndarray, act: np.ndarray) -> np.ndarray:
        """max over a_-i of Q(x, a) for a_i = act (...): (...)."""
        moved = x.astype(np.float64)
        moved[..., agent] = np.clip(moved[..., agent] + STEP * act, -1, 1)
        return reward(x) + self.gamma * self._interpolate(self.onward[agent], moved)

    def _interpolate(self, table: np.ndarray, x: np.ndarray) -> np.ndarray:
        at = (np.clip(x, -1, 1) + 1) / (self.axis[1] - self.axis[0])
        low = np.minimum(at.astype(int), len(self.axis) - 2)
        part, total = at - low, 0
        for corner in itertools.product((0, 1), repeat=self.n):
            weight = np.where(corner, part, 1 - part).prod(-1)
            total = total + weight * table[tuple(np.moveaxis(low + corner, -1, 0))]
        return np.asarray(total)


class LearnedRun:
    """A run folder: its configuration, the rows of progress.txt, and at its last checkpoint Q's networks and replay."""

    def __init__(self, folder: Path):
        self.folder, self.config = folder, read_config(folder)
        match = re.fullmatch(r"DifferentialGame-(\d)", str(self.config.get("env")))
        if match is None:
            raise UsageError(f"{folder}: {self.config.get('env')} has no ideal values here, DifferentialGame-n has")
        self.n = int(match[1])

    def progress(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and QVals of the rows in which anything was learned."""
        columns = read_progress(self.folder)
        if "QVals" not in columns:
            raise UsageError(f"{self.folder}: {self.config.get('algorithm')} has no column QVals")
        learned = np.isfinite(columns["QVals"])
        return columns["TotalEnvInteracts"][learned], columns["QVals"][learned]

    def load(self) -> bool:
        """Read the last checkpoint: q, obs (T, n) and act (N, T). False where there is none."""
        checkpoints = Checkpoints(self.folder / CHECKPOINT)
        if not checkpoints.steps():
            return False
        cfg, n = self.config, self.n
        replay = Replay([cfg["seed"]], n, n, 1, cfg["replay_size"])
        try:
            state = checkpoints.load(checkpoints.steps()[-1], replay)
        except Damaged as damage:
            raise UsageError(f"{self.folder}: the last checkpoint is damaged: {damage}") from None
        replay.count = state["replay"]["count"]
        if replay.count > replay.size:
            raise UsageError(f"{self.folder}: the replay has wrapped, what early batches were drawn from is lost")
        rows = replay.read(0, 0, replay.count)
        self.obs, self.act = rows[0, :, :n], rows[:, :, n]
        sizes, one = [n + 1, *[cfg["hid"]] * cfg["l"], 1], np.ones(n, int)
        params = torch.as_tensor(state["agents"].get("q.flat", torch.zeros(0)))
        if params.shape != MLP.glorot(sizes, Streams([0], "weights"), one, one).flat[0].shape:
            raise UsageError(f"{self.folder}: {cfg['algorithm']} learns no Q(s, a_i)")
        self.q = MLP(sizes, params[None])
        return True

    def learned(self, x: np.ndarray, act: np.ndarray) -> np.ndarray:
        """Q_i(x, a_i) of every agent for x (B, n) and act (N, B): (N, B)."""
        obs = np.broadcast_to(x, (self.n, *x.shape))
        with torch.no_grad():
            return self.q(torch.tensor(np.concatenate([obs, act[..., None]], -1), dtype=torch.float32)[None])[
                0, ..., 0
            ].numpy()


def along(run: LearnedRun, ideal: Ideal) -> np.ndarray:
    """Rows of step, learned and ideal mean value: (rows, 3)."""
    step, learned = run.progress()
    q = np.mean([ideal.q(i, run.obs, run.act[i]) for i in range(run.n)], 0)
    of_replay = q.cumsum() / np.arange(1, len(q) + 1)  # the mean over what was stored by then
    every, length = run.config["update_every"], run.config["steps_per_epoch"]
    rows = []
    for end, value in zip(step.astype(int), learned):
        blocks = np.arange(end - length + every, end + 1, every)  # the steps at which this epoch's batches were drawn
        blocks = blocks[(blocks >= run.config["update_after"]) & (blocks <= len(q))]
        if len(blocks):
            rows.append([end, value, of_replay[blocks - 1].mean()])
    return np.array(rows).reshape(-1, 3)


def compare(run: LearnedRun, ideal: Ideal) -> list[str]:
    """One line an agent and set of states: how learned values differ from ideal ones at the checkpoint."""
    rng = np.random.default_rng(0)
    latest = run.obs[-LATEST:], run.act[:, -LATEST:]
    uniform = rng.uniform(-1, 1, (LATEST, run.n)), rng.uniform(-1, 1, (run.n, LATEST))
    lines = []
    for name, (x, act) in (("latest", latest), ("uniform", uniform)):
        for i, learned in enumerate(run.learned(x, act)):
            best = ideal.q(i, x, act[i])
            rms, correlation = np.sqrt(np.square(learned - best).mean()), np.corrcoef(learned, best)[0, 1]
            lines.append(
                f"  {name:<8} agent {i}  learned {learned.mean():7.2f}  ideal {best.mean():7.2f}  "
                f"rms error {rms:6.2f}  correlation {correlation:5.2f}"
            )
    return [*lines, *_over_actions(run, ideal, uniform[0][:STATES])]


def _over_actions(run: LearnedRun, ideal: Ideal, x: np.ndarray) -> list[str]:
    """One line an agent: the range of learned and of ideal values over its own actions in states x, and correlation.

    States in which either value is the same for all actions have no correlation and are left out of its mean.
    """
    tries = [np.full((run.n, len(x)), act) for act in ACTIONS]
    learned = np.stack([run.learned(x, act) for act in tries], -1)  # (N, B, actions)
    best = np.stack([[ideal.q(i, x, act[i]) for i in range(run.n)] for act in tries], -1)
    lines = []
    for i, (of_run, of_ideal) in enumerate(zip(learned.astype(np.float64), best)):
        a, b = of_run - of_run.mean(-1, keepdims=True), of_ideal - of_ideal.mean(-1, keepdims=True)
        size = np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
        told = size > 1e-9
        correlation = ((a * b).sum(-1)[told] / size[told]).mean() if told.any() else np.nan
        lines.append(
            f"  actions  agent {i}  range    {np.ptp(of_run, -1).mean():7.2f}  "
            f"ideal {np.ptp(of_ideal, -1).mean():7.2f}  correlation {correlation:5.2f}"
        )
    return lines


def series(run: LearnedRun, ideal: Ideal) -> tuple[np.ndarray, list[str]]:
    """What `along` and `compare` give, or without a checkpoint what an earlier call left in the folder."""
    path = run.folder / IDEAL_VALUES
    if run.load():
        rows, lines = along(run, ideal), compare(run, ideal)
        write_table(path, ["TotalEnvInteracts", "QVals", "IdealQVals"], rows.T)
        return rows, lines
    if path.exists():
        return np.stack(list(read_table(path).values()), 1), []
    raise UsageError(f"{run.folder}: neither a checkpoint nor an {IDEAL_VALUES} that one was compared in")


def draw(runs: Sequence[LearnedRun], rows: Sequence[np.ndarray], out: Path) -> None:
    """Learned and ideal mean values along the runs; one panel an experiment."""
    names = list(dict.fromkeys(run.folder.parent.name for run in runs))
    with canvas(1, len(names)) as (figure, axes):
        for ax, name in zip(axes[0], names):
            mine = [(run, row) for run, row in zip(runs, rows) if run.folder.parent.name == name]
            for k, (run, row) in enumerate(mine):
                colour = colour_of(k)
                ax.plot(row[:, 0], row[:, 1], color=colour, label=f"learned, seed {run.config['seed']}")
                ax.plot(row[:, 0], row[:, 2], ":", color=colour, label="ideal" if k == 0 else None)
            ax.set(title=name, xlabel="environment steps", ylabel="mean Q_i(s, a_i) over the replay")
            ax.legend(fontsize=7, frameon=False)
    save(figure, out)


def arguments(argv: Sequence[str] | None) -> Any:
    parser = Parser("ideal_values", __doc__)
    parser.add_argument("rundir", nargs="+", help="run folders, or folders that hold some")
    text = f"cells of the grid in a full move; by n: {CELLS}"
    parser.add_argument("--cells", type=number(0, 1000), default=0, help=text)
    parser.add_argument("--out", type=Path, default="ideal_values.png", help="the picture: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    if args.out.suffix not in SUFFIXES or not args.out.absolute().parent.is_dir():
        parser.error(f"--out {str(args.out)!r}: give a {', '.join(SUFFIXES)} file in a folder that exists")
    return args


def compare_all(args: Any) -> None:
    """Compare every run, print what that gives, and draw it."""
    runs, rows, ideals = [LearnedRun(folder) for folder in run_folders(args.rundir)], [], {}
    for run in runs:
        key = run.n, run.config["gamma"]
        ideals[key] = ideals.get(key) or Ideal(*key, args.cells)
        row, lines = series(run, ideals[key])
        rows.append(row)
        say(f"{run.folder}\n     step   learned     ideal     ratio")
        for step, learned, ideal in row[:: max(1, len(row) // 10)]:
            say(f"{step:9.0f} {learned:9.2f} {ideal:9.2f} {learned / ideal:9.2f}")
        say("\n".join(lines))
    draw(runs, rows, args.out)
    say(f"picture: {args.out}")


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    return status("ideal_values", lambda: compare_all(args))


if __name__ == "__main__":
    sys.exit(main())
