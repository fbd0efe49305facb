"""An update recorded once and replayed from then on: on a GPU as a CUDA graph, on the CPU as a list of operations.

An update of small networks is some hundred small operations, and Python, autograd and memory's management take a fifth
of its time. Mostly the operations below autograd are always the same, on the same memory: that list is kept and run.

A record is a guess that is tested. Each one is compared with the update as written, bit for bit: on the first batches,
and at the 10th, 100th, 1000th, ... update again. What the update may read in Python (see Watch) is compared before each
replay; where something has changed since, a new record is made. Whatever cannot be recorded runs as written, and one
line says why; so does an update that changes what does not hang on the agents, before it is run a second time.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.fast import Refused
from common.fast.recorders import Diagnostics, Guard, Unrecordable, storages
from common.fast.watch import Watch

Update = Callable[..., Diagnostics]  # (agents, batch, cfg, *more)
Maker = Callable[[Callable[[], Diagnostics]], tuple[Callable[[], None], Diagnostics]]  # step -> (replay, its result)
RECORDS = 8  # sets of values and shapes that have a record; each takes the memory of an update
RERECORDS = 3  # times that changed numbers may ask for a new record; a number that always changes is no constant
TESTED = {1, 2, 3, *(10**k for k in range(1, 12))}  # which of its calls are made both ways and compared


class Plain:
    """The update as written. Some of its calls are watched for draws from global generators."""

    def __init__(self, update: Update):
        self.update, self.calls = update, 0

    def __call__(self, *args: Any, **named: Any) -> Diagnostics:
        self.calls += 1
        if self.calls not in TESTED:
            return self.update(*args, **named)
        return _drawing_nothing(lambda: self.update(*args, **named))


class Recorded:
    """An update that is replayed where that gives what the update as written gives, and else runs as written.

    update(agents, batch, cfg, *more): `batch` is a NamedTuple of tensors, `more` are tensors and plain Python values,
    by place or by name. For each set of values and of shapes there is a record of its own, so an update may branch on
    an argument. agents.tensors() is a dict of all that an update may change, agents.scratch() lists memory that it
    overwrites; others() tells the state of what else is saved, by name. `make` turns a step into (what repeats it, the
    memory of its result). With `exact` False a record may differ from the update in its last bits, as a GPU's may.

    Raises Refused where the update draws from a global generator, or is `required` to be recorded and cannot be.
    """

    def __init__(
        self,
        update: Update,
        make: Maker,
        say: Callable[[str], None],
        required: bool = False,
        exact: bool = True,
        others: Callable[[], Mapping[str, bytes]] = dict,
    ):
        self.update, self.make, self.say, self.required, self.exact = update, make, say, required, exact
        self.others = others
        self.records: dict[Any, Record] = {}
        self.plain: Plain | None = None
        self.calls = self.remade = 0
        self.agents: Any = None

    def __call__(self, agents: Any, batch: Any, cfg: Any, *more: Any, **named: Any) -> Diagnostics:
        """The update's diagnostics."""
        if self.plain is not None:
            return self.plain(agents, batch, cfg, *more, **named)
        if self.agents is None:
            self.agents = agents
        assert agents is self.agents, "a record is of one set of networks"
        self.calls += 1
        leaves = [*batch, *more, *named.values()]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (
            id(cfg),  # a record holds its own, so that no other one takes its place
            *((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves),
            *named,
        )
        try:
            record = self.records.get(key)
        except TypeError:
            kinds = [type(leaf).__name__ for leaf in leaves if type(leaf).__hash__ is None]
            self._give_up(f"an argument is a {', '.join(kinds)}, which no record can be found by; give a tensor")
            return self.plain(agents, batch, cfg, *more, **named)  # pyright: ignore (_give_up made it)
        if record is not None and (names := record.watch.changed()):
            record = None
            self.records.clear()
            self.remade += 1
            if self.remade > RERECORDS:
                self._give_up(f"{names} changes again and again; pass it to update as an argument, best as a tensor")
                return self.update(agents, batch, cfg, *more, **named)
            self.say(f"update {self.calls}: {names} has changed, so the update is recorded anew")
        if record is None and len(self.records) == RECORDS:
            self._give_up(f"its arguments had more than {RECORDS} values; give numbers that change as tensors")
            return self.update(agents, batch, cfg, *more, **named)
        if record is None:
            return self._first(key, agents, batch, cfg, leaves, list(named))
        record.calls += 1
        if record.calls in TESTED:
            return self._both_ways(record, agents, tensors, lambda: self.update(agents, batch, cfg, *more, **named))
        return record.run(tensors)

    def _first(self, key: Any, agents: Any, batch: Any, cfg: Any, leaves: list[Any], names: list[str]) -> Diagnostics:
        """Run the update as written; record it from the same state, and see that the record gives the same."""
        own = [_twin(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        batch, more = type(batch)(*own[: len(batch)]), own[len(batch) : len(own) - len(names)]
        named = dict(zip(names, own[len(own) - len(names) :]))
        watch, before = Watch(agents, cfg, self.update, own[len(batch) :]), _copy(agents.tensors())
        had = _grads(agents)
        moving = f"it names {watch.moving}, an iterator, whose next value cannot be known" if watch.moving else ""

        def step() -> Diagnostics:
            return self.update(agents, batch, cfg, *more, **named)

        written, wrong, changed = self._as_written(agents, step)
        if wrong := moving or wrong:
            for leaf, mine in zip(leaves, own):  # the caller's own, of which `mine` is a copy
                if isinstance(mine, Tensor) and storages(mine) & storages(changed):
                    leaf.copy_(mine)
            self._give_up(wrong)
            return written
        if name := watch.changed():
            self._give_up(
                f"it changes {name} in Python. Count outside of update, pass what depends on the count as an argument "
                "(as d3g.py does), and change tensors in place"
            )
            return written
        after, left = _copy(agents.tensors()), _grads(agents)
        _restore(agents, before)
        _set_grads(agents, had)  # a backward() would add to those that it just made
        try:
            replay, out = self.make(step)
        except Unrecordable as error:
            _restore(agents, after)
            _set_grads(agents, left)
            self._give_up(str(error))
            return written
        _restore(agents, before)
        self.records[key] = Record(replay, out, [leaf for leaf in own if isinstance(leaf, Tensor)], watch, cfg)
        replay()
        written = self._compared(agents, self.records[key], after, written)
        if self.plain is not None:
            _set_grads(agents, left)
        return written

    def _both_ways(
        self, record: "Record", agents: Any, tensors: list[Tensor], step: Callable[[], Diagnostics]
    ) -> Diagnostics:
        before = _copy(agents.tensors())
        written, wrong, _ = self._as_written(agents, step)
        if names := record.watch.changed():
            wrong = f"it changes {names} in Python"
        if wrong:
            self._give_up(wrong)
            return written
        after = _copy(agents.tensors())
        _restore(agents, before)
        record.run(tensors)
        return self._compared(agents, record, after, written)

    def _as_written(self, agents: Any, step: Callable[[], Diagnostics]) -> tuple[Diagnostics, str, list[Tensor]]:
        """A copy of what step() returns; what it did beside that cannot be replayed; the tensors among that."""
        before, guard = self.others(), Guard([*agents.tensors().values(), *agents.scratch()])

        def guarded() -> Diagnostics:
            with guard:
                return step()

        written = _copy(_drawing_nothing(guarded))
        wrong = [f"it changes {name}, which does not hang on Agents" for name, kept in self.others().items()
                 if kept != before[name]]  # fmt: skip
        if guard.changed:
            shape = tuple(guard.changed[0].shape)
            wrong += [f"it changes a tensor {shape} in place that does not hang on Agents"]
        if guard.read:
            wrong += [f"it reads numbers out of a tensor ({guard.read})"]
        return written, wrong[0] if wrong else "", guard.changed

    def _compared(self, agents: Any, record: "Record", after: dict[str, Tensor], written: Diagnostics) -> Diagnostics:
        """The diagnostics of both. Where they differ: of the update as written, and from then on there is no record."""
        pairs = [(name, tensor, after[name]) for name, tensor in agents.tensors().items()]
        pairs += [(name, record.out[name], written[name]) for name in written]
        names = [name for name, a, b in pairs if not self._same(a.detach(), b.detach())]
        if not names:
            return written
        _restore(agents, after)
        self._give_up(
            f"a replay gives a different {', '.join(names[:3])}{', ...' * (len(names) > 3)}; it may read or change "
            "something in Python that is not looked at"
        )
        return written

    def _same(self, a: Tensor, b: Tensor) -> bool:
        if not self.exact:
            return torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())  # whatever a NaN's bits are

    def _give_up(self, reason: str) -> None:
        if self.required:
            raise Refused(f"--record on: update {self.calls} cannot be recorded: {reason}")
        self.say(f"update {self.calls}: from here on the update runs as written, not recorded: {reason}")
        self.records.clear()
        self.plain = Plain(self.update)


class Record:
    """One recorded update: what repeats it, and the memory that it reads from and writes to."""

    def __init__(self, replay: Callable[[], None], out: Diagnostics, inputs: list[Tensor], watch: Watch, cfg: Any):
        self.replay, self.out, self.inputs, self.watch, self.cfg = replay, out, inputs, watch, cfg
        self.calls = 1

    def run(self, inputs: list[Tensor]) -> Diagnostics:
        """A copy of its result, as the next run writes to the same memory."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            mine.copy_(new)
        self.replay()
        return {name: value.clone() for name, value in self.out.items()}


def _drawing_nothing(step: Callable[[], Diagnostics]) -> Diagnostics:
    """What step() returns. Raises Refused where it draws from a global generator, or returns no diagnostics."""
    before = _generators()
    out = step()
    for name, a, b in zip(("torch", "numpy", "random"), before, _generators()):
        if a != b:
            raise Refused(
                f"update draws from {name}'s global generator, which no checkpoint holds: one process, two ranks and a "
                "resumed run would all differ. Draw per seed, Streams(run.seeds, 'update'), and pass it as an argument"
            )
    if not isinstance(out, dict) or (bad := [name for name, value in out.items() if not isinstance(value, Tensor)]):
        found = f"{bad[0]!r} as a {type(out[bad[0]]).__name__}" if isinstance(out, dict) else f"a {type(out).__name__}"
        raise Refused(f"update returns {found}: must be a dict of diagnostics by name, each a tensor (S, N)")
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


def _grads(agents: Any) -> dict[str, Tensor | None]:
    return {name: tensor.grad for name, tensor in agents.tensors().items() if tensor.is_leaf}


def _set_grads(agents: Any, kept: dict[str, Tensor | None]) -> None:
    tensors = agents.tensors()
    for name, grad in kept.items():
        tensors[name].grad = grad


def _restore(agents: Any, kept: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in agents.tensors().items():
            tensor.detach().copy_(kept[name])
