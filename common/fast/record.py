"""An update recorded once and replayed from then on: on a GPU as a CUDA graph, on the CPU as a list of operations.

An update of small networks is some hundred small operations, and Python, autograd and memory's management take a fifth
of its time. Mostly the operations below autograd are always the same, on the same memory: that list is kept and run.

A record is a guess that is tested. Each one is compared with the update as written, bit for bit: on the first batches,
and at the 10th, 100th, 1000th, ... update again. Python numbers that the update may read (attributes of the agents and
what hangs on them, the Config, numbers of the update's module) are compared before each replay; where one has changed
since, a new record is made. Whatever cannot be recorded runs as written, and one line says why.
"""

import functools
import random
import types
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from common.fast import Refused
from common.fast.kernels import Kernels

Diagnostics = dict[str, Tensor]  # each (S, N)
Update = Callable[..., Diagnostics]  # (agents, batch, cfg, *more)
Maker = Callable[[Callable[[], Diagnostics]], tuple[Callable[[], None], Diagnostics]]  # step -> (replay, its result)
RERECORDS = 3  # times that changed numbers may ask for a new record; a number that always changes is no constant
TESTED = {1, 2, 3, *(10**k for k in range(1, 12))}  # which of its calls are made both ways and compared
NUMBERS = (bool, int, float, complex, str, bytes, type(None))


class Unrecordable(Exception):
    """An update that no record can stand for; the text says why."""


class Plain:
    """The update as written. Some of its calls are watched for draws from global generators."""

    def __init__(self, update: Update):
        self.update, self.calls = update, 0

    def __call__(self, agents: Any, batch: Any, cfg: Any, *more: Any) -> Diagnostics:
        self.calls += 1
        if self.calls not in TESTED:
            return self.update(agents, batch, cfg, *more)
        return _drawing_nothing(lambda: self.update(agents, batch, cfg, *more))


class Recorded:
    """An update that is replayed where that gives what the update as written gives, and else runs as written.

    update(agents, batch, cfg, *more): `batch` is a NamedTuple of tensors, `more` are tensors and plain Python values.
    For each set of values and of shapes there is a record of its own, so an update may branch on an argument.
    agents.tensors() is a dict of all that an update may change. `make` turns a step into (what repeats it, the memory
    of its result). With `exact` False a record may differ from the update in its last bits, as a GPU's may.

    Raises Refused where the update draws from a global generator, or is `required` to be recorded and cannot be.
    """

    def __init__(
        self, update: Update, make: Maker, say: Callable[[str], None], required: bool = False, exact: bool = True
    ):
        self.update, self.make, self.say, self.required, self.exact = update, make, say, required, exact
        self.records: dict[Any, Record] = {}
        self.plain: Plain | None = None
        self.calls = self.remade = 0
        self.agents: Any = None

    def __call__(self, agents: Any, batch: Any, cfg: Any, *more: Any) -> Diagnostics:
        """Diagnostics that hold until the next call."""
        if self.plain is not None:
            return self.plain(agents, batch, cfg, *more)
        if self.agents is None:
            self.agents = agents
        assert agents is self.agents, "a record is of one set of networks"
        self.calls += 1
        leaves = [*batch, *more]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = tuple(leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        record = self.records.get(key)
        if record is not None and (names := record.watch.changed()):
            record = None
            self.records.clear()
            self.remade += 1
            if self.remade > RERECORDS:
                self._give_up(f"{names} changes again and again; pass it to update as an argument")
                return self.update(agents, batch, cfg, *more)
            self.say(f"update {self.calls}: {names} has changed, so the update is recorded anew")
        if record is None:
            return self._first(key, agents, batch, cfg, leaves)
        record.calls += 1
        if record.calls in TESTED:
            return self._both_ways(record, agents, tensors, lambda: self.update(agents, batch, cfg, *more))
        record.run(tensors)
        return record.out

    def _first(self, key: Any, agents: Any, batch: Any, cfg: Any, leaves: list[Any]) -> Diagnostics:
        """Run the update as written; record it from the same state, and see that the record gives the same."""
        own = [_twin(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        batch, more = type(batch)(*own[: len(batch)]), own[len(batch) :]
        watch, before = Watch(agents, cfg, self.update), _copy(agents.tensors())

        def step() -> Diagnostics:
            return self.update(agents, batch, cfg, *more)

        written = _copy(_drawing_nothing(step))
        if names := watch.changed():
            self._give_up(
                f"it changes {names} in Python. Count outside of update, pass what depends on the count as an argument "
                "(as d3g.py does), and change tensors in place"
            )
            return written
        after = _copy(agents.tensors())
        _restore(agents, before)
        try:
            replay, out = self.make(step)
        except Unrecordable as error:
            _restore(agents, after)
            self._give_up(str(error))
            return written
        _restore(agents, before)
        self.records[key] = Record(replay, out, [leaf for leaf in own if isinstance(leaf, Tensor)], watch)
        replay()
        return self._compared(agents, self.records[key], after, written)

    def _both_ways(
        self, record: "Record", agents: Any, tensors: list[Tensor], step: Callable[[], Diagnostics]
    ) -> Diagnostics:
        before = _copy(agents.tensors())
        written = _copy(_drawing_nothing(step))
        if names := record.watch.changed():
            self._give_up(f"it changes {names} in Python")
            return written
        after = _copy(agents.tensors())
        _restore(agents, before)
        record.run(tensors)
        return self._compared(agents, record, after, written)

    def _compared(self, agents: Any, record: "Record", after: dict[str, Tensor], written: Diagnostics) -> Diagnostics:
        """The record's diagnostics. Where it differs from the update as written: that one's, and no more records."""
        pairs = [(name, tensor, after[name]) for name, tensor in agents.tensors().items()]
        pairs += [(name, record.out[name], written[name]) for name in written]
        names = [name for name, a, b in pairs if not self._same(a.detach(), b.detach())]
        if not names:
            return record.out
        _restore(agents, after)
        self._give_up(f"a replay gives a different {', '.join(names[:3])}{', ...' * (len(names) > 3)}")
        return written

    def _same(self, a: Tensor, b: Tensor) -> bool:
        if not self.exact:
            return torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        return torch.equal(a, b) or a.cpu().numpy().tobytes() == b.cpu().numpy().tobytes()  # NaN is equal to itself

    def _give_up(self, reason: str) -> None:
        if self.required:
            raise Refused(f"--record on: update {self.calls} cannot be recorded: {reason}")
        self.say(f"update {self.calls}: from here on the update runs as written, not recorded: {reason}")
        self.records.clear()
        self.plain = Plain(self.update)


class Record:
    """One recorded update: what repeats it, and the memory that it reads from and writes to."""

    def __init__(self, replay: Callable[[], None], out: Diagnostics, inputs: list[Tensor], watch: "Watch"):
        self.replay, self.out, self.inputs, self.watch, self.calls = replay, out, inputs, watch, 1

    def run(self, inputs: list[Tensor]) -> None:
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new)
        self.replay()


class Watch:
    """The Python values that an update may read, to be compared with what they were.

    Attributes of the agents, of the Config and of all that hangs on them; numbers among the globals of the update's
    module and in its closure.
    """

    def __init__(self, agents: Any, cfg: Any, update: Update):
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


def _drawing_nothing(step: Callable[[], Diagnostics]) -> Diagnostics:
    """What step() returns. Raises Refused where it draws from a global generator."""
    before = _generators()
    out = step()
    for name, a, b in zip(("torch", "numpy", "random"), before, _generators()):
        if a != b:
            raise Refused(
                f"update draws from {name}'s global generator, which no checkpoint holds: one process, two ranks and a "
                "resumed run would all differ. Draw per seed, Streams(run.seeds, 'update'), and pass it as an argument"
            )
    return out


def _generators() -> tuple[Any, ...]:
    states = [torch.get_rng_state().numpy().tobytes()]
    if torch.cuda.is_initialized():
        states += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    state = np.random.get_state()  # noqa: NPY002 (this is the generator that nobody should use)
    return tuple(states), (state[1].tobytes(), *state[2:]), random.getstate()  # pyright: ignore


def _twin(x: Tensor) -> Tensor:
    """A copy that lies in memory as x does, as sums and products may round by where their numbers lie."""
    if 0 in x.stride():
        return x.clone()
    offset = x.storage_offset() % 16
    length = offset + 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride()))
    return x.new_empty(length).as_strided(x.shape, x.stride(), offset).copy_(x)


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _restore(agents: Any, kept: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in agents.tensors().items():
            tensor.detach().copy_(kept[name])


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
    return recorder.replay, {name: value.detach() for name, value in out.items()}


class Recorder(TorchDispatchMode):
    """Runs operations and keeps them as calls that write to the same memory again; views need not be run again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []
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
        elif func.overloadpacket not in EMPTY and not _storages(results) & _storages((args, kwargs)):
            self.calls.append(_again(func, args, kwargs, results))
        return out

    def replay(self) -> None:
        with torch.no_grad():
            for call in self.calls:
                call()


EMPTY = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty}  # only take memory
CONSTANT = {torch.ops.aten.ones_like, torch.ops.aten.zeros_like, torch.ops.aten.new_zeros, torch.ops.aten.scalar_tensor}


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
