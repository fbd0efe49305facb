"""Watching a run: the greedy episodes of its last checkpoint, printed and filmed."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from helpers.recurrent import IDS, LEARNERS, command

from smac import iql, scripted, watch
from smac.common.picture import Units, draw
from smac.envs import focusfire


@pytest.mark.parametrize("module, flags", LEARNERS, ids=IDS)
def test_it_prints_every_step_and_how_it_ended(module, flags, data_dir, capsys):
    assert command(module, data_dir, **{**flags, "epochs": 1}) == 0
    capsys.readouterr()
    assert watch.main([str(data_dir / "x" / "x_s0"), "--episodes", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "   0  health [4, 4, 4]  enemies xxxx"
    assert "->  reward" in out[1]
    assert out[-1].startswith("mean of 2: return ")
    again = [line for line in out if line.startswith("episode")]
    assert len(again) == 2 and again[0].split(":")[1] == again[1].split(":")[1]  # nothing in this task is random


def test_a_folder_that_is_no_such_run_is_one_line(tmp_path, data_dir, capsys):
    assert watch.main([str(tmp_path)]) == 2
    assert "no run of a recurrent learner" in capsys.readouterr().err
    assert command(iql, data_dir, epochs=1) == 0
    config = data_dir / "x" / "x_s0" / "config.json"
    config.write_text(config.read_text().replace('"iql"', '"iddpg"'))
    capsys.readouterr()
    assert watch.main([str(config.parent)]) == 2
    err = capsys.readouterr().err
    assert f"are played by python watch.py {config.parent}" in err and len(err.strip().splitlines()) == 1


def colours(picture: np.ndarray, colour: str) -> int:
    """How many pixels of a picture have this colour."""
    return int((picture == np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])).all(-1).sum())


def test_a_picture_shows_places_teams_health_and_targets():
    place = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 1.0]])
    alive, dead = Units(place, np.array([2.0, 2, 2]), 2), Units(place, np.array([2.0, 1, 0]), 2)
    all_stand = draw(alive, alive, np.array([-1, -1]), "")
    assert all_stand.shape == (480, 480, 3)
    assert 1.8 < colours(all_stand, "#0072B2") / colours(all_stand, "#D55E00") < 2.2  # two discs and one
    some = draw(dead, alive, np.array([-1, -1]), "")
    assert colours(some, "#D55E00") < 0.5 * colours(all_stand, "#D55E00")  # a cross
    assert colours(some, "#009E73") == pytest.approx(0.5 * colours(all_stand, "#009E73"), rel=0.1)  # 1.5 bars of 3
    assert (draw(dead, alive, np.array([0, -1]), "") != some).sum() > 500  # a line to the target


def test_units_stay_in_the_picture_wherever_on_their_ground_they_go():
    start = Units(np.array([[8.0, 16], [24, 16]]), np.ones(2), 1, ground=((0, 0), (32, 32)))
    corners = start._replace(place=np.array([[0.0, 0], [32, 32]]))
    first, last = (draw(units, start, np.array([-1]), "") for units in (start, corners))
    for colour in ("#0072B2", "#D55E00", "#009E73"):
        assert colours(first, colour) == pytest.approx(colours(last, colour), rel=0.1, abs=2)
        assert colours(first, colour) > 50


@pytest.mark.parametrize("program", [watch, scripted])
def test_programs_end_without_a_traceback(program, monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "load", interrupted)
    assert program.main([str(tmp_path)]) == 130
    for argv, text in ([str(tmp_path), "--episodes", "0"], "--episodes: '0' must be"), ([], "required: RUNDIR"):
        with pytest.raises(SystemExit) as end:
            program.main(argv)
        err = capsys.readouterr().err
        assert end.value.code == 2 and text in err and len(err.strip().splitlines()) == 1


def test_a_reader_that_has_seen_enough_ends_a_program_quietly():
    lines = "[print('x' * 80) for _ in range(10**5)]"
    code = f"import sys; from common.program import status; sys.exit(status('p', lambda: {lines}))"
    line = f"{sys.executable} -c {shlex.quote(code)} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (141, "x" * 80 + "\n", "")


def test_an_episode_is_filmed(data_dir, capsys, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    assert command(iql, data_dir, epochs=1) == 0
    film = tmp_path / "film.mp4"
    capsys.readouterr()
    assert watch.main([str(data_dir / "x" / "x_s0"), "--video", str(film)]) == 0
    steps = int(capsys.readouterr().out.split("length ")[1].split("\n")[0].split(",")[0])
    frames, _ = ffmpeg.count_frames_and_secs(str(film))
    assert frames == steps + 1


def test_a_game_that_does_not_tell_where_its_units_stand_is_refused(data_dir, capsys, tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    assert command(iql, data_dir, epochs=1) == 0
    monkeypatch.delattr(focusfire.FocusFire, "units")
    assert watch.main([str(data_dir / "x" / "x_s0"), "--video", str(tmp_path / "film.mp4")]) == 2
    assert "no picture of it" in capsys.readouterr().err
    assert not list(tmp_path.glob("film*"))
