"""An update recorded at its first call and replayed from then on: on a GPU as a CUDA graph, on a CPU as a tape.

An update of small networks is some hundred small operations, and Python, autograd and memory's management take a fifth
of its time. What it computes depends on no value, so the operations below autograd, forward ones and backward ones, are
always the same, on the same memory: that list is what is kept and run.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from common.nets import MLP
from common.replay import Batch

Update = Callable[[Any, Batch, Any], dict[str, Tensor]]  # (agents, batch, cfg) -> diagnostics, each (S, N)


def graphed(update: Update, device: str) -> Update:
    """One that is recorded at its first call and then replayed; the update itself on a CPU without compiled kernels.

    Raises RuntimeError at the first call where the update reads a number out of a tensor.
    """
    if device == "cpu" and MLP.kernels is None:
        return update
    return Graphed(update, tape if device == "cpu" else cuda_graph)


class Graphed:
    """Replays a recorded update on new batches: the record reads and writes where the update did at first."""

    def __init__(self, update: Update, record: Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]):
        self.update, self.record = update, record
        self.batch: Batch | None = None

    def __call__(self, agents: Any, batch: Batch, cfg: Any) -> dict[str, Tensor]:
        """Diagnostics that hold until the next call."""
        if self.batch is None:
            self.agents, own = agents, Batch(*(part.clone() for part in batch))
            rows = range(len(batch.rew))
            before = [_copy(agents.state_dict(row)) for row in rows]  # recording trains, on this batch once or more
            self.replay, self.out = self.record(lambda: self.update(agents, own, cfg))
            for row in rows:
                agents.load_state_dict(row, before[row])
            self.batch = own
        assert agents is self.agents, "a record is of one set of networks"
        for mine, new in zip(self.batch, batch, strict=True):
            mine.copy_(new)
        self.replay()
        return self.out


def cuda_graph(step: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """(what repeats `step`, its result). The first calls load libraries and choose kernels, which no graph can hold."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return graph.replay, out


def tape(step: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """The same on a CPU. The record owns its memory, that of networks' activations included."""
    recorder, kernels, spare = Recorder(), MLP.kernels, MLP.spare
    if kernels is not None:
        MLP.kernels = Kernels(recorder, kernels)  # pyright: ignore[reportAttributeAccessIssue]
    MLP.spare = {}
    try:
        with recorder:
            out = step()
    finally:
        MLP.kernels, MLP.spare = kernels, spare
    return recorder.replay, {name: value.detach() for name, value in out.items()}


class Recorder(TorchDispatchMode):
    """Runs operations and keeps them as calls that write to the same memory again; views need not be run again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []
        self.kept: list[Any] = []  # results whose memory a call may know by its address alone

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # pyright: ignore
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        results = list(_tensors(out))
        self.kept.append(out)
        if func._schema.is_mutable:
            self.calls.append(functools.partial(func, *args, **kwargs))
        elif not results:
            raise RuntimeError(f"an update that reads a number out of a tensor ({func}) cannot be recorded")
        elif func.overloadpacket not in EMPTY and not _storages(results) & _storages((args, kwargs)):
            self.calls.append(_again(func, args, kwargs, results))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for call in self.calls:
                call()


EMPTY = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty}  # only take memory
CONSTANT = {torch.ops.aten.ones_like, torch.ops.aten.zeros_like, torch.ops.aten.new_zeros, torch.ops.aten.scalar_tensor}


class Kernels:
    """The compiled kernels for a record: they are called with addresses, which no dispatcher sees."""

    def __init__(self, recorder: Recorder, kernels: Any):
        self.recorder, self.kernels = recorder, kernels

    def __getattr__(self, name: str) -> Callable[..., None]:
        kernel = getattr(self.kernels, name)

        def call(*args: Any) -> None:
            kernel(*args)
            self.recorder.calls.append(functools.partial(kernel, *args))

        return call


def _again(func: OpOverload, args: Any, kwargs: Any, results: list[Tensor]) -> Callable[[], Any]:
    """The same operation, writing to `results`: by its form with `out`, or where it has none by a copy."""
    if func.overloadpacket in CONSTANT:
        return functools.partial(results[0].copy_, results[0].clone())
    inputs = [(a.name, str(a.type)) for a in func._schema.arguments]
    for overload in func.overloadpacket.overloads():
        form = getattr(func.overloadpacket, overload)
        outs = [a.name for a in form._schema.arguments if a.is_out]
        if len(outs) == len(results) and inputs == [
            (a.name, str(a.type)) for a in form._schema.arguments if not a.is_out
        ]:
            return functools.partial(form, *args, **kwargs, **dict(zip(outs, results, strict=True)))

    def copied() -> None:
        for result, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
            result.copy_(new)

    return copied


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _storages(tree: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _copy(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _copy(part) for name, part in state.items()}
    return state.clone() if isinstance(state, Tensor) else state
