"""Watching a run: the greedy episodes of its last checkpoint, printed."""

import pytest
from helpers.recurrent import IDS, LEARNERS, command

from smac import iql, watch


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
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
