"""Checkpoints of one seed: written whole or not at all, verified when read, the last two kept.

    checkpoint/<step>.json             manifest: small state and every file's SHA-256; its presence is the commit
    checkpoint/<step>.safetensors      arrays: parameters, optimisers, environment, the newest transitions
    checkpoint/replay_<k>.safetensors  transitions k * CHUNK .. (k + 1) * CHUNK - 1, written once

Only new transitions are written, so a checkpoint costs the same early and late in a run. Nothing is unpickled.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save

from common.replay import Replay

CHUNK = 10_000  # transitions a replay file; a checkpoint writes at most this many twice
OURS = re.compile(r"\d+\.json|(\d+|replay_\d+)\.safetensors|\..*\.tmp")  # what may be deleted in a checkpoint's folder


class Damaged(Exception):
    """A checkpoint whose bytes are not those that were written."""


def write_atomic(path: Path, data: bytes) -> None:
    """Either the whole of `data` is at `path` afterwards, also after a power cut, or what was there before."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # a write's own error does not say where
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself is on disk only now
    finally:
        os.close(folder)


class Checkpoints:
    """The checkpoints in one folder. `parts` is {name: state_dict of that part} of arrays, numbers and strings."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, str] = {}  # replay files known to be whole, with their digests
        self.last: int | None = None  # the step that was saved or loaded last: what a next one must not delete

    def steps(self) -> list[int]:
        """Steps that a checkpoint stands at, oldest first, damaged ones included."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

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
                    write_atomic(self.folder / name, data)
                    self.files[name] = _digest(data)
                manifest["files"][name] = self.files[name]
            arrays["replay tail"] = replay.read(row, max(first, chunks.stop * CHUNK), replay.count)
            manifest["replay"] = [first, replay.count]
        data = save(arrays)
        write_atomic(self.folder / f"{step}.safetensors", data)
        manifest["files"][f"{step}.safetensors"] = _digest(data)
        manifest["sha256"] = _digest(json.dumps(manifest).encode())
        write_atomic(self.folder / f"{step}.json", json.dumps(manifest).encode())
        self._tidy(step, set(manifest["files"]))
        self.last = step

    def verify(self, step: int) -> dict[str, Any]:
        """The manifest of `step`. Raises Damaged where it, or a file that it names, is not as it was written."""
        path = self.folder / f"{step}.json"
        try:
            manifest = json.loads(path.read_bytes())
            digest = manifest.pop("sha256")
            if digest != _digest(json.dumps(manifest).encode()):
                raise Damaged(f"{path}: the checksum does not match")
            for name, digest in manifest["files"].items():
                if _digest((self.folder / name).read_bytes()) != digest:
                    raise Damaged(f"{self.folder / name}: the checksum does not match")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{path}: {error}") from error
        return manifest

    def load(self, step: int, replay: Replay | None = None, row: int = 0) -> dict[str, dict[str, Any]]:
        """The parts saved at `step`, and the replay's transitions put back into `row`. Raises Damaged."""
        manifest = self.verify(step)
        arrays = load((self.folder / f"{step}.safetensors").read_bytes())
        if replay is not None:
            first, stop = manifest["replay"]
            for name in sorted(set(manifest["files"]) - {f"{step}.safetensors"}):
                rows, start = load((self.folder / name).read_bytes())["rows"], int(name[7:13]) * CHUNK
                skip = max(0, first - start)  # overwritten before the checkpoint was made
                replay.write(row, start + skip, rows[:, skip:])
            tail = arrays.pop("replay tail")
            replay.write(row, stop - tail.shape[1], tail)
        self.files = {name: digest for name, digest in manifest["files"].items() if name.startswith("replay_")}
        self.last = step
        return _unflatten(arrays, manifest["values"])

    def _tidy(self, step: int, needed: set[str]) -> None:
        """Delete what neither this checkpoint nor the one that it went on from needs."""
        needed = {f"{step}.json", *needed}
        if self.last is not None:
            path = self.folder / f"{self.last}.json"
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged since: nothing to keep
                needed |= {path.name, *json.loads(path.read_bytes())["files"]}
        old = [path for path in self.folder.iterdir() if path.name not in needed and OURS.fullmatch(path.name)]
        for path in sorted(old, key=lambda path: path.suffix != ".json"):  # no manifest may outlive its files
            path.unlink(missing_ok=True)
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
