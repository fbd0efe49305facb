"""Who may import whom: imports point one way, and none goes round in a circle. Imports inside functions count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ALGORITHMS, ROOT, algorithms

# Who may import what. An algorithm file is "algorithm"; another file at the root is itself; a folder is its name.
MAY = {
    "algorithm": {"common", "envs"},
    "common": {"common", "common.fast"},
    "common.fast": {"common.fast"},
    "envs": {"envs"},
    "curves": {"common", "curves"},
    "paper": {"common", "curves", "envs", "paper", "smac"},
    "games": {"common", "curves", "envs", "games"},
    "examples": {"common", "envs"},
    "smac": {"common", "common.fast", "envs", "smac"},
    "bench": {"algorithm", "bench", "common", "common.fast", "envs", "smac"},  # measures them all
    "plot": {"common", "curves", "paper"},
    "watch": {"common", "envs"},
    "sweep": {"common", "curves"},
}
NO_TORCH = (
    "curves",
    "envs",
    "paper",
    "plot",
    "watch",
    "common.disk",
    "common.layout",
    "common.perceptron",
    "common.policy",
    "sweep",
)


def modules_of(root: Path) -> dict[str, Path]:
    """Every module by its dotted name: the files at the root, and those of packages, but for tests."""
    packages = [path.parent for path in root.glob("*/__init__.py") if path.parent.name != "tests"]
    paths = [*root.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, package: str = "", top_level: bool = False) -> set[str]:
    """The dotted names that a file imports anywhere in it, or only where importing the file runs it."""
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        if not (top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            todo += ast.iter_child_nodes(node)
    return names


def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Which of our modules each of them imports: `from a import b` is a.b where that is a module, else a."""
    found = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = set()
        for target in imported(path, package):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            targets |= {target} - {""}
        found[name] = targets
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A way from some module back to itself; empty where there is none."""
    done: set[str] = set()

    def walk(way: list[str]) -> list[str]:
        for target in sorted(graph[way[-1]]):
            if target in way:
                return [*way[way.index(target) :], target]
            if target not in done and (found := walk([*way, target])):
                return found
        done.add(way[-1])
        return []

    return next((found for name in sorted(graph) if name not in done and (found := walk([name]))), [])


def kind(name: str) -> str:
    if name in ALGORITHMS or name.startswith("examples"):
        return "algorithm"
    return "common.fast" if name.startswith("common.fast") else name.partition(".")[0]


def reached(graph: dict[str, set[str]], name: str) -> set[str]:
    """Every module that importing this one may run, its own package and itself included."""
    found, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module in graph and module not in found:
            found.add(module)
            todo += [*graph[module], module.rpartition(".")[0]]
    return found


MODULES = modules_of(ROOT)
GRAPH = arrows(MODULES)


def test_the_walk_sees_every_part_of_the_project():
    assert {"i2q_ddpg", "iddpg", "d3g", "mbpo_baseline", "i2q_expectile", "ippo"} <= set(ALGORITHMS)
    assert not {"plot", "watch"} & set(ALGORITHMS)
    assert {kind(name) for name in MODULES} >= MAY.keys() - {"examples", "smac"}
    assert GRAPH["envs"] >= {"envs.vector", "envs.partitioned", "envs.parallel"}  # two of them inside functions
    assert "common.nets" in GRAPH["i2q_ddpg"]


def test_no_module_imports_itself_through_others():
    assert circle(GRAPH) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_its_place_allows(name):
    assert kind(name) in MAY, f"{name}: say in MAY what this folder may import"
    assert {target for target in GRAPH[name] if kind(target) not in MAY[kind(name)]} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(NO_TORCH)])
def test_what_reads_runs_never_imports_torch(name):
    used = {module: imported(MODULES[module]) for module in reached(GRAPH, name)}
    assert [module for module, names in used.items() if any(n.split(".")[0] == "torch" for n in names)] == []


@pytest.mark.parametrize("module", ["plot", "paper.run_all", "watch", "envs"])
def test_importing_it_brings_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(MODULES))
def test_mpi_is_never_imported_by_importing_a_module(name):
    assert not {n for n in imported(MODULES[name], top_level=True) if n.split(".")[0] == "mpi4py"}


def test_a_test_imports_no_other_test():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not {name for name in imported(path) if name.split(".")[0].startswith("test_")}, path


# The walk itself, on small projects


def project(root: Path, **files: str) -> dict[str, set[str]]:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return arrows(modules_of(root))


def test_the_walk_finds_imports_inside_functions_and_relative_ones(tmp_path):
    graph = project(tmp_path, common__a="from . import b\ndef f():\n    import envs.x\n", common__b="", envs__x="")
    assert graph["common.a"] == {"common.b", "envs.x"}
    assert imported(tmp_path / "common" / "a.py", "common", top_level=True) == {"common.b"}


@pytest.mark.parametrize("last", ["import a\n", "def f():\n    from a import name\n"])
def test_a_circle_of_three_is_found_also_where_its_last_arrow_is_lazy(tmp_path, last):
    graph = project(tmp_path, a="import b\n", b="def f():\n    import c__x\n", c__x=last)
    assert circle(graph) == []  # c__x is no module of this project
    graph = project(tmp_path, a="import b\n", b="def f():\n    import c.x\n", c__x=last)
    assert circle(graph) == ["a", "b", "c.x", "a"]


def test_a_new_algorithm_file_is_found_by_what_it_defines(tmp_path):
    (tmp_path / "mine.py").write_text("class Config: ...\nclass Agents: ...\ndef train(cfg, run): ...\n")
    (tmp_path / "tool.py").write_text("class Config: ...\ndef train(cfg, run): ...\n")
    assert algorithms(tmp_path) == ["mine"]
