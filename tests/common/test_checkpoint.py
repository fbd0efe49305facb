"""Checkpoints: whole or not at all, noticed when damaged, and no larger than what is new."""

import ast
import errno
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from common import checkpoint
from common.checkpoint import Checkpoints, Damaged
from common.disk import write_atomic
from common.replay import Replay

ROOT = Path(__file__).resolve().parents[2]


def fill(replay: Replay, steps: int) -> None:
    """Store `steps` transitions whose numbers tell which one they are."""
    S, N, _, _ = replay.rows.shape
    n_obs, n_act = replay.splits[:2]
    for t in range(replay.count, replay.count + steps):
        obs = np.full((S, N, n_obs), t, np.float32) + np.arange(N, dtype=np.float32)[:, None] / 10
        replay.store(obs, np.full((S, N, n_act), -t), obs + 0.5, np.arange(S) * 100.0 + t, np.full(S, t % 3 == 0))


def new_replay(size: int, seeds: tuple[int, ...] = (0,)) -> Replay:
    return Replay(seeds, n_agents=2, n_obs=2, n_act=1, size=size)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder: inode and time of writing by name."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def names(folder: Path) -> set[str]:
    return set(files(folder))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(checkpoint, "CHUNK", 10)


def test_what_is_loaded_is_what_was_saved_to_the_bit(tmp_path):
    part = {
        "float": 0.1 + 0.2,
        "nan": float("nan"),
        "int64": np.int64(7),
        "bool": np.bool_(True),
        "text": json.dumps({"state": 2**127 + 1}),
        "list": [1.5, 2.5],
        "scalar": np.array(3.0),
        "none yet": np.zeros((0, 2, 3), np.float32),
        "mask": np.array([True, False]),
        "view": np.arange(6.0).reshape(2, 3).T,
        "tensor": torch.tensor([[1e-45, -0.0, torch.inf]]),
        "deep": {"er": {"x": np.arange(3)}},
    }
    Checkpoints(tmp_path).save(5, {"part": part})
    loaded = Checkpoints(tmp_path).load(5)["part"]
    assert all(loaded[name] == part[name] for name in ("float", "int64", "bool", "text", "list"))
    assert np.isnan(loaded["nan"])
    for name in ("scalar", "none yet", "mask", "view"):
        assert (loaded[name].dtype, loaded[name].shape) == (part[name].dtype, part[name].shape)
        assert loaded[name].tobytes() == part[name].tobytes()
    assert loaded["tensor"].tobytes() == part["tensor"].numpy().tobytes()
    assert loaded["deep"]["er"]["x"].tolist() == [0, 1, 2]


def test_values_come_back_in_the_order_that_they_were_saved_in(tmp_path):
    sums = {"LossPi": 1.0, "LossF": 2.0, "A": 3.0}  # columns of progress.txt follow it
    Checkpoints(tmp_path).save(5, {"log": {"sums": sums}})
    assert list(Checkpoints(tmp_path).load(5)["log"]["sums"]) == list(sums)


@pytest.mark.parametrize("size", [1, 7, 10, 23, 30, 100])
@pytest.mark.parametrize("saves", [(4,), (10,), (25,), (12, 20, 37), (30, 31, 95)], ids=str)
def test_the_replay_comes_back_whole_however_it_lies_to_its_files(tmp_path, size, saves):
    replay, checkpoints = new_replay(size), Checkpoints(tmp_path)
    for steps in saves:
        fill(replay, steps - replay.count)
        checkpoints.save(steps, {"replay": replay.state_dict(0)}, replay)
    back = new_replay(size)
    parts = Checkpoints(tmp_path).load(saves[-1], back)
    back.load_state_dict(0, parts["replay"])
    assert torch.equal(back.rows, replay.rows)
    for a, b in zip(next(back.sample(8, 1)), next(replay.sample(8, 1))):
        assert torch.equal(a, b)


def test_a_row_of_the_replay_goes_on_in_another_row(tmp_path):
    replay = new_replay(23, seeds=(4, 5))
    fill(replay, 37)
    Checkpoints(tmp_path).save(37, {}, replay, row=1)
    back = new_replay(23, seeds=(5, 9, 4))
    Checkpoints(tmp_path).load(37, back, row=0)
    assert torch.equal(back.rows[0], replay.rows[1])
    assert not back.rows[1:].any()


def test_a_full_replay_file_is_written_once_also_after_a_resume(tmp_path):
    replay, checkpoints = new_replay(100), Checkpoints(tmp_path)
    fill(replay, 25)
    checkpoints.save(25, {}, replay)
    first = files(tmp_path)
    fill(replay, 10)
    checkpoints.save(35, {}, replay)
    resumed = Checkpoints(tmp_path)
    resumed.load(35, replay)
    fill(replay, 10)
    resumed.save(45, {}, replay)
    last = files(tmp_path)
    for name in ("replay_000000.safetensors", "replay_000001.safetensors"):
        assert last[name] == first[name]


def test_two_checkpoints_are_kept_and_nothing_that_they_do_not_need(tmp_path):
    replay, checkpoints = new_replay(20), Checkpoints(tmp_path)
    for steps in (15, 30, 45, 60):
        fill(replay, steps - replay.count)
        checkpoints.save(steps, {}, replay)
    # at 45 the newest 20 transitions are 25 .. 44, in files 2, 3 and a tail; at 60 they are 40 .. 59, in files 4 and 5
    replays = {f"replay_00000{k}.safetensors" for k in (2, 3, 4, 5)}
    assert names(tmp_path) == {"45.json", "45.safetensors", "60.json", "60.safetensors", *replays}
    for steps in (45, 60):
        Checkpoints(tmp_path).verify(steps)


def test_what_is_not_ours_is_left_alone_and_what_a_kill_left_is_cleared_away(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "best.json", ".30.json.tmp"):
        (tmp_path / name).write_text("x")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(30, {})
    assert names(tmp_path) == {"folder", "notes.txt", "best.json", "30.json", "30.safetensors"}
    assert checkpoints.steps() == [30]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", ["25.json", "25.safetensors", "replay_000001.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_to_any_file_is_noticed(tmp_path, name, damage):
    replay = new_replay(100)
    fill(replay, 25)
    Checkpoints(tmp_path).save(25, {"part": {"x": 1}}, replay)
    Checkpoints(tmp_path).verify(25)
    damage(tmp_path / name)
    with pytest.raises(Damaged, match="25" if name.startswith("25") or damage is DAMAGES["gone"] else "replay_000001"):
        Checkpoints(tmp_path).load(25, new_replay(100))


@pytest.mark.parametrize("text", ["[]", "7", "null", "{}", '{"sha256": 1}', "\udcff"])
def test_a_manifest_that_is_no_manifest_is_damaged(tmp_path, text):
    (tmp_path / "25.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Damaged):
        Checkpoints(tmp_path).verify(25)


def test_the_checkpoint_that_a_run_went_on_from_outlives_a_damaged_newer_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for steps in (10, 20):
        checkpoints.save(steps, {"part": {"x": steps}})
    flip(tmp_path / "20.safetensors")
    resumed = Checkpoints(tmp_path)
    assert resumed.load(10)["part"]["x"] == 10
    resumed.save(25, {"part": {"x": 25}})
    assert resumed.steps() == [10, 25]
    flip(tmp_path / "25.safetensors")
    assert Checkpoints(tmp_path).load(10)["part"]["x"] == 10


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_older_checkpoint_whole_and_says_which_file(tmp_path, monkeypatch, failing):
    replay, checkpoints = new_replay(100), Checkpoints(tmp_path)
    fill(replay, 15)
    checkpoints.save(15, {"part": {"x": np.zeros(1000)}}, replay)
    before = files(tmp_path)
    fill(replay, 15)
    fsync, replace = os.fsync, os.replace
    if failing == "write":  # a real refusal: files may not grow any more
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    else:
        monkeypatch.setattr(os, failing, refuse)
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            checkpoints.save(30, {"part": {"x": np.zeros(1000)}}, replay)
    finally:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        if failing == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before
    Checkpoints(tmp_path).verify(15)


def refuse(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with open(path, "rb") as reader:
        write_atomic(path, b"new!")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new!"
    assert names(tmp_path) == {"file"}


def test_nothing_that_is_loaded_can_run_code():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("common/*.py"), *ROOT.glob("envs/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {name.split(".")[0] for name in modules} & {"pickle", "dill", "joblib", "shelve", "marshal"}
            if isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert (owner, node.attr) not in {("torch", "load"), ("np", "load"), ("numpy", "load")}, path
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), path
