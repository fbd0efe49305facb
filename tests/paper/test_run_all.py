"""run_all: what it counts as done, what it starts, how it stops. One test trains; the others run a few lines."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.runs import GAME, write_experiment

from paper import pool, run_all
from paper.runs import ROOT, Row, rows
from paper.state import START, State, cost, locked, remaining, shard

# trains like a program of ours: the folders, exit status 143 on SIGTERM, seeds that go on; "--lam 9" fails
TRAINER = """
import argparse, fcntl, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for flag in "env lam epochs seed num_runs data_dir exp_name threads".split():
    parser.add_argument(f"--{flag}", default="0")
args = parser.parse_args()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ranks", [name for name in os.environ if "PMI" in name], "threads", args.threads, flush=True)
if args.lam == "9":
    sys.exit("no lambda 9")
for seed in range(int(args.seed), int(args.seed) + int(args.num_runs)):
    folder = pathlib.Path(args.data_dir) / args.exp_name / f"{args.exp_name}_s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"env": args.env, "lam": float(args.lam), "seed": seed}))
    if args.lam == "5":
        time.sleep(30)
    rows = "".join(f"{k * 10000}\\t{k}\\n" for k in range(1, int(args.epochs) + 1))
    (folder / "progress.txt").write_text("TotalEnvInteracts\\tTime\\n" + rows)
"""


@pytest.fixture
def main(tmp_path, monkeypatch):
    """run_all with `i2q_ddpg.py` replaced by TRAINER and a table of two experiments of three seeds: lam 1 and lam 2."""
    (tmp_path / "i2q_ddpg.py").write_text(TRAINER)
    monkeypatch.setattr(pool, "ROOT", tmp_path)
    use(monkeypatch, "1", "2")
    folders = ["--data_dir", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    return lambda *argv: run_all.main(["--jobs", "1", *folders, *argv])


def use(monkeypatch, *lams: str) -> None:
    table = [Row(f"lam{lam}", "i2q_ddpg", GAME, ["--lam", lam, "--epochs", "4"], 3, ["6"]) for lam in lams]
    monkeypatch.setattr(run_all, "rows", lambda scale, numbers: table)


def test_without_the_extra_its_rows_are_left_out_with_a_line_and_the_others_are_trained(
    main, monkeypatch, capsys, tmp_path
):
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac" / "i2q_drqn.py").write_text(TRAINER.replace('"seed": seed', '"batches": "shared", "seed": seed'))
    tasks = (("1", "i2q_ddpg", GAME), ("2", "smac.i2q_drqn", "smax:3m"))
    table = [Row(f"lam{k}", of, task, ["--lam", k, "--epochs", "4"], 1, ["6"]) for k, of, task in tasks]
    monkeypatch.setattr(run_all, "rows", lambda scale, numbers: table)
    monkeypatch.setattr(run_all, "find_spec", lambda name: None)
    assert main() == 0
    out, err = capsys.readouterr()
    assert "done lam1" in out and "start lam2" not in out
    assert err.strip() == "run_all: 1 row of smax: tasks is left out: pip install '.[smax]'"
    monkeypatch.setattr(run_all, "find_spec", lambda name: name)
    assert main() == 0
    assert "done lam2" in capsys.readouterr().out


def use_seeds(monkeypatch, *jobs: tuple[str, int]) -> None:
    """A table of one seed a row, as the lab's."""
    table = [
        Row(f"lam{lam}", "i2q_ddpg", GAME, ["--lam", lam, "--epochs", "4"], 3, ["6"], k, 1 + int(lam == "2"))
        for lam, k in jobs
    ]
    monkeypatch.setattr(run_all, "rows", lambda scale, numbers: table)


def write_run(folder: Path, name: str, seed: int, steps: int = 40_000, lam: float = 1.0) -> None:
    run = folder / name / f"{name}_s{seed}"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"env": "DifferentialGame-3", "lam": lam, "seed": seed}))
    (run / "progress.txt").write_text(f"TotalEnvInteracts\tTime\n{steps}\t9\n")


def started(tmp_path: Path, name: str) -> list[str]:
    """The commands of a row's log, from --env on, without where the runs are kept."""
    log = (tmp_path / "data" / name / "run_all.log").read_text()
    lines = [line.split("--env DifferentialGame-3 ")[1] for line in log.splitlines() if line.startswith("$ ")]
    return [line.split(" --data_dir")[0] for line in lines]


def test_the_list_starts_nothing_and_says_what_is_left(main, tmp_path, capsys):
    write_run(tmp_path / "data", "lam1", 0)
    assert main("--list") == 0
    assert "2 rows: 0 done, 0 running, 2 left; about " in capsys.readouterr().out
    assert not (tmp_path / "data" / "lam2").exists()


def test_the_list_is_aligned_however_many_figures_share_a_row(tmp_path, capsys):
    assert run_all.main(["--scale", "paper", "--list", "--data_dir", str(tmp_path)]) == 0
    head, *rows, _ = capsys.readouterr().out.splitlines()
    for title, word in (("experiment", r"\w+_\S+"), ("command", r"python \S+\.py|python -m games\.\w+")):
        found = [re.search(rf"(?<=  )({word})", row) for row in rows]
        assert {match.start() for match in found if match} == {head.index(title)}
        assert all(found)


def test_the_list_s_command_is_quoted_for_a_folder_with_a_space(main, tmp_path, capsys):
    assert main("--list", "--data_dir", str(tmp_path / "my data")) == 0
    assert f"figures: python plot.py results '{tmp_path}/my data' --all-figures" in capsys.readouterr().out


def test_a_program_that_was_never_measured_has_a_cost(tmp_path):
    assert cost(Row("mine", "mine", GAME, ["--epochs", "1"], 1, ["6"])) > 0


def test_every_row_is_run_once_and_then_nothing_is_left(main, tmp_path, capsys):
    assert main("--jobs", "2") == 0
    assert main() == 0
    assert "2 rows: 2 done, 0 running, 0 left" in capsys.readouterr().out
    assert started(tmp_path, "lam1") == ["--lam 1 --epochs 4 --seed 0 --num_runs 3"]


def test_seeds_in_results_are_not_trained_again(main, tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / "results", "lam1", seed)
    write_run(tmp_path / "results", "lam2", 1, lam=2.0)
    assert main() == 0
    assert not (tmp_path / "data" / "lam1" / "run_all.log").exists()
    assert started(tmp_path, "lam2") == [f"--lam 2 --epochs 4 --seed {seed} --num_runs 1" for seed in (0, 2)]


def seeds_of(tmp_path: Path, name: str) -> list[int]:
    return sorted(int(path.name.rpartition("_s")[2]) for path in (tmp_path / "data" / name).glob("*_s?"))


def test_rows_of_one_seed_each_are_trained_in_their_order_with_logs_of_their_own(main, tmp_path, monkeypatch, capsys):
    use_seeds(monkeypatch, ("1", 0), ("2", 0), ("1", 1), ("2", 1))
    write_run(tmp_path / "results", "lam2", 0, lam=2.0)
    assert main("--scale", "lab") == 0
    begun = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("start")]
    assert begun == ["lam1_s0", "lam1_s1", "lam2_s1"]
    assert "--seed 1 --num_runs 1" in (tmp_path / "data" / "lam2" / "run_all_s1.log").read_text()
    assert (seeds_of(tmp_path, "lam1"), seeds_of(tmp_path, "lam2")) == ([0, 1], [1])


def test_two_seeds_of_one_experiment_are_trained_beside_each_other_but_not_beside_the_whole(tmp_path):
    jobs = [Row("a", "i2q_ddpg", GAME, ["--epochs", "4"], 2, [], k) for k in (0, 1)]
    whole = Row("a", "i2q_ddpg", GAME, ["--epochs", "4"], 2)
    first, second, both = (State(row, tmp_path / "data", tmp_path / "results") for row in (*jobs, whole))
    lock = first.claim()
    assert lock
    assert (first.running(), second.running(), both.running()) == (True, False, True)
    lock.close()
    lock = both.claim()
    assert lock
    assert second.running()
    lock.close()


def test_the_list_of_seeds_has_a_line_an_experiment_and_the_core_hours_of_each_tier(
    main, tmp_path, monkeypatch, capsys
):
    use_seeds(monkeypatch, ("1", 0), ("2", 0), ("1", 1))
    write_run(tmp_path / "results", "lam1", 1)
    assert main("--scale", "lab", "--list") == 0
    out = capsys.readouterr().out
    assert len(re.findall("^6 +lam1 +1 of 2 +left", out, re.M)) == 1
    left = State(Row("x", "i2q_ddpg", GAME, ["--epochs", "4"], 1), tmp_path, tmp_path)
    assert f"tier 1: 1 seeds left, {remaining([left], 1) / 3600:.1f} core-hours" in out


def test_shards_share_out_the_rows_whatever_is_done(main, tmp_path, monkeypatch):
    use_seeds(monkeypatch, ("1", 0), ("2", 0), ("1", 1), ("2", 1))
    write_run(tmp_path / "results", "lam1", 0)
    assert main("--scale", "lab", "--shard", "2/2") == 0
    assert (seeds_of(tmp_path, "lam1"), seeds_of(tmp_path, "lam2")) == ([], [0, 1])
    assert main("--scale", "lab", "--shard", "1/2") == 0
    assert seeds_of(tmp_path, "lam1") == [1]


def test_the_labs_shards_are_disjoint_together_the_whole_and_of_equal_size():
    table = rows("lab")
    shards = [shard(table, i, 3) for i in (1, 2, 3)]
    names = [(row.experiment, row.seed, row.steps) for part in shards for row in part]
    assert sorted(names) == sorted((row.experiment, row.seed, row.steps) for row in table)
    sizes = [sum(row.steps * cost(row) for row in part) for part in shards]
    assert max(sizes) < 1.05 * min(sizes)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_seed_and_its_longer_run_are_one_shards(n):
    """On two machines it would be trained twice, and both would add the same folder to results/."""
    table, homes = rows("lab"), {}
    for i in range(1, n + 1):
        for row in shard(table, i, n):
            homes.setdefault((row.experiment, row.seed), set()).add(i)
    assert len(homes) < len(table)  # some have two rows
    assert {len(parts) for parts in homes.values()} == {1}


def test_shorter_runs_and_runs_of_other_settings_in_results_do_not_count(main, tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / "results", "lam1", seed, steps=30_000)
        write_run(tmp_path / "results", "lam2", seed, lam=3.0)
    assert main() == 0
    assert started(tmp_path, "lam1") + started(tmp_path, "lam2") == [
        f"--lam {lam} --epochs 4 --seed 0 --num_runs 3" for lam in (1, 2)
    ]


def test_a_run_of_figure_5_is_done_when_its_values_are_compared_too(tmp_path):
    row = Row("lam1", "i2q_ddpg", "DifferentialGame-3", ["--lam", "1", "--epochs", "4"], 1, ["5", "6"])
    write_run(tmp_path / "data", "lam1", 0)
    state = State(row, tmp_path / "data", tmp_path / "results")
    assert (state.left, state.commands([], 1)[-1][2:4]) == (
        {0: 0},
        ["games.ideal_values", str(tmp_path / "data" / "lam1")],
    )
    (tmp_path / "data" / "lam1" / "lam1_s0" / "ideal_values.txt").write_text("")
    assert State(row, tmp_path / "data", tmp_path / "results").left == {}


def test_a_row_that_fails_is_named_with_its_log_and_the_others_go_on(main, tmp_path, capsys, monkeypatch):
    use(monkeypatch, "9", "1")
    assert main() == 1
    out = capsys.readouterr()
    assert f"lam9 failed: {tmp_path}/data/lam9/run_all.log" in out.err
    assert "no lambda 9" in (tmp_path / "data" / "lam9" / "run_all.log").read_text()
    assert "done lam1" in out.out


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_program_save_and_starts_no_other(main, tmp_path, capsys, monkeypatch, signum):
    use(monkeypatch, "5", "1")
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]

    def stop() -> None:
        while not (tmp_path / "data" / "lam5" / "lam5_s0" / "config.json").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signum)

    threading.Thread(target=stop).start()
    began = time.monotonic()
    assert main() == 130
    assert time.monotonic() - began < 20  # the trainer would have slept for 30 s
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert "rerun the same command" in capsys.readouterr().err
    assert not (tmp_path / "data" / "lam1").exists()


def test_what_cannot_be_started_has_failed(main, tmp_path, capsys):
    """Neither a launcher that does not exist nor a folder that cannot be made ends in `all done`."""
    assert main("--launcher", "no-such-launcher") == 1
    out, err = capsys.readouterr()
    assert "FAILED lam1, [Errno 2] No such file or directory: 'no-such-launcher'" in out and "FAILED lam2" in out
    assert err.splitlines() == [
        f"run_all: {name} failed: {tmp_path}/data/{name}/run_all.log" for name in ("lam1", "lam2")
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lam1").write_text("a file")
    assert main("--data_dir", str(tmp_path / "other")) == 1
    out = capsys.readouterr().out
    assert "FAILED lam1" in out and "done lam2" in out


def test_a_program_that_is_being_started_when_a_signal_comes_is_stopped_too(main, tmp_path, monkeypatch):
    use(monkeypatch, "5")
    popen = subprocess.Popen

    def slow(*args, **kwargs):
        child = popen(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # the main thread serves the signal before the child is known
        return child

    monkeypatch.setattr(pool.subprocess, "Popen", slow)
    began = time.monotonic()
    assert main() == 130
    assert time.monotonic() - began < 20


def test_a_row_that_another_process_has_claimed_is_left_to_it(main, tmp_path, capsys):
    (row, _) = run_all.rows("smoke", [])
    lock = State(row, tmp_path / "data", tmp_path / "results").claim()
    assert lock
    assert main() == 0
    lock.close()
    assert "1 running, 1 left" in capsys.readouterr().out
    assert not (tmp_path / "data" / "lam1" / "run_all.log").exists()
    assert started(tmp_path, "lam2")


def test_under_a_launcher_a_program_is_alone_and_its_rank_not_the_first_is_silent(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert main() == 0
    assert "ranks [] threads 4" in (tmp_path / "data" / "lam1" / "run_all.log").read_text()
    out = capsys.readouterr().out
    assert "2 rows:" not in out
    assert out.startswith("[rank 1] start lam1")


def test_a_launcher_of_its_own_shares_out_the_seeds_of_a_row(main, tmp_path):
    assert main("--launcher", f"{sys.executable} -X utf8 -c 'import sys; print(sys.argv[1:])'") == 1  # trains nothing
    log = (tmp_path / "data" / "lam1" / "run_all.log").read_text()
    assert f"'{sys.executable}', 'i2q_ddpg.py', '--env', 'DifferentialGame-3'" in log
    assert "'--threads', '0'" in log  # a rank knows how many of them share its host


def test_the_time_left_is_scaled_by_what_runs_have_taken(tmp_path):
    row = Row("a", "i2q_ddpg", "2x4Ant", ["--epochs", "2"], 2, ["9"])
    states = [State(row, tmp_path / "data", tmp_path / "results")]
    guess = remaining(states, 1) - START
    assert guess == pytest.approx(2 * 20_000 * cost(row))
    for seed in (0, 1):
        folder = tmp_path / "data" / "a" / f"a_s{seed}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "progress.txt").write_text(f"TotalEnvInteracts\tTime\n10000\t{3 * guess / 2}\n")
    states = [State(row, tmp_path / "data", tmp_path / "results")]
    assert remaining(states, 1) - START == pytest.approx(3 * guess / 2)  # half is left, thrice as slow


def test_the_list_says_what_core_its_times_are_for_until_runs_were_timed(main, tmp_path, capsys):
    assert main("--list") == 0
    assert "(on a core as fast as AMD's Zen 5; runs here will correct it)" in capsys.readouterr().out
    write_run(tmp_path / "data", "lam1", 0, steps=10_000)
    assert main("--list") == 0
    assert "Zen 5" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--scale", "large"], "large"),
        (["--figures", "99"], "invalid choice: '99'"),
        (["--jobs", "0"], "--jobs"),
        (
            ["--scale", "lab", "--figures", "5", "trees"],
            "the scale lab trains nothing of --figures 5 trees; try --scale short",
        ),
        (["--shard", "4/3"], "'4/3': name a part as I/N, the first of three as 1/3"),
    ],
)
def test_a_mistake_ends_with_status_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run_all.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_data_dir_that_cannot_be_made_is_refused_before_any_row(main, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main("--data_dir", str(tmp_path / "file" / "data"))
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and "FAILED" not in out
    assert err.startswith(f"run_all.sh: --data_dir '{tmp_path}/file/data': cannot write there (not a directory); give")


def test_the_shell_script_trains_a_real_row(tmp_path):
    argv = ["--scale", "smoke", "--only", "two-optima_iql", "--data_dir", "runs"]
    (tmp_path / "paper.py").write_text("raise SystemExit('of the folder it is called from')")
    done = subprocess.run([ROOT / "run_all.sh", *argv], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 done, 0 running, 0 left" in done.stdout
    name = "matrix_games_two-optima_iql"
    assert {p.name for p in (tmp_path / "runs" / name).iterdir()} >= {f"{name}_s0", f"{name}_s1"}


@pytest.mark.parametrize("other", [{"gamma": 0.5}, {"env": "2x4Ant"}, {"algorithm": "d3g"}, {"hid": 64}])
def test_runs_of_other_settings_are_not_done(tmp_path, other):
    (row,) = [row for row in rows("short") if row.experiment == f"iddpg_{GAME}"]
    for seed in row.members:
        write_experiment(tmp_path, row.experiment, seed, [1] * 55, **(other if seed else {}))
    state = State(row, tmp_path / "data", tmp_path)
    assert (state.shipped, [*state.left]) == ([0], row.members[1:])


def test_seeds_beside_results_are_not_in_results(tmp_path, capsys):
    table = [row for row in rows("lab") if row.experiment == f"d3g_{GAME}"]
    for row in table:
        write_experiment(tmp_path / ("data" if row.seed else "results"), row.experiment, row.seed or 0, [1] * 55)
    assert run_all.describe([State(row, tmp_path / "data", tmp_path / "results") for row in table]) == "done"
    assert run_all.describe([State(row, tmp_path, tmp_path / "data") for row in table[1:]]) == "in results"


def test_a_lock_that_may_not_be_written_is_no_sign_of_training(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock").chmod(0o400)
    assert not locked(tmp_path / ".lock")
    monkeypatch.setattr("builtins.open", lambda *args: (_ for _ in ()).throw(PermissionError(13, "not yours")))
    assert not locked(tmp_path / ".lock")
