"""Forward and backward passes of a stack of perceptrons, in three forms that agree: compiled, eager, batched.

compiled  one call of the kernels of mlp.cpp for the whole stack: float32 on the CPU, ReLU, first derivatives
eager     PyTorch's products, one (seed, agent) slice after another: a slice's bits do not depend on its neighbours
batched   one batched product a layer, for a GPU

What the compiled form cannot do raises or is computed by another form; it never computes something else.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from common.fast import Refused, packing

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


Layers = Any  # common.nets.MLP, which imports this module


def evaluate(net: Layers, x: Tensor) -> Tensor:
    """The stack's output (S, N, B, O) for x (S, N, B, I). Raises ValueError where x does not fit it."""
    S, N, _ = net.flat.shape
    shape = x.shape
    if (
        len(shape) != 4
        or shape[0] != S
        or shape[1] != N
        or shape[3] != net.sizes[0]
        or x.dtype != net.flat.dtype
        or x.device != net.flat.device
    ):
        raise ValueError(
            f"network {net.name or '?'}: input {_describe(x)}; it takes (S, N, B, I) = ({S}, {N}, B, {net.sizes[0]}) "
            f"{net.flat.dtype} on {net.flat.device}"
        )
    _check_address(net)
    if net.activation != "relu" or net.layer_norm:
        return _plain(net, x.flatten(0, 1)).unflatten(0, (S, N))
    if torch.is_grad_enabled():
        return _Evaluate.apply(x, net.flat, net)
    return _forward(net, x.flatten(0, 1))[0].unflatten(0, (S, N))


class _Evaluate(torch.autograd.Function):
    """A stack's forward and backward pass; backward computes only what is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: Layers) -> Tensor:  # pyright: ignore
        out, ctx.hidden = _forward(net, x.flatten(0, 1), keep=True)
        ctx.net = net
        ctx.save_for_backward(x, flat)  # also the weights, for PyTorch to refuse a way back through changed ones
        return out.unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore
        net, (x, _) = ctx.net, ctx.saved_tensors
        need_x, need_flat, _ = ctx.needs_input_grad
        native = compiled(net)
        if torch.is_grad_enabled():  # create_graph=True: the gradient itself is to be differentiated
            if native:
                raise Refused(
                    f"network {net.name or '?'}: the compiled kernels have no second derivatives "
                    "(create_graph=True, as a gradient penalty needs): give --compile off"
                )
            return (*_differentiable(net, x, grad, need_x, need_flat), None)
        hidden = ctx.hidden
        if native:
            ctx.hidden = None
        if hidden is None:
            raise Refused(
                f"network {net.name or '?'}: the compiled kernels pass back once, as the next pass reuses the memory "
                "of the activations: evaluate the network once for each backward pass, or give --compile off"
            )
        grads = None
        if need_flat:  # the buffer lent serves once: a network evaluated twice in one loss has two gradients to add
            grads, net.grads = net.grads or net.like(torch.zeros_like(net.flat)), None
        grad_x = _backward(net, x.flatten(0, 1), hidden, grad.flatten(0, 1), grads, need_x)
        return None if grad_x is None else grad_x.view(x.shape), None if grads is None else grads.flat, None


def compiled(net: Layers) -> bool:
    """Whether the kernels compute this network, of whatever kind."""
    return net.kernels is not None and net.flat.dtype == torch.float32 and net.flat.device.type == "cpu"


def _forward(net: Layers, x: Tensor, keep: bool = False) -> tuple[Tensor, Any]:
    """The output (S*N, B, O) for x (S*N, B, I), and if asked the hidden layers' activations, for `_backward`."""
    if x.is_cuda:
        return _forward_batched(net, x)
    if not compiled(net):
        return _forward_eager(net, x)
    kernels = net.kernels
    check_memory(net)
    x = x if x.stride(2) == 1 else x.contiguous()
    n, batch, _ = x.shape
    out = x.new_empty(n, batch, net.sizes[-1])
    hidden = None
    if keep:
        size = n * batch * sum(net.sizes[1:-1])
        spare = kernels.spare.get(size)
        hidden = spare.pop() if spare else x.new_empty(size)
    kept = 0 if hidden is None else hidden.data_ptr()
    kernels.forward(net.stack, batch, x.data_ptr(), x.stride(0), x.stride(1), kept, out.data_ptr())
    return out, hidden


def act(net: Layers, x: np.ndarray) -> np.ndarray | None:
    """The stack's output (S, N, O) for one input of each network (S, N, I); None where no kernels do it.

    Sums are in another order than in the passes, so that the last bits differ.
    """
    if not compiled(net) or net.activation != "relu" or net.layer_norm:
        return None
    S, N, _ = net.flat.shape
    if x.shape != (S, N, net.sizes[0]) or x.dtype != np.float32:
        raise ValueError(
            f"network {net.name or '?'}: input {x.shape} {x.dtype}; it takes (S, N, I) = ({S}, {N}, {net.sizes[0]}) "
            "float32"
        )
    check_memory(net)
    x, out = np.ascontiguousarray(x), np.empty((S, N, net.sizes[-1]), np.float32)
    net.kernels.act(net.stack, x.ctypes.data, out.ctypes.data)
    return out


def _check_address(net: Layers) -> None:
    """Refuse a stack whose `flat` is another tensor: its layers are views of the old one, which kernels know."""
    if net.flat.data_ptr() != net.stack.flat:
        raise ValueError(f"network {net.name or '?'}: its parameters were moved in memory; copy into `flat` instead")


def check_memory(net: Layers) -> None:
    """Refuse what the kernels, which know a stack by its address alone, would not see."""
    _check_address(net)
    if forward_ad._current_level >= 0:
        raise Refused(
            f"network {net.name or '?'}: the compiled kernels have no forward-mode derivatives: give --compile off"
        )


def _backward(net: Layers, x: Tensor, hidden: Any, grad: Tensor, grads: Layers | None, need_x: bool) -> Tensor | None:
    """Write the parameters' gradients to `grads` if given; return x's if needed. `grad` is the output's (S*N, B, O)."""
    if x.is_cuda:
        return _backward_batched(net, x, hidden, grad, grads, need_x)
    if not compiled(net):
        return _backward_eager(net, x, hidden, grad, grads, need_x)
    kernels = net.kernels
    check_memory(net)
    x, grad = x if x.stride(2) == 1 else x.contiguous(), grad.contiguous()
    assert grad.shape == (*x.shape[:2], net.sizes[-1]) and grad.dtype == x.dtype
    assert hidden.numel() == x.shape[0] * x.shape[1] * sum(net.sizes[1:-1])
    grad_x = x.new_empty(x.shape) if need_x else None
    to_grads = 0 if grads is None else grads.flat.data_ptr()
    to_x = 0 if grad_x is None else grad_x.data_ptr()
    kept, start = hidden.data_ptr(), grad.data_ptr()
    if grads is not None and not x.shape[1]:
        grads.flat.zero_()  # of no rows the kernels write nothing
    kernels.backward(net.stack, x.shape[1], x.data_ptr(), x.stride(0), x.stride(1), kept, start, to_grads, to_x)
    kernels.keep(hidden)
    return grad_x


def _forward_eager(net: Layers, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The same in PyTorch, one slice after another."""
    outs, hidden = [], []
    for i, h in enumerate(x.unbind(0)):
        kept, parts = [], net.slice(i)
        for weight, bias in parts[:-1]:
            h = torch.addmm(bias, h, weight.t()).relu_()
            kept.append(h)
        weight, bias = parts[-1]
        outs.append(torch.addmm(bias, h, weight.t()))
        hidden.append(kept)
    return torch.stack(outs), hidden


def _backward_eager(
    net: Layers, x: Tensor, hidden: list[Any], grad: Tensor, grads: Layers | None, need_x: bool
) -> Tensor | None:
    """The same in PyTorch, one slice after another."""
    grad_x = torch.empty_like(x) if need_x else None
    for i, (first, g) in enumerate(zip(x.unbind(0), grad.unbind(0), strict=True)):
        inputs, parts = [first, *hidden[i]], net.slice(i)
        for k in reversed(range(len(parts))):
            h, weight = inputs[k], parts[k][0]
            if grads is not None:
                grad_weight, grad_bias = grads.slice(i)[k]
                torch.mm(g.t(), h, out=grad_weight)
                torch.sum(g, 0, out=grad_bias)
            if k > 0:
                g = torch.ops.aten.threshold_backward(g @ weight, h, 0)
            elif grad_x is not None:
                grad_x[i] = g @ weight  # not out=: BLAS may round differently off a cache line
    return grad_x


def _forward_batched(net: Layers, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The same for a GPU: one batched product a layer."""
    inputs = [x]
    for weight, bias in zip(net.weights, net.biases, strict=True):
        inputs.append(torch.baddbmm(bias.flatten(0, 1)[:, None], inputs[-1], weight.flatten(0, 1).mT))
        if len(inputs) <= len(net.weights):
            inputs[-1].relu_()
    return inputs[-1], inputs[1:-1]


def _backward_batched(
    net: Layers, x: Tensor, hidden: list[Any], grad: Tensor, grads: Layers | None, need_x: bool
) -> Tensor | None:
    """The same for a GPU: one batched product a layer and purpose."""
    inputs = [x, *hidden]
    for k in reversed(range(len(inputs))):
        if grads is not None:
            grads.weights[k].flatten(0, 1).copy_(torch.bmm(grad.mT, inputs[k]))
            grads.biases[k].flatten(0, 1).copy_(grad.sum(1))
        if k == 0 and not need_x:
            return None
        grad = torch.bmm(grad, net.weights[k].flatten(0, 1))
        if k > 0:
            grad = torch.ops.aten.threshold_backward(grad, inputs[k], 0)
    return grad


def _differentiable(
    net: Layers, x: Tensor, grad: Tensor, need_x: bool, need_flat: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the parameters as functions that can be differentiated again."""
    with torch.enable_grad():
        out = _plain(net, x.flatten(0, 1)).unflatten(0, x.shape[:2])
        wanted = [part for part, need in ((x, need_x), (net.flat, need_flat)) if need]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return next(found) if need_x else None, next(found) if need_flat else None


def _plain(net: Layers, x: Tensor) -> Tensor:
    """Any activation, with or without layer norm, by operations that autograd knows: (S*N, B, I) -> (S*N, B, O)."""
    flat = net.flat.flatten(0, 1)
    if x.is_cuda:
        return _run(net, x, packing.layers(net.sizes, flat, net.layer_norm))
    parts = (packing.layers(net.sizes, row[None], net.layer_norm) for row in flat.unbind(0))
    return torch.cat([_run(net, h[None], part) for h, part in zip(x.unbind(0), parts, strict=True)])


def _run(net: Layers, h: Tensor, parts: tuple[list[Tensor], ...]) -> Tensor:
    """w_l ... act(norm(w_0 h + b_0)) ... + b_l over G slices: (G, B, I) -> (G, B, O). Ba et al. 2016 for the norm."""
    weights, biases, scales, shifts = parts
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = torch.baddbmm(bias[:, None], h, weight.mT)
        if k == len(weights) - 1:
            return h
        if net.layer_norm:
            h = torch.nn.functional.layer_norm(h, h.shape[-1:]) * scales[k][:, None] + shifts[k][:, None]
        h = ACTIVATIONS[net.activation](h)
    raise AssertionError("a stack has a layer")


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {x.dtype} on {x.device}"
