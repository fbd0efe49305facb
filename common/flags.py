"""The flags of a program: the range of each as a part of its type, those that all learners have, and their parser."""

import argparse
import contextlib
import dataclasses
import io
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tyro

from common import limits
from common.errors import UsageError
from common.layout import one_name


@dataclass(frozen=True)
class Range:
    """A closed range; the type of a flag may carry one, as Annotated[int, Range(1)]."""

    low: float
    high: float = math.inf


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
NonNegative = Annotated[float, Range(0)]
Unit = Annotated[float, Range(0, 1)]
FirstSeed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class RunConfig:
    """The flags that every algorithm has and no paper mentions."""

    env: str = "2x3HalfCheetah"  # task, as 2x3HalfCheetah, 2-4HalfCheetah, DifferentialGame-3, module:factory
    seed: Annotated[FirstSeed, tyro.conf.arg(aliases=["-s"])] = 0  # first seed
    num_runs: Natural = 0  # seeds to train, seed .. seed + num_runs - 1, shared out among the ranks; 0: one per rank
    exp_name: str = ""  # name of the experiment's folder; empty: algorithm and task
    data_dir: str = "data"  # where experiments are kept
    obs: Literal["own", "farama", "full"] = "own"  # robots: agents see own joints, Farama's default, or the whole state
    legacy_actuators: bool = False  # robots: the authors' actuator order, in which agents drive other agents' limbs
    epochs: Count = 50  # epochs to train; a larger number extends a finished run
    steps_per_epoch: Count = 10_000  # environment steps an epoch, per seed; a test and a row of progress.txt end it
    num_test_episodes: Count = 10  # deterministic test episodes at the end of an epoch, per seed
    max_ep_len: Count = 1000  # steps after which a training episode is truncated
    test_ep_len: Count = 1000  # steps after which a test episode is truncated
    save_freq: Count = 1  # epochs between checkpoints
    keep: Natural = 0  # epochs between copies of all networks that are kept, in networks/<step>.safetensors; 0: none
    device: str = "cpu"  # where to train: cpu, cuda, cuda:1
    threads: int = 0  # threads of this process; 0: those that the run began with, at first cores / ranks per host
    compile: Literal["auto", "on", "off"] = "auto"  # kernels compiled for this CPU; auto: where a C++ compiler is found
    record: Literal["auto", "on", "off"] = "auto"  # replay a record of the update; auto: where that gives the same bits
    stop_on_divergence: bool = False  # end a seed, with status 1, whose values pass what any return can be
    tensorboard: bool = False  # also write TensorBoard's event files
    wandb: bool = False  # also log to Weights & Biases; WANDB_MODE=offline does so without network

    def __post_init__(self) -> None:
        check_ranges(self)
        within(self, threads=(0, limits.most_threads()))  # each of them takes memory
        if "/" in self.exp_name or self.exp_name.startswith("."):
            raise UsageError(f"--exp_name {self.exp_name!r}: is a folder below --data_dir; no / and no leading dot")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"--device {self.device!r}: known are cpu, cuda and cuda:<number>")


def check_ranges(config: Any) -> None:
    """Raise UsageError for a flag outside the range of its type, or not finite."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Range):
                within(config, **{name: (extra.low, extra.high)})


def within(config: Any, **ranges: tuple[float, float]) -> None:
    """Raise UsageError for a flag outside of its closed range."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if high == math.inf and value > limits.LARGEST and value != math.inf:
            raise UsageError(f"--{name} {value}: must be {limits.LARGEST} at most")
        if not (low <= value <= high and value != math.inf):
            kind = "" if isinstance(value, int) else "finite, "
            text = f"{kind}{low} or more" if high == math.inf else f"within {low} .. {high}"
            raise UsageError(f"--{name} {value}: must be {text}")


def parse(
    config_class: type,
    defaults: Callable[[str, str], dict[str, Any]],
    doc: str | None,
    algorithm: str,
    quiet: bool = False,
) -> Any:
    """The configuration of sys.argv: the class's defaults, the task's, the flags. Raises UsageError, SystemExit."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--env", default=config_class.env)
    first.add_argument("--obs", default=getattr(config_class, "obs", "full"))  # the games have no such choice
    try:
        known, _ = first.parse_known_args()
    except argparse.ArgumentError as error:
        raise UsageError(f"{error}; --help explains the flags") from None
    choices = get_args(get_type_hints(config_class)["env"])  # tyro takes any default for one of them
    if choices and known.env not in choices:
        raise UsageError(f"--env {known.env!r}: known are {', '.join(choices)}; --help explains the flags")
    settings = {"env": known.env, **defaults(known.env, known.obs)}
    default = config_class(**settings)
    for field in dataclasses.fields(default):  # what it derived from other flags, it has to derive from those given
        if field.name in settings or field.default is not dataclasses.MISSING:
            object.__setattr__(default, field.name, settings.get(field.name, field.default))
    out, err = (io.StringIO() if quiet else sys.stdout), io.StringIO()  # one rank's --help is enough
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            paragraphs = (doc or "").strip().split("\n\n")
            summary = "\n".join(map(_wrap, dict.fromkeys([paragraphs[0], paragraphs[-1]])))  # it, and what ranks are
            config = tyro.cli(
                config_class, prog=f"{algorithm}.py", description=summary, default=default, use_underscores=True
            )
    except SystemExit as end:
        if end.code:  # tyro draws a box of its message under a title: one line of it is asked for here
            box = [line.strip("│╭╰╮╯─ ") for line in err.getvalue().splitlines()]
            text = re.sub(r"Error parsing \w+: |For full helptext.*|Argument helptext:.*", "", " ".join(box[1:]))
            names = [field.name for field in dataclasses.fields(config_class)]
            raise UsageError(f"{_in_words(' '.join(text.split()), names)}; --help explains the flags") from None
        raise
    name = config.exp_name or f"{algorithm}_{re.sub(r'[^A-Za-z0-9-]+', '-', config.env)}"
    return dataclasses.replace(config, exp_name=name, env=one_name(config.env))


def _in_words(text: str, names: Sequence[str]) -> str:
    """tyro's message without Python's own terms and without the help of flags that it takes a slip for."""
    text, _, meant = text.rstrip(".").partition(" Perhaps you meant:")
    flags = [flag for flag in dict.fromkeys(re.findall(r"--(\w+)", meant)) if flag in names]
    if flags:
        text += "; perhaps you meant " + " or ".join(f"--{flag}" for flag in flags)
    for python, kind in {
        r"invalid literal for int\(\) with base 10": "a whole number",
        "could not convert string to float": "a number",
    }.items():
        text = re.sub(rf"Error parsing (--\w+): {python}: (.*)", rf"\1 \2: must be {kind}", text)
    return text


def _wrap(text: str) -> str:
    """Indented lines of the terminal's width: tyro joins those that begin with a letter and never wraps, so that
    terminals would break words."""
    text, width = " ".join(text.split()), shutil.get_terminal_size().columns
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
