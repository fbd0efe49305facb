"""The paper's figures, drawn from whatever runs there are."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import GAME, write_experiment, write_game

import envs
import plot
from curves.draw import draw
from curves.lines import Panel
from curves.style import colour_of, dash_of
from paper.figures import FIGURES, MANY, MARKS, ROBOTS
from paper.panels import Runs, caption, panels, style
from paper.results import PICTURES


def drawn(tmp_path: Path, number: str = "6") -> tuple[list[Panel], str]:
    figure = FIGURES[number]
    runs = Runs([tmp_path])
    found = panels(figure, runs)
    return found, caption(figure, found, runs.fit(figure))


def test_a_figure_has_a_panel_a_task_and_a_line_a_learner(tmp_path):
    write_game(tmp_path, [90, 91], [29, 30])
    (panel,), _ = drawn(tmp_path)
    assert [line.experiment.label for line in panel.lines] == ["I2Q", "IDDPG"]
    assert panel.missing == ["D3G", "λ = 0"]
    assert [p.title for p in drawn(tmp_path, "14")[0]] == ["6x1Walker", "8x1Ant"]


def test_the_caption_says_how_many_seeds_and_steps_are_behind_each_curve(tmp_path):
    write_game(tmp_path, [90, 91, 92, 93], [29] * 3, n_rows=20)
    assert "I2Q: 4 seeds to step 200,000; IDDPG: 3 seeds to step 200,000." in drawn(tmp_path)[1]


def test_a_panel_names_the_learners_that_are_not_run(tmp_path):
    write_game(tmp_path, [90], [29])
    (ax,) = draw(drawn(tmp_path, "6")[0], tmp_path / "x.png").axes
    assert "not run yet: D3G, λ\u00a0=\u00a00" in [t.get_text() for t in ax.texts]


def test_panels_without_runs_are_one_line_of_the_caption_and_no_picture(tmp_path):
    write_experiment(tmp_path, "iddpg_2x3Walker", 0, [1, 2], env="2x3Walker")
    found, text = drawn(tmp_path, "9")
    assert text.endswith(" Not run yet: 2x3HalfCheetah, 2|4HalfCheetah, 3x2Walker, 2x4Ant, 3x1Hopper.")
    assert [ax.get_title() for ax in draw(found, tmp_path / "x.png").axes] == ["2x3Walker"]


def test_lines_of_one_step_games_are_drawn_at_their_values(tmp_path):
    for learner in ("vdn", "qmix", "qplex-3L10H", "qtran"):
        name = f"value_factorization_qplex-game_{learner}"
        for seed in range(2):
            write_experiment(tmp_path, name, seed, [8] * 20, env="qplex-game")
    (ax,) = draw(drawn(tmp_path, "qplex")[0], tmp_path / "x.png").axes
    assert {float(y) for line in ax.lines for y in np.ravel(line.get_ydata())} == {8.0}


def test_a_learner_has_one_colour_in_all_figures(tmp_path):
    for task, number in ((GAME, "6"), ("StochasticDifferentialGame-3", "8")):
        write_experiment(tmp_path, f"iddpg_{task}", 0, [1, 2], env=task)
        assert [line.experiment.colour for line in drawn(tmp_path, number)[0][0].lines] == [1]


def test_the_released_rule_has_one_colour_wherever_it_is_drawn():
    figures = [*FIGURES.values(), *PICTURES.values()]
    labels = {label for f in figures for label, line in f.lines.items() if line == "i2q_ddpg --rule released"}
    assert len(labels) == 3
    assert len({colour_of(style(label)) for label in labels}) == 1


def test_of_one_seed_in_two_folders_the_longer_run_counts(tmp_path):
    write_experiment(tmp_path / "results", f"iddpg_{GAME}", 0, [1, 1, 1])
    write_experiment(tmp_path / "data", f"iddpg_{GAME}", 0, [2, 2])
    write_experiment(tmp_path / "data", f"iddpg_{GAME}", 1, [2, 2, 2])
    found = Runs([tmp_path / "data", tmp_path / "results"]).find(f"iddpg_{GAME}")
    assert sorted((run.seed, run.path.parents[1].name) for run in found) == [("0", "results"), ("1", "data")]


def test_runs_of_other_settings_are_never_pooled_and_are_named(tmp_path, capsys):
    for seed in range(3):
        write_experiment(tmp_path / "a", f"iddpg_{GAME}", seed, [1, 2, 3], gamma=0.99)
    write_experiment(tmp_path / "b", f"iddpg_{GAME}", 3, [1, 2], gamma=0.5)
    assert len(Runs([tmp_path / "a", tmp_path / "b"]).find(f"iddpg_{GAME}")) == 3
    assert f"iddpg_{GAME}: 1 runs of other settings are left out" in capsys.readouterr().err


def test_the_settings_of_a_line_count_before_the_length_of_other_runs(tmp_path, capsys):
    name = f"iddpg_{GAME}"
    write_experiment(tmp_path / "results", name, 0, [1, 2, 3], gamma=0.99)
    for seed in range(4):
        write_experiment(tmp_path / "data", name, seed, [1, 2, 3, 4], gamma=0.5)
    (run,) = Runs([tmp_path / "data", tmp_path / "results"]).of("iddpg", GAME)
    assert run.path.parents[1].name == "results"
    assert f"{name}: 4 runs of other settings are left out" in capsys.readouterr().err
    assert len(Runs([tmp_path / "data"]).of("iddpg", GAME)) == 4  # better than none, and said
    assert capsys.readouterr().err == f"plot.py: {name}: its runs have gamma 0.5, not 0.99\n"
    for seed in range(4):  # of an edited copy
        write_experiment(tmp_path / "copy", name, seed, [1, 2, 3, 4], gamma=0.99, trick=True)
    (run,) = Runs([tmp_path / "copy", tmp_path / "results"]).of("iddpg", GAME)
    assert run.path.parents[1].name == "results"
    assert len(Runs([tmp_path / "copy"]).of("iddpg", GAME)) == 4
    assert "its runs have trick True, which is unknown here\n" in capsys.readouterr().err


@pytest.mark.parametrize("other", [{"lam": 2.0}, {"env": "2x4Ant"}, {"algorithm": "d3g"}, {"batches": "shared"}])
def test_a_run_that_is_no_run_of_a_line_is_left_out_whatever_its_folder_says(tmp_path, capsys, other):
    name = f"i2q_ddpg_{GAME}"
    write_experiment(tmp_path, name, 0, [1, 2])
    run = write_experiment(tmp_path, name, 1, [1, 2], **other)
    assert [run.seed for run in Runs([tmp_path]).of("i2q_ddpg", GAME)] == ["0"]
    (key, value) = next(iter(other.items()))
    assert f"plot.py: {run}: {key} is {value}, not " in capsys.readouterr().err


def test_sizes_of_run_all_are_not_worth_a_note(tmp_path, capsys):
    write_experiment(tmp_path, f"iddpg_{GAME}", 0, [1, 2], hid=64, steps_per_epoch=500)
    assert len(Runs([tmp_path]).of("iddpg", GAME)) == 1
    assert capsys.readouterr().err == ""


def test_a_seed_that_is_not_finished_does_not_cut_the_finished_ones(tmp_path, capsys):
    name, whole = f"iddpg_{GAME}", {"epochs": 4, "steps_per_epoch": 10_000}
    for seed, rows in enumerate([4, 4, 1]):
        write_experiment(tmp_path, name, seed, [1] * rows, **whole)
    runs = Runs([tmp_path]).of("iddpg", GAME)
    assert [run.seed for run in runs] == ["0", "1"]
    text = f"plot.py: {name}: unfinished seeds are left out ({name}_s2 at step 10,000 of 40,000)\n"
    assert capsys.readouterr().err == text


def test_seeds_count_where_none_is_finished_and_where_one_goes_on_beyond_the_finished_ones(tmp_path, capsys):
    name = f"iddpg_{GAME}"
    for seed, rows in enumerate([2, 3]):
        write_experiment(tmp_path / "none", name, seed, [1] * rows, epochs=4, steps_per_epoch=10_000)
    assert len(Runs([tmp_path / "none"]).of("iddpg", GAME)) == 2
    for seed, (rows, epochs) in enumerate([(2, 2), (3, 5), (5, 5)]):  # seed 1 is being extended
        write_experiment(tmp_path / "on", name, seed, [1] * rows, epochs=epochs, steps_per_epoch=10_000)
    assert len(Runs([tmp_path / "on"]).of("iddpg", GAME)) == 3
    assert capsys.readouterr().err == ""


def test_runs_one_folder_deeper_are_none_of_the_experiment(tmp_path):
    run = write_experiment(tmp_path, f"iddpg_{GAME}", 0, [1, 2])
    shutil.copytree(run, run.parent / "backup" / run.name)
    shutil.rmtree(run)
    assert Runs([tmp_path]).of("iddpg", GAME) == []


def test_older_runs_without_a_flag_are_seeds_of_what_they_did(tmp_path):
    settings: list[dict[str, Any]] = [{}, {"batches": "apart"}, {"batches": "shared"}]
    for seed, more in enumerate(settings):
        write_experiment(tmp_path, f"iddpg_{GAME}", seed, [1, 2], **more)
    assert [run.seed for run in Runs([tmp_path]).find(f"iddpg_{GAME}")] == ["0", "1"]


def test_a_centralised_reference_is_drawn_where_it_was_run_marked_and_never_missing(tmp_path):
    write_game(tmp_path, [90, 91], [29, 30])
    mark = "MADDPG (centralised, not in the paper)"
    (panel,), _ = drawn(tmp_path)
    assert mark not in [*panel.missing, *(line.experiment.label for line in panel.lines)]
    for seed in (0, 1):
        write_experiment(tmp_path, f"maddpg_{GAME}", seed, [93, 94], algorithm="maddpg")
    (panel,), text = drawn(tmp_path)
    assert panel.lines[-1].experiment.label == mark
    assert f"{mark}: 2 seeds to step 20,000" in text
    (ax,) = draw([panel], tmp_path / "x.png").axes
    assert "#555555" in [line.get_color() for line in ax.lines]
    assert mark not in [line.experiment.label for line in drawn(tmp_path, "12")[0][0].lines]


@pytest.mark.parametrize("task", [*ROBOTS, *MANY])
def test_a_robot_that_can_fall_is_marked_with_what_it_is_paid_for_standing_still(task):
    robot: Any = envs.make(task, [0])
    paid = getattr(robot.envs[0], "_healthy_reward", 0) * robot.max_ep_len
    robot.close()
    assert MARKS.get(task, {}).get("standing still", 0) == paid


def test_shared_batches_are_dashed_in_the_colour_of_their_rule(tmp_path):
    for seed in (0, 1):
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}", seed, [1, 2])
        write_experiment(tmp_path, f"i2q_ddpg_{GAME}_shared", seed, [1, 2], batches="shared")
    apart, shared = (line.experiment for line in drawn(tmp_path, "batches")[0][0].lines)
    assert colour_of(apart.colour) == colour_of(shared.colour)
    assert (dash_of(apart.colour), dash_of(shared.colour)) == ("-", "--")


def test_an_experiment_is_not_taken_for_another_whose_name_it_begins(tmp_path):
    write_experiment(tmp_path, f"i2q_ddpg_{GAME}_lam0.2", 0, [1, 2])
    assert Runs([tmp_path]).find(f"i2q_ddpg_{GAME}") == []


def test_the_command_writes_png_and_pdf(tmp_path, capsys):
    write_game(tmp_path / "runs", [90, 91], [29, 30], n_rows=3)
    assert plot.main([str(tmp_path / "runs"), "--figure", "6", "7", "--out", str(tmp_path / "out")]) == 0
    assert {p.name: p.read_bytes()[:4] for p in (tmp_path / "out").iterdir()} == {
        f"figure_{n}{suffix}": magic for n in "67" for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF"))
    }
    assert "figure_7.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--figure", "6", "--out", "six.png"], "--out 'six.png': a figure is written as .png and .pdf"),
        (["--figure", "99"], "--figure 99: no such figure; known: 5 6 7 8"),
        (["{}/x", "--report"], "{}/x': no such folder"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(tmp_path, capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        sys.exit(plot.main([arg.format(tmp_path) for arg in argv]))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp_path) in line


def test_figure_5_draws_what_ideal_values_left_and_the_distance(tmp_path):
    write_game(tmp_path, [90, 91], [29, 30], n_rows=2)
    for seed in (0, 1):
        path = tmp_path / f"i2q_ddpg_{GAME}" / f"i2q_ddpg_{GAME}_s{seed}" / "ideal_values.txt"
        path.write_text("TotalEnvInteracts\tQVals\tIdealQVals\n10000\t5\t9\n20000\t8\t10\n")
    i2q, iddpg, distance = drawn(tmp_path, "5")[0]
    assert [(line.experiment.label, line.mid.tolist()) for line in i2q.lines] == [("I2Q", [5, 8]), ("ideal", [9, 10])]
    assert [(line.experiment.label, line.mid.tolist()) for line in distance.lines] == [("I2Q", [4, 2])]
    assert (iddpg.lines, iddpg.missing, distance.missing) == ([], ["IDDPG"], ["IDDPG"])
    write_game(tmp_path / "longer", [90, 91], [29, 30], n_rows=3)  # whose values were not compared
    figure = FIGURES["5"]
    runs = Runs([tmp_path / "longer", tmp_path])
    assert [line.mid.tolist() for line in panels(figure, runs)[0].lines] == [[5, 8], [9, 10]]
