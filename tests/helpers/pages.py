"""The pages of the documentation, and the commands and code in them.

A fence ```sh holds commands, ```python code that runs; with title="FILE" it quotes that file. Other blocks are neither.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import ROOT

NAMES = ("README.md", "CONTRIBUTING.md", "results/README.md")
PAGES = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PROGRAM = re.compile(r"(\S*/)?(python3?|mpirun|make|pip|sbatch|run_all\.sh)$")


def prose(page: Path) -> str:
    """Without blocks of code, which a list's continuation may look like: only what follows an empty line is one."""
    text = FENCE.sub("\n", page.read_text())
    return re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "\n", text)


def fences(page: Path, language: str) -> list[tuple[str, str]]:
    """(what follows the language, the block) of every fence in this language."""
    return [(info, block) for name, info, block in FENCE.findall(page.read_text()) if name == language]


def commands(page: Path) -> Iterator[str]:
    """Those of its fences, and those within a line."""
    for _, block in fences(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.split("#")[0].strip():
                yield line
    for span in CODE.findall(prose(page)):
        words = span.split()
        if len(words) > 1 and PROGRAM.match(words[0]) and ".." not in words:
            yield span
