"""The runs behind the figures: a row for each line of each panel, what it is called, and its size at each scale."""

import ast
import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import envs
import smac.envs
from common.layout import FREE, LATER
from paper.figures import FIGURES, REFERENCES, SMAX
from paper.lab import LAB

ROOT = Path(__file__).resolve().parent.parent
DERIVED = {"rollout", "learners", "layers"}  # what config.json has of these is not what a flag says
GAMES = ("trees", "two-optima", "qplex-game", "qtran-game")  # tasks that are no environments

# a task's schedule is the paper's unless a scale says otherwise; short runs differ from the paper's in epochs alone, so
# that they can be continued to its length. By program, or else by family of tasks. The scale "lab" is not of these: LAB
# has the size of each row.
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
        "smax": "--epochs 2 --steps_per_epoch 500 --n_envs 4 --num_test_episodes 2 --rnn_hid 16 --batch_size 4",
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
NAMES = (*SCALES, "lab")
for scale in ("short", "paper"):
    SCALES[scale] |= {
        "two-optima": "--games 100 --steps 2000",
        "trees": "--games 100 --steps 100000",
        "one-step": "--updates 20000",
        "smax": f"{SMAX} --epochs {50 if scale == 'short' else 205}",
    }


def is_game(program: str) -> bool:
    return (ROOT / "games" / f"{program}.py").exists()


def source(program: str) -> Path:
    return ROOT / "games" / f"{program}.py" if is_game(program) else ROOT / f"{program.replace('.', '/')}.py"


@dataclass
class Row:
    """One line of one panel, which may be part of several figures: the command that trains its seeds, or one seed."""

    experiment: str
    program: str
    task: str
    flags: list[str]
    seeds: int = 0
    figures: list[str] = field(default_factory=list)
    seed: int | None = None  # the one that is trained; None: all of them, by one command
    tier: int = 0  # of LAB

    @property
    def members(self) -> list[int]:
        """The seeds that it trains."""
        return list(range(self.seeds)) if self.seed is None else [self.seed]

    @property
    def name(self) -> str:
        """What it is called where it is run."""
        return self.experiment + self.suffix

    @property
    def suffix(self) -> str:
        """What sets the files of a row of one seed apart from those of the experiment."""
        return "" if self.seed is None else f"_s{self.seed}"

    @property
    def needs_smax(self) -> bool:
        """Whether it needs the extra of that name."""
        return family(self.task) == "smax"

    @property
    def start(self) -> list[str]:
        """What python is given to start the program: a file at the root, or a module of a folder."""
        if is_game(self.program):
            return ["-m", f"games.{self.program}"]
        if self.program.startswith("examples."):
            return ["-m", self.program]
        return [str(source(self.program).relative_to(ROOT))]

    @property
    def steps(self) -> int:
        """Environment steps that a finished seed has made."""
        flags = dict(zip(self.flags[::2], self.flags[1::2]))
        if "--epochs" in flags:
            return int(flags["--epochs"]) * int(flags.get("--steps_per_epoch", 10_000))
        return int(flags.get("--steps") or 32 * int(flags["--updates"]))  # an update has a batch of 32


def family(task: str) -> str:
    """A task's key in SCALES: a game's own, "one-step", "smax", or the family of its environment."""
    if task.startswith("smax:"):
        return "smax"
    if task in GAMES:
        return "one-step" if task.endswith("-game") else task
    return envs.family(task)


@functools.cache
def defaults_of(program: str) -> Callable[[str, str], Mapping[str, Any]]:
    """The program's own defaults(env, obs), where the paper's settings for a task stand.

    Taken out of its source, with the constants it reads: to import the program would be to import torch.
    """
    tasks = smac.envs if program.startswith("smac.") else envs
    body = ast.parse(source(program).read_text(encoding="utf-8")).body
    found: dict[str, Any] = {"envs": tasks, "Any": Any, "defaults": lambda env, obs: {}, **_constants(body)}
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == "defaults":
            exec(compile(ast.Module([node], []), f"{program}.py", "exec"), found)
    return found["defaults"]


def _constants(body: Sequence[ast.stmt]) -> dict[str, Any]:
    """What these statements give a literal value."""
    found = {}
    for node in body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            with contextlib.suppress(ValueError):  # not a constant
                found[ast.unparse(target)] = ast.literal_eval(node.value)
    return found


@functools.cache
def _flags_of(program: str) -> dict[str, Any]:
    """The program's flags with what Config gives them where neither task nor command line does."""
    files = [source(program)]
    if not is_game(program):
        shared = [ROOT / "smac/common/config.py"] if program.startswith("smac.") else []
        files = [ROOT / "common/flags.py", *shared, *files]
    found = {}
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in ("RunConfig", "RecurrentConfig", "Config"):
                found |= _constants(node.body)
    return {name: value for name, value in found.items() if name not in FREE | DERIVED}


def settings(program: str, task: str, flags: Sequence[str]) -> dict[str, Any]:
    """What config.json says of a run of this program on this task with these flags, but for FREE and DERIVED."""
    given = _named(flags)
    algorithm = given.pop("learners", program.rpartition(".")[2])
    own = {**_flags_of(program), **defaults_of(program)(task, given.get("obs", "own")), **given}
    own = {name: value for name, value in own.items() if name not in FREE | DERIVED}
    return {**own, "algorithm": algorithm, "env": task}


def unlike(config: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, str]:
    """Where a run's settings are others than expected: name -> "0.5, not 0.99". One that it does not name is as LATER.

    A flag that older runs did not have and LATER does not know changed nothing. One that is not expected at all is of a
    program of another name or of an edited one.
    """
    found = {}
    for name, value in expected.items():
        own = config.get(name, LATER.get(name, value))
        if not _same(own, str(value)):
            found[name] = f"{own}, not {value}"
    for name in sorted(config.keys() - expected.keys() - FREE - DERIVED):
        found[name] = f"{config[name]}, which is unknown here"
    return found


def experiment(line: str, task: str) -> str:
    """Its name: ("i2q_ddpg --lam 0.2", "2x4Ant") -> i2q_ddpg_2x4Ant_lam0.2. The task's defaults are left out.

    What LATER says of older runs is left out too, and what a task's defaults say otherwise is named.
    """
    program, *words = line.split()
    flags = _named(words)
    defaults = dict(defaults_of(program)(task, flags.get("obs", "own")))
    flags = {flag: str(defaults[flag]) for flag in LATER if flag in defaults} | flags
    defaults |= LATER
    name = f"{program.rpartition('.')[2]}_{re.sub('[^A-Za-z0-9-]+', '-', task)}"
    for flag, value in flags.items():
        if flag not in defaults or not _same(defaults[flag], value):
            name += f"_{value}" if value[0].isalpha() else f"_{flag}{value}"
    return name


@functools.cache
def told() -> tuple[set[str], set[tuple[str, str]]]:
    """The settings by which the tables' lines differ, and (setting, value) of the sizes that run_all.sh gives."""
    lines = [line for figure in FIGURES.values() for line in figure.lines.values()]
    lines += [line for part in LAB for line in part.lines]
    sizes = [size for scale in SCALES.values() for size in scale.values()] + [part.size for part in LAB]
    named = {name for line in lines for name in _named(line.split()[1:])} - DERIVED
    return named, {pair for size in sizes for pair in _named(size.split()).items()}


def _named(flags: Sequence[str]) -> dict[str, str]:
    """["--lam", "2"] -> {"lam": "2"}."""
    return {flag[2:]: value for flag, value in zip(flags[::2], flags[1::2])}


def _same(used: Any, value: str) -> bool:
    """Whether a flag's value on a command line is the one that was used."""
    if str(used) == value:
        return True
    with contextlib.suppress(ValueError, TypeError):
        return float(used) == float(value)
    return False


def rows(scale: str, numbers: Sequence[str] = ()) -> list[Row]:
    """The runs behind these figures, or all, each once; a run of several figures has as many seeds as any wants."""
    if scale == "lab":
        return _lab_rows(numbers)
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


def _lab_rows(numbers: Sequence[str]) -> list[Row]:
    """LAB as rows of one seed each: tier by tier, and in a tier a first seed of every row, then a second, and so on."""
    figures: dict[str, list[str]] = {}
    for figure in FIGURES.values():
        lines = [*figure.lines.values(), *(REFERENCES.values() if figure.references else ())]
        for task, line in itertools.product(figure.tasks, lines):
            figures.setdefault(experiment(line, task), []).append(figure.number)
    found: dict[tuple[str, int, int], Row] = {}
    for tier, k in itertools.product(sorted({part.tier for part in LAB}), range(max(part.seeds for part in LAB))):
        for part in LAB:
            for task, line in itertools.product(part.tasks, part.lines):
                name, (program, *flags) = experiment(line, task), line.split()
                of = [number for number in figures.get(name, []) if number != "5"]  # wants checkpoints of whole rows
                if part.tier == tier and k < part.seeds and (not numbers or set(numbers) & set(of)):
                    flags = [*flags, *part.size.split(), "--epochs", str(part.epochs)]
                    row = Row(name, program, task, flags, part.seeds, of, k, tier)
                    found.setdefault((name, k, part.epochs), row)
    return list(found.values())
