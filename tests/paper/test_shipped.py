"""What results/README.md says is shipped is what results/ holds."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import GAME, write_experiment

from common.layout import read_progress
from paper.data import Data
from paper.figures import FIGURES
from paper.runs import ROOT
from paper.seeds import at_end, by_seed, ends, seeds_factored

SHIPPED = ROOT / "results"
ROW = re.compile(r"^\| (`.*?) \| ([\d, -]+) \| ([\d,]+)( updates)? \| `", re.M)


def folders(cell: str) -> list[str]:
    """ "`a_x`, `.._y`" -> a_x, a_y: two dots stand for the beginning of the name before; <learner> for every one."""
    found: list[str] = []
    for name in re.findall(r"`([^`]+)`", cell):
        if "<" in name:
            found += sorted(path.name for path in SHIPPED.glob(re.sub("<.*?>", "*", name)))
        elif name.startswith(".."):
            parts = found[0].split("_")
            full = ["_".join(parts[:k]) + name[2:] for k in range(len(parts), 0, -1)]
            found.append(next(text for text in full if (SHIPPED / text).is_dir() and text not in found))
        else:
            found.append(name)
    return found


def runs(folder: Path) -> dict[int, float]:
    """Seed -> steps."""
    paths = folder.glob("*_s*/progress.txt")
    return {
        int(path.parent.name.rpartition("_s")[2]): read_progress(path.parent)["TotalEnvInteracts"][-1] for path in paths
    }


def listed() -> dict[str, dict[int, int]]:
    """Experiment -> seed -> steps, as the rows of the list have them; seeds as in "0-2, 5"."""
    found: dict[str, dict[int, int]] = {}
    for cell, seeds, steps, updates in ROW.findall((SHIPPED / "README.md").read_text()):
        made = int(steps.replace(",", "")) * (32 if updates else 1)  # an update has a batch of 32
        for name, block in itertools.product(folders(cell), seeds.split(", ")):
            first, _, last = block.partition("-")
            found.setdefault(name, {}).update(dict.fromkeys(range(int(first), int(last or first) + 1), made))
    return found


def test_the_list_names_every_experiment():
    held = {path.name for path in SHIPPED.iterdir() if path.is_dir() and runs(path)}
    assert set(listed()) == held


@pytest.mark.parametrize("name", sorted(listed()))
def test_the_list_has_the_seeds_and_steps_of_every_experiment(name):
    assert runs(SHIPPED / name) == listed()[name]


def test_a_seed_is_shown_at_the_step_that_all_have_and_at_the_end_of_a_longer_run(tmp_path):
    write_experiment(tmp_path, f"i2q_ddpg_{GAME}", 0, [1, 2, 3])
    write_experiment(tmp_path, f"i2q_ddpg_{GAME}", 10, [4, 5])  # cut off
    write_experiment(tmp_path, f"iddpg_{GAME}", 2, [6, 7])
    write_experiment(tmp_path, f"d3g_{GAME}", 2, [8, 9, 300])
    lines = Data(tmp_path).lines(GAME, {"I2Q": "i2q_ddpg", "IDDPG": "iddpg", "D3G": "d3g"})
    assert at_end(lines["I2Q"], np.inf) == {"0": 2, "10": 5}
    assert by_seed(["", "steps"], ends(lines)).splitlines() == [
        "|  | steps | seed 0 | seed 2 | seed 10 |",
        "|--|--|--|--|--|",
        "| I2Q | 20,000 | 2.0 |  | 5.0 |",
        "| IDDPG | 20,000 |  | 7.0 |  |",
        "| D3G | 20,000 |  | 9.0 |  |",
        "| D3G | 30,000 |  | 300 |  |",
    ]


def test_seeds_at_the_best_pay_off_are_counted(tmp_path):
    for seed, value in enumerate([8, 6, 8]):
        write_experiment(tmp_path, "value_factorization_qplex-game_vdn", seed, [0, value], env="qplex-game")
    assert "| VDN | 2 of 3 |  |" in seeds_factored(Data(tmp_path))
    assert "VDN" in FIGURES["qplex"].lines
