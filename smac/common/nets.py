"""Stacks of recurrent networks: S seeds times N agents, each its own weights, unrolled together.

Speed comes from three choices. What does not depend on the step before is one product over all steps, so that only
h W_hh stands in the loop over time. The loop is one autograd node with a backward pass of its own. And a batch is
sorted by length: a step computes the episodes that still run and no others.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.fast import packing
from common.nets import Net
from common.seeding import Streams


class Recurrent(Net):
    """S * N networks: linear and ReLU, a GRU cell (Cho et al. 2014, PyTorch's form), a linear layer of A values.

    `sizes` is (I, H, A). `flat` (S, N, P) holds the parameters in the order and orientation of torch.nn.Linear and
    torch.nn.GRUCell; see `parts`.
    """

    def __init__(self, sizes: Sequence[int], flat: Tensor):
        super().__init__(flat)
        self.sizes = tuple(sizes)
        assert flat.shape[-1] == sum(_lengths(_shapes(sizes))) and flat.is_contiguous(), "flat is no such stack"

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
        return Recurrent(self.sizes, flat)

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
        p, before = self.parts(self.flat), h.flatten(0, 1)
        gates = _gates(x.flatten(0, 1), p)
        own, rz, n, after = (gates.new_empty(*before.shape[:2], k * self.sizes[1]) for k in (3, 2, 1, 1))
        _cell(gates, before, p["gru.weight_hh"].mT, p["gru.bias_hh"], own, rz, n, after)
        q = _linear(after, p["last.weight"], p["last.bias"])
        return after.unflatten(0, h.shape[:2]), q.unflatten(0, h.shape[:2])

    def head(self, h: Tensor) -> Tensor:
        """The values (S, N, M, A) of hidden states (S, N, M, H)."""
        p = self.parts(self.flat)
        return _linear(h.flatten(0, 1), p["last.weight"], p["last.bias"]).unflatten(0, h.shape[:2])

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
    assert sum(running) == rows.shape[1], f"{rows.shape[1]} rows for {sum(running)} of {len(running)} times"
    p, p_targ = net.parts(net.flat), target.parts(target.flat.detach())
    cells = [part for name in ("gru.weight_hh", "gru.bias_hh") for part in (p[name], p_targ[name])]
    hs = _Unroll.apply(tuple(running), _gates(rows, p), _gates(rows, p_targ), *cells)
    h, h_targ = hs[: len(rows)], hs[len(rows) :].detach()
    q, q_targ = (_linear(part, named["last.weight"], named["last.bias"]) for part, named in ((h, p), (h_targ, p_targ)))
    return tuple(part.unflatten(0, x.shape[:2]) for part in (h, q, h_targ, q_targ))


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


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(G, rows, in) -> (G, rows, out)."""
    return torch.baddbmm(bias[:, None], x, weight.mT)


def _gates(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    """What does not depend on the step before, W_ih relu(W x + b) + b_ih: (G, rows, 3H)."""
    return _linear(torch.relu(_linear(x, p["first.weight"], p["first.bias"])), p["gru.weight_ih"], p["gru.bias_ih"])


def _cell(
    gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor, own: Tensor, rz: Tensor, n: Tensor, after: Tensor
) -> None:
    """One step of a GRU: from gates (G, B, 3H) = W_ih x + b_ih, h, and W_hh as (G, H, 3H) it writes what follows.

    own = W_hh h + b_hh (3H), r and z = sigmoid(gates + own) (2H), n = tanh(gates + r own) (H), h' = n + z (h - n) (H).
    """
    H = h.shape[-1]
    torch.baddbmm(bias[:, None], h, weight, out=own)
    torch.add(gates[..., : 2 * H], own[..., : 2 * H], out=rz).sigmoid_()
    torch.addcmul(gates[..., 2 * H :], rz[..., :H], own[..., 2 * H :], out=n).tanh_()
    torch.lerp(n, h, rz[..., H:], out=after)


class _Unroll(torch.autograd.Function):
    """h_t = GRU(gates_t, h_{t-1}) from h = 0 of networks and their targets, side by side: (2G, R, H).

    Gates are (G, R, 3H), in rows as `unroll` takes them. Gradients are those of the first G alone.
    """

    @staticmethod
    def forward(  # pyright: ignore
        ctx: Any,
        running: tuple[int, ...],
        gates: Tensor,
        gates_targ: Tensor,
        weight: Tensor,
        weight_targ: Tensor,
        bias: Tensor,
        bias_targ: Tensor,
    ) -> Tensor:
        ctx.running, G, H = running, len(gates), weight.shape[-1]
        gates = torch.cat([gates, gates_targ])
        both = torch.cat([weight, weight_targ]).mT.contiguous()  # as the small products of the loop are fastest
        bias = torch.cat([bias, bias_targ])
        own, rz, n, hs = (gates.new_empty(*gates.shape[:2], k * H) for k in (3, 2, 1, 1))
        h = gates.new_zeros(2 * G, running[0], H)
        for at in zip(*(part.split(running, 1) for part in (gates, own, rz, n, hs)), strict=True):
            _cell(at[0], h[:, : at[0].shape[1]], both, bias, *at[1:])
            h = at[-1]
        ctx.save_for_backward(own[:G], rz[:G], n[:G], hs, weight)
        return hs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        own, rz, n, hs, weight = ctx.saved_tensors
        running, G, R, H = ctx.running, *n.shape
        hs, grad = hs[:G], grad[:G]
        r, z, ends = rz[..., :H], rz[..., H:], hs.split(running, 1)
        starts = [hs.new_zeros(G, running[0], H), *(h[:, :m] for h, m in zip(ends, running[1:]))]
        before = torch.cat(starts, 1)
        # what multiplies dh on its way into the gates, for all steps at once
        to_n = (1 - z) * (1 - n * n)
        to_z, to_r = (before - n) * z * (1 - z), own[..., 2 * H :] * r * (1 - r)
        d_all = hs.new_empty(G, R, 4 * H)  # of r, z, and of n by way of h and of x
        parts = [part.split(running, 1) for part in (grad, z, r, to_n, to_z, to_r, d_all)]
        dh = hs.new_zeros(G, running[0], H)
        for m, d_h, z, r, to_n, to_z, to_r, d in zip(running[::-1], *(part[::-1] for part in parts), strict=True):
            here = dh[:, :m].add_(d_h)
            d_n = torch.mul(here, to_n, out=d[..., 3 * H :])
            torch.mul(d_n, to_r, out=d[..., :H])
            torch.mul(here, to_z, out=d[..., H : 2 * H])
            torch.mul(d_n, r, out=d[..., 2 * H : 3 * H])
            here.mul_(z).add_(torch.bmm(d[..., : 3 * H], weight))
        d_own = d_all[..., : 3 * H]
        d_gates = torch.cat([d_all[..., : 2 * H], d_all[..., 3 * H :]], -1)
        return None, d_gates, None, torch.bmm(d_own.mT, before), None, d_own.sum(1), None
