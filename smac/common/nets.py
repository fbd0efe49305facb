"""Stacks of recurrent networks: S seeds times N agents, each its own weights, unrolled together.

Speed comes from three choices. What does not depend on the step before is one product over all steps, so that only
h W_hh stands in the loop over time. The loop is one autograd node with a backward pass of its own. And a batch is
sorted by length: a step computes the episodes that still run and no others.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.nets import Net
from common.seeding import Streams

ALIGN = 16  # floats: every matrix starts on a cache line, as BLAS may round differently off it


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

    def __call__(self, x: Tensor, running: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states (S, N, B, T, H) and values (S, N, B, T, A) of whole episodes x (S, N, B, T, I).

        The hidden state is zero at the start. running[t]: how many rows, counted from the first, still run at time t;
        it never grows. What comes out for others means nothing.
        """
        p, (S, N, B, T, _) = self.parts(self.flat), x.shape
        rows = x.transpose(2, 3).reshape(S * N, T * B, -1)  # a step's episodes lie side by side
        features = torch.relu(_linear(rows, p["first.weight"], p["first.bias"]))
        gates = _linear(features, p["gru.weight_ih"], p["gru.bias_ih"]).unflatten(1, (T, B))
        h = _Unroll.apply(gates, p["gru.weight_hh"], p["gru.bias_hh"], tuple(running or [B] * T))
        q = _linear(h.flatten(1, 2), p["last.weight"], p["last.bias"])
        return (
            h.unflatten(0, (S, N)).transpose(2, 3),
            q.unflatten(1, (T, B)).unflatten(0, (S, N)).transpose(2, 3),
        )

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden states (S, N, B, H) and values (S, N, B, A), of x (S, N, B, I) and the last h."""
        p, hidden = self.parts(self.flat), h.flatten(0, 1)
        features = torch.relu(_linear(x.flatten(0, 1), p["first.weight"], p["first.bias"]))
        gates = _linear(features, p["gru.weight_ih"], p["gru.bias_ih"])
        _, z, n, _ = _cell(gates, hidden, p["gru.weight_hh"], p["gru.bias_hh"])
        hidden = n + z * (hidden - n)
        q = _linear(hidden, p["last.weight"], p["last.bias"])
        return hidden.unflatten(0, h.shape[:2]), q.unflatten(0, h.shape[:2])

    def head(self, h: Tensor) -> Tensor:
        """The values (S, N, M, A) of hidden states (S, N, M, H)."""
        p = self.parts(self.flat)
        return _linear(h.flatten(0, 1), p["last.weight"], p["last.bias"]).unflatten(0, h.shape[:2])

    def named(self, row: int) -> dict[str, np.ndarray]:
        """One seed's parameters (N, ...) by the names of `parts`."""
        parts = self.parts(self.flat.detach()[row : row + 1])
        return {name: np.ascontiguousarray(part.cpu().numpy()) for name, part in parts.items()}


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
    return [-(-int(np.prod(shape)) // ALIGN) * ALIGN for shape in shapes.values()]


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(G, rows, in) -> (G, rows, out)."""
    return torch.baddbmm(bias[:, None], x, weight.mT)


def _cell(gates: Tensor, h: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """r, z, n of a GRU cell and the hidden part of n: h' = n + z (h - n). gates (G, B, 3H) = W_ih x + b_ih."""
    H = h.shape[-1]
    own = _linear(h, weight, bias)
    r, z = torch.sigmoid(gates[..., : 2 * H] + own[..., : 2 * H]).split(H, -1)
    pulled = own[..., 2 * H :]
    return r, z, torch.tanh(torch.addcmul(gates[..., 2 * H :], r, pulled)), pulled


class _Unroll(torch.autograd.Function):
    """h_t = GRU(gates_t, h_{t-1}) from h = 0: gates (G, T, B, 3H) -> (G, T, B, H)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, running: tuple[int, ...]) -> Tensor:  # pyright: ignore
        G, T, B, H = *gates.shape[:3], gates.shape[3] // 3
        keep = any(ctx.needs_input_grad)
        hs = gates.new_zeros(G, T + 1, B, H)
        kept = gates.new_zeros(4, G, T, B, H) if keep else gates.new_empty(0)
        for t, n_rows in enumerate(running):
            h = hs[:, t, :n_rows]
            r, z, n, pulled = _cell(gates[:, t, :n_rows], h, weight, bias)
            torch.addcmul(n, z, h - n, out=hs[:, t + 1, :n_rows])
            if keep:
                for k, part in enumerate((r, z, n, pulled)):
                    kept[k, :, t, :n_rows] = part
        ctx.running = running
        ctx.save_for_backward(hs, kept, weight)
        return hs[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore
        hs, kept, weight = ctx.saved_tensors
        (r, z, n, pulled), before = kept, hs[:, :-1]
        G, T, B, H = before.shape
        # what multiplies dh on its way into the gates, for all steps at once
        to_z, to_n, to_r = (before - n) * z * (1 - z), (1 - z) * (1 - n * n), pulled * r * (1 - r)
        d_gates, d_own = grad.new_zeros(G, T, B, 3 * H), grad.new_zeros(G, T, B, 3 * H)
        dh = grad.new_zeros(G, B, H)
        for t in reversed(range(T)):
            m = ctx.running[t]
            d, out, own = dh[:, :m], d_gates[:, t, :m], d_own[:, t, :m]
            d += grad[:, t, :m]
            d_n = torch.mul(d, to_n[:, t, :m], out=out[..., 2 * H :])
            torch.mul(d_n, to_r[:, t, :m], out=out[..., :H])
            torch.mul(d, to_z[:, t, :m], out=out[..., H : 2 * H])
            own[..., : 2 * H] = out[..., : 2 * H]
            torch.mul(d_n, r[:, t, :m], out=own[..., 2 * H :])
            d *= z[:, t, :m]
            d += torch.bmm(own, weight)
        rows = d_own.flatten(1, 2)
        return d_gates, torch.bmm(rows.mT, before.reshape(G, T * B, H)), rows.sum(1), None
