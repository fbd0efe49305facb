"""Who may import whom.

Algorithm files -> common, envs; never each other, and nobody but bench.py imports them. common -> common. envs -> envs.
plot.py, watch.py, envs -> no torch.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = {"plot", "figures", "report", "run_all", "watch", "sweep", "bench", "naive"}
ALGORITHMS = {path.stem for path in ROOT.glob("*.py")} - TOOLS
OURS = {path.stem for path in ROOT.glob("*.py")} | {"common", "envs"}
MODULES = sorted(
    path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py"), *ROOT.glob("envs/**/*.py")]
)


def imported(path: Path, top_level: bool = False) -> set[str]:
    """First names of what the file imports anywhere in it, or only where importing the file runs it."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if node.level == 0 else path.parts[0])
        if not (top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            todo += ast.iter_child_nodes(node)
    return names


def allowed(path: Path) -> set[str]:
    if path.parts[0] in ("common", "envs"):
        return {path.parts[0]}
    if path.stem == "bench":  # measures them all
        return OURS
    if path.stem in TOOLS:
        return {"common", "envs"} | TOOLS
    return {"common", "envs"}


def test_the_walk_sees_every_part_of_the_project():
    assert {"i2q_ddpg", "iddpg"} <= ALGORITHMS
    assert {path.parts[0] for path in MODULES} >= {"common", "envs", "plot.py", "watch.py"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_its_place_allows(path):
    assert (imported(path) & OURS) <= allowed(path)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_mpi_is_never_imported_by_importing_a_module(path):
    assert "mpi4py" not in imported(path, top_level=True)


@pytest.mark.parametrize("module", ["plot", "figures", "report", "run_all", "watch", "sweep", "envs"])
def test_importing_it_brings_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_walk_finds_imports_inside_functions_and_relative_ones(tmp_path, monkeypatch):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "a.py").write_text("from . import b\ndef f():\n    import envs.x\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert imported(Path("common/a.py")) == {"common", "envs"}
    assert imported(Path("common/a.py"), top_level=True) == {"common"}
