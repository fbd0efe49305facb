"""watch.py: what it plays, prints and films, and its one line for what it cannot."""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import envs
import i2q_ddpg
import watch
from common.errors import UsageError
from common.film import Film
from common.policy import Policy

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"env": "DifferentialGame-2", "obs": "own", "legacy_actuators": False, "test_ep_len": 12, "seed": 0}


def constant_actor(*act: float) -> dict[str, np.ndarray]:
    """Agent i always does act[i]: no weights, only the last bias."""
    n = len(act)
    bias = np.arctanh(np.array(act, np.float32))[:, None]
    return {
        "pi.0.weight": np.zeros((n, 4, n), np.float32),
        "pi.0.bias": np.ones((n, 4), np.float32),
        "pi.1.weight": np.zeros((n, 1, 4), np.float32),
        "pi.1.bias": bias,
    }


def homing_actor() -> dict[str, np.ndarray]:
    """Agent i does tanh(-20 x_i): |x_i| and its sign go through two ReLUs."""
    first, last = np.zeros((2, 2, 2), np.float32), np.zeros((2, 1, 2), np.float32)
    for i in range(2):
        first[i, :, i] = [1, -1]
        last[i, 0] = [-20, 20]
    zeros = np.zeros((2, 2), np.float32)
    return {"pi.0.weight": first, "pi.0.bias": zeros, "pi.1.weight": last, "pi.1.bias": zeros[:, :1].copy()}


def write_run(run: Path, actor: dict[str, np.ndarray] | None, **changed) -> Path:
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    if actor is not None:
        save_file(actor, run / "policy.safetensors")
    return run


def reward(x: list[float]) -> float:
    """Two agents, by hand: l = |x|, the hill ends at .12, the ring lies between .6 and 1."""
    l = math.hypot(*x)
    if l < 0.12:
        return 0.5 * (math.cos(math.pi * l / 0.12) + 1)
    return 0.15 * (math.cos(15 * (l - 0.8)) + 1) if 0.6 <= l < 1 else 0.0


def line_of(capsys, *argv) -> str:
    """What watch.py says on stderr, after status 2 and in one line."""
    assert watch.main([str(arg) for arg in argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("watch.py: ")
    return err


def test_the_printed_return_is_the_sum_along_the_path_that_the_actors_take(tmp_path, capsys):
    run = write_run(tmp_path / "run", constant_actor(0.5, -0.9))
    assert watch.main([str(run), "--seed", "12"]) == 0
    x = envs.make("DifferentialGame-2", [12]).reset()[0, 0].tolist()
    total = 0.0
    for _ in range(12):
        total += reward(x)  # of the state before the move
        x = [min(max(x[0] + 0.05, -1), 1), min(max(x[1] - 0.09, -1), 1)]
    assert total > 1, "choose a seed whose path crosses ring and hill"
    assert capsys.readouterr().out == f"episode 1: return {total:.2f}, length 12\n"  # one, and so no mean


def test_hidden_layers_are_relu_and_each_agent_has_its_own_weights(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor(), test_ep_len=100)
    assert watch.main([str(run), "--episodes", "5"]) == 0
    mean = float(capsys.readouterr().out.splitlines()[-1].split()[4].strip(","))
    assert 90 < mean < 98  # the anchor of going to the centre is 93.7; staying out on the ring is 29.6


def test_what_is_watched_acts_like_what_was_trained():
    env = envs.make("2|4HalfCheetah", [0, 1])  # agent 0 is narrower than agent 1
    agents = i2q_ddpg.Agents(env, i2q_ddpg.Config(env="2|4HalfCheetah", hid=5, l=2), env.seeds)
    obs = np.random.default_rng(0).normal(size=env.obs.shape).astype(np.float32) * env.obs_mask
    with torch.no_grad():
        trained = agents.pi(torch.from_numpy(obs)[:, :, None])[:, :, 0].numpy()
    for row in range(2):
        watched = Policy(agents.policy(row))(obs[row])
        np.testing.assert_allclose(watched, trained[row], rtol=1e-5, atol=1e-6)
    assert np.abs(trained).max() > 0.1


def test_the_same_seed_plays_the_same_episodes_and_another_seed_others(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor())
    printed = []
    for seed in ("1", "1", "2"):
        assert watch.main([str(run), "--seed", seed]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_a_film_has_a_frame_for_every_state_of_every_episode(tmp_path, capsys):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    run, film = write_run(tmp_path / "run", homing_actor()), tmp_path / "film.mp4"
    assert watch.main([str(run), "--episodes", "2", "--video", str(film), "--fps", "10"]) == 0
    assert film.stat().st_size > 1000
    reader = ffmpeg.read_frames(str(film))
    meta = next(reader)
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert (len(frames), meta["fps"]) == (2 * 13, 10)
    assert frames[0].std() > 5, "the picture is one colour"
    assert (frames[0] != frames[12]).mean() > 0.001, "nothing moves"
    assert [path.name for path in tmp_path.glob("film*")] == ["film.mp4"]


def test_two_runs_are_filmed_side_by_side_from_the_same_states(tmp_path, capsys):
    solved = write_run(tmp_path / "solved_s0", homing_actor())
    trapped = write_run(tmp_path / "trapped_s2", constant_actor(0.0, 0.0))
    film = tmp_path / "both.mp4"
    for run in (solved, trapped):
        assert watch.main([str(run), "--seed", "3"]) == 0
    alone = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    argv = [str(solved), "--beside", str(trapped), "--video", str(film), "--seed", "3", "--size", "64"]
    assert watch.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines[:2]] == alone
    assert lines[0].startswith("episode 1, solved_s0: ") and lines[2] == f"film: {film}"
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    n_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(film))
    assert (n_frames, next(imageio_ffmpeg.read_frames(str(film)))["size"]) == (13, (128, 64))


def test_the_last_picture_of_an_episode_that_ends_earlier_stays():
    long, short = ([np.full((1, 1, 3), k) for k in ks] for ks in ([1, 2, 3], [7]))
    assert [p[0, :, 0].tolist() for p in watch.abreast([iter(long), iter(short)])] == [[1, 7], [2, 7], [3, 7]]


def test_a_run_of_another_task_cannot_be_beside(tmp_path, capsys):
    run, other = write_run(tmp_path / "a", homing_actor()), write_run(tmp_path / "b", None, env="DifferentialGame-3")
    assert watch.main([str(run), "--beside", str(other), "--video", str(tmp_path / "f.mp4")]) == 2
    assert (
        f"--beside {other}: a run of DifferentialGame-3, and {run} is one of DifferentialGame-2"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.glob("*.mp4"))


def test_mujoco_is_filmed_without_a_display(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pi = {"pi.0.weight": np.zeros((2, 3, 6), np.float32), "pi.0.bias": np.ones((2, 3), np.float32)}
    write_run(tmp_path / "run", pi, env="2x3HalfCheetah", test_ep_len=5)
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    film = tmp_path / "film.mp4"
    done = subprocess.run(
        [sys.executable, str(ROOT / "watch.py"), "run", "--steps", "3", "--size", "64", "--video", str(film)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 1 and "libEGL" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    meta, *frames = ffmpeg.read_frames(str(film))
    assert (len(frames), meta["fps"], meta["size"]) == (4, 20, (64, 64))  # HalfCheetah makes 20 steps a second
    assert np.frombuffer(frames[3], np.uint8).std() > 20, "the picture is one colour"


def test_an_episode_ends_after_so_many_steps(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor())
    assert watch.main([str(run), "--steps", "5", "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == ["length 5", "length 5", "length 5.0"]


def test_filming_shows_its_progress_on_a_terminal_and_playing_does_not(tmp_path, capsys, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    run = write_run(tmp_path / "run", homing_actor())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert watch.main([str(run)]) == 0
    assert capsys.readouterr().err == ""
    assert watch.main([str(run), "--steps", "3", "--size", "64", "--video", str(tmp_path / "film.mp4")]) == 0
    assert "/4 [" in capsys.readouterr().err


def test_a_film_of_a_task_that_draws_itself_has_no_size(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor(), env="examples.meet:make_env")
    assert "examples.meet:make_env draws at a size of its own" in line_of(capsys, run, "--size", "64")


def test_a_film_that_fails_leaves_the_old_one(tmp_path, capsys, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    run, film = write_run(tmp_path / "run", homing_actor()), tmp_path / "film.mp4"
    film.write_bytes(b"an older film")
    monkeypatch.setattr(watch, "play", lambda *_: (_ for _ in ()).throw(UsageError("no picture")))
    assert "no picture" in line_of(capsys, run, "--video", film)
    assert film.read_bytes() == b"an older film"
    assert [path.name for path in tmp_path.glob("film*")] == ["film.mp4"]


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert str(tmp_path / "nothing") in line_of(capsys, tmp_path / "nothing")


def test_the_folder_above_the_runs_points_to_a_run(tmp_path, capsys):
    write_run(tmp_path / "exp" / "exp_s0", None)
    assert f"did you mean {tmp_path / 'exp' / 'exp_s0'}?" in line_of(capsys, tmp_path / "exp")


def test_a_folder_without_a_policy_is_incomplete(tmp_path, capsys):
    assert "policy.safetensors: no such file" in line_of(capsys, write_run(tmp_path / "run", None))


def test_a_config_that_is_no_json_or_misses_a_key_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor())
    (run / "config.json").write_text('{"env": "Diff')
    assert "config.json: not readable as JSON" in line_of(capsys, run)
    (run / "config.json").write_text('{"env": "DifferentialGame-2"}')
    assert "test_ep_len" in line_of(capsys, run)


def test_a_damaged_policy_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor())
    whole = (run / "policy.safetensors").read_bytes()
    (run / "policy.safetensors").write_bytes(whole[:-7])
    assert "policy.safetensors: damaged" in line_of(capsys, run)


def test_a_policy_of_another_environment_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", homing_actor(), env="DifferentialGame-3")
    assert "(2, 2, 1)" in line_of(capsys, run)


def test_a_policy_with_nan_is_refused(tmp_path, capsys):
    assert "diverged" in line_of(capsys, write_run(tmp_path / "run", constant_actor(0.1, math.nan)))


def test_an_unknown_environment_is_named(tmp_path, capsys):
    assert "NoSuchGame-2" in line_of(capsys, write_run(tmp_path / "run", homing_actor(), env="NoSuchGame-2"))


@pytest.mark.parametrize("name", ["no/such/folder/film.mp4", "film.avi", "."])
def test_a_film_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path, capsys, name):
    pytest.importorskip("imageio_ffmpeg")
    run = write_run(tmp_path / "run", homing_actor())
    assert "--video" in line_of(capsys, run, "--video", tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("frames", [20, 200], ids=["at its end", "midway"])
def test_a_film_that_the_disk_cuts_off_does_not_take_the_place_of_a_whole_one(tmp_path, frames):
    pytest.importorskip("imageio_ffmpeg")
    path, before = tmp_path / "film.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("an older one")
    noise = np.random.default_rng(0).integers(0, 255, (frames, 64, 64, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UsageError, match="ffmpeg could not write it whole"), Film(path) as film:
            for frame in noise:
                film.add(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("an older one", [path])


def test_a_missing_extra_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    run = write_run(tmp_path / "run", homing_actor())
    assert "'.[video]'" in line_of(capsys, run, "--video", tmp_path / "film.mp4")


@pytest.mark.parametrize("flag", ["--episodes=0", "--seed=-1", "--fps=0", "--steps=0", "--size=15"])
def test_a_flag_out_of_range_is_named(tmp_path, capsys, flag):
    with pytest.raises(SystemExit) as stop:
        watch.main([str(tmp_path), flag])
    assert stop.value.code == 2
    name, value = flag.split("=")
    assert f"{name}: '{value}'" in capsys.readouterr().err.splitlines()[-1]


def test_as_a_program_it_needs_no_torch_and_leaves_no_file_behind(tmp_path):
    run = write_run(tmp_path / "run", homing_actor())
    (tmp_path / "torch.py").write_text("raise ImportError('watch.py wants torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "watch.py"), "run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["run", "torch.py"]
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "policy.safetensors"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    run = write_run(tmp_path / "run", constant_actor(0, 0))
    watching = subprocess.Popen(
        [sys.executable, ROOT / "watch.py", run, "--episodes", "500"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert watching.stdout and watching.stderr
    assert watching.stdout.readline().startswith(b"episode 1:")
    watching.stdout.close()
    assert watching.stderr.read() == b""
    assert watching.wait() == 141


def test_what_is_no_users_mistake_keeps_its_traceback(tmp_path, capsys, monkeypatch):
    run = write_run(tmp_path / "run", homing_actor())
    monkeypatch.setattr(watch, "play", lambda *_: (_ for _ in ()).throw(ValueError("a bug")))
    assert watch.main([str(run)]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("ValueError: a bug\n")


@pytest.mark.parametrize("env", ["smax:3m", "FocusFire-3", "package.module:factory"])
def test_a_run_of_a_recurrent_learner_is_sent_to_its_own_player(env, tmp_path, capsys):
    run = write_run(tmp_path / "x_s0", None, env=env, n_envs=1, rnn_hid=64)
    assert watch.main([str(run)]) == 2
    text = f"{run}: a run of a recurrent learner, played by python smac/watch.py {run}"
    assert capsys.readouterr().err == f"watch.py: {text}\n"
