"""A script that takes a part of the agents' decisions on SMAX: what it decides, and what it leaves to them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.recurrent import command

from smac import iql, scripted
from smac.common.picture import Units

NOBODY = -1e9


def game(health: list[int]) -> tuple[Any, np.ndarray]:
    """Two allies at (0, 0) and (5, 5), three enemies at (1, 3), (9, 5) and (0, -2), with this health. The second ally
    is out of range of all of them, the first of none that lives.
    """
    place = np.array([[0, 0], [5, 5], [1, 3], [9, 5], [0, -2]], np.float64)
    avail = np.ones((1, 2, 1, 8), bool)
    avail[0, 0, 0, 5:] = np.array(health[2:]) > 0
    avail[0, 1, 0, 5:] = False
    values = np.where(avail, np.arange(8), NOBODY)  # the last legal action is each agent's own choice
    env = SimpleNamespace(n_agents=2, copies=1, avail=avail, units=lambda row, copy: Units(place, np.array(health), 2))
    return env, values


@pytest.mark.parametrize(
    "walk, target, expected",
    [
        (False, "", [7, 4]),
        (True, "", [7, scripted.RIGHT]),
        (False, "own", [7, 4]),
        (False, "nearest", [7, 4]),
        (False, "weakest", [5, 4]),
        (True, "weakest", [5, scripted.RIGHT]),
    ],
)
def test_a_script_decides_its_part_alone(walk, target, expected):
    env, values = game([9, 9, 3, 8, 8])
    assert scripted.choose(env, values, walk, target)[0, :, 0].tolist() == expected


def test_the_dead_are_neither_targets_nor_scripted():
    env, values = game([9, 9, 3, 0, 0])
    assert scripted.choose(env, values, True, "nearest")[0, :, 0].tolist() == [5, scripted.LEFT]
    env, values = game([0, 9, 3, 8, 8])
    assert scripted.choose(env, values, True, "weakest")[0, :, 0].tolist() == [7, scripted.RIGHT]


def test_a_run_of_another_task_is_refused_in_one_line(data_dir, capsys):
    assert command(iql, data_dir, epochs=1) == 0
    capsys.readouterr()
    assert scripted.main([str(data_dir / "x" / "x_s0"), "--episodes", "2"]) == 2
    assert capsys.readouterr().err.strip().endswith("and the scripts know smax: tasks alone")
