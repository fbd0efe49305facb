"""What environments raise, and how they tell a mistake in a flag from an author's code that fails.

common/ imports nothing from here, nor this from common/. It knows these exceptions by their attributes: the text of one
with an `exit_status` is a line that explains it, and `broken_rows` says which of `n_rows` have failed.
"""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

IMPORT = (importlib.__file__, "<frozen importlib")  # files of frames that import something
HERE = Path(__file__).parent
LEADING = (str(HERE), str(HERE.parent / "smac" / "envs"), *IMPORT)  # and of those that lead to an author's code


class UsageError(ValueError):
    """A user's mistake: one line that names the value and the way out."""

    exit_status = 2


class Broken(Exception):
    """Code that is not ours has failed: one line says how. Its cause, if it has one, keeps the author's traceback."""

    exit_status = 1


class RowsBroken(Exception):
    """What happened in the rows that have failed. Other rows are not touched by it."""

    def __init__(self, rows: dict[int, Broken], n_rows: int):
        super().__init__("; ".join(f"row {row}: {error}" for row, error in rows.items()))
        self.broken_rows, self.n_rows = rows, n_rows


def blame(what: str, error: BaseException) -> Broken:
    """Broken: `what`, as "the environment" or "importing games", raised `error` or called sys.exit. Raises our own."""
    if hasattr(error, "exit_status") or isinstance(error, RowsBroken):
        raise error
    error.__traceback__ = _authors(error.__traceback__) or error.__traceback__
    last = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return Broken(f"{what} called sys.exit({code}) ({Path(last.filename).name}, line {last.lineno})")
    broken = Broken(" ".join(f"{what} raised {type(error).__name__}: {error}".split()).removesuffix(":"))
    if not last.filename.startswith(IMPORT):  # as of a syntax error, which is no call's
        broken.__cause__ = error
    return broken


def each_row(rows: Iterable[int], do: Callable[[int], None], n_rows: int) -> None:
    """do(row) in all of these of n_rows rows, also after one of them has failed. Raises RowsBroken where some have."""
    broken = {}
    for row in rows:
        try:
            do(row)
        except (Exception, SystemExit) as error:
            broken[row] = blame("the environment", error)
    if broken:
        raise RowsBroken(broken, n_rows) from next(iter(broken.values())).__cause__


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Raise Broken, as `blame`, where the author's code inside does not do."""
    try:
        yield
    except (Exception, SystemExit) as error:
        broken = blame(what, error)
        raise broken from broken.__cause__


def _authors(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from where it enters an author's code; None where it never does."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(LEADING):
        frames = frames.tb_next
    return frames
