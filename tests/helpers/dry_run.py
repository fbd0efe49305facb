"""Commands of the documentation, checked without running them: each program's own parser has to take them."""

import argparse
import contextlib
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from typing import Any
from unittest import mock

import tyro

from helpers import ROOT

FOREIGN = {"git", "cd", "sudo", "xcode-select", "wsl", "nvidia-smi", "uv"}  # commands of others, taken as they are


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
        mock.patch.object(subprocess, "Popen", side_effect=AssertionError("it starts another program")),
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
        module = re.search(r"^from (\S+) import main", (ROOT / "run_all.sh").read_text(), re.M)
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
    if argv[0] == "sweep.py":
        with tempfile.TemporaryDirectory() as scratch:
            flags = [aliases.get(argv[1], argv[1]), *argv[2:], "--data_dir", scratch]
            for experiment in importlib.import_module("sweep").arguments(flags)[1]:
                _check_python(experiment.command, aliases)
    elif argv[0] != "-m":
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
