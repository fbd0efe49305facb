"""Recorded operations on the elements of small tensors, as lists that elementwise.cpp runs: one call in place of many.

Of a recorded update's calls some sixty are sums, products and copies of a few hundred numbers, for which PyTorch takes
5 to 30 microseconds each: after the products of the networks their code is no longer in the cache. What is not known
here stays the call that it was.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from common.fast.kernels import Kernels

Call = Callable[[], Any]
Part = tuple[Any, ...]  # name, the tensor it writes to, tensors and numbers that it takes

DIMS = 4
aten = torch.ops.aten
BINARY, UNARY = ("add", "sub", "mul", "div", "minimum", "maximum"), ("neg", "abs")
TRUTHS = ("lt", "gt", "le", "ge", "eq")
WIDE = ("copy", "add", "sub", "mul", "div", "where", "narrow")  # those that it has for double precision
NAMES = ("copy", *BINARY, *UNARY, "at_least", "clamp", *TRUTHS, "and", "where", "narrow")  # elementwise.cpp's codes


def _same(name: str) -> Callable[..., list[Part]]:
    return lambda out, *inputs: [(name, out, *inputs)]


def _clamp(out: Tensor, x: Tensor, low: Any = None, high: Any = None, **named: Any) -> list[Part] | None:
    low, high = named.get("min", low), named.get("max", high)
    if low is None:
        return None
    return [("at_least", out, x, low) if high is None else ("clamp", out, x, low, high)]


def _cat(out: Tensor, pieces: Sequence[Tensor], dim: int = 0) -> list[Part]:
    pieces = [piece for piece in pieces if piece.numel()]  # an empty one may have other dims
    places = out.split([piece.shape[dim] for piece in pieces], dim) if pieces else ()
    return [("copy", place, piece) for place, piece in zip(places, pieces)]


RULES: dict[OpOverload, Callable[..., list[Part] | None]] = {  # what PyTorch's operations are, by what they are given
    **{getattr(aten, name).out: _same(name) for name in BINARY + UNARY},
    **{getattr(aten, name).Scalar_out: _same(name) for name in ("mul", "div", *TRUTHS)},
    **{getattr(aten, name).Tensor_out: _same(name) for name in TRUTHS},
    aten.where.self_out: _same("where"),
    aten.masked_fill_.Scalar: lambda x, mask, number: [("where", x, mask, number, x)],
    aten.logical_and_.default: lambda x, y: [("and", x, x, y)],
    aten.rsub.Scalar_out: lambda out, x, number, alpha=1: [("sub", out, number, x)] if alpha == 1 else None,
    aten.reciprocal.out: lambda out, x: [("div", out, 1.0, x)],
    aten.pow.Tensor_Scalar_out: lambda out, x, n: {1: [("copy", out, x)], 2: [("mul", out, x, x)]}.get(n),
    aten.clamp.out: _clamp,
    aten.cat.out: _cat,
    aten.clone.out: lambda out, x, memory_format=None: [("copy", out, x)],
    aten.copy_.default: lambda out, x, non_blocking=False: [
        ("narrow" if x.dtype == torch.float64 != out.dtype else "copy", out, x)
    ],
    aten._foreach_add_.Scalar: lambda tensors, number: [("add", x, x, number) for x in tensors],
}


class Operation(ctypes.Structure):
    """elementwise.cpp's struct of that name."""

    _fields_ = [
        ("code", ctypes.c_long),
        ("wide", ctypes.c_long),
        ("size", ctypes.c_long * DIMS),
        ("out", ctypes.c_void_p),
        ("to", ctypes.c_long * DIMS),
        ("inputs", ctypes.c_void_p * 3),
        ("from_", (ctypes.c_long * DIMS) * 3),
    ]


@torch.no_grad()
def fused(calls: Sequence[Call], kernels: Kernels) -> list[Call]:
    """The same calls in the same order, successive ones that are known here as one."""
    found: list[Call] = []
    for known, group in groupby(((call, _translated(call)) for call in calls), lambda pair: pair[1] is not None):
        if not known:
            found += [call for call, _ in group]
            continue
        parts = [part for _, parts in group for part in parts or ()]
        array = (Operation * len(parts))(*(operation for operation, _ in parts))
        found.append(functools.partial(_run, kernels.elementwise, array, [kept for _, kept in parts]))
    return found


def _run(elementwise: Any, array: Any, kept: Any) -> None:
    """`kept` are the tensors that the operations know by their addresses alone."""
    elementwise(array, len(array))


def _translated(call: Call) -> list[tuple[Operation, list[Tensor]]] | None:
    """What a recorded call is here, with the tensors it reads and writes; None where it is not known."""
    if not isinstance(call, functools.partial) or not isinstance(call.func, OpOverload) or call.func not in RULES:
        return None
    named = dict(call.keywords)
    out = [named.pop("out")] if "out" in named else []
    if named.pop("alpha", 1) != 1:
        return None
    parts = RULES[call.func](*out, *call.args, **named)
    found = [_operation(*part) for part in parts or ()]
    return [part for part in found if part] if found and all(found) else None


def _operation(name: str, out: Tensor, *inputs: Tensor | float) -> tuple[Operation, list[Tensor]] | None:
    """out = name(inputs), numbers rounded to the tensors' precision first, as PyTorch does; None where types differ."""
    wide = any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in (out, *inputs))
    if (wide and name not in WIDE) or any(isinstance(x, complex) for x in inputs):
        return None
    number = torch.float64 if wide else torch.float32
    tensors = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=number) for x in inputs]
    kinds = [torch.bool if name == "and" or (name == "where" and k == 0) else number for k in range(len(tensors))]
    kind = torch.bool if name in (*TRUTHS, "and") else torch.float32 if name == "narrow" else number
    if [x.dtype for x in (out, *tensors)] != [kind, *kinds] or any(x.device.type != "cpu" for x in (out, *tensors)):
        return None
    tensors += tensors[:1] * (3 - len(tensors))
    size, strides = _collapsed(out.shape, [x.expand(out.shape).stride() for x in (out, *tensors)])
    left = DIMS - len(size)
    if left < 0:
        return None
    rows = [(ctypes.c_long * DIMS)(*[0] * left, *stride) for stride in strides]
    operation = Operation(
        NAMES.index(name),
        wide,
        (ctypes.c_long * DIMS)(*[1] * left, *size),
        out.data_ptr(),
        rows[0],
        (ctypes.c_void_p * 3)(*(x.data_ptr() for x in tensors)),
        (ctypes.c_long * DIMS * 3)(*rows[1:]),
    )
    return operation, [out, *tensors]


def _collapsed(shape: Sequence[int], strides: list[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides with dims of one left out and dims made one where all arrays go on from one to the next."""
    size: list[int] = []
    kept: list[list[int]] = [[] for _ in strides]
    for k, n in enumerate(shape):
        if n == 1:
            continue
        if size and all(row[-1] == stride[k] * n for row, stride in zip(kept, strides)):
            size[-1] *= n
            for row, stride in zip(kept, strides):
                row[-1] = stride[k]
        else:
            size.append(n)
            for row, stride in zip(kept, strides):
                row.append(stride[k])
    return size, kept
