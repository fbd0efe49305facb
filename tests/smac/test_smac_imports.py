"""The discrete side stands by itself: the continuous side imports neither it nor JAX, and it runs without its extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALL = [path.relative_to(ROOT) for path in ROOT.glob("**/*.py") if ".venv" not in path.parts]
OURS = [path for path in ALL if path.parts[0] == "smac"]
MEASURES = [Path("bench/recurrent.py"), Path("bench/recurrent_naive.py")]  # the recurrent learners' own
TABLE = Path("paper/runs.py")  # asks the tasks for their settings
OTHERS = [path for path in ALL if path.parts[0] not in ("smac", "build", "tests") and path not in [*MEASURES, TABLE]]
LEARNERS = {"smac.iql", "smac.i2q_drqn", "smac.d3g_discrete"}


def imported(path: Path, top_level: bool = False) -> set[str]:
    """Full names of what the file imports anywhere in it, or only where importing the file runs it."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if not (top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            todo += ast.iter_child_nodes(node)
    return names


def firsts(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_walk_sees_both_sides():
    assert Path("smac/iql.py") in OURS and Path("iddpg.py") in OTHERS and Path("common/runs.py") in OTHERS
    assert "smac.common.nets.Recurrent" in imported(Path("smac/common/optim.py"))


@pytest.mark.parametrize("path", OTHERS, ids=str)
def test_nothing_outside_imports_it_or_jax(path):
    assert not firsts(imported(path)) & {"smac", "jax", "jaxmarl", "jaxlib"}


@pytest.mark.parametrize("path", [*OURS, *MEASURES, TABLE], ids=str)
def test_jax_is_never_imported_by_importing_a_module(path):
    if path.name != "smax.py":
        assert not firsts(imported(path, top_level=True)) & {"jax", "jaxmarl", "jaxlib"}


@pytest.mark.parametrize("path", [path for path in OURS if path.stem != "watch"], ids=str)
def test_no_module_imports_a_learner_or_the_continuous_environments(path):
    names = imported(path)
    assert not {name for name in names for learner in LEARNERS if name.startswith(learner)}
    continuous = {".".join(name.split(".")[:2]) for name in names if name.startswith("envs")}
    assert continuous <= {"envs.errors", "envs.factory"}


@pytest.mark.parametrize("learner", sorted(LEARNERS))
def test_a_learner_starts_as_a_program_and_explains_itself(learner):
    path = learner.replace(".", "/") + ".py"
    done = subprocess.run([sys.executable, path, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--rnn_hid" in done.stdout and "--legacy_actuators" not in done.stdout
