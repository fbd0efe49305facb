"""The table of runs against the programs that it starts."""

import importlib
import sys
from types import ModuleType

import pytest

from common import flags
from paper import runs
from paper.claims import LEVEL, OTHERS
from paper.compare import sign_test, smallest_p
from paper.figures import CHEETAH, FIGURES, GAME
from paper.runs import GAMES, SCALES, defaults_of, experiment, is_game, rows, settings, unlike


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
        ("i2q_ddpg --batches apart", GAME, "i2q_ddpg_DifferentialGame-3"),  # as older runs did, which have no such flag
        ("i2q_ddpg --batches shared", GAME, "i2q_ddpg_DifferentialGame-3_shared"),
        ("examples.maddpg", CHEETAH, "maddpg_2x3HalfCheetah"),
        ("smac.i2q_drqn --form no_f", "smax:2s3z", "i2q_drqn_smax-2s3z_no_f"),
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


@pytest.mark.parametrize("scale", ["smoke", "paper", "lab"])
def test_every_row_is_a_command_that_its_program_takes(scale, monkeypatch):
    commands = {(row.program, row.task, *row.flags): row for row in rows(scale)}  # of the lab's seeds the first
    for row in commands.values():
        module = program(row.program)
        defaults = getattr(module, "defaults", lambda env, obs: {})
        monkeypatch.setattr(sys, "argv", [f"{row.program}.py", "--env", row.task, *row.flags])
        config = vars(flags.parse(module.Config, defaults, "", row.program))
        expected = settings(row.program, row.task, row.flags)
        algorithm = expected.pop("algorithm")
        assert algorithm == row.program.rpartition(".")[2] or [algorithm] == list(config["learners"])
        assert unlike(config, expected) == {}, row
        assert expected.keys() <= config.keys()
        assert {"gamma", "hid", "batch_size"} & expected.keys()


PROGRAMS = sorted({row.program for row in rows("paper")})
TASKS = [*((task, "own") for task in (GAME, CHEETAH, "smax:3m", "trees", "two-optima")), (CHEETAH, "full")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_names_are_shortened_by_the_programs_own_defaults(name):
    """What is read out of the source is what the program itself says."""
    module = program(name)
    tasks = [task for task in TASKS if (task[0] in GAMES) == is_game(name)]
    tasks = [task for task in tasks if task[0].startswith("smax:") == name.startswith("smac.")]
    assert tasks
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


def test_the_name_says_what_a_task_does_by_default_where_older_runs_did_otherwise(monkeypatch):
    monkeypatch.setattr(runs, "defaults_of", lambda program: lambda env, obs: {"batches": "shared"})
    assert experiment("i2q_ddpg", GAME) == f"i2q_ddpg_{GAME}_shared"
    assert experiment("i2q_ddpg --batches apart", GAME) == f"i2q_ddpg_{GAME}"


def test_an_older_run_without_a_flag_is_what_it_did():
    assert unlike({"lam": 1.0}, {"lam": 1.0, "batches": "apart"}) == {}
    assert unlike({"lam": 1.0}, {"lam": 1.0, "batches": "shared"}) == {"batches": "apart, not shared"}


def test_the_lab_trains_a_seed_of_every_row_before_a_second_of_any_tier_by_tier():
    table = rows("lab")
    for tier in (1, 2):
        seeds = [row.seed or 0 for row in table if row.tier == tier]
        assert seeds == sorted(seeds)
    assert [row.tier for row in table] == sorted(row.tier for row in table)
    first = {row.experiment for row in table if (row.tier, row.seed) == (1, 0)}
    assert first == {row.experiment for row in table if row.tier == 1}
    assert all(row.members == [row.seed] for row in table)


def test_the_lab_names_no_run_twice_and_no_experiment_for_two_settings():
    table = rows("lab")
    assert len({(row.experiment, row.seed, row.steps) for row in table}) == len(table)
    settings: dict[str, list[str]] = {}
    for row in table:
        assert settings.setdefault(row.experiment, row.flags[:-2]) == row.flags[:-2]  # but for --epochs


def test_every_panel_of_the_papers_learners_is_in_the_lab():
    """Figures 6, 8, 9, 11: all lines; 14 without the forms that have no model."""
    planned = {row.experiment for row in rows("lab")} | {p.name for p in (runs.ROOT / "results").iterdir()}
    for number in ("6", "8", "9", "11", "12", "13"):
        for task in FIGURES[number].tasks:
            assert {experiment(line, task) for line in FIGURES[number].lines.values()} <= planned, (number, task)


def test_the_lab_has_the_seeds_that_can_decide_every_claim():
    """One that holds in all of the seeds passes Holm's correction, be it the first of all claims of the paper."""
    seeds: dict[str, set[int]] = {}
    for row in rows("lab"):
        seeds.setdefault(row.experiment, set()).add(int(row.seed or 0))
    for path in (runs.ROOT / "results").glob("*/*_s*"):
        seeds.setdefault(path.parent.name, set()).add(int(path.name.rpartition("_s")[2]))
    figures = [figure for figure in FIGURES.values() if figure.number not in OTHERS]
    claims = [(figure, claim) for figure in figures for claim in figure.claims]
    for figure, claim in claims:
        sides = [figure.lines[side] for side in (claim.better, claim.worse) if isinstance(side, str)]
        sizes = [[len(seeds[experiment(s, task)]) for s in sides] for task in claim.tasks or figure.tasks]
        if len(sides) == 1:
            smallest = sign_test(n := sum(n for (n,) in sizes), n)
        else:
            smallest = smallest_p([(n, m) for n, m in sizes])
        assert smallest <= LEVEL / len(claims), (figure.number, claim.text, sizes)


def test_the_lab_takes_what_the_figures_named_need():
    assert {row.task for row in rows("lab", ["8"])} == {"StochasticDifferentialGame-3"}
    assert "maddpg_2x3HalfCheetah" in {row.experiment for row in rows("lab", ["9"])}


@pytest.mark.parametrize(
    "config, names",
    [
        ({"lam": 0.2}, []),
        ({"lam": 1.0}, ["lam"]),
        ({}, []),
        ({"lam": 0.2, "epochs": 5, "threads": 3}, []),
        ({"lam": 0.2, "gamma": 0.5}, ["gamma"]),
        ({"lam": 0.2, "rule": "1"}, ["rule"]),  # the task's own
        ({"lam": 0.2, "env": "DifferentialGame-2"}, ["env"]),
        ({"lam": 0.2, "algorithm": "iddpg"}, ["algorithm"]),
        ({"lam": 0.2, "gamma": "a lot"}, ["gamma"]),
        ({"lam": 0.2, "trick": True}, ["trick"]),
    ],
)
def test_a_run_is_of_a_row_where_all_settings_agree_but_for_epochs(config, names):
    expected = settings("i2q_ddpg", GAME, ["--lam", "0.2", "--epochs", "55"])
    assert list(unlike(config, expected)) == names
