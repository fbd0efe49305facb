"""The documentation holds: commands parse, links and file names resolve, Python runs, columns and flags exist.

A fence ```sh holds commands, ```python code that runs, page by page in one namespace; with title="FILE" it quotes that
file. Other blocks are neither.
"""

import argparse
import ast
import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tyro
from safetensors.numpy import save_file

import envs
import i2q_ddpg

ROOT = next(parent for parent in Path(__file__).parents if (parent / "pyproject.toml").is_file())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md"]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
PROGRAM = re.compile(r"(\S*/)?(python3?|mpirun|make|pip|sbatch|run_all\.sh)$")
FOREIGN = {"git", "cd", "sudo", "xcode-select", "wsl", "nvidia-smi"}  # commands of others, taken as they are


def prose(page: Path) -> str:
    """Without blocks of code, which a list's continuation may look like: only what follows an empty line is one."""
    text = FENCE.sub("\n", page.read_text())
    return re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "\n", text)


def fences(page: Path, language: str) -> list[tuple[str, str]]:
    """(what follows the language, the block) of every fence in this language."""
    return [(info, block) for name, info, block in FENCE.findall(page.read_text()) if name == language]


def commands(page: Path) -> Iterator[str]:
    for _, block in fences(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.split("#")[0].strip():
                yield line
    for span in CODE.findall(prose(page)):
        words = span.split()
        if len(words) > 1 and PROGRAM.match(words[0]) and ".." not in words:
            yield span


# Commands


class Parsed(BaseException):
    """The program's own parser has taken the command line."""


PARSERS: list[argparse.ArgumentParser] = []  # every one that a program made for itself


def dry_run(run: Any, argv: list[str]) -> None:
    """Start a program and end it where its own parser has accepted `argv`. Raises AssertionError where that refuses."""
    cli, parse_args, said = tyro.cli, argparse.ArgumentParser.parse_args, io.StringIO()

    def whole_cli(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args):
            cli(*args, **kwargs)
        raise Parsed

    def whole_parse_args(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        PARSERS.append(parser)
        parse_args(parser, *args, **kwargs)
        raise Parsed

    with (
        mock.patch.object(tyro, "cli", whole_cli),
        mock.patch.object(argparse.ArgumentParser, "parse_args", whole_parse_args),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            run()
        except Parsed:
            return
        except SystemExit as end:
            if not end.code:  # --help
                return
    raise AssertionError(f"{shlex.join(argv)}: {said.getvalue()}")


def check(command: str, aliases: dict[str, str]) -> None:
    """Raise AssertionError where a command of the documentation cannot be right. `aliases`: copies made by cp."""
    for part in re.split(r" \| | && ", command):
        words = shlex.split(part, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words[0].endswith(("mpirun", "srun")):
            words = words[1:]
            while words and words[0] in ("-np", "-n", "-f"):
                words = words[2:]
        if words:  # in a text a launcher may stand alone
            _check_words(words, aliases)


def _check_words(words: list[str], aliases: dict[str, str]) -> None:
    program, argv = words[0].rpartition("/")[2], words[1:]
    if re.fullmatch(r"python3?", program):
        _check_python(argv, aliases)
    elif program == "pip":
        _check_pip(argv)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for word in argv:
            name = word.partition("=")[0]
            assert re.search(rf"^{name}\b.*:" if name == word else rf"\b{name}\b", makefile, re.M), f"make {word}"
    elif program == "run_all.sh":
        module = re.search(r"-m (\S+)", (ROOT / "run_all.sh").read_text())
        assert module
        _check_python(["-m", module[1], *argv], aliases)
    elif program == "sbatch":
        check(argv[argv.index("--wrap") + 1], aliases)
    elif program == "cp":
        aliases[argv[1]] = argv[0]
        assert (ROOT / argv[0]).is_file(), argv[0]
    elif program == "diff":
        assert all((ROOT / name).is_file() for name in argv), argv
    else:
        assert program in FOREIGN, f"{program}: not known here as a command"


def _check_python(argv: list[str], aliases: dict[str, str]) -> None:
    if argv[0] != "-m":
        path = ROOT / aliases.get(argv[0], argv[0])
        assert path.is_file(), f"{argv[0]}: no such program"
        dry_run(lambda: runpy.run_path(str(path), run_name="__main__"), argv)
    elif argv[1] == "pip":
        _check_pip(argv[2:])
    elif argv[1] == "pytest":
        assert all((ROOT / word).exists() for word in argv[2:] if not word.startswith("-") and "/" in word), argv
    elif argv[1] not in ("venv", "mkdocs"):
        assert importlib.util.find_spec(argv[1]), f"{argv[1]}: no such module"
        dry_run(lambda: runpy.run_module(argv[1], run_name="__main__", alter_sys=False), argv[1:])


def _check_pip(argv: list[str]) -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().partition("optional-dep")[2], re.M)
    for word in argv:
        assert not word.endswith((".txt", ".lock")) or (ROOT / word).is_file(), word
        for name in re.findall(r"^\.\[(.*)\]", word):
            assert set(name.split(",")) <= set(extras), f"no extra {name}: {extras}"


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


# Names


def options() -> set[str]:
    """Every flag of every program."""
    for program in ("plot.py", "watch.py"):
        check(f"python {program} --help", {})
    for module in ("bench", "paper.run_all", "games.theorems", "games.ideal_values"):
        check(f"python -m {module} --help", {})
    known = {option for parser in PARSERS for option in parser._option_string_actions}
    paths = [*ROOT.glob("*.py"), *ROOT.glob("games/*.py"), *ROOT.glob("examples/*.py"), ROOT / "common/runs.py"]
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


def made_up(page: Path) -> set[str]:
    """Files that the page's reader makes."""
    return {words[2] for words in map(str.split, commands(page)) if words[0] == "cp"} | {"meet.py"}


@every_page
def test_files_named_in_the_text_exist(page):
    for span in CODE.findall(prose(page)):
        if re.fullmatch(r"[\w./-]+\.(py|md|sh|cpp|toml|lock|yml|cff)", span) and span not in made_up(page):
            assert any((folder / span).is_file() for folder in (ROOT, page.parent)), span
        if re.fullmatch(r"\w+(/\w+)*/", span) and not span.startswith(("data/", "checkpoint/", "build/")):
            assert (ROOT / span).is_dir(), span


def anchors(page: Path) -> set[str]:
    """GitHub's names of the page's headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.is_file(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_site_and_the_index_have_every_page():
    nav, index = (ROOT / "mkdocs.yml").read_text(), (ROOT / "docs/index.md").read_text()
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        on_site = name.removeprefix("docs/") if name.startswith("docs/") else f"repository/{name}"
        assert re.search(rf": {re.escape(on_site)}$", nav, re.M), f"mkdocs.yml lacks {on_site}"
        link = name.removeprefix("docs/") if name.startswith("docs/") else f"../{name}"
        assert page.name == "index.md" or f"]({link})" in index, f"docs/index.md lacks {link}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="pip install '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)


# What is said


def leave_policy(data: Path) -> None:
    """What README loads."""
    env = envs.make("2x3HalfCheetah", [0])
    folder = data / "i2q_ddpg_2x3HalfCheetah/i2q_ddpg_2x3HalfCheetah_s0"
    folder.mkdir(parents=True)
    save_file(i2q_ddpg.Agents(env, i2q_ddpg.Config(hid=8), (0,)).policy(0), folder / "policy.safetensors")


@every_page
def test_python_in_the_text_runs_and_quotes_are_true(page, tmp_path, monkeypatch, capsys):
    leave_policy(tmp_path / "data")
    namespace: dict[str, Any] = {"__name__": "docs"}
    for info, block in fences(page, "python"):
        if title := re.search(r'title="([^"]+)"', info):
            assert block in (ROOT / title[1]).read_text(), f"{title[1]} reads otherwise:\n{block}"
        else:
            monkeypatch.syspath_prepend(str(ROOT))
            monkeypatch.chdir(tmp_path)
            exec(compile(block, str(page), "exec"), namespace)


def test_metrics_has_every_column_that_a_learner_writes():
    text = (ROOT / "docs/metrics.md").read_text()
    for path in [*ROOT.glob("*.py"), ROOT / "games/matrix_games.py", ROOT / "games/value_factorization.py"]:
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        for function in functions:
            if function.name not in ("update", "run"):
                continue
            for node in ast.walk(function):
                name = node.value if isinstance(node, ast.Constant) else None
                if isinstance(name, str) and re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
                    assert f"`{name}`" in text or name in GAMES_FILES, f"{path.name}: {name}"
    section = {path.stem for path in ROOT.glob("*.py") if re.search(r"^def update\(", path.read_text(), re.M)}
    assert section and all(f"`{name}.py`" in text for name in section)
    for name in ("EpRet", "TestEpRet"):
        assert all(f"`{kind}{name}`" in text for kind in ("Average", "Std", "Max", "Min"))


GAMES_FILES = {"TestEpRet", "Act", "Game", "Best", "Score", "Row", "Average", "Std", "Max", "Min"}  # columns of other files; parts of names


@every_page
def test_decimals_have_a_digit_before_the_point(page):
    assert not (found := re.findall(r"(?<![\w.*)\]])-?\.\d+", FENCE.sub("", prose(page)))), found
