"""The Python values that an update may read, for a record to be made anew where one has changed."""

import types
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor

from common.fast.kernels import Kernels

NUMBERS = (bool, int, float, complex, str, bytes, type(None))


class Watch:
    """The Python values that an update may read, to be compared with what they were.

    Attributes of the agents, of the Config and of all that hangs on them; numbers among the globals of the update's
    module and in its closure.
    """

    def __init__(self, agents: Any, cfg: Any, update: Any):
        self.places: list[tuple[str, Any, list[Any]]] = []  # name, a live dict or list, the values that it had
        self.arrays: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.seen: set[int] = set()
        self._add("agents", agents)
        self._add("cfg", cfg)
        update = getattr(update, "func", update)  # of a functools.partial
        self._add("update", getattr(update, "__self__", None))
        self.numbers = [
            (name, held, name, value)
            for held in (getattr(update, "__globals__", {}),)
            for name, value in held.items()
            if type(value) in NUMBERS and not name.startswith("__")
        ]
        self.cells = [(cell, cell.cell_contents) for cell in getattr(update, "__closure__", None) or ()]

    def _add(self, name: str, value: Any) -> None:
        if id(value) in self.seen or isinstance(value, (Tensor, Kernels, types.FunctionType, types.ModuleType, type)):
            return
        self.seen.add(id(value))
        if isinstance(value, np.ndarray):
            self.arrays.append((name, value, value.copy()))
            return
        live = value if isinstance(value, (dict, list)) else getattr(value, "__dict__", None)
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
                if a is not b and not (type(a) is type(b) and type(a) in NUMBERS and (a == b or a != a)):
                    return f"{name}.{list(live)[k] if isinstance(live, dict) else k}"
        for name, held, key, value in self.numbers:
            if held.get(key) is not value and held.get(key) != value:
                return name
        for cell, value in self.cells:
            if cell.cell_contents is not value and type(value) in NUMBERS and cell.cell_contents != value:
                return "a number in its closure"
        for name, live, kept in self.arrays:
            if not np.array_equal(live, kept):
                return name
        return ""


def _values(live: Any) -> list[Any]:
    return list(live.values()) if isinstance(live, dict) else list(live)
