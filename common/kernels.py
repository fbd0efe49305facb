"""common/mlp.cpp, compiled for this machine: built once, by the C++ compiler that is there, and kept in a cache."""

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name("mlp.cpp")
FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]


class Stack(ctypes.Structure):
    """mlp.cpp's struct of that name."""

    _fields_ = [
        ("slices", ctypes.c_long),
        ("layers", ctypes.c_long),
        ("sizes", ctypes.POINTER(ctypes.c_long)),
        ("flat", ctypes.c_void_p),
        ("length", ctypes.c_long),
    ]


def load(say: Callable[[str], None] = lambda text: None) -> ctypes.CDLL:
    """The kernels of mlp.cpp. Raises RuntimeError, in one line, where there is no C++ compiler or it fails.

    Kept under $XDG_CACHE_HOME (~/.cache), by what they depend on: source, flags, compiler, the CPU's instructions. Of
    several processes that start at once, one compiles, and tells `say`.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler (c++, g++, clang++, or $CXX)")
    try:
        version = subprocess.run([*compiler.split(), "--version"], capture_output=True, check=True).stdout
        parts = [SOURCE.read_bytes(), " ".join(FLAGS).encode(), compiler.encode(), version, _instructions().encode()]
        name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        folder = _cache()
        library = folder / f"mlp-{name}.so"
        with open(folder / f"mlp-{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                say(f"compiling the networks' kernels with {compiler}, once for this machine: some seconds")
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    built = Path(scratch) / "mlp.so"
                    command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(built)]
                    subprocess.run(command, capture_output=True, check=True)
                    built.rename(library)
        kernels = ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"{compiler}: {next((x for x in lines if 'error' in x), lines[-1:])}") from None
    except OSError as error:
        raise RuntimeError(f"{compiler}: {error}") from None
    size, pointer = ctypes.c_long, ctypes.c_void_p
    of_x = [ctypes.POINTER(Stack), size, pointer, size, size]
    kernels.mlp_forward.argtypes = [*of_x, pointer, pointer]
    kernels.mlp_backward.argtypes = [*of_x, pointer, pointer, pointer, pointer]
    kernels.mlp_threads.argtypes = [size]
    kernels.mlp_forward.restype = kernels.mlp_backward.restype = kernels.mlp_threads.restype = None
    return kernels


def _instructions() -> str:
    """What -march=native depends on: hosts that share a home need not share a CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def _cache() -> Path:
    """A folder that can be written to; a private one where the home cannot be."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "i2q"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except OSError:
        return Path(tempfile.mkdtemp(prefix="i2q-"))
