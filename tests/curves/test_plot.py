"""plot.py as a whole: what it draws and prints, and its one line for each mistake."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from helpers.runs import write_run
from matplotlib import get_cachedir

import plot
from curves.draw import draw, legend_entries
from curves.estimate import curve
from curves.lines import Panel, arrange, group
from curves.read import load
from curves.table import cell

PNG = b"\x89PNG"


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


@pytest.mark.parametrize("flag", ["-c", "--count"])
def test_c_draws_every_seed_on_its_own(tmp_path, capsys, flag):
    for seed in range(2):
        write_run(tmp_path, "a", seed, [1, 2])
    assert plot.main([str(tmp_path), flag]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:4]] == ["a", "a"]


def test_the_table_has_what_the_seeds_came_to(tmp_path, capsys):
    for seed, final in enumerate([0, 10, 20, 60]):
        write_run(tmp_path, "a", seed, [1, final])
    plot.main([str(tmp_path)])
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[:8] == ["Game", "a", "4", "2,000", "22.50", "15.00", "15.00", "26.30"]


def test_estimate_band_and_smoothing_are_those_asked_for(tmp_path, capsys, monkeypatch):
    for seed, returns in enumerate([[0.0, 0, 0], [3.0, 3, 9], [3.0, 3, 3], [6.0, 6, 6], [100.0, 100, 100]]):
        write_run(tmp_path, "a", seed, returns)
    drawn: list[Panel] = []
    monkeypatch.setattr("curves.draw.draw", lambda panels, *_: drawn.extend(panels))
    assert plot.main([str(tmp_path), "--est", "median", "--band", "sd", "--smooth", "3"]) == 0
    (line,), ends = drawn[0].lines, np.array([0.0, 6, 3, 6, 100])  # 6 is the mean of 3 and 9
    assert (line.values[:, -1] == ends).all()
    assert (line.mid[-1], line.high[-1], line.low[-1]) == pytest.approx((6, 6 + ends.std(ddof=1), 6 - ends.std(ddof=1)))
    _, low, high = curve(ends[:, None], "median")
    assert capsys.readouterr().out.splitlines()[2].endswith(f"  {cell(low[0])} to {cell(high[0])}")


def test_the_legend_shows_the_number_of_seeds_of_each_panel(tmp_path):
    for env, n in (("A", 2), ("B", 3)):
        for seed in range(n):
            write_run(tmp_path, f"iddpg_{env}", seed, [1, 2], env=env)
    for seed in range(2):
        write_run(tmp_path, "i2q_A", seed, [1, 2], env="A")
    panels = arrange(group(load([str(tmp_path)])))
    lines = [line for panel in panels for line in panel.lines]
    assert list(legend_entries(lines)) == ["i2q (2 seeds)", "iddpg (2 to 3 seeds)"]


def test_a_panel_is_drawn_for_each_task_and_column(tmp_path):
    for env in "AB":
        write_run(tmp_path, f"a_{env}", 0, [1, 2], env=env)
    panels = arrange(group(load([str(tmp_path)])), ys=["Performance", "LossQ"])
    figure = draw(panels, tmp_path / "curve.png")
    titles = [ax.get_title() for ax in figure.axes]
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert (titles, labels) == (["A", "B", "", ""], ["test return", "", "LossQ", ""])


def test_a_panel_without_runs_says_so(tmp_path):
    figure = draw([Panel("2x4Ant", "Performance", [])], tmp_path / "curve.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no runs"]


def test_one_row_is_enough_for_a_picture(tmp_path):
    for seed in range(2):
        write_run(tmp_path, "$a$_", seed, [seed])
    assert plot.main([str(tmp_path), "-l", "_"]) == 0


MISTAKES = {
    "no LOGDIR": ([], "LOGDIR"),
    "no such folder": (["{}/nowhere/x"], "no folder '{}/nowhere'"),
    "no such prefix": (["{}/zz"], "there are: {}/a, {}/empty"),
    "a file": (["{}/a/a_s0/config.json"], "config.json' is a file; name the folder"),
    "no runs": (["{}/empty"], "a run is a folder with config.json and a progress.txt with rows"),
    "nothing selected": (["{}", "--select", "zz"], "--select 'zz' leaves no run of {}/a/a_s0"),
    "all excluded": (["{}", "--exclude", "_s0"], "--exclude '_s0' leaves no run"),
    "no such y": (
        ["{}", "-y", "LossZ"],
        "-y LossZ: no run has numbers in both; columns of {}/a/a_s0/progress.txt: Ep",
    ),
    "x as an alias of nothing": (["{}", "-x", "Performance", "-y", "LossZ"], "-x Performance -y LossZ"),
    "no such x": (["{}", "-x", "Steps"], "-x Steps"),
    "a column of nan": (["{}", "-y", "AverageEpRet"], "-y AverageEpRet: no run has numbers"),
    "legend too long": (
        ["{}", "-l", "A", "B", "C"],
        "-l: 3 names given; give one for each LOGDIR (1) or for each curve (1): a",
    ),
    "limits": (["{}", "--xlim", "5", "5"], "--xlim 5 5: the first number must be below the second"),
    "size": (["{}", "--size", "0", "3"], "'0' must be a number, within 1 .. 100"),
    "log": (["{}", "--log", "z"], "invalid choice: 'z'"),
    "smooth 0": (["{}", "--smooth", "0"], "argument -s/--smooth: '0' must be a whole number, 1 or more"),
    "smooth x": (["{}", "--smooth", "x"], "'x' must be a whole number"),
    "no such estimate": (["{}", "--est", "max"], "invalid choice: 'max'"),
    "no such band": (["{}", "--band", "95"], "invalid choice: '95'"),
    "no picture": (["{}", "--out", "{}/curve.txt"], ".png .pdf .svg"),
    "no such curve": (["{}", "--against", "sac"], "--against 'sac': no such curve; there are: a"),
    "against with single seeds": (
        ["{}", "--against", "a", "--count"],
        "--against compares curves over seeds, and --count draws every seed",
    ),
    "against in figures": (["{}", "--report", "--against", "a"], "--against is for the curves of LOGDIRs"),
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


def test_seeds_with_nothing_in_common_say_how_to_see_them(tmp_path, capsys):
    for seed, steps in ((0, 1000), (1, 700)):
        write_run(tmp_path, "a", seed, [1], steps)
    assert plot.main([str(tmp_path)]) == 2
    text = "plot.py: a on Game: no TotalEnvInteracts is within all 2 seeds; left out (--count draws each seed)\n"
    assert capsys.readouterr().err == text


def test_learners_are_compared_with_a_curve_at_equal_steps(tmp_path, capsys):
    for seed in range(2):
        write_run(tmp_path, "mine", seed, [1, 2, 30], 10_000)
        write_run(tmp_path, "iddpg", seed, [3 + seed, 5 + seed], 10_000)
    assert plot.main([str(tmp_path / "mine"), str(tmp_path / "iddpg"), "--against", "iddpg"]) == 0
    _, table = capsys.readouterr().out.split("final scores at equal steps:\n")
    rows = [line.split() for line in table.splitlines()[1:3]]
    assert [row[:5] for row in rows] == [["Game", "Performance", "mine", "2", "20,000"], [*rows[1][:5]]]
    assert rows[0][5:9] == ["2.0", "(2.0", "to", "2.0)"]
    assert rows[0][9] == "0"  # P(above iddpg): at step 20,000, not where mine ends
    assert rows[1][5] == "5.5"


def compared(capsys, *argv) -> tuple[str, list[list[str]]]:
    """The title of the comparison, and its rows in cells, the head first."""
    assert plot.main([*argv]) == 0
    title, *table = capsys.readouterr().out.partition("final scores at equal ")[2].splitlines()
    return title, [line.split() for line in table[:3]]


def test_smoothing_lets_nothing_from_beyond_the_equal_steps_into_a_score(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path, "mine", seed, [seed + 0.5] * 20, 10_000)
        write_run(tmp_path, "iddpg", seed, [float(seed)] * 20 + [1000] * 20, 10_000)
    logdirs = [str(tmp_path / "mine"), str(tmp_path / "iddpg"), "--against", "iddpg"]
    plain, smooth = compared(capsys, *logdirs), compared(capsys, *logdirs, "--smooth", "9")
    assert plain == smooth
    assert plain[1][1][5:10] == ["1.500", "(0.500", "to", "2.5)", "0.67"]  # ahead in 6 of 9 pairs


def test_a_comparison_at_equal_times_does_not_call_them_steps(tmp_path, capsys):
    for name in ("mine", "iddpg"):
        write_run(tmp_path, name, 0, [1, 2])
    title, (head, *_) = compared(capsys, str(tmp_path), "--against", "iddpg", "-x", "Epoch")
    assert (title, head[4]) == ("Epoch:", "Epoch")


def test_a_curve_that_begins_where_the_other_has_ended_has_no_score_at_equal_steps(tmp_path, capsys):
    write_run(tmp_path, "mine", 0, [9, 9], 250_000)
    write_run(tmp_path, "iddpg", 0, [1] * 20, 10_000)
    _, (_, *rows) = compared(capsys, str(tmp_path), "--against", "iddpg")
    assert ["Game", "Performance", "mine", "1", "200,000", "no", "row", "yet"] in rows


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
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_in_the_shell_shows_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "plot.py"), "nowhere/at_all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "plot.py: LOGDIR 'nowhere/at_all': there is no folder 'nowhere'\n")
