"""What made a run, beside its settings: versions of the libraries and of its program, and the checkout's commit."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = "torch", "numpy", "gymnasium", "mujoco", "jaxmarl", "jax"


def versions() -> dict[str, str]:
    """Of VERSIONS, those that have been imported."""
    return {name: importlib.metadata.version(name) for name in VERSIONS if name in sys.modules}


def program() -> dict[str, str]:
    """The file that was started, by its name, as the first digits of what `git hash-object` says; empty without one."""
    path = Path(sys.argv[0])
    with contextlib.suppress(OSError):
        text = path.read_bytes()
        name = hashlib.sha1(b"blob %d\0%b" % (len(text), text), usedforsecurity=False).hexdigest()
        return {path.name: name[:7]}
    return {}


@functools.cache
def commit() -> str:
    """The commit of this checkout, "ab4a135", or "ab4a135-dirty" where a file of it was changed; empty without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # ranks start at once, and nobody else's git is to wait for them
    try:
        told = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
