"""What tests share; a test imports no other test."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def algorithms(root: Path = ROOT) -> list[str]:
    """The algorithm files: modules at the root that define Config, Agents and train."""
    found = []
    for path in sorted(root.glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {node.name for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        found += [path.stem] * ({"Config", "Agents", "train"} <= names)
    return found


ALGORITHMS = algorithms()
