"""Why seeds of I2Q stay at the ring of DifferentialGame-n or leave it: their data, values and models along a run.

    python i2q_ddpg.py --env DifferentialGame-3 --num_runs 4 --keep 1
    python -m games.trap data/i2q_ddpg_DifferentialGame-3 --out trap.png

Of each epoch, from the transitions in the checkpoint:

    Hill        share of them on the hill around the centre, l < m: where the optimum is

From the networks that --keep left at the end of an epoch, means over agents and over states of every direction on the
ring (l = .8), at the centre (.05) and half-way between the hill's foot and the ring's (for three agents .425):

    V           Q_i(s, pi_i(s))
    Inward      where agent i moves itself inward, by how much f_i proposes that the others do, in full moves: 1 is all
                of them inward, -1 all outward
    Apart       |s'*_i - s'*_j|, the distance of two agents' proposals f_i(s, pi_i(s)), in full moves

and over states that are uniform in the box

    Stuck       share of agents whose policy does the same in all of them: a saturated tanh passes no gradient on
    Own         how much of agent i's own move f_i keeps: 1 is all of it, 0 says that a proposal ignores the action

The rows go to trap.txt in the run folder, and are taken from there where transitions or networks are gone.
Nothing of this is in the paper.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from common.checkpoint import CHUNK
from common.console import say
from common.errors import UsageError
from common.layout import CHECKPOINT, NETWORKS, TRAP, read_config, read_progress, read_table
from common.nets import MLP
from common.parser import Parser
from common.program import status
from curves.style import COLOURS, SUFFIXES, canvas, save
from envs.differential import RADIUS, STEP, length
from games.shared import run_folders, write_table

STATES = 400  # at each distance
ESCAPED = 35  # a test return beyond what the ring gives, about 30
PANELS = [
    ("AverageTestEpRet", "test return"),
    ("Hill", "share of transitions on the hill"),
    ("Gain", "V at the centre - V on the ring"),
    ("InwardHalfway", "half-way: f moves the others inward"),
    ("ApartHalfway", "half-way: distance of two proposals"),
    ("Stuck", "share of agents whose policy is stuck"),
]


class Snapshot:
    """The networks of one seed after an epoch."""

    def __init__(self, path: Path, config: dict[str, Any], n: int):
        tensors, hidden = load_file(path), [config["hid"]] * config["l"]
        sizes = {"pi": (n, 1), "q": (n + 1, 1), "f_net": (n + 1, n)}
        if missing := [name for name in sizes if f"{name}.flat" not in tensors]:
            raise UsageError(f"{path}: no network {missing[0]}; only runs of i2q_ddpg.py and mbpo_baseline.py have it")
        self.nets = {
            name: MLP((n_in, *hidden, n_out), torch.from_numpy(tensors[f"{name}.flat"])[None])
            for name, (n_in, n_out) in sizes.items()
        }
        self.n, self.bounded = n, config["forward"] == "bounded"

    def __call__(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        """A network of every agent on its own inputs (N, B, .): (N, B, out)."""
        with torch.no_grad():
            return self.nets[name](torch.from_numpy(np.concatenate(inputs, -1).astype(np.float32))[None])[0].numpy()

    def f(self, obs: np.ndarray, act: np.ndarray) -> np.ndarray:
        out = self("f_net", obs, act)
        return np.clip(obs + STEP * np.tanh(out), -1, 1) if self.bounded else obs + out

    def measure(self, states: np.ndarray) -> tuple[float, float, float]:
        """V, Inward and Apart at states (B, n)."""
        obs = np.broadcast_to(states, (self.n, *states.shape))
        act = np.tanh(self("pi", obs))
        inward = -np.sign(states.T)[..., None]  # of each agent's own coordinate
        moves = (self.f(obs, inward) - obs) * -np.sign(obs) / STEP
        others = ~np.eye(self.n, dtype=bool)
        proposed = self.f(obs, act)
        apart = [
            np.linalg.norm(proposed[i] - proposed[j], axis=-1).mean() / STEP for i in range(self.n) for j in range(i)
        ]
        return float(self("q", obs, act).mean()), float(moves.swapaxes(1, 2)[others].mean()), float(np.mean(apart))

    def stuck(self) -> float:
        states = np.random.default_rng(0).uniform(-1, 1, (STATES, self.n))
        act = np.tanh(self("pi", np.broadcast_to(states, (self.n, *states.shape))))
        return float((act.std(1) < 1e-3).mean())

    def own(self) -> float:
        states = np.random.default_rng(0).uniform(STEP - 1, 1 - STEP, (STATES, self.n))  # no move ends at a wall
        obs = np.broadcast_to(states, (self.n, *states.shape))
        up, down = (self.f(obs, np.full((self.n, STATES, 1), act)) for act in (1, -1))
        return float(np.mean([(up - down)[i, :, i].mean() for i in range(self.n)]) / (2 * STEP))


def at_distance(l: float, n: int) -> np.ndarray:
    """States (STATES, n) of length l, uniform in direction; those that leave the box are put on its edge."""
    x = np.random.default_rng(0).normal(size=(STATES, n))
    return np.clip(x * l / length(x)[:, None], -1, 1)


def table_of(folder: Path) -> dict[str, np.ndarray]:
    """The columns of a run, one row an epoch; NaN where there is nothing to measure."""
    config = read_config(folder)
    match = re.fullmatch(r"DifferentialGame-(\d)", str(config.get("env")))
    if match is None:
        raise UsageError(f"{folder}: a run of {config.get('env')}; this is about DifferentialGame-n")
    n = int(match[1])
    progress = read_progress(folder)
    steps = progress["TotalEnvInteracts"].astype(int)
    hill = shares(folder / CHECKPOINT, n, steps)
    kept = folder / NETWORKS
    if not kept.is_dir() and np.isnan(hill).all():
        if (folder / TRAP).exists():
            return read_table(folder / TRAP)
        raise UsageError(f"{folder}: no checkpoint, no {NETWORKS}/ and no {TRAP}; train with --keep 1")
    table = {"TotalEnvInteracts": steps, "AverageTestEpRet": progress["AverageTestEpRet"], "Hill": hill}
    paths = [kept / f"{step}.safetensors" for step in steps]
    snapshots = [Snapshot(path, config, n) if path.exists() else None for path in paths]
    places = {"Ring": 0.8, "Halfway": (RADIUS[n] + 0.6) / 2, "Centre": 0.05}
    for place, l in places.items():
        columns = [snapshot.measure(at_distance(l, n)) if snapshot else [np.nan] * 3 for snapshot in snapshots]
        table |= {f"{name}{place}": column for name, column in zip(("V", "Inward", "Apart"), np.array(columns).T)}
    for name, measure in (("Stuck", Snapshot.stuck), ("Own", Snapshot.own)):
        table[name] = np.array([measure(snapshot) if snapshot else np.nan for snapshot in snapshots])
    if (folder / TRAP).exists():
        fill(table, read_table(folder / TRAP))
    write_table(folder / TRAP, list(table), list(table.values()))
    return table


def fill(table: dict[str, np.ndarray], earlier: dict[str, np.ndarray]) -> None:
    """Take what `table` has no number for from an earlier table of the run: what was measured may be gone since."""
    n = min(len(columns["TotalEnvInteracts"]) for columns in (table, earlier))
    if (table["TotalEnvInteracts"][:n] == earlier["TotalEnvInteracts"][:n]).all():
        for name in table.keys() & earlier.keys():
            table[name][:n] = np.where(np.isnan(table[name][:n]), earlier[name][:n], table[name][:n])


def shares(checkpoint: Path, n: int, steps: np.ndarray) -> np.ndarray:
    """Share of the transitions of each epoch that begin on the hill; NaN where they are gone."""
    found = np.full(len(steps), np.nan)
    every = np.diff(steps, prepend=0)
    for k, (stop, size) in enumerate(zip(steps, every)):
        path = checkpoint / f"replay_{stop // CHUNK - 1:06d}.safetensors"
        if size == CHUNK and path.exists():
            found[k] = (length(load_file(path)["rows"][0, :, :n]) < RADIUS[n]).mean()
    return found


def draw(tables: Sequence[dict[str, np.ndarray]], out: Path) -> None:
    """One line a seed: blue where it ended beyond the ring, orange where it did not."""
    with canvas(2, 3) as (figure, axes):
        for ax, (name, title) in zip(axes.flat, PANELS):
            for table in tables:
                values = table["VCentre"] - table["VRing"] if name == "Gain" else table[name]
                stayed = bool(table["AverageTestEpRet"][-5:].mean() < ESCAPED)
                ax.plot(table["TotalEnvInteracts"] / 1000, values, color=COLOURS[stayed], lw=0.9, alpha=0.8)
            ax.set(title=title, xlabel="thousand environment steps")
            ax.set_xlim(left=0)
        for colour, label in zip(COLOURS, ("left the ring", "stayed")):
            axes.flat[0].plot([], [], color=colour, label=label)
        axes.flat[0].legend(fontsize=7, frameon=False)
    save(figure, out)


def look_into(names: Sequence[str], out: Path) -> None:
    """Table and picture of all runs in these folders."""
    tables = []
    for folder in run_folders(names):
        tables.append(table_of(folder))
        last = tables[-1]["AverageTestEpRet"][-1]
        say(f"{folder}: {len(tables[-1]['Hill'])} epochs, last test return {last:.1f}")
    draw(tables, out)
    say(f"picture: {out}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("trap", __doc__)
    parser.add_argument("rundir", nargs="+", help="run folders, or folders that hold some")
    parser.add_argument("--out", type=Path, default="trap.png", help="the picture: .png, .pdf or .svg")
    args = parser.parse_args(argv)
    if args.out.suffix not in SUFFIXES or not args.out.absolute().parent.is_dir():
        parser.error(f"--out {str(args.out)!r}: give a {', '.join(SUFFIXES)} file in a folder that exists")
    return status("trap", lambda: look_into(args.rundir, args.out))


if __name__ == "__main__":
    sys.exit(main())
