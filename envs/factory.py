"""A game by the name `package.module:factory`, from a module on the path or in the working folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from envs.errors import UsageError, blaming


def create(name: str, **optional: Any) -> Any:
    """What the factory returns. It is called with `optional` if it takes that, else without arguments.

    Raises UsageError where there is no such function or it needs arguments, Broken where the author's code fails.
    """
    module, _, factory = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), factory]):
        raise UsageError(f"--env {name!r}: must be package.module:factory")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where a script lies elsewhere, Python looks beside that only
    with blaming(f"--env {name!r}: importing {module}"):
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and f"{module}.".startswith(f"{error.name}."):  # itself, not what it imports
                raise UsageError(f"--env {name!r}: {error}; must be package.module:factory") from None
            raise
    if not callable(make := getattr(found, factory, None)):
        raise UsageError(f"--env {name!r}: {module} has no function {factory}; must be package.module:factory")
    with blaming(f"--env {name!r}: {factory}()"):
        return _call(name, make, optional)


def _call(name: str, make: Callable[..., Any], optional: dict[str, Any]) -> Any:
    if optional:
        with contextlib.suppress(TypeError):  # most factories take no argument
            return make(**optional)
    try:
        return make()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next:  # raised inside
            raise
        raise UsageError(f"--env {name!r}: it has to be a function without arguments ({error})") from None
