"""The paper's figures: the runs behind each, how they are drawn, and what the paper claims of them.

FIGURES is the one table: `run_all.sh` trains what it names, `plot.py --figure` draws it, `plot.py --report` judges it.
A figure has a panel for each task and a line for each learner; a line is a program with its flags, and its runs are in
<folder>/<experiment>/<experiment>_s<seed>, where `experiment` makes the name of program, task and flags.

Paper: Jiang & Lu 2022, "I2Q: A Fully Decentralized Q-Learning Algorithm", NeurIPS. Its sections 1-5 were not at hand:
the numbers of the figures, their tasks on MuJoCo and the claims are inferred from its appendix and the released code.
"""

import argparse
import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import comb
from pathlib import Path

import numpy as np

import plot

ROOT = Path(__file__).resolve().parent.parent
GAME, CHEETAH = "DifferentialGame-3", "2x3HalfCheetah"
ROBOTS = (CHEETAH, "2-4HalfCheetah", "2x3Walker", "3x2Walker", "2x4Ant", "3x1Hopper")
WHOLE = " + whole state"  # what a line's label ends with where others in its panel see less
I2Q, IDDPG, D3G, MBPO = "i2q_ddpg", "iddpg", "d3g", "mbpo_baseline"  # the last is I2Q with lambda = 0


@dataclass(frozen=True)
class Claim:
    """What the paper claims of a figure: `better` ends above `worse` on each of `tasks`. One may be a number."""

    text: str
    better: str | float
    worse: str | float
    tasks: tuple[str, ...] = ()  # none given: all tasks of the figure


@dataclass(frozen=True, eq=False)
class Figure:
    """A panel a task and column of progress.txt, a line a learner: label -> program and flags."""

    number: str
    title: str
    tasks: tuple[str, ...]
    lines: dict[str, str]
    seeds: tuple[int, int, int]  # at the scales smoke, short, paper
    claims: tuple[Claim, ...] = ()
    ys: tuple[str, ...] = ("Performance",)
    est: tuple[str, str] = ("iqm", "ci")  # line and band, where a command asks for no other


FIGURES = {
    figure.number: figure
    for figure in (
        Figure(
            "5",
            "Learned against ideal values",
            (GAME,),
            {"I2Q": I2Q, "IDDPG": IDDPG},
            (2, 4, 8),
            (Claim("I2Q's values end nearer to the ideal ones than independent DDPG's", "IDDPG", "I2Q"),),
            ys=("QVals",),
        ),
        Figure(
            "6",
            "Differential game",
            (GAME,),
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G, "λ = 0": MBPO},
            (2, 4, 8),
            (
                Claim("I2Q learns more than independent DDPG", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G", "I2Q", "D3G"),
                Claim("I2Q leaves the trap (30), which no agent can leave alone", "I2Q", 35.0),
            ),
        ),
        Figure(
            "7",
            "The weight λ of value in the forward model",
            (GAME,),
            {"λ = 0": MBPO} | {f"λ = {lam}": f"{I2Q} --lam {lam}" for lam in ("0.2", "0.5", "1", "2", "3", "4", "10")},
            (2, 3, 8),
            (Claim("Drawing the model to valuable successors helps: λ = 1 ends above λ = 0", "λ = 1", "λ = 0"),),
        ),
        Figure(
            "8",
            "Stochastic differential game (our own definition)",
            ("StochasticDifferentialGame-3",),
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G, "λ = 0": MBPO},
            (2, 4, 8),
            (
                Claim("I2Q learns more than independent DDPG in stochastic games too", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G in stochastic games too", "I2Q", "D3G"),
            ),
        ),
        Figure(
            "9",
            "Multi-Agent MuJoCo, own observations",
            ROBOTS,
            {"I2Q": I2Q, "IDDPG": IDDPG, "D3G": D3G},
            (2, 3, 4),
            (
                Claim("I2Q learns more than independent DDPG", "I2Q", "IDDPG"),
                Claim("I2Q learns more than D3G", "I2Q", "D3G"),
            ),
        ),
        Figure(
            "learners",
            "Every learner here on one robot",
            (CHEETAH,),
            {
                "I2Q": I2Q,
                "IDDPG": IDDPG,
                "D3G": D3G,
                "λ = 0": MBPO,
                "IPPO": "ippo",
                "expectile I2Q": "i2q_expectile --form b7",
                "expectile I2Q (released)": "i2q_expectile --form released",
            },
            (2, 3, 4),
        ),
        Figure(
            "observations",
            "What an agent sees: its own joints (solid) or the whole state (dashed); λ = 0: rule 1",
            (CHEETAH,),
            {
                label + whole: line + flags
                for whole, flags in (("", ""), (WHOLE, " --obs full"))
                for label, line in (
                    ("rule 1", f"{I2Q} --rule 1"),
                    ("released rule", f"{I2Q} --rule released"),
                    ("λ = 0", f"{MBPO} --rule 1"),
                    ("IDDPG", IDDPG),
                )
            },
            (2, 3, 4),
        ),
        Figure(
            "11",
            "Multi-Agent MuJoCo: what λ > 0 is worth",
            (CHEETAH, "2x3Walker", "2x4Ant", "3x1Hopper"),
            {"I2Q": I2Q, "λ = 0": MBPO, "IDDPG": IDDPG},
            (2, 3, 4),
            (Claim("I2Q (λ = .01) learns more than with λ = 0", "I2Q", "λ = 0"),),
        ),
        Figure(
            "12",
            "Rule 1, rule 2, and the rule of the released code",
            (GAME, CHEETAH),
            {
                "rule 2": f"{I2Q} --rule 2",
                "rule 1": f"{I2Q} --rule 1",
                "released": f"{I2Q} --rule released",
                "IDDPG": IDDPG,
            },
            (2, 3, 4),
            (
                Claim("Rule 2 suits differential games: it ends above rule 1", "rule 2", "rule 1", (GAME,)),
                Claim("Rule 1 suits MuJoCo: it ends above rule 2", "rule 1", "rule 2", (CHEETAH,)),
            ),
        ),
        Figure(
            "13",
            "Multi-Agent MuJoCo: an on-policy learner at equal steps",
            (CHEETAH, "2x3Walker", "2x4Ant", "3x1Hopper"),
            {"I2Q": I2Q, "IDDPG": IDDPG, "IPPO": "ippo"},
            (2, 3, 4),
            (Claim("I2Q learns more than IPPO from as many steps", "I2Q", "IPPO"),),
        ),
        Figure(
            "14",
            "Multi-Agent MuJoCo, full observation",
            ("6x1Walker", "8x1Ant"),
            {
                "I2Q": f"{I2Q} --obs full",
                "IDDPG": f"{IDDPG} --obs full",
                "expectile I2Q": "i2q_expectile --form b7 --obs full",
                "expectile I2Q (released)": "i2q_expectile --form released --obs full",
            },
            (2, 3, 4),
            (
                Claim("I2Q learns more than independent DDPG with six and eight agents", "I2Q", "IDDPG"),
                Claim("The released expectile form does, too", "expectile I2Q (released)", "IDDPG"),
            ),
        ),
        Figure(
            "15",
            "One-stage game with two optimal joint actions",
            ("two-optima",),
            {
                "I2Q + η": "matrix_games --learners i2q_eta",
                "I2Q": "matrix_games --learners i2q",
                "IQL": "matrix_games --learners iql",
            },
            (2, 4, 4),
            (Claim("With a shared order of states I2Q finds the optimum, IQL does not", "I2Q + η", "IQL"),),
            ys=("Performance", "Optimal"),
        ),
        Figure(
            "trees",
            "100 random matrix games of five stages",
            ("trees",),
            {"I2Q": "matrix_games --learners i2q", "IQL": "matrix_games --learners iql"},
            (2, 4, 4),
            (Claim("I2Q ends nearer to the optimum than independent Q-learning", "I2Q", "IQL"),),
            ys=("Performance", "Optimal"),
        ),
        Figure(
            "qplex",
            "One-step games that few factorised values can represent",
            ("qplex-game", "qtran-game"),
            {
                "I2Q": "value_factorization --learners i2q",
                "IQL": "value_factorization --learners iql",
                "VDN": "value_factorization --learners vdn",
                "QMIX": "value_factorization --learners qmix",
                "Qatten": "value_factorization --learners qatten",
                "QTRAN": "value_factorization --learners qtran",
                "QPLEX": "value_factorization --learners qplex-3L10H",
                "OW-QMIX": "value_factorization --learners ow-qmix",
                "CW-QMIX": "value_factorization --learners cw-qmix",
            },
            (6, 6, 6),
            (
                *(
                    Claim(f"{name} finds the best joint action, 8", name, 7.0)
                    for name in ("QPLEX", "QTRAN", "OW-QMIX", "CW-QMIX")
                ),
                *(Claim(f"{name} stays at a local optimum", 7.0, name) for name in ("VDN", "QMIX", "Qatten")),
            ),
            est=("median", "iqr"),
        ),
        Figure(
            "qplex-sizes",
            "QPLEX with attention of other sizes (aLbH: a layers, b heads)",
            ("qplex-game",),
            {
                f"QPLEX {size}": f"value_factorization --learners qplex-{size}"
                for size in ("1L4H", "2L4H", "2L10H", "3L10H")
            },
            (6, 6, 6),
            est=("median", "iqr"),
        ),
    )
}

# a task's schedule is the paper's unless a scale says otherwise; short runs differ from the paper's in epochs alone, so
# that they can be continued to its length. By program, or else by family of tasks.
SMALL = "--epochs 4 --steps_per_epoch 500 --hid 64"
SCALES: dict[str, dict[str, str]] = {
    "smoke": {
        "differential": f"{SMALL} --update_after 500 --num_test_episodes 10",
        "mujoco": f"{SMALL} --start_steps 500 --update_after 500 --updates 10 --num_test_episodes 1 --test_ep_len 100",
        "full": f"{SMALL} --start_steps 500 --update_after 500 --updates 5 --num_test_episodes 1 --test_ep_len 100",
        "ippo": f"{SMALL} --rollout 500 --num_test_episodes 1 --test_ep_len 100",
        "two-optima": "--games 10 --steps 2000",
        "one-step": "--updates 1000",
        "trees": "--games 5 --steps 15000 --start_steps 5000",
    },
    "short": {
        "differential": "--epochs 55",
        "mujoco": "--epochs 20",
        "full": "--epochs 20",
    },
    "paper": {
        "differential": "--epochs 55",
        "mujoco": "--epochs 50",
        "full": "--epochs 100",
    },
}
for scale in ("short", "paper"):
    SCALES[scale] |= {
        "two-optima": "--games 100 --steps 2000",
        "trees": "--games 100 --steps 100000",
        "one-step": "--updates 20000",
    }
DEFAULTS = {  # flags with a value of their own for each family; the programs know them, here they only shorten names
    "differential": {"rule": "2", "lam": "1", "form": "b7"},
    "mujoco": {"rule": "1", "lam": "0.01", "form": "released"},
    "full": {"rule": "released", "lam": "0.01", "form": "released"},
}
MARKS = {  # returns to compare with: docs/environments.md, and the games' pay-offs
    GAME: {"optimum": 93.7, "trap": 29.7},
    "StochasticDifferentialGame-3": {"to the centre": 81.0},
    "qplex-game": {"optimum": 8.0},
    "qtran-game": {"optimum": 8.0},
}
SHARES = {  # what the games' columns are
    ("trees", "Performance"): "share of the best return",
    ("trees", "Optimal"): "share of games solved",
    ("two-optima", "Performance"): "share of the best return",
    ("two-optima", "Optimal"): "share of games solved",
    ("qplex-game", "Performance"): "pay-off",
    ("qtran-game", "Performance"): "pay-off",
}
TITLES = {"trees": "random games", "two-optima": "one-stage game", "2-4HalfCheetah": "2|4HalfCheetah"}
APART = 0.2  # between lines of games whose pay-offs are whole numbers
LABELS = ["I2Q", "IDDPG", "D3G", "λ = 0", "IPPO", "expectile I2Q", "expectile I2Q (released)"]  # -> colour
LABELS += ["VDN", "QMIX", "Qatten", "QTRAN", "QPLEX", "OW-QMIX", "CW-QMIX"]
LABELS_LIKE = {"IQL": "IDDPG", "I2Q + η": "D3G", "rule 2": "I2Q", "rule 1": "D3G"}
LABELS_LIKE |= {"released": "IPPO", "released rule": "IPPO"}
LABELS_LIKE |= {"QPLEX 1L4H": "I2Q", "QPLEX 2L4H": "IDDPG", "QPLEX 2L10H": "D3G", "QPLEX 3L10H": "λ = 0"}
RAMP = ("#440154", "#472f7d", "#39568c", "#2a788e", "#1f988b", "#35b779", "#75d054", "#bddf26")  # viridis, for λ


# -------------------------------------------------------------------------------------------------------- table of runs


@dataclass
class Row:
    """One line of one panel, which may be part of several figures: the command that trains its seeds."""

    experiment: str
    program: str
    task: str
    flags: list[str]
    seeds: int = 0
    figures: list[str] = field(default_factory=list)

    @property
    def start(self) -> list[str]:
        """What python is given to start the program: a file at the root, or one of the games."""
        game = (ROOT / "games" / f"{self.program}.py").exists()
        return ["-m", f"games.{self.program}"] if game else [f"{self.program}.py"]

    @property
    def steps(self) -> int:
        """Environment steps that a finished seed has made."""
        flags = dict(zip(self.flags[::2], self.flags[1::2]))
        if "--epochs" in flags:
            return int(flags["--epochs"]) * int(flags.get("--steps_per_epoch", 10_000))
        return int(flags.get("--steps") or 32 * int(flags["--updates"]))  # an update has a batch of 32


def family(task: str) -> str:
    """A task's key in SCALES and DEFAULTS."""
    if task in ("trees", "two-optima", "qplex-game", "qtran-game"):
        return "one-step" if task.endswith("-game") else task
    return "differential" if "DifferentialGame" in task else "mujoco"


def experiment(line: str, task: str) -> str:
    """Its name: ("i2q_ddpg --lam 0.2", "2x4Ant") -> i2q_ddpg_2x4Ant_lam0.2. The task's defaults are left out."""
    program, *flags = line.split()
    defaults = DEFAULTS.get("full" if "full" in flags else family(task), {})
    name = f"{program}_{re.sub('[^A-Za-z0-9-]+', '-', task)}"
    for flag, value in zip(flags[::2], flags[1::2]):
        if defaults.get(flag[2:]) != value:
            name += f"_{value}" if value[0].isalpha() else f"_{flag[2:]}{value}"
    return name


def rows(scale: str, numbers: Sequence[str] = ()) -> list[Row]:
    """The runs behind these figures, or all, each once; a run of several figures has as many seeds as any wants."""
    found: dict[str, Row] = {}
    for number in numbers or FIGURES:
        figure = FIGURES[number]
        for task, line in itertools.product(figure.tasks, figure.lines.values()):
            program, *flags = line.split()
            kind = "full" if "full" in flags else family(task)
            size = SCALES[scale].get(program if family(task) == "mujoco" else kind) or SCALES[scale][kind]
            name = experiment(line, task)
            if name == experiment(program, task):
                flags = []
            row = found.setdefault(name, Row(name, program, task, [*flags, *size.split()]))
            row.seeds = max(row.seeds, figure.seeds[list(SCALES).index(scale)])
            row.figures.append(number)
    return list(found.values())


def matches(config: dict, flags: Sequence[str]) -> bool:
    """Whether a run's settings are those of these flags. More or fewer epochs are the same run, longer or shorter."""
    for flag, value in zip(flags[::2], flags[1::2]):
        used = config.get(flag[2:], value)
        if flag != "--epochs" and str(used) != value and not (isinstance(used, (int, float)) and used == float(value)):
            return False
    return True


# --------------------------------------------------------------------------------------------------------------- panels


@functools.cache
def find(folders: tuple[str, ...], name: str) -> list[plot.Run]:
    """The seeds of an experiment in all folders; of two runs of one seed the longer one, of two settings the longer."""
    runs = []
    for folder in folders:
        if (Path(folder) / name).is_dir():
            try:
                runs += plot.load([str(Path(folder) / name)])
            except ValueError as error:
                plot.note(str(error))
    if not runs:
        return []

    def length(run: plot.Run) -> float:
        return np.nanmax(run.columns.get("TotalEnvInteracts", np.zeros(1)))

    by_settings: dict[str, dict[str, plot.Run]] = {}
    for run in runs:
        seeds = by_settings.setdefault(str(sorted(run.settings.items(), key=str)), {})
        if run.seed not in seeds or length(run) > length(seeds[run.seed]):
            seeds[run.seed] = run
    best = max(by_settings.values(), key=lambda seeds: sum(map(length, seeds.values())))
    for seeds in by_settings.values():
        if seeds is not best:
            others = [run.path for run in seeds.values()]
            plot.note(f"{name}: {len(others)} runs of other settings are left out, such as {others[0]}")
    return list(best.values())


def style(label: str) -> int:
    """A line's place in plot.COLOURS; a round further, where lines are dashed, for what sees the whole state."""
    known = label.removesuffix(WHOLE)
    return LABELS.index(LABELS_LIKE.get(known, known)) + len(plot.COLOURS) * label.endswith(WHOLE)


def panels(figure: Figure, folders: Sequence[str], est: str = "", band: str = "") -> list[plot.Panel]:
    """The figure's panels; a learner without runs is in its panel's `missing`."""
    est, band = est or figure.est[0], band or figure.est[1]
    if figure.number == "5":
        return _ideal_panels(figure, folders, est, band)
    found = []
    for y, task in itertools.product(figure.ys, figure.tasks):
        lines, missing = [], []
        for i, (label, line) in enumerate(figure.lines.items()):
            colour = RAMP[i] if figure.number == "7" else style(label)
            if runs := find(tuple(folders), experiment(line, task)):
                part = plot.Experiment(label, task, runs, colour)
                lines += plot.arrange([part], ys=[y], est=est, band=band)[0].lines
            else:
                missing.append(label)
        if family(task) == "one-step":  # most lines would lie on one another
            shifts = [APART * (i - (len(lines) - 1) / 2) for i in range(len(lines))]
            lines = [
                replace(line, mid=line.mid + shift, low=line.low + shift, high=line.high + shift)
                for line, shift in zip(lines, shifts)
            ]
        marks = MARKS.get(task, {}) if y == "Performance" else {}
        found.append(plot.Panel(TITLES.get(task, task), y, lines, missing, marks, SHARES.get((task, y), "")))
    return found


def _ideal_panels(figure: Figure, folders: Sequence[str], est: str, band: str) -> list[plot.Panel]:
    """Learned and ideal values, a panel a learner, and the distance between them. From what ideal_values.py left."""
    found, distances = [], []
    for label, line in figure.lines.items():
        runs = []
        for run in find(tuple(folders), experiment(line, GAME)):
            if (run.path / "ideal_values.txt").exists():
                columns = plot.read_progress(run.path / "ideal_values.txt")
                columns["Distance"] = abs(columns["QVals"] - columns["IdealQVals"])
                runs.append(replace(run, columns=columns))
        lines = []
        for name, y, colour in ((label, "QVals", LABELS.index(label)), ("ideal", "IdealQVals", "#555555")):
            if runs:
                part = plot.Experiment(name, GAME, runs, colour)
                lines += plot.arrange([part], ys=[y], est=est, band=band)[0].lines
        if runs:
            part = plot.Experiment(label, GAME, runs, LABELS.index(label))
            distances += plot.arrange([part], ys=["Distance"], est=est, band=band)[0].lines
        found.append(plot.Panel(f"{label} against ideal", "QVals", lines, [] if runs else [label], {}, "mean value"))
    missing = [label for label in figure.lines if label not in [line.experiment.label for line in distances]]
    return [*found, plot.Panel("distance from ideal", "QVals", distances, missing)]


def describe(figure: Figure, drawn: Sequence[plot.Panel], est: str = "", band: str = "") -> str:
    """The caption: what line and band are, and how many seeds and steps are behind each curve."""
    est, band = est or figure.est[0], band or figure.est[1]
    text = f"Figure {figure.number}. " if figure.number.isdigit() else ""
    text += f"{figure.title}."
    if any(panel.lines for panel in drawn):
        text += f" {plot.describe(drawn, 1, est, band)}"
        text += f" Lines are moved {APART} apart." * any(family(task) == "one-step" for task in figure.tasks)
    parts: dict[str, list[str]] = {}  # what a panel has -> the panels
    for panel in drawn:
        behind: dict[str, list[str]] = {}
        for line in panel.lines:
            size = f"{len(line.runs)} seed{'s' if len(line.runs) > 1 else ''} to step {line.x[-1]:,.0f}"
            behind.setdefault(size, []).append(line.experiment.label)
        what = "; ".join(f"{', '.join(labels)}: {size}" for size, labels in behind.items())
        parts.setdefault(what or "not run yet", []).append(panel.title)
    if len(parts) == 1:
        return f"{text} {next(iter(parts)).replace('not run', 'Not run')}."
    return " ".join([text, *(f"{', '.join(dict.fromkeys(titles))}: {what}." for what, titles in parts.items())])


def draw(figure: Figure, folders: Sequence[str], out: Path, est: str = "", band: str = "") -> list[plot.Panel]:
    """Writes <out>/figure_<number>.png and .pdf, and returns the panels."""
    drawn = panels(figure, folders, est, band)
    path = out / f"figure_{figure.number}.png"
    picture = plot.draw(drawn, path, caption=describe(figure, drawn, est, band))
    plot.save(picture, path.with_suffix(".pdf"))
    return drawn


# --------------------------------------------------------------------------------------------------------------- claims

SEEDS, SHARE, P = 3, 0.3, 0.05  # what a verdict needs: seeds of each side, share of the paper's steps, and its level
RULE = (
    f"A final score is a seed's mean test return over the last tenth of the steps that both sides made. The answer "
    f"is yes or no where both sides have {SEEDS} seeds or more and {SHARE:.0%} of the paper's steps or more, and a "
    f"one-sided permutation test of the probability of improvement says so at p <= {P} (against a number: where the "
    f"bootstrap 95 % interval of the interquartile mean is above or below it). All else is not enough data."
)


def scores(line: plot.Line, end: float | None = None) -> np.ndarray:
    """Final score of every seed: the mean over the last tenth of the steps up to `end`: (runs,)."""
    last = float(line.x[-1])
    end = last if end is None else min(end, last)
    kept = (line.x <= end) & (line.x > 0.9 * end)
    return line.values[:, kept].mean(1)


def improvement(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """P(X > Y) + P(X = Y) / 2 of final scores, and its bootstrap 95 % interval. Agarwal et al. 2021, section 4."""
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    rng = np.random.default_rng(0)
    i, j = rng.integers(len(x), size=(2000, len(x))), rng.integers(len(y), size=(2000, len(y)))
    low, high = np.percentile(wins[i[:, :, None], j[:, None, :]].mean((1, 2)), [2.5, 97.5])
    return float(wins.mean()), float(low), float(high)


def p_value(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the ways to deal the scores into groups of these sizes that favour the first at least as much."""
    both, n = np.concatenate([x, y]), len(x)
    ranks = (both[:, None] > both).sum(1) + 0.5 * (both[:, None] == both).sum(1)
    if comb(len(both), n) <= 20_000:
        deals = np.array(list(itertools.combinations(range(len(both)), n)))
    else:
        deals = np.random.default_rng(0).permuted(np.tile(np.arange(len(both)), (20_000, 1)), axis=1)[:, :n]
    return float((ranks[deals].sum(1) >= ranks[:n].sum() - 1e-9).mean())


def judge(claim: Claim, panel: plot.Panel) -> tuple[str, str]:
    """("yes", "no" or "not enough data", the numbers it rests on) for one task, by RULE."""
    lines = {line.experiment.label: line for line in panel.lines}
    sides = [name for name in (claim.better, claim.worse) if isinstance(name, str)]
    if absent := [name for name in sides if name not in lines]:
        return "not enough data", f"not run yet: {', '.join(absent)}"
    end = min(lines[name].x[-1] for name in sides)
    full = {row.experiment: row.steps for row in rows("paper")}[lines[sides[0]].runs[0].path.parent.name]
    enough = end >= SHARE * full and all(len(lines[name].runs) >= SEEDS for name in sides)
    x = scores(lines[sides[0]], end)
    if len(sides) == 2:
        y = scores(lines[sides[1]], end)
        mid, low, high = improvement(x, y)
        yes, no = p_value(x, y), p_value(y, x)
        text = f"P({sides[0]} > {sides[1]}) {mid:.2f} [{low:.2f}, {high:.2f}], p = {min(yes, no):.3f}"
        text += f", {len(x)} against {len(y)} seeds"
    else:
        number = next(side for side in (claim.better, claim.worse) if not isinstance(side, str))
        mid, low, high = (float(v[0]) for v in plot.curve(x[:, None]))
        yes, no = float(low <= number), float(high >= number)
        if number == claim.better:
            yes, no = no, yes
        text = f"IQM {mid:.1f} [{low:.1f}, {high:.1f}] against {number:g}, {len(x)} seeds"
    text += f", at step {end:,.0f}"
    return ("not enough data" if not enough else "yes" if yes <= P else "no" if no <= P else "not enough data"), text


# ----------------------------------------------------------------------------------------------------------------- main


def main(args: argparse.Namespace) -> int:
    """plot.py --figure, --all-figures, --report. Exit status as plot.py's."""
    folders = args.logdir or [str(ROOT / "results")]
    out = Path(args.out or "data/figures")
    if out.suffix.lower() in (".png", ".pdf", ".svg"):
        plot.note(f"--out {args.out!r}: a figure is written as .png and .pdf, so a folder is asked for")
        return 2
    numbers = list(FIGURES) if args.all_figures else args.figure or []
    if unknown := [number for number in numbers if number not in FIGURES]:
        plot.note(f"--figure {' '.join(unknown)}: no such figure; known: {' '.join(FIGURES)} (LOGDIRs go before it)")
        return 2
    if bare := [folder for folder in folders if not Path(folder).is_dir()]:
        plot.note(f"LOGDIR {bare[0]!r}: no such folder; a folder that holds experiments is asked for")
        return 2
    try:
        for number in numbers:
            draw(FIGURES[number], folders, out, args.est, args.band)
            print(f"figure {number}: {out / f'figure_{number}.png'} and .pdf")
        if args.report:
            from paper import report

            path = report.write(folders, out, args.est, args.band)
            print(f"report: {path}")
    except OSError as error:
        plot.note(f"{out} cannot be written: {error.strerror}; --out DIR puts the figures elsewhere")
        return 1
    return 0
