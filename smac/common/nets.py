"""Stacks of recurrent networks: S seeds times N agents, each its own weights, unrolled together."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.fast import packing
from common.fast.kernels import RecurrentStack
from common.nets import Net
from common.seeding import Streams
from smac.common import passes


class Recurrent(Net):
    """S * N networks: linear and ReLU, a GRU cell (Cho et al. 2014, PyTorch's form), a linear layer of A values.

    `sizes` is (I, H, A). `flat` (S, N, P) holds the parameters in the order and orientation of torch.nn.Linear and
    torch.nn.GRUCell; see `parts`.
    """

    def __init__(self, sizes: Sequence[int], flat: Tensor):
        super().__init__(flat)
        self.sizes = tuple(sizes)
        assert flat.shape[-1] == sum(_lengths(_shapes(sizes))) and flat.is_contiguous(), "flat is no such stack"
        self.stack = RecurrentStack(math.prod(flat.shape[:2]), *self.sizes, flat.data_ptr(), flat.shape[-1])

    @classmethod
    def create(
        cls, sizes: Sequence[int], streams: Streams, n_in: np.ndarray, device: torch.device | str
    ) -> "Recurrent":
        """Weights and biases start as PyTorch's do: uniform within 1 / sqrt(fan_in), for the first layer n_in (N,)."""
        shapes, H = _shapes(sizes), sizes[1]
        flat = torch.zeros(len(streams.rngs), len(n_in), sum(_lengths(shapes)))
        for name, part in cls(sizes, flat).parts(flat).items():
            fan_in = n_in if name.startswith("first") else np.full(len(n_in), H)
            fill(part.unflatten(0, flat.shape[:2]), fan_in, streams)
        return cls(sizes, flat.to(device).requires_grad_())

    def like(self, flat: Tensor) -> "Recurrent":
        net = Recurrent(self.sizes, flat)
        net.kernels = self.kernels
        return net

    def parts(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of the weights (G, out, in) and biases (G, out) by name, G = S * N."""
        shapes = _shapes(self.sizes)
        pieces = flat.flatten(0, 1).split(_lengths(shapes), -1)
        return {
            name: piece[:, : int(np.prod(shape))].unflatten(-1, shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }

    @torch.no_grad()
    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden states (S, N, B, H) and values (S, N, B, A), of x (S, N, B, I) and the last h."""
        h, q = passes.unroll(self, x.flatten(0, 1), (x.shape[2],), h.flatten(0, 1))
        return h.unflatten(0, x.shape[:2]), q.unflatten(0, x.shape[:2])

    def head(self, h: Tensor) -> Tensor:
        """The values (S, N, M, A) of hidden states (S, N, M, H)."""
        p = self.parts(self.flat)
        return passes.linear(h.flatten(0, 1), p["last.weight"], p["last.bias"]).unflatten(0, h.shape[:2])

    def named(self, row: int) -> dict[str, np.ndarray]:
        """One seed's parameters (N, ...) by the names of `parts`."""
        parts = self.parts(self.flat.detach()[row : row + 1])
        return {name: np.ascontiguousarray(part.cpu().numpy()) for name, part in parts.items()}


def unroll(x: Tensor, running: Sequence[int], net: Recurrent, target: Recurrent) -> tuple[Tensor, ...]:
    """Hidden states h (S, N, R, H) and values q (S, N, R, A) of whole episodes x (S, N, R, I).

    h and q of `net` come first, then those of `target`, which takes no gradient. Rows are those of time 0, then of time
    1, ...: running[t] of them at time t, which never grows. Row k of a time goes on from row k of the time before; at
    the start the hidden state is zero.
    """
    rows = x.flatten(0, 1)
    with torch.no_grad():
        aside = passes.unroll(target, rows, running)
    return tuple(part.unflatten(0, x.shape[:2]) for part in (*passes.unroll(net, rows, running), *aside))


def fill(part: Tensor, fan_in: np.ndarray, streams: Streams) -> None:
    """Draw part (S, N, ...) uniformly within 1 / sqrt(fan_in), which is (N,)."""
    limit = 1 / np.sqrt(fan_in).reshape(-1, *[1] * (part.ndim - 2))
    part.copy_(torch.from_numpy((streams.uniform(*part.shape[1:]) * limit).astype(np.float32)))


def _shapes(sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    I, H, A = sizes
    return {
        "first.weight": (H, I),
        "first.bias": (H,),
        "gru.weight_ih": (3 * H, H),
        "gru.bias_ih": (3 * H,),
        "gru.weight_hh": (3 * H, H),
        "gru.bias_hh": (3 * H,),
        "last.weight": (A, H),
        "last.bias": (A,),
    }


def _lengths(shapes: dict[str, tuple[int, ...]]) -> list[int]:
    return [packing.padded(math.prod(shape)) for shape in shapes.values()]
