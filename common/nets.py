"""Stacks of small networks: S seeds times N agents, each its own weights, all evaluated by one call.

Speed comes from three choices that the algorithm files need not know of. One autograd node spans a whole stack of
networks, so autograd is entered once per stack and not once per layer. All parameters of a role lie in one flat buffer,
so Adam and polyak averaging are one call each. And a stack's forward and backward pass have three forms: on the CPU one
call of the kernels of mlp.cpp where they are compiled (`MLP.kernels`), else PyTorch's products, one (seed, agent) slice
after another; on a GPU one batched product a layer. On the CPU a slice's bits do not depend on what stands beside it.
"""

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from common.kernels import Stack
from common.seeding import Streams

ALIGN = 16  # floats: every matrix starts on a cache line, as BLAS may round differently off it


class MLP:
    """S * N perceptrons with ReLU between their linear layers: x (S, N, B, I) -> (S, N, B, O).

    `sizes` is (I, hidden..., O). `flat` (S, N, P) holds every parameter; layer k's weight (S, N, out, in) and bias
    (S, N, out) are views into it, in the orientation of torch.nn.Linear.
    """

    kernels: ClassVar[ctypes.CDLL | None] = None  # what common.kernels.load() returns, to compute with it
    spare: ClassVar[dict[int, list[Tensor]]] = {}  # by size: activations that a backward pass is done with, still in
    # the cache; the next pass writes there, as fresh memory would travel through it

    def __init__(self, sizes: Sequence[int], flat: Tensor):
        self.sizes, self.flat = tuple(sizes), flat
        self.weights, self.biases = _layers(self.sizes, flat.detach())
        self.grads: MLP | None = None  # a stack of gradients to write to, lent by Adam, which takes the result at once
        S, N, length = flat.shape
        sizes_c = (ctypes.c_long * len(sizes))(*sizes)
        self.stack = Stack(S * N, len(sizes) - 1, sizes_c, flat.data_ptr(), length)

    @classmethod
    def glorot(
        cls,
        sizes: Sequence[int],
        streams: Streams,
        n_in: np.ndarray,
        n_out: np.ndarray,
        device: torch.device | str = "cpu",
    ) -> "MLP":
        """Uniform Glorot weights and zero biases, each network with its own fans.

        n_in, n_out: (N,) the dims that agent i really has; sizes are padded to the widest agent. The limit of a layer
        is sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010), as in Keras and in the authors' code.
        """
        n_agents, n_seeds = len(n_in), len(streams.rngs)
        net = cls(sizes, torch.zeros(n_seeds, n_agents, _length(sizes)))
        for k, weight in enumerate(net.weights):
            fan_in = n_in if k == 0 else np.full(n_agents, sizes[k])
            fan_out = n_out if k == len(sizes) - 2 else np.full(n_agents, sizes[k + 1])
            limit = np.sqrt(6 / (fan_in + fan_out))[:, None, None]
            weight.copy_(torch.from_numpy((streams.uniform(*weight.shape[1:]) * limit).astype(np.float32)))
        return cls(sizes, net.flat.to(device).requires_grad_())

    def slice(self, i: int) -> list[tuple[Tensor, Tensor]]:
        """The weight (out, in) and bias (out) of each layer of network i of the S * N."""
        return [(w.flatten(0, 1)[i], b.flatten(0, 1)[i]) for w, b in zip(self.weights, self.biases, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _Evaluate.apply(x, self.flat, self)
        return _forward(self, x.flatten(0, 1))[0].unflatten(0, x.shape[:2])

    @property
    def frozen(self) -> "MLP":
        """The same networks, passing gradients on to their input but taking none themselves."""
        view = object.__new__(MLP)
        view.__dict__ = {**self.__dict__, "flat": self.flat.detach()}
        return view

    def copy(self) -> "MLP":
        """Target networks: equal values, own storage, no gradient."""
        return MLP(self.sizes, self.flat.detach().clone())

    def polyak_(self, online: "MLP", polyak: float) -> None:
        """target <- polyak * target + (1 - polyak) * online."""
        self.flat.lerp_(online.flat.detach(), 1 - polyak)


class Adam:
    """One Adam (Kingma & Ba 2015) per network of a stack, as one call: Adam is elementwise.

    betas .9 and .999, eps 1e-8, as everywhere.
    """

    def __init__(self, net: MLP, lr: float):
        self.net, self.lr = net, lr
        self.grads = MLP(net.sizes, torch.zeros_like(net.flat))
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(net.flat), torch.zeros_like(net.flat)
        self.step = torch.zeros((), dtype=torch.float32, device=net.flat.device)

    def descend(self, loss: Tensor) -> None:
        """One step of every network down its own part of `loss`, a sum over seeds and agents."""
        self.net.grads = self.grads
        (grad,) = torch.autograd.grad(loss, self.net.flat)
        self.net.flat.grad = grad
        self.net.grads = None
        with torch.no_grad():  # the function behind torch.optim.Adam, whose own step takes as long as its arithmetic
            adam(
                [self.net.flat], [grad], [self.exp_avg], [self.exp_avg_sq], [], [self.step], fused=True, amsgrad=False,
                lr=self.lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0, maximize=False,
            )  # fmt: skip

    def state_dict(self, row: int) -> dict[str, Any]:
        return {
            "params": self.net.flat.detach()[row],
            "exp_avg": self.exp_avg[row],
            "exp_avg_sq": self.exp_avg_sq[row],
            "steps": int(self.step),
        }

    def load_state_dict(self, row: int, saved: dict[str, Any]) -> None:
        self.net.flat.detach()[row] = torch.as_tensor(saved["params"])
        self.exp_avg[row] = torch.as_tensor(saved["exp_avg"])
        self.exp_avg_sq[row] = torch.as_tensor(saved["exp_avg_sq"])
        self.step.fill_(saved["steps"])


class Stacks:
    """Base of an algorithm's Agents: saves and restores its attributes that are Adams, or targets (`*_targ`)."""

    def state_dict(self, row: int) -> dict[str, Any]:
        adams = {name: part.state_dict(row) for name, part in vars(self).items() if isinstance(part, Adam)}
        targets = {name: part.flat[row] for name, part in vars(self).items() if name.endswith("_targ")}
        return {**adams, **targets}

    def load_state_dict(self, row: int, state: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            if isinstance(part, Adam):
                part.load_state_dict(row, state[name])
            elif name.endswith("_targ"):
                part.flat[row] = torch.as_tensor(state[name])

    def policy(self, row: int) -> dict[str, np.ndarray]:
        """The policy's weights (N, out, in) and biases (N, out) by layer, for policy.safetensors."""
        net = self.pi_adam.net  # pyright: ignore[reportAttributeAccessIssue]
        named = {f"pi.{k}.weight": weight[row] for k, weight in enumerate(net.weights)}
        named |= {f"pi.{k}.bias": bias[row] for k, bias in enumerate(net.biases)}
        return {name: np.ascontiguousarray(part.cpu().numpy()) for name, part in named.items()}


class Actor:
    """The policy networks for one observation at a time, in numpy: (S, N, O) -> (S, N, A) before any squashing.

    An environment step asks for a batch of one, where a torch call costs more than its arithmetic. On the CPU the
    weights are shared with `net`; from another device `refresh` copies them.
    """

    def __init__(self, net: MLP):
        self.net = net
        self.refresh()

    def refresh(self) -> None:
        """Take over the networks' present weights: to be called after a block of updates."""
        self.weights = [w.cpu().numpy() for w in self.net.weights]
        self.biases = [b.cpu().numpy() for b in self.net.biases]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        x = obs[..., None]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(weight @ x + bias[..., None], 0)
        return (self.weights[-1] @ x)[..., 0] + self.biases[-1]


def _shapes(sizes: Sequence[int]) -> list[tuple[int, int]]:
    return [(n_out, n_in) for n_in, n_out in pairwise(sizes)]


def _padded(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _length(sizes: Sequence[int]) -> int:
    return sum(_padded(n_out * n_in) + _padded(n_out) for n_out, n_in in _shapes(sizes))


def _layers(sizes: Sequence[int], flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Views of each layer's weights (S, N, out, in) and biases (S, N, out)."""
    weights, biases, at = [], [], 0
    for n_out, n_in in _shapes(sizes):
        weights.append(flat[..., at : at + n_out * n_in].unflatten(-1, (n_out, n_in)))
        at += _padded(n_out * n_in)
        biases.append(flat[..., at : at + n_out])
        at += _padded(n_out)
    return weights, biases


class _Evaluate(torch.autograd.Function):
    """A stack's forward and backward pass; backward computes only what is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: MLP) -> Tensor:  # pyright: ignore
        out, ctx.hidden = _forward(net, x.flatten(0, 1), keep=True)
        ctx.net = net
        ctx.save_for_backward(x)
        return out.unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore
        net, (x,) = ctx.net, ctx.saved_tensors
        need_x, need_flat, _ = ctx.needs_input_grad
        hidden, ctx.hidden = ctx.hidden, None
        if hidden is None:
            raise RuntimeError("a stack passes back once: the memory of its activations serves the next pass")
        grads = None
        if need_flat:  # the buffer lent serves once: a network evaluated twice in one loss has two gradients to add
            grads, net.grads = net.grads or MLP(net.sizes, torch.zeros_like(net.flat)), None
        grad_x = _backward(net, x.flatten(0, 1), hidden, grad.flatten(0, 1), grads, need_x)
        return None if grad_x is None else grad_x.view(x.shape), None if grads is None else grads.flat, None


def _forward(net: MLP, x: Tensor, keep: bool = False) -> tuple[Tensor, Any]:
    """The output (S*N, B, O) for x (S*N, B, I), and if asked the hidden layers' activations, for `_backward`."""
    if x.is_cuda:
        return _forward_batched(net, x)
    if MLP.kernels is None or x.dtype != torch.float32:
        return _forward_eager(net, x)
    x = x if x.stride(2) == 1 else x.contiguous()
    n, batch, _ = x.shape
    out = x.new_empty(n, batch, net.sizes[-1])
    hidden = None
    if keep:
        size = n * batch * sum(net.sizes[1:-1])
        spare = MLP.spare.get(size)
        hidden = spare.pop() if spare else x.new_empty(size)
    kept = 0 if hidden is None else hidden.data_ptr()
    MLP.kernels.mlp_forward(net.stack, batch, x.data_ptr(), x.stride(0), x.stride(1), kept, out.data_ptr())
    return out, hidden


def _backward(net: MLP, x: Tensor, hidden: Any, grad: Tensor, grads: MLP | None, need_x: bool) -> Tensor | None:
    """Write the parameters' gradients to `grads` if given; return x's if needed. `grad` is the output's (S*N, B, O)."""
    if x.is_cuda:
        return _backward_batched(net, x, hidden, grad, grads, need_x)
    if MLP.kernels is None or x.dtype != torch.float32:
        return _backward_eager(net, x, hidden, grad, grads, need_x)
    x, grad = x if x.stride(2) == 1 else x.contiguous(), grad.contiguous()
    grad_x = x.new_empty(x.shape) if need_x else None
    to_grads = 0 if grads is None else grads.flat.data_ptr()
    to_x = 0 if grad_x is None else grad_x.data_ptr()
    kept, start = hidden.data_ptr(), grad.data_ptr()
    MLP.kernels.mlp_backward(net.stack, x.shape[1], x.data_ptr(), x.stride(0), x.stride(1), kept, start, to_grads, to_x)
    MLP.spare.setdefault(hidden.numel(), []).append(hidden)
    return grad_x


def _forward_eager(net: MLP, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The same in PyTorch, one slice after another."""
    outs, hidden = [], []
    for i, h in enumerate(x.unbind(0)):
        kept, layers = [], net.slice(i)
        for weight, bias in layers[:-1]:
            h = torch.addmm(bias, h, weight.t()).relu_()
            kept.append(h)
        weight, bias = layers[-1]
        outs.append(torch.addmm(bias, h, weight.t()))
        hidden.append(kept)
    return torch.stack(outs), hidden


def _backward_eager(
    net: MLP, x: Tensor, hidden: list[Any], grad: Tensor, grads: MLP | None, need_x: bool
) -> Tensor | None:
    """The same in PyTorch, one slice after another."""
    grad_x = torch.empty_like(x) if need_x else None
    for i, (first, g) in enumerate(zip(x.unbind(0), grad.unbind(0), strict=True)):
        inputs, layers = [first, *hidden[i]], net.slice(i)
        for k in reversed(range(len(layers))):
            h, weight = inputs[k], layers[k][0]
            if grads is not None:
                grad_weight, grad_bias = grads.slice(i)[k]
                torch.mm(g.t(), h, out=grad_weight)
                torch.sum(g, 0, out=grad_bias)
            if k > 0:
                g = torch.ops.aten.threshold_backward(g @ weight, h, 0)
            elif grad_x is not None:
                grad_x[i] = g @ weight  # not out=: BLAS may round differently off a cache line
    return grad_x


def _forward_batched(net: MLP, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The same for a GPU: one batched product a layer."""
    inputs = [x]
    for weight, bias in zip(net.weights, net.biases, strict=True):
        inputs.append(torch.baddbmm(bias.flatten(0, 1)[:, None], inputs[-1], weight.flatten(0, 1).mT))
        if len(inputs) <= len(net.weights):
            inputs[-1].relu_()
    return inputs[-1], inputs[1:-1]


def _backward_batched(
    net: MLP, x: Tensor, hidden: list[Any], grad: Tensor, grads: MLP | None, need_x: bool
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
