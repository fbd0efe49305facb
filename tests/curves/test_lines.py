"""Which runs are one curve, and the rows that its seeds share."""

import shutil
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.runs import write_run

from curves.draw import axis_label
from curves.lines import MAX_POINTS, Line, arrange, group
from curves.read import load, rename


def lines_of(*logdirs: Path, **kwargs) -> list[Line]:
    """The lines that a plain `python plot.py LOGDIR...` draws."""
    panels = arrange(group(load([str(logdir) for logdir in logdirs])), **kwargs)
    return [line for panel in panels for line in panel.lines]


def test_seeds_are_one_curve_whatever_machine_and_launcher_they_ran_on(tmp_path):
    write_run(tmp_path / "here", "a", 0, [1], num_runs=5, threads=1, versions={"torch": "2.13"})
    write_run(tmp_path / "there", "a", 5, [1], num_runs=1, threads=4, versions={"torch": "2.14"})
    assert [len(experiment.runs) for experiment in group(load([str(tmp_path)]))] == [2]


def test_runs_of_different_settings_are_not_pooled_and_say_what_differs(tmp_path):
    write_run(tmp_path / "1", "a", 0, [1], lam=1.0, rule=2)
    write_run(tmp_path / "2", "a", 1, [1], lam=0.2, rule=2)
    assert [experiment.label for experiment in group(load([str(tmp_path)]))] == ["a, lam 1.0", "a, lam 0.2"]


def test_a_second_copy_of_a_seed_is_no_further_seed(tmp_path):
    write_run(tmp_path / "old", "a", 0, [1])
    write_run(tmp_path / "new", "a", 0, [2])
    labels = [experiment.label for experiment in group(load([str(tmp_path)]))]
    assert labels == [f"a, {tmp_path}/new/a", f"a, {tmp_path}/old/a"]


def test_a_run_of_other_code_that_names_no_algorithm_is_told_from_ours_by_its_folder(tmp_path):
    mine = write_run(tmp_path / "mine", "iddpg", 0, [1])
    (mine / "config.json").write_text('{"env": "Game", "seed": 0}')
    write_run(tmp_path / "ours", "iddpg", 0, [1])
    labels = [experiment.label for experiment in group(load([str(tmp_path)]))]
    assert labels == [f"iddpg, {tmp_path}/mine/iddpg", "iddpg, iddpg"]


def test_a_copy_beside_its_original_is_left_out_and_named(tmp_path, capsys):
    run = write_run(tmp_path, "a", 0, [1])
    shutil.copytree(run, run.with_name("a_s0.bak"))
    assert [run.path.name for run in load([str(tmp_path)])] == ["a_s0"]
    assert "a_s0.bak: a copy of a_s0" in capsys.readouterr().err


def test_a_copy_from_before_a_run_went_on_is_no_further_seed(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2], epochs=2).rename(tmp_path / "a" / "a_s0")
    shutil.move(write_run(tmp_path / "x", "a", 0, [1], epochs=1), tmp_path / "a" / "a_s0_before")
    write_run(tmp_path, "a", 1, [3, 4], epochs=2)
    (line,) = lines_of(tmp_path / "a")
    assert line.values.tolist() == [[1, 2], [3, 4]]
    assert "a_s0_before: a copy of a_s0, no further seed" in capsys.readouterr().err
    (tmp_path / "a" / "a_s0_before").rename(tmp_path / "a" / "a_s")  # comes first, and is the shorter all the same
    assert lines_of(tmp_path / "a")[0].values.tolist() == [[1, 2], [3, 4]]


def test_count_draws_every_seed(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "a", seed, [seed])
    experiments = group(load([str(tmp_path)]), count=True)
    assert [experiment.label for experiment in experiments] == ["a s0", "a s1", "a s2"]
    assert len({experiment.colour for experiment in experiments}) == 3


def test_the_task_is_the_title_and_not_in_the_name(tmp_path):
    for seed, env in enumerate(["2|4HalfCheetah", "2-4HalfCheetah"]):  # two names of one task
        write_run(tmp_path, "iddpg_2-4HalfCheetah_lam1", seed, [1], env=env)
    (panel,) = arrange(group(load([str(tmp_path)])))
    assert (panel.title, panel.lines[0].experiment.label) == ("2-4HalfCheetah", "iddpg_lam1")
    assert len(panel.lines[0].runs) == 2


def test_seeds_of_spinning_up_are_one_curve(tmp_path):
    for seed in range(2):
        logger = {f"<spinup.utils.logx.EpochLogger object at 0x7f0{seed}>": {"output_dir": f"data/ppo_s{seed}"}}
        env_fn, kwargs = f"<function <lambda> at 0x7f1{seed}>", {"output_dir": f"data/ppo_s{seed}"}
        write_run(tmp_path, "ppo", seed, [1], env_fn=env_fn, logger=logger, logger_kwargs=kwargs)
    assert [len(experiment.runs) for experiment in group(load([str(tmp_path)]))] == [2]


def test_a_name_that_pools_experiments_says_so(tmp_path, capsys):
    for seed, name in enumerate(["m_a", "m_b"]):
        write_run(tmp_path, name, seed, [1])
    assert len(group(rename(load([str(tmp_path / "m_")]), [str(tmp_path / "m_")], ["M"]))) == 1
    assert "-l: 'M' is all of m_a, m_b, where their settings are the same" in capsys.readouterr().err


def test_seeds_with_different_columns_behind_an_alias_are_named(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2])
    progress = write_run(tmp_path, "a", 1, [1, 2]) / "progress.txt"
    progress.write_text("AverageEpRet\tTotalEnvInteracts\n1\t1000\n2\t2000\n")
    lines_of(tmp_path)
    text = "Performance is AverageTestEpRet in some seeds and AverageEpRet in others"
    assert text in capsys.readouterr().err


def test_a_learner_has_one_colour_in_all_panels(tmp_path):
    for env, algorithms in (("A", ["iddpg", "i2q"]), ("B", ["i2q"])):
        for algorithm in algorithms:
            write_run(tmp_path, f"{algorithm}_{env}", 0, [1], env=env, algorithm=algorithm)
    experiments = group(load([str(tmp_path)]))
    assert {(e.env, e.label): e.colour for e in experiments} == {("A", "i2q"): 0, ("B", "i2q"): 0, ("A", "iddpg"): 1}


def test_a_legend_names_logdirs_in_the_order_typed(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path, name, 0, [1])
    logdirs = [str(tmp_path / "b"), str(tmp_path / "a")]
    named = rename(load(logdirs), logdirs, ["first", "second"])
    assert [(run.path.name, run.name) for run in named] == [("b_s0", "first"), ("a_s0", "second")]


def test_a_legend_for_the_curves_of_one_logdir_says_which_is_which(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path, name, 0, [1])
    named = rename(load([str(tmp_path)]), [str(tmp_path)], ["first", "second"])
    assert [run.name for run in named] == ["first", "second"]
    assert "a is 'first', b is 'second'" in capsys.readouterr().err


def test_a_curve_ends_where_its_shortest_seed_ends_and_says_so(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2, 3, 4])
    write_run(tmp_path, "a", 1, [3, 4])
    (line,) = lines_of(tmp_path)
    assert (line.x.tolist(), line.mid.tolist()) == ([1000, 2000], [2, 3])
    assert "drawn to TotalEnvInteracts 2,000, where a_s1 ends" in capsys.readouterr().err


def test_seeds_with_rows_at_different_steps_are_interpolated(tmp_path):
    write_run(tmp_path, "a", 0, [0, 1, 2, 3, 4], steps=1000)  # 1000 to 5000
    write_run(tmp_path, "a", 1, [10, 20], steps=2000)  # 2000, 4000
    (line,) = lines_of(tmp_path)
    assert line.x.tolist() == [2000, 3000, 4000]
    assert line.values.tolist() == [[1, 2, 3], [10, 15, 20]]


def test_of_rows_at_one_step_the_last_counts(tmp_path):
    run = write_run(tmp_path, "a", 0, [1, 2])
    with open(run / "progress.txt", "a") as file:
        file.write("2\tnan\t7\t2000\t0.1\n")
    assert lines_of(tmp_path)[0].values.tolist() == [[1, 7]]


def test_a_column_without_a_number_at_the_end_ends_the_curve_there(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2, float("nan")])
    write_run(tmp_path, "a", 1, [1, 2, 3])
    (line,) = lines_of(tmp_path)
    assert line.x.tolist() == [1000, 2000]
    assert "where a_s0 ends; 1 of 2 seeds reach up to 3,000" in capsys.readouterr().err


def test_seeds_without_a_common_step_are_left_out_and_named(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2], steps=10)
    write_run(tmp_path, "a", 1, [1, 2], steps=1000)
    write_run(tmp_path, "b", 0, [1])
    assert [line.experiment.label for line in lines_of(tmp_path)] == ["b"]
    assert "a on Game: no TotalEnvInteracts is within all 2 seeds" in capsys.readouterr().err


def test_long_runs_are_thinned_but_keep_both_ends(tmp_path):
    write_run(tmp_path, "a", 0, list(range(3000)))
    (line,) = lines_of(tmp_path)
    assert (len(line.x), line.x[0], line.x[-1]) == (MAX_POINTS, 1000, 3_000_000)


def test_performance_is_the_training_return_where_there_is_no_test(tmp_path):
    run = write_run(tmp_path, "a", 0, [1])
    (run / "progress.txt").write_text("AverageEpRet\tAverageTestEpRet\tTotalEnvInteracts\n5\tnan\t1000\n6\tnan\t2000\n")
    panels = arrange(group(load([str(tmp_path)])))
    assert panels[0].lines[0].values.tolist() == [[5, 6]]
    assert axis_label(panels, "Performance") == "training return"


@pytest.mark.parametrize(
    ("runs", "label"),
    [
        (["matrix_games_trees_i2q"], "share of the best return"),
        (["value_factorization_qplex-game_vdn"], "pay-off"),
        (["matrix_games_trees_i2q", "value_factorization_qplex-game_vdn"], "return"),
        (["ippo_DifferentialGame-3"], "test return"),
    ],
)
def test_the_axis_says_what_a_game_s_test_returns(runs, label):
    panels = arrange(group(load([str(ROOT / "results" / run) for run in runs])))
    assert axis_label(panels, "Performance") == label


def test_a_curve_without_the_column_is_left_out_and_named(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1])
    (write_run(tmp_path, "b", 0, [1]) / "progress.txt").write_text("AverageTestEpRet\tTotalEnvInteracts\n1\t1000\n")
    assert [line.experiment.label for line in lines_of(tmp_path, ys=["LossQ"])] == ["a"]
    assert "b_s0/progress.txt: no row has TotalEnvInteracts and LossQ" in capsys.readouterr().err


def test_a_curve_none_of_whose_seeds_has_the_column_is_named_once(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1])
    for seed in range(3):
        run = write_run(tmp_path, "b", seed, [1])
        (run / "progress.txt").write_text("AverageTestEpRet\tTotalEnvInteracts\n1\t1000\n")
    assert [line.experiment.label for line in lines_of(tmp_path, ys=["LossQ"])] == ["a"]
    assert capsys.readouterr().err == (
        "plot.py: b on Game: no row of its 3 runs has TotalEnvInteracts and LossQ; the curve is left out\n"
    )
