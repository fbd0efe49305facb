"""Damaged run folders: the older checkpoint is used, or one line names the way out and nothing is changed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checks import command, kept
from safetensors.numpy import load_file, save_file

import iddpg
from common import checkpoint
from common.checkpoint import Checkpoints, Damaged
from common.errors import UsageError
from common.layout import read_config
from games.shared import Seed

FLAGS = {"env": "DifferentialGame-2", "exp_name": "x", "hid": 4, "steps_per_epoch": 40, "replay_size": 1000}
DEEP = "[" * 10_000 + "]" * 10_000
Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> dict[int, Path]:
    """The folders of a run that stopped after two epochs, and of one that made three."""
    made = {}
    for epochs in (2, 3):
        data = tmp_path_factory.mktemp(f"of{epochs}")
        assert command(iddpg, data_dir=data, epochs=epochs, **FLAGS) == 0
        made[epochs] = data / "x" / "x_s0"
    return made


@pytest.fixture
def run(pristine, data_dir) -> Path:
    """A copy of the folder of two epochs, to be damaged: checkpoints stand at steps 40 and 80."""
    shutil.copytree(pristine[2], data_dir / "x" / "x_s0")
    return data_dir / "x" / "x_s0"


def go_on(run: Path, capfd, **flags: Any) -> tuple[int, str]:
    capfd.readouterr()
    status = command(iddpg, data_dir=run.parent.parent, epochs=3, **{**FLAGS, **flags})
    return status, capfd.readouterr().err


def contents(folder: Path) -> dict[str, bytes | str]:
    """All that lies in a folder, but for locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else "no file"
        for path in folder.rglob("*")
        if path.name != ".lock" or path.is_dir()
    }


def replaced(name: str, make: Damage) -> Damage:
    """The file is away, and something else in its place."""

    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        make(run / name)

    return damage


def filled(path: Path) -> None:
    path.mkdir()
    (path / "note").write_text("mine")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def signed(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The newest manifest is changed, and its checksum right again."""

    def damage(run: Path) -> None:
        path = run / "checkpoint" / "80.json"
        manifest = json.loads(path.read_text())
        manifest.pop("sha256")
        change(manifest)
        for name in set(manifest.get("files", ())) & {"80.safetensors"}:
            manifest["files"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
        path.write_text(json.dumps(manifest))

    return damage


def arrays(change: Callable[[dict[str, np.ndarray]], Any]) -> Damage:
    """The newest checkpoint's arrays are changed, and its checksums right again."""

    def damage(run: Path) -> None:
        path = run / "checkpoint" / "80.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)
        signed(lambda manifest: None)(run)

    return damage


def no_arrays(run: Path) -> None:
    (run / "checkpoint" / "80.safetensors").write_bytes(b"\xff" * 50)
    signed(lambda manifest: None)(run)


OLDER = {
    "arrays that are a folder": replaced("checkpoint/80.safetensors", filled),
    "a manifest that is a folder": replaced("checkpoint/80.json", filled),
    "a manifest that is a pipe": replaced("checkpoint/80.json", os.mkfifo),
    "a manifest in a loop of links": replaced("checkpoint/80.json", loop),
    "a manifest ten thousand deep": replaced("checkpoint/80.json", lambda path: path.write_text(DEEP)),
    "the manifest of another step": lambda run: shutil.copy(run / "checkpoint/40.json", run / "checkpoint/80.json"),
    "a manifest without files": signed(lambda manifest: manifest.pop("files")),
    "no arrays, rightly signed": no_arrays,
}


@pytest.mark.parametrize("damage", OLDER.values(), ids=OLDER)
def test_the_checkpoint_before_a_damaged_one_is_used_to_the_same_end(run, pristine, capfd, damage):
    damage(run)
    status, err = go_on(run, capfd)
    assert status == 0
    assert err.startswith("[s0] WARNING: the checkpoint of step 80 is damaged (")
    assert err.endswith("); using that of step 40\n") and err.count("\n") == 1
    assert kept(run) == kept(pristine[3])


def test_a_folder_in_the_place_of_a_checkpoints_file_is_renamed_and_not_lost(run, capfd):
    (run / "checkpoint" / "120.safetensors").mkdir()
    filled(run / "checkpoint" / "120.json")
    assert go_on(run, capfd)[0] == 0
    assert (run / "checkpoint" / "120.json.moved" / "note").read_text() == "mine"
    Checkpoints(run / "checkpoint").verify(120)


def test_strays_in_a_checkpoints_folder_are_left_alone_and_do_not_stop_a_run(run, pristine, capfd):
    strays = ["17.safetensors", "17.json"]
    for name in strays:
        filled(run / "checkpoint" / name)
    for name in ("²", "٣", "0080"):  # int() refuses the first; the others are no names that we write
        (run / "checkpoint" / f"{name}.json").write_text("{}")
    status, err = go_on(run, capfd)
    assert status == 0
    assert err.count("\n") == 1 and "step 17 is damaged" in err
    assert kept(run) == kept(pristine[3])
    assert all((run / "checkpoint" / name / "note").exists() for name in strays)
    assert {"².json", "٣.json", "0080.json"} <= {path.name for path in (run / "checkpoint").iterdir()}


BROKEN = {
    "no step": signed(lambda manifest: manifest.pop("step")),
    "no values": signed(lambda manifest: manifest.pop("values")),
    "values that are none": signed(lambda manifest: manifest.update(values=7)),
    "no replay": signed(lambda manifest: manifest.pop("replay")),
    "a replay that ends before it begins": signed(lambda manifest: manifest.update(replay=[5, -3])),
    "a replay of words": signed(lambda manifest: manifest.update(replay=["a", "b"])),
    "a replay of three": signed(lambda manifest: manifest.update(replay=[0, 1, 2])),
    "a replay beyond all bounds": signed(lambda manifest: manifest.update(replay=[0, 10**30])),
    "a replay of another length": signed(lambda manifest: manifest.update(replay=[0, 79])),
    "a log that counts otherwise": signed(lambda manifest: manifest["values"].update({"replay/count": 9})),
    "a file that is not there": signed(lambda manifest: manifest["files"].update({"replay_000007.safetensors": "0"})),
    "a file from elsewhere": signed(lambda manifest: manifest["files"].update({"../config.json": "0"})),
    "a value beside its part": signed(lambda manifest: manifest["values"].update(env=3)),
    "no tail of the replay": arrays(lambda found: found.pop("replay tail")),
    "a flat tail of the replay": arrays(lambda found: found.update({"replay tail": np.zeros(5, np.float32)})),
    "a short tail": arrays(lambda found: found.update({"replay tail": found["replay tail"][:, :-1].copy()})),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_manifest_that_is_rightly_signed_and_holds_nonsense_is_damaged(run, damage):
    damage(run)
    checkpoints = Checkpoints(run / "checkpoint")
    with pytest.raises(Damaged) as caught:
        if damage is BROKEN["no replay"]:  # as a learner without one writes it
            from common.replay import Replay

            checkpoints.load(80, Replay([0], 2, 2, 1, 1000))
        else:
            checkpoints.verify(80)
    assert "80.json: " in str(caught.value) and "\n" not in str(caught.value)
    checkpoints.verify(40)


def test_a_replay_file_of_another_shape_is_damaged(data_dir, monkeypatch, capfd):
    monkeypatch.setattr(checkpoint, "CHUNK", 8)
    assert command(iddpg, data_dir=data_dir, epochs=2, **FLAGS) == 0
    folder = data_dir / "x" / "x_s0" / "checkpoint"
    name = "replay_000003.safetensors"
    rows = load_file(folder / name)["rows"]
    for shape in ((2, 8, 99), (2, 7, rows.shape[-1])):
        save_file({"rows": np.zeros(shape, np.float32)}, folder / name)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        signed(lambda manifest, digest=digest: manifest["files"].update({name: digest}))(folder.parent)
        with pytest.raises(Damaged, match="do not belong to the others"):
            Checkpoints(folder).verify(80)


def config(**changes: Any) -> Damage:
    def damage(run: Path) -> None:
        path = run / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


UNREADABLE = r"config.json: not readable as JSON \(.*\); fix it, or give another --exp_name"
STRAY = r": is no regular file; move it away and start again, or give another --exp_name"
REFUSED = {
    "a config that is gone": (
        lambda run: (run / "config.json").unlink(),
        "config.json: is gone, so the flags of the run beside it are not known; put it back, or give another "
        "--exp_name",
    ),
    "a config that is a folder": (replaced("config.json", filled), "config.json" + STRAY),
    "a config that is a pipe": (replaced("config.json", os.mkfifo), "config.json" + STRAY),
    "a config in a loop of links": (replaced("config.json", loop), "config.json" + STRAY),
    "a config ten thousand deep": (lambda run: (run / "config.json").write_text(DEEP), UNREADABLE),
    "a config that is no UTF-8": (lambda run: (run / "config.json").write_bytes(b'{"lam": "\xff"}'), UNREADABLE),
    "a log that is a folder": (replaced("progress.txt", filled), "progress.txt" + STRAY),
    "a policy that is a folder": (replaced("policy.safetensors", filled), "policy.safetensors" + STRAY),
    "a lock that is a folder": (replaced(".lock", filled), ".lock" + STRAY),
    "another's compile": (config(compile=["on"]), r"config.json: compile \['on'\]: must be 'on' or 'off'; fix it"),
    "a key of two lines": (config(**{"a\nb": 1}), r"x_s0: holds a run with 'a\\nb' 1, which is unknown here; .*"),
    "a value without end": (config(gamma="9" * 10_000), r"x_s0: holds a run with gamma '9{59}\.\.\., not 0\.99; .*"),
    "a part that is missing": (
        signed(lambda manifest: [manifest["values"].pop(name) for name in list(manifest["values"]) if "log/" in name]),
        r"80.json: does not hold what this run saves \(no log\); move it away to resume from the one before it, .*",
    ),
    "a number that is missing": (
        signed(lambda manifest: manifest["values"].pop("log/ep_len")),
        r"80.json: does not hold what this run saves \(KeyError 'ep_len'\); move it away .*",
    ),
    "an array of another shape": (
        arrays(lambda found: found.update({"env/obs": np.zeros((7, 7), np.float32)})),
        r"80.json: does not hold what this run saves \(could not broadcast .*\); move it away .*",
    ),
}


@pytest.mark.parametrize(("damage", "line"), REFUSED.values(), ids=REFUSED)
def test_other_damage_is_named_in_one_line_and_nothing_is_changed(run, capfd, damage, line):
    damage(run)
    before = contents(run)
    status, err = go_on(run, capfd)
    assert (status, err.count("\n")) == (2, 1)
    assert re.fullmatch(rf"iddpg.py: \S*{line}\n", err), err
    assert contents(run) == before


@pytest.mark.parametrize("threads", [-5, "3", 2.0, True, None, 10**20, [1]], ids=str)
def test_threads_that_no_run_began_with_are_refused_unless_others_are_given(run, capfd, threads):
    config(threads=threads)(run)
    before = contents(run)
    status, err = go_on(run, capfd, threads=0)
    assert status == 2
    assert f"config.json: threads {threads!r}: must be a whole number within 0 .. " in err
    assert err.count("\n") == 1 and contents(run) == before
    assert go_on(run, capfd, threads=1)[0] == 0


def test_the_other_seeds_do_not_begin_where_one_folder_is_damaged(run, capfd):
    replaced("progress.txt", filled)(run)
    run.rename(run.with_name("x_s1"))
    status, err = go_on(run, capfd, num_runs=2)
    assert (status, err.count("\n")) == (2, 1)
    assert not run.exists()


def test_a_log_that_is_no_utf_8_is_set_back_to_its_checkpoint(run, pristine, capfd):
    (run / "progress.txt").write_bytes((run / "progress.txt").read_bytes() + b"\xff\xfe\n")
    status, err = go_on(run, capfd)
    assert (status, err) == (0, "")
    assert kept(run) == kept(pristine[3])


def test_a_log_without_its_checkpoint_is_not_overwritten_whatever_it_holds(run, capfd):
    shutil.rmtree(run / "checkpoint")
    (run / "progress.txt").write_bytes(b"\xff")
    before = contents(run)
    status, err = go_on(run, capfd)
    assert (status, err.count("\n")) == (2, 1)
    assert "its checkpoint is gone" in err
    assert contents(run) == before


def test_a_checkpoint_folder_that_is_a_file_is_named(run, capfd):
    shutil.rmtree(run / "checkpoint")
    (run / "checkpoint").write_text("")
    status, err = go_on(run, capfd)
    assert status == 2
    assert (
        err == f"iddpg.py: {run}/checkpoint: is no folder; move it away and start again, or give another --exp_name\n"
    )


def test_an_empty_folder_does_not_stay_behind_but_one_of_the_users_does(tmp_path, capfd):
    for data, made_by_user in ((tmp_path / "new" / "data", False), (tmp_path / "old", True)):
        if made_by_user:
            data.mkdir()
        assert command(iddpg, data_dir=data, **{**FLAGS, "env": "no_such_module:make"}) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


@pytest.mark.parametrize("damage", [filled, lambda path: path.write_text(DEEP), lambda path: path.write_text("[]")])
def test_programs_without_checkpoints_refuse_a_damaged_config_too(tmp_path, damage):
    damage(tmp_path / "config.json")
    with pytest.raises(UsageError, match=r"config\.json: (not readable as JSON|is no regular file)"):
        Seed(tmp_path, {"a": 1}).finished()


def test_a_readers_config_may_be_ten_thousand_deep(tmp_path):
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(UsageError, match="not readable as JSON"):
        read_config(tmp_path)
