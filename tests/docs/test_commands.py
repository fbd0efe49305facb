"""Every command of the documentation is one that its program takes, and every flag that is named exists."""

import ast
import re
import subprocess

import pytest
from helpers import ROOT
from helpers.dry_run import PARSERS, check
from helpers.pages import CODE, FENCE, PAGES, PROGRAM, commands, every_page, prose


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@every_page
def test_every_command_is_one_that_its_program_takes(page):
    aliases: dict[str, str] = {}
    for command in commands(page):
        check(command, aliases)


@every_page
def test_no_command_hides_in_another_kind_of_block(page):
    text = page.read_text()
    others = [block for language, _, block in FENCE.findall(text) if language in ("", "text")]
    others += re.findall(r"(?<=\n\n)(?: {4}.*\n)+", FENCE.sub("\n", text))
    for line in "\n".join(others).splitlines():
        words = line.split()
        assert len(words) < 2 or not PROGRAM.match(words[0]), f"put it into a fence of sh: {line}"


def test_the_makefile_starts_programs_with_flags_that_they_take():
    targets = ["run", "game", "figures", "docs", "bench"]
    recipe = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    started = [line for line in recipe.replace("\\\n", " ").splitlines() if " .venv/bin/" in f" {line}"]
    assert len(started) >= 7
    for line in started:
        check(line, {})


def test_a_command_that_no_program_takes_is_found():
    for command in (
        "python iddpg.py --no_such_flag 1",
        "python iddpg.py --env NoSuchTask",
        "python plot.py --no_such_flag",
        "python no_such_program.py",
        "make no_such_target",
        "pip install '.[no_such_extra]'",
        "no_such_command",
    ):
        with pytest.raises(AssertionError):
            check(command, {})


def options() -> set[str]:
    """Every flag of every program."""
    for program in ("plot.py", "watch.py"):
        check(f"python {program} --help", {})
    for module in ("bench", "paper.run_all", "games.theorems", "games.ideal_values"):
        check(f"python -m {module} --help", {})
    known = {option for parser in PARSERS for option in parser._option_string_actions}
    paths = [
        path
        for folder in (".", "common", "games", "examples", "smac", "smac/common")
        for path in (ROOT / folder).glob("*.py")
    ]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                names = [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]  # pyright: ignore
                known |= {f"--{name}" for name in names}
    return known | {"--help", "--no_header", "--strict", "--find_links", "--wrap"}


def test_flags_named_in_the_text_exist():
    known = options()
    for page in PAGES:
        for span in CODE.findall(prose(page)):
            for flag in re.findall(r"(?:^|(?<=\s))(--[a-zA-Z][\w-]*)", span):
                assert flag.replace("-", "_").replace("__", "--", 1) in known, f"{page.name}: {flag}"
