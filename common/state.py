"""What hangs on an object, found by walking it: all that a checkpoint must hold and that an update may change.

Networks, optimisers, tensors, arrays, numbers and strings are found whatever they are called, also in lists, dicts and
objects of one's own. Tensors and arrays whose first axis has the length S are split by seed; all else is shared.
"""

import copy
import dataclasses
import functools
import random
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import UsageError
from common.nets import Net

PLAIN = (bool, int, float, str, type(None), np.bool_, np.integer, np.floating)
METHOD = (types.MethodType, types.BuiltinFunctionType)  # the latter also without an object, as torch.tanh
CONSTANT = (types.FunctionType, types.MethodDescriptorType, np.ufunc, type(np.mean), type)
CONSTANT += (torch.device, torch.dtype, np.dtype, torch.Size)
OPAQUE = (torch.nn.Module, torch.optim.Optimizer)
OPAQUE += (torch.Generator, np.random.Generator, np.random.BitGenerator, random.Random)


class Leaf(NamedTuple):
    name: str  # as "q_adam.exp_avg" or "critics.1.flat"
    value: Any  # a Tensor, a numpy array, or a plain value: a number, a string, None, or a list or tuple of these
    owner: Any  # the object, list, tuple or dict that holds it
    key: Any  # attribute, index or key there


def leaves(root: Any, skip: tuple[Any, ...] = ()) -> Iterator[Leaf]:
    """Everything that hangs on `root`, but for the objects in `skip`. Raises UsageError, by name, for what is no state.

    An object with a method state() tells with it what of it is state; of others all attributes are. What is frozen,
    as an algorithm's Config, holds settings and no state.
    """
    yield from _walk("", root, vars(root), {id(root), *map(id, skip)})


def _walk(prefix: str, owner: Any, items: Mapping[Any, Any], seen: set[int]) -> Iterator[Leaf]:
    for key, value in list(items.items()):
        name = f"{prefix}{key}"
        if _is_plain(value):
            if isinstance(owner, tuple):
                raise UsageError(
                    f"agents.{name}: a {type(value).__name__} in a tuple beside tensors or objects cannot be saved in "
                    "a checkpoint, as it could not be put back; use a list"
                )
            if isinstance(owner, METHOD):
                raise UsageError(
                    f"agents.{name}: a {type(value).__name__} that a method is bound to cannot be saved in a "
                    "checkpoint, as another one would be put back; call the method on an attribute"
                )
            yield Leaf(name, value, owner, key)
            continue
        if id(value) in seen or _is_constant(value):
            continue
        seen.add(id(value))
        inside = _inside(value)
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
            yield Leaf(name, value, owner, key)
        elif inside is not None:
            yield from _walk(f"{name}.", value, inside, seen)
        else:
            kind = type(value)
            raise UsageError(
                f"agents.{name}: a {kind.__module__}.{kind.__qualname__} cannot be saved in a checkpoint. Agents may "
                "hold tensors, arrays, numbers, the networks and Adam of common.nets, and lists, dicts and objects of "
                "these; common.nets.Module takes a torch.nn.Module, common.seeding.Streams gives noise that resumes"
            )


def _is_plain(value: Any) -> bool:
    listed = type(value) is list or (isinstance(value, tuple) and not isinstance(value, torch.Size))
    return all(map(_is_plain, value)) if listed else isinstance(value, PLAIN)


def _is_constant(value: Any) -> bool:
    """Settings and functions; not a method of an object that may be state, as rng.normal is."""
    if isinstance(value, METHOD):
        return isinstance(value.__self__, (*PLAIN, type, types.ModuleType))  # as ", ".join and torch.tanh
    if isinstance(value, CONSTANT):
        return True
    return dataclasses.is_dataclass(value) and type(value).__dataclass_params__.frozen  # pyright: ignore


def _inside(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a container, a callable or an object; None where they are not all of it."""
    if isinstance(value, METHOD):
        return {"__self__": value.__self__}
    if isinstance(value, functools.partial):  # plain values in it are constants
        held = {"func": value.func, **dict(enumerate(value.args)), **value.keywords}
        return {key: each for key, each in held.items() if not _is_plain(each)}
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    home = type(value).__module__.partition(".")[0]
    if isinstance(value, OPAQUE) or home in ("torch", "numpy", "builtins") or not hasattr(value, "__dict__"):
        return None
    return value.state() if hasattr(value, "state") else vars(value)


def tensors(root: Any, skip: tuple[Any, ...] = ()) -> dict[str, Tensor]:
    """Every tensor that hangs on `root`, itself and not a copy; of a numpy array, one on the same memory."""
    found = {}
    for name, value, _, _ in leaves(root, skip):
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, np.ndarray):
            found[name] = torch.from_numpy(value)
    return found


def save(root: Any, row: int, seeds: int, skip: tuple[Any, ...] = ()) -> dict[str, Any]:
    """One seed's part of what hangs on `root`: name -> tensor, array or plain value. Raises UsageError as `leaves`."""
    state = {}
    for name, value, _, _ in leaves(root, skip):
        if "/" in name:
            raise UsageError(f"agents.{name}: a name with a / cannot be saved in a checkpoint")
        if isinstance(value, Tensor):
            try:
                value.detach().flatten()[:0].cpu().numpy()
            except (TypeError, RuntimeError) as error:
                raise UsageError(f"agents.{name}: {value.dtype} cannot be saved in a checkpoint ({error})") from None
        state[name] = value[row, ...] if by_seed(value, seeds) else value  # not a number, which has no shape
    return state


def load(root: Any, row: int, seeds: int, state: Mapping[str, Any], skip: tuple[Any, ...] = ()) -> None:
    """Put back what `save` gave, tensors and arrays in place. Raises UsageError where names or shapes differ.

    Among another number of seeds the shape may differ of what is not by seed, if its first axis had the length of that
    number by chance. A constant, which the program has made again, is left as it is.
    """
    found = list(leaves(root, skip))
    if differ := sorted({leaf.name for leaf in found} ^ set(state)):
        where = "the checkpoint has no" if differ[0] not in state else "the program has no"
        raise UsageError(
            f"{where} agents.{differ[0]}: it was written by another version of the algorithm; give another --exp_name"
        )
    with torch.no_grad():
        for name, value, owner, key in found:
            new = state[name]
            if isinstance(value, (Tensor, np.ndarray)):
                place = value.detach() if isinstance(value, Tensor) else value
                place = place[row, ...] if by_seed(value, seeds) else place
                if tuple(place.shape) != np.shape(new):
                    if _holds(value, new):
                        continue
                    raise UsageError(
                        f"the checkpoint's agents.{name} has the shape {tuple(np.shape(new))}, not "
                        f"{tuple(place.shape)}: what has as many rows as there are seeds is saved by seed, also where "
                        "that is by chance; give what differs by seed a leading axis of seeds, and keep constants in a "
                        "frozen dataclass or a variable of the module"
                    )
                if isinstance(place, Tensor):
                    place.copy_(torch.as_tensor(new))
                else:
                    place[...] = np.asarray(new)
            elif isinstance(owner, (dict, list)):
                owner[key] = _like(value, new)
            elif getattr(owner, key) != _like(value, new):
                setattr(owner, key, _like(value, new))


def part(value: Any, row: int, seeds: int, made: dict[int, Any]) -> Any:
    """One seed's part of an object and of all that hangs on it: its rows, in the same memory, and a copy of all else.

    `made` has by id what stays one object for all seeds, as constants do, and is given what is made.
    """
    if id(value) in made:
        return made[id(value)]
    if _is_constant(value):
        return value
    if isinstance(value, Net):
        new = value.like(part(value.flat, row, seeds, made))
        new.name = value.name
    elif isinstance(value, Tensor):
        new = value.detach()[row : row + 1] if by_seed(value, seeds) else value.detach().clone()
        new.requires_grad_(value.requires_grad)
    elif isinstance(value, np.ndarray):
        new = value[row : row + 1] if by_seed(value, seeds) else value.copy()
    elif isinstance(value, METHOD):
        owner = part(value.__self__, row, seeds, made)
        function = getattr(value, "__func__", None)  # a built-in method has none
        new = types.MethodType(function, owner) if function is not None else getattr(owner, value.__name__)
    elif isinstance(value, functools.partial):
        args, keywords = part(value.args, row, seeds, made), part(value.keywords, row, seeds, made)
        new = functools.partial(part(value.func, row, seeds, made), *args, **keywords)
    elif isinstance(value, tuple):
        parts = [part(each, row, seeds, made) for each in value]
        new = type(value)(parts) if type(value) is tuple else type(value)(*parts)
    elif _inside(value) is None:
        return value
    else:
        new = made[id(value)] = copy.copy(value)  # known before its inside, which may lead back to it
        inside = new if isinstance(new, (dict, list)) else vars(new)
        for key in [*inside] if isinstance(inside, dict) else range(len(inside)):
            inside[key] = part(inside[key], row, seeds, made)
    made[id(value)] = new
    return new


def by_seed(value: Any, seeds: int) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0 and value.shape[0] == seeds


def _holds(value: Any, part: Any) -> bool:
    """Whether `part` is all of a tensor or array, or one of its rows."""
    whole, part = (x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in (value, part))
    return any(np.array_equal(one, part) for one in (whole, *np.atleast_1d(whole)))


def _like(old: Any, new: Any) -> Any:
    """`new` from a file as the kind of thing that `old` is: JSON knows no tuple and no number of numpy's."""
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        parts = [_like(a, b) for a, b in zip([*old, *new[len(old) :]], new)]
        return getattr(type(old), "_make", type(old))(parts)
    if isinstance(old, np.generic) and isinstance(new, (bool, int, float)):
        made = np.array(new).astype(old.dtype)[()]
        return made if made == new else new
    return new
