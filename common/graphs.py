"""An update as a CUDA graph: some hundred small kernels, launched as one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.replay import Batch

Update = Callable[[Any, Batch, Any], dict[str, Tensor]]  # (agents, batch, cfg) -> diagnostics, each (S, N)


def graphed(update: Update, device: str) -> Update:
    """The update itself on a CPU; on a GPU, one that is recorded at its first call and then replayed."""
    return update if device == "cpu" else Graphed(update, record)


class Graphed:
    """Replays a recorded update on new batches: the graph reads and writes where it did when it was recorded."""

    def __init__(self, update: Update, record: Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]):
        self.update, self.record = update, record
        self.batch: Batch | None = None

    def __call__(self, agents: Any, batch: Batch, cfg: Any) -> dict[str, Tensor]:
        """Diagnostics that hold until the next call."""
        if self.batch is None:
            own = self.batch = Batch(*(part.clone() for part in batch))
            rows = range(len(batch.rew))
            before = [_copy(agents.state_dict(row)) for row in rows]  # recording trains, on this batch again and again
            self.replay, self.out = self.record(lambda: self.update(agents, own, cfg))
            for row in rows:
                agents.load_state_dict(row, before[row])
        for mine, new in zip(self.batch, batch, strict=True):
            mine.copy_(new)
        self.replay()
        return self.out


def record(step: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
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


def _copy(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _copy(part) for name, part in state.items()}
    return state.clone() if isinstance(state, Tensor) else state
