"""Command lines whose mistakes end in one line and status 2. No torch."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A program's flags; the first paragraph of `doc` heads its --help, the rest ends it."""

    def __init__(self, prog: str, doc: str | None):
        description, _, epilog = (doc or "").partition("\n\n")
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=layout)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help explains the flags\n")


def number(low: float, high: float = float("inf"), kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """The type of a flag whose value is a number within low .. high."""

    def check(text: str) -> Any:
        try:
            if low <= (value := kind(text)) <= high:
                return value
        except ValueError:
            pass
        what = "a whole number" if kind is int else "a number"
        limits = f"{low} or more" if high == float("inf") else f"within {low} .. {high}"
        raise argparse.ArgumentTypeError(f"{text!r} must be {what}, {limits}")

    return check
