"""What makes a record of a step: a CUDA graph on a GPU, a list of operations on the CPU."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from common.fast.elementwise import Call, fused
from common.fast.kernels import Kernels

Diagnostics = dict[str, Tensor]  # each (S, N)


class Unrecordable(Exception):
    """An update that no record can stand for; the text says why."""


def cuda_graph(step: Callable[[], Diagnostics]) -> tuple[Callable[[], None], Diagnostics]:
    """(what repeats `step`, its result). The first calls load libraries and choose kernels, which no graph can hold."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            out = step()
    except RuntimeError as error:  # a number was read, memory was allocated by force, ...
        raise Unrecordable(f"a CUDA graph cannot hold it ({str(error).splitlines()[0]})") from error
    return graph.replay, out


def operations(kernels: Kernels | None, step: Callable[[], Diagnostics]) -> tuple[Callable[[], None], Diagnostics]:
    """The same on a CPU. The record owns its memory, that of networks' activations included."""
    recorder = Recorder()
    spare = {}
    if kernels is not None:
        spare, kernels.spare, kernels.record = kernels.spare, {}, recorder.calls
    try:
        with recorder:
            out = step()
    finally:
        if kernels is not None:
            kernels.spare, kernels.record = spare, None
    if kernels is not None:
        recorder.calls = _fused(recorder.calls, kernels)
    return recorder.replay, {name: value.detach() for name, value in out.items()}


def repeated(times: int) -> Iterator[int]:
    """range(times), for a loop of an update whose rounds do the same to the same tensors.

    Of such a loop a record holds one round, and runs it so often. Without it, a record holds every round, with memory
    of its own for each; a GPU's does so anyway.
    """
    recorder = Recorder.active
    if recorder is None:
        yield from range(times)
    elif times > 0:
        start = len(recorder.calls)
        yield 0
        calls = recorder.calls[start:]
        recorder.calls[start:] = [Loop(calls, times)]  # in place: the kernels note their calls in this list


@dataclass(frozen=True)
class Loop:
    """Recorded calls that are run one after another, so many times."""

    calls: list[Call]
    times: int

    def __call__(self) -> None:
        for _ in range(self.times):
            _run(self.calls)


def _run(calls: list[Call]) -> None:
    for call in calls:
        call()


def _fused(calls: list[Call], kernels: Kernels) -> list[Call]:
    """The same with lists of small operations as one call, within loops too."""
    return fused([Loop(_fused(x.calls, kernels), x.times) if isinstance(x, Loop) else x for x in calls], kernels)


class Recorder(TorchDispatchMode):
    """Runs operations and keeps them as calls that write to the same memory again; views need not be run again."""

    active: ClassVar["Recorder | None"] = None  # the one that records at present

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.kept: list[Any] = []  # results whose memory a call may know by its address alone

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore
        kwargs = kwargs or {}
        if torch.Tag.dynamic_output_shape in func.tags:
            raise Unrecordable(f"the shape of a result depends on values ({func})")
        out = func(*args, **kwargs)
        results = list(_tensors(out))
        self.kept.append(out)
        if func._schema.is_mutable:
            self.calls.append(functools.partial(func, *args, **kwargs))
        elif not results:
            raise Unrecordable(f"it reads a number out of a tensor ({func})")
        elif func.overloadpacket not in EMPTY and not storages(results) & storages((args, kwargs)):
            self.calls.append(_again(func, args, kwargs, results))
        return out

    def __enter__(self) -> Any:
        Recorder.active = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Recorder.active = None
        super().__exit__(*error)

    def replay(self) -> None:
        with torch.no_grad():
            _run(self.calls)


class Guard(TorchDispatchMode):
    """Notes what the operations of an update do that no record can repeat, or repeats unseen.

    `changed`: tensors that are written in place, were there before, and are none of `own`. `read`: how a number was
    taken out of a tensor without an operation.
    """

    def __init__(self, own: Iterable[Tensor]):
        super().__init__()
        self.known, self.changed, self.read = storages(list(own)), list[Tensor](), ""
        self.reads = Reads(self)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for k, argument in enumerate(func._schema.arguments):
            if argument.is_write:
                written = args[k] if k < len(args) else kwargs.get(argument.name)
                self.changed += [x for x in _tensors(written) if not storages(x) <= self.known]
        self.known |= storages(out) - storages((args, kwargs))
        return out

    def __enter__(self) -> Any:
        self.reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.reads.__exit__(*error)


class Reads(TorchFunctionMode):
    """Tells a Guard of numbers that leave a tensor without an operation."""

    ways = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__dlpack__)

    def __init__(self, guard: Guard):
        super().__init__()
        self.guard = guard

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.ways:
            self.guard.read = func.__name__
        return func(*args, **(kwargs or {}))


EMPTY = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty}  # only take memory
CONSTANT = {torch.ops.aten.ones_like, torch.ops.aten.zeros_like, torch.ops.aten.zeros, torch.ops.aten.new_zeros}
CONSTANT |= {torch.ops.aten.scalar_tensor}


def _again(func: OpOverload, args: Any, kwargs: Any, results: list[Tensor]) -> Callable[[], Any]:
    """The same operation, writing to `results`: by its form with `out`, or where it has none by a copy."""
    if func.overloadpacket in CONSTANT:
        return functools.partial(torch.ops.aten.copy_.default, results[0], results[0].clone())
    if func == torch.ops.aten._to_copy.default:
        return functools.partial(torch.ops.aten.copy_.default, results[0], args[0])
    inputs = [(a.name, str(a.type)) for a in func._schema.arguments]
    for overload in func.overloadpacket.overloads():
        form = getattr(func.overloadpacket, overload)
        outs = [a.name for a in form._schema.arguments if a.is_out]
        if len(outs) == len(results) and inputs == [
            (a.name, str(a.type)) for a in form._schema.arguments if not a.is_out
        ]:
            call = functools.partial(form, *args, **kwargs, **dict(zip(outs, results, strict=True)))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                call()
            if not caught:  # some resize what they are given, and warn of it each time
                return call

    def copied() -> None:
        for result, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
            result.copy_(new)

    return copied


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def storages(tree: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}
