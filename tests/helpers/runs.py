"""Run folders as the algorithms leave them."""

import functools
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paper.figures import FIGURES, REFERENCES
from paper.runs import experiment, settings

GAME = "DifferentialGame-3"


def write_run(root: Path, exp_name: str, seed: int, returns: list[float], steps: int = 1000, **config: Any) -> Path:
    """A run folder as the algorithms leave it, with one row a test return, `steps` apart."""
    folder = root / exp_name / f"{exp_name}_s{seed}"
    folder.mkdir(parents=True)
    settings = {"algorithm": "iddpg", "env": "Game", "exp_name": exp_name, "seed": seed, "data_dir": str(root)}
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    rows = ["Epoch\tAverageEpRet\tAverageTestEpRet\tTotalEnvInteracts\tLossQ"]
    rows += [f"{i}\tnan\t{value}\t{i * steps}\t{0.5 / i}" for i, value in enumerate(returns, 1)]
    (folder / "progress.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_experiment(
    root: Path, name: str, seed: int, returns: Sequence[float], steps: int = 10_000, **config: Any
) -> Path:
    """A run folder as the algorithms leave it, with one row a test return, `steps` apart."""
    folder = root / name / f"{name}_s{seed}"
    folder.mkdir(parents=True)
    settings = {"exp_name": name, "seed": seed, "epochs": len(returns), **_of_tables().get(name, {})}
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    rows = ["AverageTestEpRet\tTotalEnvInteracts\tTime"]
    rows += [f"{value}\t{i * steps}\t{i}" for i, value in enumerate(returns, 1)]
    (folder / "progress.txt").write_text("\n".join(rows) + "\n")
    return folder


@functools.cache
def _of_tables() -> dict[str, dict[str, str]]:
    """Experiment of the paper's figures -> algorithm and env."""
    found = {}
    for figure in FIGURES.values():
        lines = [*figure.lines.values(), *(REFERENCES.values() if figure.references else ())]
        for task, line in itertools.product(figure.tasks, lines):
            program, *flags = line.split()
            whole = settings(program, task, flags)
            found[experiment(line, task)] = {key: whole[key] for key in ("algorithm", "env")}
    return found


def write_game(root: Path, i2q: list[float], iddpg: list[float], n_rows: int = 55) -> None:
    """I2Q and IDDPG on the differential game: a seed for each return, which it has at every test."""
    for name, finals in (("i2q_ddpg", i2q), ("iddpg", iddpg)):
        for seed, final in enumerate(finals):
            write_experiment(root, f"{name}_{GAME}", seed, [final] * n_rows)
