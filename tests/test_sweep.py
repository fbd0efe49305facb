"""sweep.py: what a grid of flags is called, that it trains, resumes and stops, and what its exit status tells."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sweep

ROOT = Path(sweep.__file__).parent
TINY = {"hid": 8, "epochs": 1, "steps_per_epoch": 60, "update_after": 20, "update_every": 10, "updates": 1}
TINY |= {"num_test_episodes": 2, "compile": "off"}


def command(data_dir: Path, *words: str, **flags: object) -> list[str]:
    tiny = [f"--{name}={value}" for name, value in {**TINY, **flags}.items()]
    return [sys.executable, "sweep.py", "iddpg.py", *words, *tiny, "--data_dir", str(data_dir)]


def run(data_dir: Path, *words: str, **flags: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(data_dir, *words, **flags), cwd=ROOT, capture_output=True, text=True, check=False)


def experiments(*words: str) -> list[sweep.Experiment]:
    args, found = sweep.arguments([str(ROOT / "i2q_ddpg.py"), *words])
    assert args.script.name == "i2q_ddpg.py"
    return found


def steps(run_folder: Path) -> list[str]:
    header, *rows = [line.split("\t") for line in (run_folder / "progress.txt").read_text().splitlines()]
    return [row[header.index("TotalEnvInteracts")] for row in rows]


def test_names_and_labels_follow_from_what_varies(data_dir):
    grid = experiments("--env", "DifferentialGame-3", "--lam", "0.05", "0.1", "--hid", "8", "--data-dir", str(data_dir))
    assert [experiment.name for experiment in grid] == [
        "i2q_ddpg_DifferentialGame-3_lam0.05",
        "i2q_ddpg_DifferentialGame-3_lam0.1",
    ]
    assert [experiment.label for experiment in grid] == ["lam 0.05", "lam 0.1"]
    assert "--lam 0.1 --hid 8 --seed 0 --num_runs 1" in " ".join(grid[1].command)


def test_every_combination_is_an_experiment_of_its_own(data_dir, monkeypatch):
    monkeypatch.setattr(sweep, "check", lambda *args: None)  # a negative lambda is refused
    words = ["--env", "2|4HalfCheetah", "2x4Ant", "--lam", "0", "-1e-3", "--rule=1", "--tensorboard", "--forward"]
    grid = experiments(*words, "bounded", "residual", "--data_dir", str(data_dir))
    assert len({experiment.name for experiment in grid}) == 8
    assert grid[0].name == "i2q_ddpg_2-4HalfCheetah_lam0_forwardbounded"
    assert grid[-1].name == "i2q_ddpg_2x4Ant_lam-1e-3_forwardresidual"
    text = " ".join(grid[-1].command)
    assert "--env 2x4Ant --lam -1e-3 --rule 1 --tensorboard --forward residual --seed" in text


def test_a_name_of_ones_own_comes_before_what_varies(data_dir):
    grid = experiments("--env", "2x4Ant", "2x3Walker", "--exp_name", "first", "--data_dir", str(data_dir))
    assert [experiment.name for experiment in grid] == ["first_env2x4Ant", "first_env2x3Walker"]


def test_experiments_side_by_side_share_the_cores(data_dir, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    words = ["--env", "2x4Ant", "--jobs", "2", "--data_dir", str(data_dir)]
    assert "--threads 4" in " ".join(experiments(*words)[0].command)
    assert experiments(*words, "--threads", "3")[0].command.count("--threads") == 1
    assert "--threads" not in experiments("--env", "2x4Ant", "--data_dir", str(data_dir))[0].command


@pytest.mark.parametrize(
    "words, message",
    [
        (["iddpg.py"], "--env"),
        (["nothing.py", "--env", "2x4Ant"], "nothing.py: no such file"),
        (["iddpg.py", "0.1", "--env", "2x4Ant"], "'0.1': not a flag"),
        (["iddpg.py", "--env", "2x4Ant", "--gamma", "0.9", "--gamma", "0.99"], "--gamma: given twice"),
        (["iddpg.py", "--env", "2x4Ant", "--gamma", "0.9", "0.9"], "iddpg_2x4Ant_gamma0.9"),
        (["iddpg.py", "--env", "2x4Ant", "--num_runs", "0"], "--num_runs"),
        (["iddpg.py", "--env", "2x4Ant", "--data_dir", "iddpg.py"], "--data_dir 'iddpg.py': cannot write there ("),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iddpg.py").touch()
    with pytest.raises(SystemExit) as end:
        sweep.main(words)
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n"), err.startswith("sweep.py: ")) == (2, 1, True)
    assert message in err


def test_under_an_mpi_launcher_it_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(SystemExit):
        sweep.main([str(ROOT / "iddpg.py"), "--env", "2x4Ant", "--data_dir", str(tmp_path)])
    assert "--jobs trains experiments side by side" in capsys.readouterr().err


def test_a_grid_is_trained_and_drawn_and_the_same_command_resumes_it(data_dir):
    words = ["--env", "DifferentialGame-1", "--gamma", "0.9", "0.95", "--num_runs", "2", "--jobs", "2"]
    done = run(data_dir, *words)
    assert (done.returncode, done.stderr) == (0, "")
    for gamma in ("0.9", "0.95"):
        name = f"iddpg_DifferentialGame-1_gamma{gamma}"
        for seed in (0, 1):
            config = json.loads((data_dir / name / f"{name}_s{seed}" / "config.json").read_text())
            assert (str(config["gamma"]), config["seed"]) == (gamma, seed)
    for label in ("gamma 0.9 ", "gamma 0.95"):  # in the table of final returns
        assert any(line.split()[:3] == ["DifferentialGame-1", *label.split()] for line in done.stdout.splitlines())
    assert (data_dir / "iddpg.png").stat().st_size > 1000
    assert run(data_dir, *words, epochs=2).returncode == 0
    assert steps(data_dir / name / f"{name}_s1") == ["60", "120"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--gamma", "0.9", "2"], "iddpg_DifferentialGame-1_gamma2: .*must be within 0 .. 1; nothing was trained; .*"),
        (["--gamma", "0.9", "0,95"], "iddpg_DifferentialGame-1_gamma0-95: --gamma '0,95': must be a number; .*"),
        (["--lamda", "0.9", "0.95"], "iddpg_DifferentialGame-1_lamda0.9: .*--lamda.*"),
        (["--env", "DifferentialGame-1", "NoGame-3"], "iddpg_NoGame-3: --env 'NoGame-3': .*"),
    ],
)
def test_a_value_that_the_algorithm_refuses_is_told_before_anything_is_trained(data_dir, words, message):
    words = words if "--env" in words else ["--env", "DifferentialGame-1", *words]
    done = run(data_dir / "new", *words)
    assert (done.returncode, done.stdout, (data_dir / "new").exists()) == (2, "", False)
    assert re.fullmatch(rf"sweep.py: {message}\n", done.stderr), done.stderr


def test_an_algorithm_that_cannot_be_imported_tells_so_by_its_runs(data_dir, tmp_path, capsys):
    script = tmp_path / "mine.py"
    script.write_text("import no_such_library\n")
    assert sweep.main([str(script), "--env", "DifferentialGame-1", "--data_dir", str(data_dir)]) == 1
    assert "No module named 'no_such_library'" in capsys.readouterr().err


def test_an_algorithm_in_a_subfolder_finds_the_modules_of_the_checkout(data_dir):
    words = [*command(data_dir, "--env", "DifferentialGame-1")]
    words[words.index("iddpg.py")] = "examples/itd3.py"
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert steps(data_dir / "itd3_DifferentialGame-1" / "itd3_DifferentialGame-1_s0") == ["60"]


def test_a_failure_tells_where_to_look_and_leaves_the_others_alone(data_dir):
    bad, good = (data_dir / f"iddpg_DifferentialGame-1_gamma{gamma}" for gamma in ("0.95", "0.9"))
    bad.mkdir(parents=True)
    (bad / f"{bad.name}_s0").touch()
    done = run(data_dir, "--env", "DifferentialGame-1", "--gamma", "0.95", "0.9")
    assert done.returncode == 1
    assert f"FAILED  {bad.name}, status " in done.stderr and f"({bad / 'sweep.log'})" in done.stderr
    assert f"done    {good.name}" in done.stdout
    assert steps(good / f"{good.name}_s0") == ["60"]
    assert "plot.py: " not in done.stderr  # what has no row is not asked for


def test_a_folder_that_cannot_be_made_fails_alone(data_dir):
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "iddpg_DifferentialGame-1_gamma0.95").touch()
    done = run(data_dir, "--env", "DifferentialGame-1", "--gamma", "0.95", "0.9")
    assert done.returncode == 1
    path = data_dir / "iddpg_DifferentialGame-1_gamma0.95" / "sweep.log"
    assert done.stderr == f"FAILED  iddpg_DifferentialGame-1_gamma0.95: file exists ({path})\n"
    assert f"picture: {data_dir / 'iddpg.png'}" in done.stdout


def test_where_all_fail_nothing_is_drawn(data_dir):
    blocked = data_dir / "iddpg_DifferentialGame-1" / "iddpg_DifferentialGame-1_s0"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    done = run(data_dir, "--env", "DifferentialGame-1")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (
        1, 1, "1 experiment of 1 seed, 1 at a time\nstart   iddpg_DifferentialGame-1\n",
    )  # fmt: skip


def test_a_picture_that_cannot_be_written_is_a_failure(data_dir):
    (data_dir / "iddpg.png").mkdir(parents=True)
    done = run(data_dir, "--env", "DifferentialGame-1")
    assert done.returncode == 1
    assert done.stderr == f"plot.py: {data_dir}/iddpg.png cannot be written: is a directory; --out puts it elsewhere\n"


def test_stopping_it_stops_and_saves_what_trains(data_dir):
    words = command(data_dir, "--env", "DifferentialGame-1", "--gamma", "0.9", "0.95", epochs=100_000)
    name = "iddpg_DifferentialGame-1_gamma0.9"
    progress = data_dir / name / f"{name}_s0" / "progress.txt"
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sweeping:
        until = time.monotonic() + 60
        while not progress.exists() or not progress.stat().st_size:
            assert sweeping.poll() is None and time.monotonic() < until, "it did not train"
            time.sleep(0.1)
        sweeping.send_signal(signal.SIGINT)
        out, err = sweeping.communicate(timeout=60)
    assert (sweeping.returncode, err) == (130, "sweep.py: stopped and saved; rerun the same command to resume\n")
    assert out.count("start") == 1  # the second is not begun any more
    assert "saved at step" in (data_dir / name / "sweep.log").read_text()
    assert shlex.split(out.splitlines()[-1]) == ["start", name]
