"""Files that are on disk afterwards, whole or not at all. No torch."""

import contextlib
import os
from pathlib import Path


def write_through(path: Path, data: bytes, mode: str) -> None:
    """Write ("wb") or append ("ab") `data`; it is on disk afterwards. Raises OSError that names `path`."""
    try:
        with open(path, mode) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # a write's own error does not say where


def write_atomic(path: Path, data: bytes) -> None:
    """Either the whole of `data` is at `path` afterwards, also after a power cut, or what was there before."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_through(temporary, data, "wb")
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # of the two names the one that is known
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself is on disk only now
    finally:
        os.close(folder)
