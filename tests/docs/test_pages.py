"""Links and files that the documentation names are there, Python in it runs, quotes are true, columns are explained."""

import ast
import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ALGORITHMS, ROOT, algorithms
from helpers.pages import CODE, FENCE, PAGES, commands, every_page, fences, prose
from safetensors.numpy import save_file

import envs
import i2q_ddpg

# columns of other files than progress.txt, and parts of names
OTHERS = {"TestEpRet", "Act", "Game", "Best", "Score", "Row", "Average", "Std", "Max", "Min"}


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
    others = [ROOT / folder / f"{name}.py" for folder in ("smac", "examples") for name in algorithms(ROOT / folder)]
    learners = [*(ROOT / f"{name}.py" for name in ALGORITHMS), *others]
    for path in (*learners, ROOT / "games/matrix_games.py", ROOT / "games/value_factorization.py"):
        body = ast.parse(path.read_text()).body
        writers = [node for node in body if isinstance(node, ast.FunctionDef) and node.name in ("update", "run")]
        for node in itertools.chain.from_iterable(map(ast.walk, writers)):
            name = node.value if isinstance(node, ast.Constant) else None
            if isinstance(name, str) and re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
                assert f"`{name}`" in text or name in OTHERS, f"{path.name}: {name}"
    assert all(f"`{path.relative_to(ROOT)}`" in text for path in learners)
    for name in ("EpRet", "TestEpRet"):
        assert all(f"`{kind}{name}`" in text for kind in ("Average", "Std", "Max", "Min"))


@every_page
def test_decimals_have_a_digit_before_the_point(page):
    assert not (found := re.findall(r"(?<![\w.*)\]])-?\.\d+", FENCE.sub("", prose(page)))), found
