"""plot.py: its statistics against numbers a hand can check, and everything a folder of runs can look like."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_cachedir

import plot

REPOSITORY = Path(plot.__file__).parent
PNG = b"\x89PNG"


def write_run(root: Path, exp_name: str, seed: int, returns: list[float], steps: int = 1000, **config) -> Path:
    """A run folder as the algorithms leave it, with one row a test return, `steps` apart."""
    folder = root / exp_name / f"{exp_name}_s{seed}"
    folder.mkdir(parents=True)
    settings = {"algorithm": "iddpg", "env": "Game", "exp_name": exp_name, "seed": seed, "data_dir": str(root)}
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    rows = ["Epoch\tAverageEpRet\tAverageTestEpRet\tTotalEnvInteracts\tLossQ"]
    rows += [f"{i}\tnan\t{value}\t{i * steps}\t{0.5 / i}" for i, value in enumerate(returns, 1)]
    (folder / "progress.txt").write_text("\n".join(rows) + "\n")
    return folder


def lines_of(*logdirs: Path, **kwargs) -> list[plot.Line]:
    """The lines that a plain `python plot.py LOGDIR...` draws."""
    panels = plot.arrange(plot.group(plot.load([str(logdir) for logdir in logdirs])), **kwargs)
    return [line for panel in panels for line in panel.lines]


def column_vector(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


# ---------------------------------------------------------------------------------------------------------- statistics


def test_iqm_of_eight_runs_drops_the_two_lowest_and_the_two_highest():
    assert plot.iqm(column_vector(1000, 1, 2, 3, 4, 5, 6, -1000)) == 3.5  # of 2 3 4 5


def test_iqm_of_five_runs_drops_one_at_each_end():
    assert plot.iqm(column_vector(100, 1, 3, 5, -100)) == 3.0


def test_iqm_below_four_runs_is_the_mean():
    assert plot.iqm(column_vector(0, 1, 5)) == 2.0


def test_iqm_sorts_each_point_on_its_own():
    values = np.array([[0.0, 9], [1, 1], [3, 3], [9, 0]])
    assert plot.iqm(values).tolist() == [2.0, 2.0]


def test_sd_band_is_the_sample_standard_deviation_around_the_line():
    mid, low, high = plot.curve(column_vector(1, 3), "mean", "sd")
    assert (mid[0], low[0], high[0]) == pytest.approx((2, 2 - 2**0.5, 2 + 2**0.5))


def test_iqr_band_is_the_quartiles():
    mid, low, high = plot.curve(column_vector(0, 1, 2, 3, 4), "median", "iqr")
    assert (mid[0], low[0], high[0]) == (2, 1, 3)


def test_one_run_has_no_band():
    for band in ("sd", "iqr", "ci"):
        mid, low, high = plot.curve(np.array([[1.0, 2.0]]), band=band)
        assert mid.tolist() == low.tolist() == high.tolist() == [1.0, 2.0]


def test_interval_of_two_runs_reaches_from_one_to_the_other():
    _, low, high = plot.curve(column_vector(0, 10), "mean", "ci")  # a quarter of all resamples are (0, 0)
    assert (low[0], high[0]) == (0, 10)


def test_interval_of_the_mean_is_that_of_the_normal_distribution_for_many_runs():
    values = np.random.default_rng(0).normal(size=(400, 1))
    mid, low, high = plot.curve(values, "mean", "ci")
    assert high[0] - mid[0] == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    assert mid[0] - low[0] == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(20, 300))  # 300 experiments of 20 runs, side by side as points
    _, low, high = plot.curve(samples, "iqm", "ci")
    assert 0.87 < np.mean((low < 0) & (high > 0)) < 0.98


def test_interval_is_the_same_for_the_same_generator():
    values = np.random.default_rng(0).normal(size=(6, 120))
    first, again, other = (plot.curve(values, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_resampling_takes_whole_runs():
    values = np.random.default_rng(0).normal(size=(5, 1)) + np.zeros((5, 120))  # every run is flat, so is the interval
    _, low, high = plot.curve(values)
    assert np.ptp(low) == np.ptp(high) == 0


def test_stratified_resampling_keeps_the_number_of_runs_of_each_task():
    values = column_vector(0, 0, 0, 100, 100, 100)
    _, low, high = plot.curve(values, "mean", "ci", tasks=["easy"] * 3 + ["hard"] * 3)
    assert (low[0], high[0]) == (50, 50)
    _, low, high = plot.curve(values, "mean", "ci")
    assert low[0] < 50 < high[0]


def test_smoothing_averages_what_there_is_at_the_edges():
    assert plot.smooth(np.array([0.0, 3, 6, 15]), 3).tolist() == [1.5, 3, 8, 10.5]


def test_smoothing_over_one_row_changes_nothing():
    assert plot.smooth(np.array([0.0, 3, 6, 15]), 1).tolist() == [0, 3, 6, 15]


def test_smoothing_over_more_rows_than_there_are_keeps_their_number():
    assert plot.smooth(np.array([1.0, 3]), 9).tolist() == [2, 2]


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_last_line_that_is_being_written_does_not_count(tmp_path):
    run = write_run(tmp_path, "a", 0, [1, 2])
    with open(run / "progress.txt", "a") as file:
        file.write("3\tnan\t3\t3000\t0.1")  # all its cells, but the last may go on
    assert plot.read_progress(run / "progress.txt")["AverageTestEpRet"].tolist() == [1, 2]


def test_a_damaged_line_is_left_out_and_named(tmp_path, capsys):
    run = write_run(tmp_path, "a", 0, [1])
    with open(run / "progress.txt", "a") as file:
        file.write("2\tnan\n3\tnan\t3\t3000\t0.1\n")
    assert plot.read_progress(run / "progress.txt")["AverageTestEpRet"].tolist() == [1, 3]
    assert "progress.txt: line 3 has 2 cells, the header 5" in capsys.readouterr().err


def test_a_cell_that_is_no_number_is_bridged(tmp_path):
    write_run(tmp_path, "a", 0, [1, "None", 3])  # type: ignore[list-item]
    write_run(tmp_path, "a", 1, [1, 2, 3])
    (line,) = lines_of(tmp_path)
    assert line.values.tolist() == [[1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("text", ["", "Epoch\tAverage", "Epoch\tAverageTestEpRet\n", "\n\n"])
def test_a_run_without_a_row_is_left_out_and_named(tmp_path, capsys, text):
    write_run(tmp_path, "a", 0, [1, 2])
    (write_run(tmp_path, "a", 1, [1]) / "progress.txt").write_text(text)
    assert [run.seed for run in plot.load([str(tmp_path)])] == ["0"]
    assert "a_s1/progress.txt has no row yet; the run is left out" in capsys.readouterr().err


@pytest.mark.parametrize("text", [None, "", '{"env": "Ga', "[1, 2]", "\xff"])
def test_a_run_without_readable_settings_is_left_out_and_named(tmp_path, capsys, text):
    write_run(tmp_path, "a", 0, [1, 2])
    config = write_run(tmp_path, "a", 1, [1]) / "config.json"
    config.unlink() if text is None else config.write_bytes(text.encode("latin-1"))
    assert [run.seed for run in plot.load([str(tmp_path)])] == ["0"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a_s1/config.json" in error


def test_a_logdir_that_does_not_exist_is_a_prefix(tmp_path):
    for name in ("i2q_a", "i2q_b", "iddpg"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in plot.load([str(tmp_path / "i2q")])] == ["i2q_a", "i2q_b"]


def test_a_logdir_that_exists_is_no_prefix(tmp_path):
    for name in ("i2q", "i2q_old"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in plot.load([str(tmp_path / "i2q")])] == ["i2q"]


def test_a_run_met_twice_counts_once(tmp_path):
    write_run(tmp_path, "a", 0, [1])
    assert len(plot.load([str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "a_s0")])) == 1


def test_seed_ten_comes_after_seed_two(tmp_path):
    for seed in (10, 2):
        write_run(tmp_path, "a", seed, [1])
    assert [run.seed for run in plot.load([str(tmp_path)])] == ["2", "10"]


def test_lambda_zero_comes_before_lambda_one_fifth(tmp_path):
    for name in ("lam0.2", "lam0", "lam10"):
        write_run(tmp_path, name, 0, [1])
    assert [run.name for run in plot.load([str(tmp_path)])] == ["lam0", "lam0.2", "lam10"]


def test_select_wants_every_string_and_exclude_none(tmp_path):
    for name in ("i2q_lam1", "i2q_lam2", "iddpg"):
        for seed in (0, 1):
            write_run(tmp_path, name, seed, [1])
    runs = plot.load([str(tmp_path)], select=["i2q", "lam"], exclude=["lam2", "_s1"])
    assert [run.path.name for run in runs] == ["i2q_lam1_s0"]


# ------------------------------------------------------------------------------------------------------------ grouping


def test_seeds_are_one_curve_whatever_machine_and_launcher_they_ran_on(tmp_path):
    write_run(tmp_path / "here", "a", 0, [1], num_runs=5, threads=1, versions={"torch": "2.13"})
    write_run(tmp_path / "there", "a", 5, [1], num_runs=1, threads=4, versions={"torch": "2.14"})
    assert [len(experiment.runs) for experiment in plot.group(plot.load([str(tmp_path)]))] == [2]


def test_runs_of_different_settings_are_not_pooled_and_say_what_differs(tmp_path):
    write_run(tmp_path / "1", "a", 0, [1], lam=1.0, rule=2)
    write_run(tmp_path / "2", "a", 1, [1], lam=0.2, rule=2)
    assert [experiment.label for experiment in plot.group(plot.load([str(tmp_path)]))] == ["a, lam 1.0", "a, lam 0.2"]


def test_a_second_copy_of_a_seed_is_no_further_seed(tmp_path):
    write_run(tmp_path / "old", "a", 0, [1])
    write_run(tmp_path / "new", "a", 0, [2])
    labels = [experiment.label for experiment in plot.group(plot.load([str(tmp_path)]))]
    assert labels == [f"a, {tmp_path}/new/a", f"a, {tmp_path}/old/a"]


def test_a_copy_beside_its_original_is_left_out_and_named(tmp_path, capsys):
    run = write_run(tmp_path, "a", 0, [1])
    shutil.copytree(run, run.with_name("a_s0.bak"))
    assert [run.path.name for run in plot.load([str(tmp_path)])] == ["a_s0"]
    assert "a_s0.bak: a copy of a_s0" in capsys.readouterr().err


def test_count_draws_every_seed(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "a", seed, [seed])
    experiments = plot.group(plot.load([str(tmp_path)]), count=True)
    assert [experiment.label for experiment in experiments] == ["a s0", "a s1", "a s2"]
    assert len({experiment.colour for experiment in experiments}) == 3


def test_the_task_is_the_title_and_not_in_the_name(tmp_path):
    write_run(tmp_path, "iddpg_2-4HalfCheetah_lam1", 0, [1], env="2|4HalfCheetah")
    (panel,) = plot.arrange(plot.group(plot.load([str(tmp_path)])))
    assert (panel.title, panel.lines[0].experiment.label) == ("2|4HalfCheetah", "iddpg_lam1")


def test_a_learner_has_one_colour_in_all_panels(tmp_path):
    for env, algorithms in (("A", ["iddpg", "i2q"]), ("B", ["i2q"])):
        for algorithm in algorithms:
            write_run(tmp_path, f"{algorithm}_{env}", 0, [1], env=env, algorithm=algorithm)
    experiments = plot.group(plot.load([str(tmp_path)]))
    assert {(e.env, e.label): e.colour for e in experiments} == {("A", "i2q"): 0, ("B", "i2q"): 0, ("A", "iddpg"): 1}


def test_a_legend_names_logdirs_in_the_order_typed(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path, name, 0, [1])
    logdirs = [str(tmp_path / "b"), str(tmp_path / "a")]
    named = plot.rename(plot.load(logdirs), logdirs, ["first", "second"])
    assert [(run.path.name, run.name) for run in named] == [("b_s0", "first"), ("a_s0", "second")]


def test_a_legend_for_the_curves_of_one_logdir_says_which_is_which(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path, name, 0, [1])
    named = plot.rename(plot.load([str(tmp_path)]), [str(tmp_path)], ["first", "second"])
    assert [run.name for run in named] == ["first", "second"]
    assert "a is 'first', b is 'second'" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------------- lines


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
    assert (len(line.x), line.x[0], line.x[-1]) == (plot.MAX_POINTS, 1000, 3_000_000)


def test_performance_is_the_training_return_where_there_is_no_test(tmp_path):
    run = write_run(tmp_path, "a", 0, [1])
    (run / "progress.txt").write_text("AverageEpRet\tAverageTestEpRet\tTotalEnvInteracts\n5\tnan\t1000\n6\tnan\t2000\n")
    panels = plot.arrange(plot.group(plot.load([str(tmp_path)])))
    assert panels[0].lines[0].values.tolist() == [[5, 6]]
    assert plot.axis_label(panels, "Performance") == "training return"


def test_a_curve_without_the_column_is_left_out_and_named(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1])
    (write_run(tmp_path, "b", 0, [1]) / "progress.txt").write_text("AverageTestEpRet\tTotalEnvInteracts\n1\t1000\n")
    assert [line.experiment.label for line in lines_of(tmp_path, ys=["LossQ"])] == ["a"]
    assert "b_s0/progress.txt: no row has TotalEnvInteracts and LossQ" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- the whole program


@pytest.mark.parametrize("suffix, magic", [(".png", PNG), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_decides_what_is_written(tmp_path, suffix, magic):
    write_run(tmp_path, "a", 0, [1, 2])
    out = tmp_path / "new" / f"curve{suffix}"
    assert plot.main([str(tmp_path), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(magic)


def test_the_picture_is_the_same_for_the_same_data(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "a", seed, [seed, 2 * seed])
    for name in ("1.pdf", "2.pdf"):
        plot.main([str(tmp_path), "--out", str(tmp_path / name)])
    assert (tmp_path / "1.pdf").read_bytes() == (tmp_path / "2.pdf").read_bytes()


def test_without_out_the_picture_is_in_the_first_logdir_and_its_path_is_printed(tmp_path, capsys):
    write_run(tmp_path, "a", 0, [1, 2])
    assert plot.main([str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.endswith(f"picture: {tmp_path}/a/curve.png\n")
    assert (tmp_path / "a" / "curve.png").read_bytes().startswith(PNG)


def test_the_table_has_what_the_seeds_came_to(tmp_path, capsys):
    for seed, final in enumerate([0, 10, 20, 60]):
        write_run(tmp_path, "a", seed, [1, final])
    plot.main([str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[:8] == ["Game", "a", "4", "2,000", "22.50", "15.00", "15.00", "26.30"]


def test_the_legend_shows_the_number_of_seeds_of_each_panel(tmp_path):
    for env, n in (("A", 2), ("B", 3)):
        for seed in range(n):
            write_run(tmp_path, f"iddpg_{env}", seed, [1, 2], env=env)
    for seed in range(2):
        write_run(tmp_path, "i2q_A", seed, [1, 2], env="A")
    assert list(plot.legend_entries(lines_of(tmp_path))) == ["i2q (2 seeds)", "iddpg (2 to 3 seeds)"]


def test_a_panel_is_drawn_for_each_task_and_column(tmp_path):
    for env in "AB":
        write_run(tmp_path, f"a_{env}", 0, [1, 2], env=env)
    panels = plot.arrange(plot.group(plot.load([str(tmp_path)])), ys=["Performance", "LossQ"])
    figure = plot.draw(panels, tmp_path / "curve.png")
    titles = [ax.get_title() for ax in figure.axes]
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert (titles, labels) == (["A", "B", "", ""], ["test return", "", "LossQ", ""])


def test_a_panel_without_runs_says_so(tmp_path):
    figure = plot.draw([plot.Panel("2x4Ant", "Performance", [])], tmp_path / "curve.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no runs"]


def test_one_row_is_enough_for_a_picture(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "$a$_", seed, [seed])
    assert plot.main([str(tmp_path), "-l", "_"]) == 0


MISTAKES = {
    "no LOGDIR": ([], "LOGDIR"),
    "no such folder": (["{}/nowhere/x"], "no folder '{}/nowhere'"),
    "no such prefix": (["{}/zz"], "there are: {}/a, {}/empty"),
    "a file": (["{}/a/a_s0/config.json"], "config.json' is no folder"),
    "no runs": (["{}/empty"], "a run is a folder with config.json and a progress.txt with rows"),
    "nothing selected": (["{}", "--select", "zz"], "--select 'zz' leaves nothing of {}/a/a_s0"),
    "all excluded": (["{}", "--exclude", "_s0"], "--exclude '_s0' leaves nothing"),
    "no such y": (
        ["{}", "-y", "LossZ"],
        "-y LossZ: no run has numbers in both; columns of {}/a/a_s0/progress.txt: Ep",
    ),
    "x as an alias of nothing": (["{}", "-x", "Performance", "-y", "LossZ"], "-x Performance -y LossZ"),
    "no such x": (["{}", "-x", "Steps"], "-x Steps"),
    "a column of nan": (["{}", "-y", "AverageEpRet"], "-y AverageEpRet: no run has numbers"),
    "legend too long": (["{}", "-l", "A", "B", "C"], "-l has 3 names for 1 LOGDIRs, 1 curves: a"),
    "smooth 0": (["{}", "--smooth", "0"], "--smooth 0: is a number of rows"),
    "smooth x": (["{}", "--smooth", "x"], "invalid int value: 'x'"),
    "no such estimate": (["{}", "--est", "max"], "invalid choice: 'max'"),
    "no such band": (["{}", "--band", "95"], "invalid choice: '95'"),
    "no picture": (["{}", "--out", "{}/curve.txt"], ".png .pdf .svg"),
    "no such flag": (["{}", "--colour", "red"], "--colour"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_status_2(tmp_path, capsys, mistake):
    write_run(tmp_path, "a", 0, [1])
    (tmp_path / "empty").mkdir()
    argv, message = MISTAKES[mistake]
    try:
        status = plot.main([arg.format(tmp_path) for arg in argv])
    except SystemExit as stop:
        status = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("plot.py: ")
    assert message.format(tmp_path, tmp_path) in line


def test_a_picture_that_cannot_be_written_ends_in_one_line_and_status_1(tmp_path, capsys):
    run = write_run(tmp_path, "a", 0, [1, 2])
    assert plot.main([str(tmp_path), "--out", str(run / "config.json" / "curve.png")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "config.json/curve.png cannot be written: " in error


def test_the_command_needs_neither_torch_nor_a_display(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "a", seed, [1, 2])
    code = (
        "import sys, plot\n"
        "assert 'matplotlib' not in sys.modules, 'slow to start'\n"
        f"status = plot.main([{str(tmp_path)!r}])\n"
        "heavy = {'torch', 'gymnasium', 'mujoco', 'mpi4py', 'matplotlib.pyplot', 'pandas'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else status)\n"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "MPLBACKEND": "TkAgg", "MPLCONFIGDIR": get_cachedir()}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_in_the_shell_shows_no_traceback(tmp_path):
    command = [sys.executable, str(REPOSITORY / "plot.py"), "nowhere/at_all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "plot.py: LOGDIR 'nowhere/at_all': there is no folder 'nowhere'\n")
