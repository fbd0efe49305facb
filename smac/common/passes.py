"""Forward and backward passes of a stack of recurrent networks over whole episodes, in two forms that agree.

compiled  one call of the kernels of common/fast/recurrent.cpp for the whole stack: float32 on the CPU
plain     PyTorch's batched products; the loop over time is one autograd node with a backward pass of its own

In both, what does not depend on the step before is one product over all steps, so that only h W_hh stands in the loop;
and rows are those of time 0, then of time 1, ...: running[t] of them, the episodes that still run and no others.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.fast.passes import check_memory, compiled

Network = Any  # smac.common.nets.Recurrent, which imports this module


def unroll(net: Network, x: Tensor, running: Sequence[int], start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states h (G, R, H) and values q (G, R, A) of x (G, R, I), from `start` (G, running[0], H) or from zeros.

    Gradients are for episodes from their beginning: nothing flows to `start`.
    """
    assert sum(running) == x.shape[1], f"{x.shape[1]} rows for {sum(running)} of {len(running)} times"
    start = x.new_zeros(len(x), running[0], net.sizes[1]) if start is None else start.contiguous()
    if compiled(net):
        if torch.is_grad_enabled() and (net.flat.requires_grad or x.requires_grad):
            return _Compiled.apply(x, net.flat, start, net, tuple(running))
        return _forward(net, x, running, start, keep=False)[:2]
    p = net.parts(net.flat)
    gates = linear(torch.relu(linear(x, p["first.weight"], p["first.bias"])), p["gru.weight_ih"], p["gru.bias_ih"])
    h = _Plain.apply(tuple(running), gates, start, p["gru.weight_hh"], p["gru.bias_hh"])
    return h, linear(h, p["last.weight"], p["last.bias"])


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(G, rows, in) -> (G, rows, out)."""
    return torch.baddbmm(bias[:, None], x, weight.mT)


class _Compiled(torch.autograd.Function):
    """h and q of whole episodes."""

    @staticmethod
    def forward(  # pyright: ignore
        ctx: Any, x: Tensor, flat: Tensor, start: Tensor, net: Network, running: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        h, q, *kept = _forward(net, x, running, start, keep=True)
        ctx.net, ctx.running = net, running
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, start, *kept, h, flat)  # the weights for PyTorch to see that none has changed
        return h, q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor | None, grad_q: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore
        net, (x, *kept, _) = ctx.net, ctx.saved_tensors
        grads, net.grads = net.grads or net.like(torch.zeros_like(net.flat)), None  # the buffer lent serves once
        grad_x = x.new_empty(x.shape) if ctx.needs_input_grad[0] else None
        told = [None if part is None else part.contiguous() for part in (grad_h, grad_q)]
        _call(net.kernels.recurrent_backward, net, x, ctx.running, *kept, *told, grads.flat, grad_x)
        return grad_x, grads.flat, None, None, None


def _forward(
    net: Network, x: Tensor, running: Sequence[int], start: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """h, q and, if asked, what the way back needs: the first layer's activations, and the cells' r, z, n and W_hh h."""
    (G, R, _), (_, H, A) = x.shape, net.sizes
    h, q = x.new_empty(G, R, H), x.new_empty(G, R, A)
    hidden, cells = (x.new_empty(G, R, H), x.new_empty(G, R, 4 * H)) if keep else (None, None)
    _call(net.kernels.recurrent_forward, net, x, running, start, hidden, cells, h, q)
    return h, q, hidden, cells


def _call(kernel: Any, net: Network, x: Tensor, running: Sequence[int], *parts: Tensor | None) -> None:
    """A pass of the kernels; `parts` are what it reads and writes beside x, None what is not there or not asked for."""
    check_memory(net)
    x = x if x.stride(2) == 1 else x.contiguous()
    times = (ctypes.c_long * len(running))(*running)
    kernel(net.stack, len(running), times, x.data_ptr(), x.stride(0), x.stride(1), *map(_address, parts))


def _address(part: Tensor | None) -> int:
    return 0 if part is None else part.data_ptr()


class _Plain(torch.autograd.Function):
    """h_t = GRU(gates_t, h_{t-1}) from h = start: (G, R, H). Gates, W_ih x + b_ih, are (G, R, 3H)."""

    @staticmethod
    def forward(  # pyright: ignore
        ctx: Any, running: tuple[int, ...], gates: Tensor, start: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        ctx.running, H, h = running, weight.shape[-1], start
        across = weight.mT.contiguous()  # as the small products of the loop are fastest
        own, rz, n, hs = (gates.new_empty(*gates.shape[:2], k * H) for k in (3, 2, 1, 1))
        for at in zip(*(part.split(running, 1) for part in (gates, own, rz, n, hs)), strict=True):
            _cell(at[0], h[:, : at[0].shape[1]], across, bias, *at[1:])
            h = at[-1]
        ctx.save_for_backward(own, rz, n, hs, start, weight)
        return hs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        own, rz, n, hs, start, weight = ctx.saved_tensors
        running, G, R, H = ctx.running, *n.shape
        r, z, ends = rz[..., :H], rz[..., H:], hs.split(running, 1)
        before = torch.cat([start, *(h[:, :m] for h, m in zip(ends, running[1:]))], 1)
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
        return None, d_gates, None, torch.bmm(d_own.mT, before), d_own.sum(1)


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
