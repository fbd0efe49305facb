"""How programs end that cannot go on: in one line, with a traceback, or for some of their seeds alone.

An exception with an `exit_status` has a text of one line that explains it. The program prints that line and ends with
that status: 2 for a mistake of the user's, 1 for what failed by itself. Every other exception is a defect, of ours or
of an algorithm's author, and keeps its traceback. envs and common/fast import nothing from here and mark theirs by the
same attribute.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path


class UsageError(ValueError):
    """Its text is one line that names the value and the way out."""

    exit_status = 2


class Unwritten(Exception):
    """A file could not be read or written: its text names the file and the way out."""

    exit_status = 1


class Defect(Exception):
    """Its text says where the exception arose that is its cause."""


class SeedFailure(Exception):
    """Some seeds of a group cannot go on. The others are not touched by it.

    `reasons` says why, in one line, by row; `causes` holds, of those where an author's code raised, what it raised.
    """

    def __init__(self, reasons: dict[int, str], causes: dict[int, BaseException | None] | None = None):
        super().__init__("; ".join(reasons.values()))
        self.reasons, self.causes = reasons, causes or {}


def exit_status(error: BaseException) -> int:
    """The status that a program ends with where `error` is explained by its one line; else 0."""
    return getattr(error, "exit_status", 0)


def of_seeds(error: BaseException, when: str, n_seeds: int) -> BaseException:
    """A SeedFailure where `error` is of some rows of an environment alone; else `error` itself.

    The rows are one a seed, or those of the test episodes: as many of each seed, side by side.
    """
    n_rows = getattr(error, "n_rows", 0)
    if not n_rows or n_rows % n_seeds:
        return error
    first: dict[int, BaseException] = {}
    for row, broken in sorted(getattr(error, "broken_rows", {}).items()):
        first.setdefault(row // (n_rows // n_seeds), broken)
    where = "" if n_rows == n_seeds else "in a test episode "
    reasons = {seed: f"{when}: {where}{broken}" for seed, broken in first.items()}
    return SeedFailure(reasons, {seed: broken.__cause__ for seed, broken in first.items()})


def defect(error: BaseException, when: str) -> Defect:
    """The Defect whose cause is `error`, or that says where it called sys.exit."""
    if not isinstance(error, SystemExit):
        found = Defect(f"{when}: {type(error).__name__}, a bug in the program:")
        found.__cause__ = error
        return found
    last = traceback.extract_tb(error.__traceback__)[-1]
    code = "" if error.code is None else repr(error.code)
    return Defect(f"{when}: sys.exit({code}) was called ({Path(last.filename).name}, line {last.lineno})")


def last_words(program: str, error: BaseException) -> str:
    """What to print of an exception that ends `program`: a line, with the traceback of what is no user's mistake."""
    if isinstance(error, Defect):
        return f"{error}\n{trace(error.__cause__)}".rstrip()
    if not exit_status(error):
        return trace(error)
    text = f"{program}: {error}" if str(error) else ""
    return f"{text}\n{trace(error.__cause__)}".rstrip() if exit_status(error) == 1 else text


def trace(error: BaseException | None) -> str:
    """Its traceback; empty for None."""
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip()


def of_run(error: OSError) -> Unwritten:
    """What ends a program whose run's files cannot be read or written."""
    way_out = "what was saved before is intact: free some space or fix the problem, then rerun the command"
    return Unwritten(f"{error}; {way_out}")


@contextlib.contextmanager
def files() -> Iterator[None]:
    """Around what reads and writes a run's files: an OSError becomes Unwritten, where an author's is a defect."""
    try:
        yield
    except OSError as error:
        raise of_run(error) from None
