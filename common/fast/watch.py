"""The Python values that an update may read, for a record to be made anew where one has changed."""

import collections
import contextlib
import functools
import itertools
import sys
import types
from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor

from common.fast.kernels import Kernels

NUMBERS = (bool, int, float, complex, str, bytes, type(None))
CONTAINERS = dict, list, set, collections.deque
LIBRARIES = {"torch", "numpy", "common", "envs", *sys.stdlib_module_names}  # what they hold does not change


class Watch:
    """The Python values that an update may read, to be compared with what they were.

    Attributes of the agents, of the Config, of arguments and of all that hangs on them; numbers among the globals of
    the update's module; and whatever it and the functions that it calls name in their modules and closures.
    """

    def __init__(self, agents: Any, cfg: Any, update: Any, more: Sequence[Any] = ()):
        self.places: list[tuple[str, Any, list[Any]]] = []  # name, a live dict or list, the values that it had
        self.arrays: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.seen: set[int] = set()
        self._add("agents", agents)
        self._add("cfg", cfg)
        for k, value in enumerate(more):
            self._add(f"argument {k}", value)
        if isinstance(update, functools.partial):
            self._add("update.args", [*update.args, *update.keywords.values()])
            update = update.func
        self._add("update", getattr(update, "__self__", None))
        self.globals = [
            (name, held, name, value)
            for held in (getattr(update, "__globals__", {}),)
            for name, value in held.items()
            if type(value) in NUMBERS and not name.startswith("__")
        ]
        self.cells: list[tuple[str, types.CellType, Any]] = []
        for function in _reached([update, agents, *more]):
            for name, held, value in _named(function):
                self.globals.append((name, held, name, value))
                self._add(name, value)
            for name, cell, value in _cells(function):
                self.cells.append((name, cell, value))
                self._add(name, value)

    def _add(self, name: str, value: Any) -> None:
        if id(value) in self.seen or isinstance(value, (Tensor, Kernels, types.FunctionType, types.ModuleType, type)):
            return
        if type(value).__module__ == "typing":
            return
        self.seen.add(id(value))
        if isinstance(value, np.ndarray):
            self.arrays.append((name, value, value.copy()))
            return
        live = value if isinstance(value, CONTAINERS) else getattr(value, "__dict__", None)
        inside = value if isinstance(value, tuple) else live
        if isinstance(live, list) and live and all(isinstance(part, Tensor) for part in live):
            return  # views of a network's parameters: which list it is, its owner's entry tells
        if live is not None:
            self.places.append((name, live, _values(live)))
        if inside is not None:
            for key, part in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
                self._add(f"{name}.{key}", part)

    def changed(self) -> str:
        """Names of what is not as it was, or an empty string."""
        for name, live, kept in self.places:
            now = live.values() if isinstance(live, dict) else live
            if len(now) != len(kept):
                return name
            if all(map(is_, now, kept)):
                continue
            for k, (a, b) in enumerate(zip(now, kept)):
                if not _same(a, b):
                    return f"{name}.{list(live)[k] if isinstance(live, dict) else k}"
        for name, held, key, value in self.globals:
            if (now := held.get(key)) is not value and not _same(now, value):
                return name
        for name, cell, value in self.cells:
            if not _same(cell.cell_contents, value):
                return name
        for name, live, kept in self.arrays:
            if not np.array_equal(live, kept):
                return name
        return ""


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and type(a) in NUMBERS and (a == b or a != a))


def _reached(roots: Sequence[Any]) -> list[types.FunctionType]:
    """The functions among these and what they name, methods of objects and classes included, but for libraries'."""
    found: dict[int, types.FunctionType] = {}
    seen, waiting = set[int](), list(roots)
    while waiting:
        value = waiting.pop()
        value = getattr(value, "__func__", getattr(value, "fget", value))  # of a method or a property
        if id(value) in seen or str(getattr(value, "__module__", "")).partition(".")[0] in LIBRARIES:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            waiting += [*value.__bases__, *vars(value).values()]
        elif isinstance(value, types.FunctionType):
            found[id(value)] = value
            waiting += [each for _, _, each in (*_named(value), *_cells(value))]
        else:
            waiting.append(type(value))
    return list(found.values())


def _cells(function: types.FunctionType) -> Iterator[tuple[str, types.CellType, Any]]:
    """What it takes from the functions around it: name, where, value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # nothing is there yet
            yield name, cell, cell.cell_contents


def _named(function: types.FunctionType) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """What its code names among its module's globals, and in modules of the user's own: name, where, value."""
    names = set(_names(function.__code__))
    modules = [function.__globals__]
    modules += [
        vars(value)
        for name in names
        if isinstance(value := function.__globals__.get(name), types.ModuleType)
        and value.__name__.partition(".")[0] not in LIBRARIES
    ]
    for held, name in itertools.product(modules, names):
        if name in held and not name.startswith("__"):
            yield name, held, held[name]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def _values(live: Any) -> list[Any]:
    return list(live.values()) if isinstance(live, dict) else list(live)
