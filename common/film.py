"""Films of what a program draws, frame by frame. Needs the extra `video`."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UsageError


class Film:
    """An H.264 film of (H, W, 3) uint8 frames. It is written beside `path` and takes its name when whole."""

    def __init__(self, path: Path) -> None:
        """UsageError where the film could not be written."""
        if path.suffix != ".mp4" or path.is_dir():
            raise UsageError(f"--video {path}: name a file that ends in .mp4")
        try:
            import imageio_ffmpeg
        except ImportError:
            raise UsageError("--video needs imageio-ffmpeg: .venv/bin/python -m pip install '.[video]'") from None
        self.path, self.fps, self.part = path, 25, path.with_suffix(f".{os.getpid()}.part.mp4")
        self.write_frames, self.read_frames = imageio_ffmpeg.write_frames, imageio_ffmpeg.read_frames
        self.writer: Any = None  # a generator that takes frames; the first frame gives the size, so starts it
        try:
            self.part.touch()
        except OSError as error:
            raise UsageError(f"--video {path}: cannot be written ({error.strerror}); name another place") from None

    def add(self, frame: np.ndarray) -> None:
        if self.writer is None:
            height, width = frame.shape[:2]
            self.writer = self.write_frames(str(self.part), (width, height), fps=self.fps, macro_block_size=2)
            try:
                self.writer.send(None)
            except (OSError, RuntimeError) as error:  # there is no ffmpeg
                raise UsageError(f"--video {self.path}: {' '.join(str(error).split())}") from None
        try:
            self.writer.send(np.ascontiguousarray(frame))
        except OSError:  # ffmpeg has ended, after saying why
            raise self._cut_off() from None

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the film: under its own name, or, where something was raised, leave nothing. UsageError if cut off."""
        try:
            if self.writer is not None:
                self.writer.close()  # this says nothing of an ffmpeg that failed
            if kind is None:
                next(reader := self.read_frames(str(self.part)))
                reader.close()
                self.part.replace(self.path)
        except OSError:
            raise self._cut_off() from None
        finally:
            self.part.unlink(missing_ok=True)

    def _cut_off(self) -> UsageError:
        return UsageError(f"--video {self.path}: ffmpeg could not write it whole; free space or name another place")
