"""The C++ files, compiled for this machine: built once, by the C++ compiler that is there, and kept in a cache."""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

SOURCE = Path(__file__).with_suffix(".cpp")  # which includes the others
SIZES = 4  # of activations whose memory is kept
FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread"]


class Stack(ctypes.Structure):
    """product.h's struct of that name."""

    _fields_ = [
        ("slices", ctypes.c_long),
        ("layers", ctypes.c_long),
        ("sizes", ctypes.POINTER(ctypes.c_long)),
        ("flat", ctypes.c_void_p),
        ("length", ctypes.c_long),
    ]


class RecurrentStack(ctypes.Structure):
    """recurrent.cpp's struct of that name."""

    _fields_ = [
        ("slices", ctypes.c_long),
        ("inputs", ctypes.c_long),
        ("hidden", ctypes.c_long),
        ("actions", ctypes.c_long),
        ("flat", ctypes.c_void_p),
        ("length", ctypes.c_long),
    ]


class Kernels:
    """The compiled passes that the stacks of one run share, and the memory that they hand on to each other."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self._forward, self._backward, self.act = library.mlp_forward, library.mlp_backward, library.mlp_act
        self.recurrent_forward, self.recurrent_backward = library.recurrent_forward, library.recurrent_backward
        self.elementwise, self.rmsprop = library.elementwise, library.rmsprop
        self.spare: dict[int, list[Tensor]] = {}  # by size: activations that a backward pass is done with, still in
        # the cache; the next pass writes there, as fresh memory would travel through it
        self.record: list[Callable[[], Any]] | None = None  # calls are noted here while an update is recorded

    def keep(self, activations: Tensor) -> None:
        """Lend this memory to a later pass; of episodes that differ in length there is no end of sizes."""
        size = activations.numel()
        self.spare[size] = [*self.spare.pop(size, []), activations]
        while len(self.spare) > SIZES:
            del self.spare[next(iter(self.spare))]

    def forward(self, *args: Any) -> None:
        self._forward(*args)
        if self.record is not None:
            self.record.append(functools.partial(self._forward, *args))

    def backward(self, *args: Any) -> None:
        self._backward(*args)
        if self.record is not None:
            self.record.append(functools.partial(self._backward, *args))

    def threads(self, n: int) -> None:
        """Share out the networks of a stack among n threads of this process."""
        self.library.mlp_threads(n)


def load(say: Callable[[str], None] = lambda text: None) -> Kernels:
    """The kernels. Raises RuntimeError, in one line, where there is no C++ compiler or it fails.

    Kept under $XDG_CACHE_HOME (~/.cache), by what they depend on: source, flags, compiler, the CPU's instructions. Of
    several processes that start at once, one compiles, and tells `say`. A library is loaded only where this user alone
    can have written it and its bytes are those that were built; a damaged one is built again.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler (c++, g++, clang++, or $CXX)")
    try:
        version = subprocess.run([*compiler.split(), "--version"], capture_output=True, check=True).stdout
        parts = [
            *(path.read_bytes() for path in sorted(SOURCE.parent.iterdir()) if path.suffix in (".cpp", ".h")),
            " ".join(FLAGS).encode(),
            compiler.encode(),
            version,
            _instructions().encode(),
        ]
        name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        folder = _cache()
        path = folder / f"mlp-{name}.so"
        with open(folder / f"mlp-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _whole(path):
                say(f"compiling the networks' kernels with {compiler}, once for this machine; takes a few seconds")
                _build(compiler, path)
            library = _loaded(path)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        said = next((line for line in lines if "error" in line), lines[-1] if lines else f"status {error.returncode}")
        raise RuntimeError(f"{compiler}: {said}") from None
    except OSError as error:
        raise RuntimeError(f"{compiler}: {error}") from None
    size, pointer = ctypes.c_long, ctypes.c_void_p
    of_x = [ctypes.POINTER(Stack), size, pointer, size, size]
    library.mlp_forward.argtypes = [*of_x, pointer, pointer]
    library.mlp_backward.argtypes = [*of_x, pointer, pointer, pointer, pointer]
    library.mlp_act.argtypes = [ctypes.POINTER(Stack), pointer, pointer]
    of_episodes = [ctypes.POINTER(RecurrentStack), size, ctypes.POINTER(size), pointer, size, size]
    library.recurrent_forward.argtypes = [*of_episodes, *[pointer] * 5]
    library.recurrent_backward.argtypes = [*of_episodes, *[pointer] * 8]
    library.rmsprop.argtypes = [size, size, *[pointer] * 3, *[ctypes.c_float] * 4]
    library.mlp_threads.argtypes = [size]
    library.elementwise.argtypes = [pointer, size]
    passes = ("mlp_forward", "mlp_backward", "mlp_act", "recurrent_forward", "recurrent_backward")
    for name in (*passes, "rmsprop", "mlp_threads", "elementwise"):
        getattr(library, name).restype = None
    return Kernels(library)


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise OSError(f"{error}; is its folder mounted noexec? set XDG_CACHE_HOME to another one") from None


def _build(compiler: str, path: Path) -> None:
    """Compile to `path`, its digest beside it. Both are renamed into place, so a full disk leaves neither half."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built, digest = Path(scratch) / "mlp.so", Path(scratch) / "mlp.sha256"
        command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(built)]
        subprocess.run(command, capture_output=True, check=True)
        digest.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
        path.unlink(missing_ok=True)
        digest.rename(path.with_suffix(".sha256"))
        built.rename(path)


def _whole(path: Path) -> bool:
    """Whether the library is there as it was built. Raises OSError where somebody else could have written it."""
    if not path.exists():
        return False
    _refuse_strangers(path)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == path.with_suffix(".sha256").read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _refuse_strangers(path: Path) -> None:
    """Raise OSError where another user owns `path` or may write to it: code is loaded from there."""
    found = path.stat()
    if found.st_uid != os.getuid():
        raise OSError(f"{path} belongs to another user (uid {found.st_uid}); set XDG_CACHE_HOME to another folder")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w {path}")


def _instructions() -> str:
    """What -march=native depends on: hosts that share a home need not share a CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def _cache() -> Path:
    """A folder of this user's that can be written to; where the home cannot be, a temporary one, removed at the end."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "i2q"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            home.mkdir(mode=0o700)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError:
        temporary = tempfile.mkdtemp(prefix="i2q-")  # mode 700
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return Path(temporary)
    _refuse_strangers(home)
    return home
