"""The table of runs against the programs that it starts."""

import importlib
import sys
from types import ModuleType

import pytest

from common import flags
from paper.figures import CHEETAH, FIGURES, GAME
from paper.runs import GAMES, SCALES, defaults_of, experiment, is_game, matches, rows


def program(name: str) -> ModuleType:
    return importlib.import_module(f"games.{name}" if is_game(name) else name)


@pytest.mark.parametrize(
    "line, task, name",
    [
        ("iddpg", GAME, "iddpg_DifferentialGame-3"),
        ("i2q_ddpg --lam 0.2", GAME, "i2q_ddpg_DifferentialGame-3_lam0.2"),
        ("i2q_ddpg --lam 0.01", CHEETAH, "i2q_ddpg_2x3HalfCheetah"),
        ("i2q_ddpg --rule 1", GAME, "i2q_ddpg_DifferentialGame-3_rule1"),
        ("i2q_ddpg --rule 1", CHEETAH, "i2q_ddpg_2x3HalfCheetah"),
        ("iddpg --obs full", "2|4Walker", "iddpg_2-4Walker_full"),
        ("matrix_games --learners iql", "trees", "matrix_games_trees_iql"),
    ],
)
def test_an_experiment_is_named_by_what_departs_from_the_tasks_settings(line, task, name):
    assert experiment(line, task) == name


@pytest.mark.parametrize("scale", SCALES)
def test_one_name_never_stands_for_two_settings(scale):
    found: dict[str, tuple] = {}
    for figure in FIGURES.values():
        for row in rows(scale, [figure.number]):
            assert found.setdefault(row.experiment, (row.program, row.task, row.flags)) == (
                row.program,
                row.task,
                row.flags,
            )


@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_every_row_is_a_command_that_its_program_takes(scale, monkeypatch):
    for row in rows(scale):
        module = program(row.program)
        defaults = getattr(module, "defaults", lambda env, obs: {})
        monkeypatch.setattr(sys, "argv", [f"{row.program}.py", "--env", row.task, *row.flags])
        config = vars(flags.parse(module.Config, defaults, "", row.program))
        assert matches({key: v for key, v in config.items() if key != "learners"}, row.flags), row


PROGRAMS = sorted({row.program for row in rows("paper")})
TASKS = [(GAME, "own"), (CHEETAH, "own"), (CHEETAH, "full"), ("trees", "own"), ("two-optima", "own")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_names_are_shortened_by_the_programs_own_defaults(name):
    """What is read out of the source is what the program itself says."""
    module = program(name)
    tasks = [task for task in TASKS if (task[0] in GAMES) == is_game(name)]
    for task, obs in tasks:
        assert defaults_of(name)(task, obs) == getattr(module, "defaults", lambda env, obs: {})(task, obs)


def test_defaults_that_are_read_out_of_a_source_are_not_empty():
    assert defaults_of("i2q_ddpg")(GAME, "own")["lam"] == 1.0
    assert defaults_of("i2q_ddpg")(CHEETAH, "full")["rule"] == "released"
    assert defaults_of("matrix_games")("two-optima", "full")["steps"] == 2_000


def test_short_runs_are_the_beginning_of_the_papers():
    short, paper = ({row.experiment: row for row in rows(scale)} for scale in ("short", "paper"))
    for name, row in paper.items():
        flags = [dict(zip(r.flags[::2], r.flags[1::2])) for r in (short[name], row)]
        assert int(flags[0].pop("--epochs", 1)) <= int(flags[1].pop("--epochs", 1))
        assert flags[0] == flags[1]


def test_a_run_of_two_figures_has_as_many_seeds_as_either_wants():
    assert {row.seeds for row in rows("short", ["12"]) if row.experiment == f"i2q_ddpg_{GAME}"} == {3}
    (row,) = [row for row in rows("short", ["12", "6"]) if row.experiment == f"i2q_ddpg_{GAME}"]
    assert (row.seeds, row.figures) == (4, ["12", "6"])


@pytest.mark.parametrize(
    "config, same",
    [({"lam": 0.2}, True), ({"lam": 1.0}, False), ({}, True), ({"lam": 0.2, "epochs": 5}, True)],
)
def test_a_run_is_of_a_row_where_their_settings_agree_but_for_epochs(config, same):
    assert matches(config, ["--lam", "0.2", "--epochs", "55"]) == same
