"""Checkpoints of one seed: written whole or not at all, verified when read, the last two kept.

    checkpoint/<step>.json             manifest: small state and every file's SHA-256; its presence is the commit
    checkpoint/<step>.safetensors      arrays: parameters, optimisers, environment, the newest transitions
    checkpoint/replay_<k>.safetensors  transitions k * CHUNK .. (k + 1) * CHUNK - 1, written once

Only new transitions are written, so a checkpoint costs the same early and late in a run. Nothing is unpickled.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common import layout
from common.disk import write_atomic
from common.errors import UsageError
from common.layout import one_line, read_whole
from common.replay import Replay

CHUNK = 10_000  # transitions a replay file; a checkpoint writes at most this many twice
STEP = re.compile("0|[1-9][0-9]*")  # str.isdigit and \d take digits that int does not, and other scripts' digits
OURS = re.compile(rf"({STEP.pattern})\.(json|safetensors)|replay_[0-9]+\.safetensors|\..*\.tmp")  # may be deleted
NONSENSE = (*layout.NONSENSE, SafetensorError)


class Damaged(Exception):
    """A checkpoint that is not as it was written."""


class Checkpoints:
    """The checkpoints in one folder. `parts` is {name: state_dict of that part} of arrays, numbers and strings."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, str] = {}  # replay files known to be whole, with their digests
        self.last: int | None = None  # the step that was saved or loaded last: what a next one must not delete

    def steps(self) -> list[int]:
        """Steps that a checkpoint stands at, oldest first, damaged ones included."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if STEP.fullmatch(path.stem))

    def save(
        self, step: int, parts: Mapping[str, Mapping[str, Any]], replay: Replay | None = None, row: int = 0
    ) -> None:
        """Write the checkpoint of `step`. Raises OSError with the older ones untouched where the disk refuses."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays, values = flatten(parts)
        manifest: dict[str, Any] = {"step": step, "values": values, "files": {}}
        if replay is not None:
            first = max(0, replay.count - replay.size)
            chunks = range(first // CHUNK, replay.count // CHUNK)
            for k in chunks:
                name = f"replay_{k:06d}.safetensors"
                if name not in self.files:
                    data = save({"rows": replay.read(row, k * CHUNK, (k + 1) * CHUNK)})
                    self._write(name, data)
                    self.files[name] = _digest(data)
                manifest["files"][name] = self.files[name]
            arrays["replay tail"] = replay.read(row, max(first, chunks.stop * CHUNK), replay.count)
            manifest["replay"] = [first, replay.count]
        data = save(arrays)
        self._write(f"{step}.safetensors", data)
        manifest["files"][f"{step}.safetensors"] = _digest(data)
        manifest["sha256"] = _digest(json.dumps(manifest).encode())
        self._write(f"{step}.json", json.dumps(manifest).encode())
        self._tidy(step, set(manifest["files"]))
        self.last = step

    def verify(self, step: int) -> dict[str, Any]:
        """The manifest of `step`. Raises Damaged where it, or a file that it names, is not as `save` writes it."""
        path = self.folder / f"{step}.json"
        try:
            manifest = json.loads(read_whole(path))
            digest = manifest.pop("sha256")
            if digest != _digest(json.dumps(manifest).encode()):
                raise Damaged(f"{path}: the checksum does not match")
            if manifest["step"] != step:
                raise Damaged(f"{path}: holds step {manifest['step']!r}")
            self._verify_files(step, manifest)
        except NONSENSE as error:
            raise Damaged(f"{path}: {one_line(error)}") from error
        return manifest

    def _verify_files(self, step: int, manifest: dict[str, Any]) -> None:
        """Raise Damaged, or one of NONSENSE, where a file is not what `load` needs."""
        path, arrays = self.folder / f"{step}.json", self._arrays(manifest, f"{step}.safetensors")
        first, count = manifest.get("replay", (0, 0))
        starts = self._replay_files(step, manifest)
        stop = first if not starts else min(starts)
        if not 0 <= stop <= first <= count or manifest["values"].get("replay/count", count) != count:
            raise Damaged(f"{path}: transitions {first!r} to {count!r} are none")
        tail = arrays.pop("replay tail") if "replay" in manifest else np.zeros((0, 0, 0))
        N, length, width = tail.shape
        for start, name in sorted(starts.items()):
            rows = self._arrays(manifest, name)["rows"]
            if start != stop or (rows.shape[0], *rows.shape[2:]) != (N, width):
                raise Damaged(f"{self.folder / name}: its transitions do not belong to the others")
            stop += rows.shape[1]
        if stop + length != count:
            raise Damaged(f"{path}: {stop + length} transitions, and not {count}")
        _unflatten(arrays, manifest["values"])

    def _replay_files(self, step: int, manifest: dict[str, Any]) -> dict[int, str]:
        """The names of the replay's files by the first transition in each."""
        starts = {}
        for name in set(manifest["files"]) - {f"{step}.safetensors"}:
            match = re.fullmatch(r"replay_([0-9]+)\.safetensors", name)
            if match is None:
                raise Damaged(f"{self.folder / f'{step}.json'}: names a file {name!r}")
            starts[int(match[1]) * CHUNK] = name
        return starts

    def _arrays(self, manifest: dict[str, Any], name: str) -> dict[str, np.ndarray]:
        data = read_whole(self.folder / name)
        if _digest(data) != manifest["files"][name]:
            raise Damaged(f"{self.folder / name}: the checksum does not match")
        return load(data)

    def load(self, step: int, replay: Replay | None = None, row: int = 0) -> dict[str, dict[str, Any]]:
        """The parts saved at `step`, and the replay's transitions put back into `row`. Raises Damaged."""
        manifest = self.verify(step)
        arrays = self._arrays(manifest, f"{step}.safetensors")
        if replay is not None:
            first, stop = manifest.get("replay", (0, 0))
            tail = arrays.pop("replay tail", np.zeros((0, 0, 0)))
            N, _, width = tail.shape
            if (N, width) != replay.read(row, 0, 0).shape[::2] or stop - first > replay.size:
                raise Damaged(f"{self.folder / f'{step}.json'}: its replay is not that of this run")
            for start, name in sorted(self._replay_files(step, manifest).items()):
                rows = self._arrays(manifest, name)["rows"]
                skip = max(0, first - start)  # overwritten before the checkpoint was made
                replay.write(row, start + skip, rows[:, skip:])
            replay.write(row, stop - tail.shape[1], tail)
        self.files = {name: digest for name, digest in manifest["files"].items() if name.startswith("replay_")}
        self.last = step
        return _unflatten(arrays, manifest["values"])

    def _write(self, name: str, data: bytes) -> None:
        """Write a file. What stands there and is none, as a folder, is renamed: it is not ours to delete."""
        path, k = self.folder / name, 0
        if path.exists() and not path.is_file():
            while (aside := path.with_name(f"{name}.moved{k or ''}")).exists():
                k += 1
            path.rename(aside)
        write_atomic(path, data)

    def _tidy(self, step: int, needed: set[str]) -> None:
        """Delete what neither this checkpoint nor the one that it went on from needs."""
        needed = {f"{step}.json", *needed}
        if self.last is not None:
            path = self.folder / f"{self.last}.json"
            with contextlib.suppress(*NONSENSE):  # damaged since: nothing to keep
                needed |= {path.name, *json.loads(read_whole(path))["files"]}
        old = [path for path in self.folder.iterdir() if path.name not in needed and OURS.fullmatch(path.name)]
        for path in sorted(old, key=lambda path: path.suffix != ".json"):  # no manifest may outlive its files
            with contextlib.suppress(OSError):  # as of a folder, which is none of ours: it stays
                path.unlink()
        self.files = {name: digest for name, digest in self.files.items() if name in needed}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flatten(parts: Mapping[str, Mapping[str, Any]], prefix: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Split nested state into arrays and JSON values, both under slash-joined names."""
    arrays: dict[str, np.ndarray] = {}
    values: dict[str, Any] = {}
    for name, value in parts.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            more_arrays, more_values = flatten(value, f"{key}/")
            arrays |= more_arrays
            values |= more_values
        elif isinstance(value, torch.Tensor):
            arrays[key] = np.asarray(value.detach().cpu().numpy(), order="C")
        elif isinstance(value, np.ndarray):
            arrays[key] = np.asarray(value, order="C")
        else:
            values[key] = value.item() if isinstance(value, np.generic) else value
            try:
                json.dumps(values[key])
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"{key.replace('/', '.')}: cannot be saved in a checkpoint ({error}); state_dict may hold tensors, "
                    "arrays, dicts of these, and what JSON can"
                ) from None
    return arrays, values


def _unflatten(arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, Any] = {}
    for key, value in {**values, **arrays}.items():
        *path, name = key.split("/")
        node = parts
        for step in path:
            node = node.setdefault(step, {})
        node[name] = value
    return parts
