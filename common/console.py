"""What a program prints."""

import contextlib
import sys
from typing import Any


def say(text: str, file: Any = None) -> None:
    """Print whole lines at once. Where nobody listens any more, training goes on: progress.txt has it all."""
    file = file or sys.stdout
    with contextlib.suppress(OSError):
        file.write(text + "\n")  # one write: lines of several ranks do not mix
        file.flush()


class Once:
    """Says on rank 0, once, what every rank and every group of seeds would say."""

    def __init__(self, rank: int):
        self.rank, self.said = rank, set[str]()

    def __call__(self, text: str) -> None:
        if self.rank == 0 and text not in self.said:
            self.said.add(text)
            say(text)


def clock(seconds: float) -> str:
    """0:02:50."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
