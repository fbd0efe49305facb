"""The Python values that an update may read, for a record to be made anew where one has changed."""

import collections
import contextlib
import functools
import itertools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
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

    Attributes of the agents, of the Config, of arguments and of all that hangs on them, and of their classes; numbers
    among the globals of the update's module; and whatever it and the functions that it calls name in their modules and
    closures, or have as defaults and attributes. Of tensors it is compared where they lie, not what they hold.

    `moving` names an iterator among them: what it gives next cannot be looked at.
    """

    def __init__(self, agents: Any, cfg: Any, update: Any, more: Sequence[Any] = ()):
        self.places: list[tuple[str, Any, Any, list[Any]]] = []  # name, what is live, its values, those that it had
        self.arrays: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.tensors: list[tuple[str, Tensor, int]] = []  # with their addresses, which a record keeps
        self.moving = ""
        self.seen: set[int] = set()
        self._add("agents", agents)
        self._add("cfg", cfg)
        for k, value in enumerate(more):
            self._add(f"argument {k}", value)
        self._add("update", update)
        plain = update.func if isinstance(update, functools.partial) else update
        self.globals = [
            (name, held, name, value)
            for held in (getattr(plain, "__globals__", {}),)
            for name, value in held.items()
            if type(value) in NUMBERS and not name.startswith("__")
        ]
        self.cells: list[tuple[str, types.CellType, Any]] = []
        for function in _reached([update, agents, *more]):
            for held in (function.__dict__, function.__defaults__, function.__kwdefaults__):
                self._add(function.__qualname__, held)
            for name, held, value in _named(function):
                self.globals.append((name, held, name, value))
                self._add(name, value)
            for name, cell, value in _cells(function):
                self.cells.append((name, cell, value))
                self._add(name, value)

    def _add(self, name: str, value: Any, owner: Any = None) -> None:
        if id(value) in self.seen or isinstance(value, (Kernels, types.FunctionType, types.ModuleType)):
            return
        if type(value).__module__ == "typing":
            return
        self.seen.add(id(value))
        if isinstance(value, Tensor):
            with contextlib.suppress(RuntimeError):  # a sparse one lies at no address
                self.tensors.append((name, value, value.data_ptr()))
        elif isinstance(value, np.ndarray):
            self.arrays.append((name, value, value.copy()))
        elif isinstance(value, type):
            self._add_class(value)
        elif isinstance(value, types.MethodType):
            self._add(name, value.__self__)
        elif isinstance(value, functools.partial):
            self._add(name, [value.func, *value.args, *value.keywords.values()])
        elif hasattr(value, "__next__"):
            self.moving = self.moving or name
        elif not _is_view(value, owner):
            self._add_parts(name, value)

    def _add_class(self, value: type) -> None:
        if _is_of_library(value):
            return
        self.places.append((value.__name__, vars(value), vars(value).values(), list(vars(value).values())))
        for key, part in list(vars(value).items()):
            if not key.startswith("_") and isinstance(part, (*CONTAINERS, Tensor, np.ndarray)):
                self._add(f"{value.__name__}.{key}", part)
        for base in value.__bases__:
            self._add(base.__name__, base)

    def _add_parts(self, name: str, value: Any) -> None:
        """What is in a container or an object."""
        self._add(type(value).__name__, type(value))
        live = value if isinstance(value, CONTAINERS) else getattr(value, "__dict__", None)
        inside = value if isinstance(value, tuple) else live
        if live is not None:
            self.places.append((name, live, live.values() if isinstance(live, dict) else live, _values(live)))
        for key, part in list(inside.items() if isinstance(inside, dict) else enumerate(inside or ())):
            self._add(f"{name}.{key}", part, value)
        if slots := _slots(value):
            self.places.append((name, slots, slots, _values(slots)))
            for key, part in zip(slots.names, slots):
                self._add(f"{name}.{key}", part, value)

    def changed(self) -> str:
        """Names of what is not as it was, or an empty string."""
        for name, live, now, kept in self.places:
            if len(now) != len(kept):
                return name
            if all(map(is_, now, kept)):
                continue
            for k, (a, b) in enumerate(zip(now, kept)):
                if not _same(a, b):
                    keys = list(live) if isinstance(live, Mapping) else getattr(live, "names", range(len(kept)))
                    return f"{name}.{keys[k]}"
        for name, tensor, address in self.tensors:
            if tensor.data_ptr() != address:
                return name
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


class _Slots:
    """The values that an object has in slots, as they are now."""

    def __init__(self, value: Any, names: list[str]):
        self.value, self.names = value, names

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self.value, name, None) for name in self.names)


def _slots(value: Any) -> _Slots | None:
    """Those of an object of the user's own."""
    kinds = [kind for kind in type(value).__mro__ if not _is_of_library(kind)]
    declared = [vars(kind).get("__slots__", ()) for kind in kinds]
    names = [name for part in declared for name in ((part,) if isinstance(part, str) else part)]
    names = [name for name in names if not name.startswith("__")]
    return _Slots(value, names) if names else None


def _is_view(value: Any, owner: Any) -> bool:
    """Whether it is a list of views of a network's parameters: they lie in its `flat`, which is watched itself."""
    flat = getattr(owner, "flat", None)
    if not (isinstance(flat, Tensor) and isinstance(value, (list, tuple)) and value):
        return False
    home = flat.untyped_storage().data_ptr()
    return all(isinstance(part, Tensor) and part.untyped_storage().data_ptr() == home for part in value)


def _is_of_library(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in LIBRARIES


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and type(a) in NUMBERS and (a == b or a != a))


def _reached(roots: Sequence[Any]) -> list[types.FunctionType]:
    """The functions among these and what they name, methods of objects and classes included, but for libraries'."""
    found: dict[int, types.FunctionType] = {}
    seen, waiting = set[int](), list(roots)
    while waiting:
        value = waiting.pop()
        value = getattr(value, "__func__", getattr(value, "fget", value))  # of a method or a property
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, functools.partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # by a decorator
            waiting.append(wrapped)
        if _is_of_library(value):
            continue
        if isinstance(value, type):
            waiting += [*value.__bases__, *vars(value).values()]
        elif isinstance(value, types.FunctionType):
            found[id(value)] = value
            waiting += [each for _, _, each in (*_named(value), *_cells(value))]
            waiting += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
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
