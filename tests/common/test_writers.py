"""common/writers.py: --wandb, with a stand-in for the library that keeps what it is given, and with the real one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import checks

import i2q_ddpg
from common.runs import main

FLAGS = {**checks.TINY, "env": "DifferentialGame-2", "num_runs": 2, "exp_name": "x", "epochs": 2}
STAND_IN = """
import json, pathlib, types
class Error(Exception):
    pass
class Settings:
    def __init__(self, console):
        assert console == "off"
class Run:
    def __init__(self, place):
        self.place = place
    def log(self, columns, step):
        with open(self.place, "a") as file:
            print(json.dumps([step, columns]), file=file)
    def finish(self):
        open(self.place, "a").write("finished\\n")
def init(*, project, group, name, id, resume, reinit, dir, config, settings):
    if project == "closed":
        raise Error("No API key configured.\\nUse `wandb login` to log in.")
    assert (resume, reinit) == ("allow", "create_new")
    pathlib.Path(dir, "init.json").write_text(json.dumps([project, group, name, id, config]))
    return Run(pathlib.Path(dir, "logged"))
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A module `wandb` that keeps what it is given in the run's folder."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "library")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield
    sys.modules.pop("wandb", None)


def argv(data_dir: Path, **flags: object) -> list[str]:
    flags = {**FLAGS, "data_dir": data_dir, **flags}
    return [i2q_ddpg.__file__, "--wandb", *(f"--{name}={value}" for name, value in flags.items())]


def start(data_dir: Path, monkeypatch: pytest.MonkeyPatch, **flags: object) -> object:
    """The status that a run with --wandb ends with."""
    monkeypatch.setattr(sys, "argv", argv(data_dir, **flags))
    with pytest.raises(SystemExit) as end:
        main(i2q_ddpg.Config, i2q_ddpg.defaults, i2q_ddpg.train, i2q_ddpg.__doc__)
    return end.value.code


def logged(run: Path) -> list[tuple[float, dict[str, float]]]:
    """The rows in the order in which they came."""
    lines = (run / "logged").read_text().splitlines()
    assert lines[-1] == "finished"
    return [tuple(json.loads(line)) for line in lines if line != "finished"]


def test_wandb_gets_every_row_of_every_seed(wandb, data_dir, monkeypatch):
    assert start(data_dir, monkeypatch) == 0
    ids = set()
    for seed in (0, 1):
        run = data_dir / "x" / f"x_s{seed}"
        project, group, name, key, config = json.loads((run / "init.json").read_text())
        assert (project, group, name) == ("i2q", "x", f"x_s{seed}")
        assert (config["algorithm"], config["seed"], config["hid"]) == ("i2q_ddpg", seed, 8)
        assert (run / "wandb" / "id").read_text() == key
        ids.add(key)
        for (step, columns), row in zip(logged(run), checks.rows_of(run), strict=True):
            assert step == row["TotalEnvInteracts"]
            assert columns == pytest.approx(row, rel=1e-9)
    assert len(ids) == 2


def test_a_resumed_run_goes_on_in_the_same_run_of_wandb(wandb, data_dir, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    seen = []
    for epochs in (1, 2):
        assert start(data_dir, monkeypatch, epochs=epochs) == 0
        seen.append(json.loads((data_dir / "x" / "x_s0" / "init.json").read_text()))
    assert [entry[0] for entry in seen] == ["mine", "mine"]
    assert seen[0][3] == seen[1][3]
    assert [step for step, _ in logged(data_dir / "x" / "x_s0")] == [60, 120]


def test_what_wandb_refuses_is_one_line_with_a_way_out(wandb, data_dir, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_PROJECT", "closed")
    assert start(data_dir, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--wandb: No API key configured. Use `wandb login` to log in; WANDB_MODE=offline needs no account" in err


@pytest.mark.parametrize("folder", [False, True], ids=["nothing", "a folder of that name"])
def test_wandb_that_is_not_installed_is_said_before_training(folder, tmp_path, data_dir, monkeypatch, capsys):
    if folder:
        (tmp_path / "wandb").mkdir()  # as the library leaves one where it was started
        monkeypatch.syspath_prepend(tmp_path)
        if importlib.util.find_spec("wandb").origin:  # pyright: ignore[reportOptionalMemberAccess]
            pytest.skip("wandb is installed")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start(data_dir, monkeypatch) == 2
    assert capsys.readouterr().err == "i2q_ddpg.py: --wandb: it is not installed; pip install wandb\n"
    assert not data_dir.exists()


def test_the_real_library_logs_offline_without_network(data_dir):
    pytest.importorskip("wandb")
    environment = {"WANDB_MODE": "offline", "PYTHONPATH": ":".join(sys.path), "HOME": str(data_dir)}
    words = [sys.executable, *argv(data_dir)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        run = data_dir / "x" / f"x_s{seed}"
        (written,) = run.glob("wandb/offline-run-*/run-*.wandb")
        assert (run / "wandb" / "id").read_text() in written.name
        assert written.read_bytes().count(b"AverageTestEpRet") >= 2  # once a row
