"""Stacks of small networks: S seeds times N agents, each its own weights, all evaluated by one call.

Speed comes from three choices that the algorithm files need not know of. One autograd node spans a whole network, so
autograd is entered once per network and not once per layer. On the CPU every (seed, agent) slice is its own matrix
product: products of this size are at the core's peak alone, and a slice's bits do not depend on what stands beside it.
All parameters of a role lie in one flat buffer, so Adam and polyak averaging are one call each.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.seeding import Streams

ALIGN = 16  # floats: every matrix starts on a cache line, as BLAS may round differently off it


class MLP:
    """S * N perceptrons with ReLU between their linear layers: x (S, N, B, I) -> (S, N, B, O).

    `sizes` is (I, hidden..., O). `flat` (S, N, P) holds every parameter; layer k's weight (S, N, out, in) and bias
    (S, N, out) are views into it, in the orientation of torch.nn.Linear.
    """

    def __init__(self, sizes: Sequence[int], flat: Tensor):
        self.sizes, self.flat = tuple(sizes), flat
        self.weights, self.biases = _layers(self.sizes, flat.detach())
        # per-slice views, made once: making them anew would cost as much as a thin layer's product
        layers = [
            zip(w.flatten(0, 1).unbind(0), b.flatten(0, 1).unbind(0), strict=True)
            for w, b in zip(self.weights, self.biases, strict=True)
        ]
        self.slices = list(zip(*layers, strict=True))  # by network, then layer: (weight, bias)
        self.grads: MLP | None = None  # a stack of gradients to write to, lent by Adam, which takes the result at once

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
    """One Adam (Kingma & Ba 2015) per network of a stack, as one call: Adam is elementwise."""

    def __init__(self, net: MLP, lr: float):
        self.net = net
        self.adam = torch.optim.Adam([net.flat], lr=lr, fused=True)
        self.buffer = MLP(net.sizes, torch.zeros_like(net.flat))
        net.flat.grad = self.buffer.flat
        state = self.adam.state[net.flat]  # what the first step would make; made now so that it can be restored
        state["step"] = torch.zeros((), dtype=torch.float32, device=net.flat.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(net.flat), torch.zeros_like(net.flat)

    def descend(self, loss: Tensor) -> None:
        """One step of every network down its own part of `loss`, a sum over seeds and agents."""
        self.net.grads = self.buffer
        (self.net.flat.grad,) = torch.autograd.grad(loss, self.net.flat)
        self.net.grads = None
        self.adam.step()

    def state_dict(self, row: int) -> dict[str, Any]:
        state = self.adam.state[self.net.flat]
        return {
            "params": self.net.flat.detach()[row],
            "exp_avg": state["exp_avg"][row],
            "exp_avg_sq": state["exp_avg_sq"][row],
            "steps": int(state["step"]),
        }

    def load_state_dict(self, row: int, saved: dict[str, Any]) -> None:
        state = self.adam.state[self.net.flat]
        self.net.flat.detach()[row] = torch.as_tensor(saved["params"])
        state["exp_avg"][row] = torch.as_tensor(saved["exp_avg"])
        state["exp_avg_sq"][row] = torch.as_tensor(saved["exp_avg_sq"])
        state["step"].fill_(saved["steps"])


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
        out, ctx.hidden = _forward(net, x.flatten(0, 1))
        ctx.net = net
        ctx.save_for_backward(x)
        return out.unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore
        net, (x,) = ctx.net, ctx.saved_tensors
        need_x, need_flat, _ = ctx.needs_input_grad
        grads = None
        if need_flat:  # the buffer lent serves once: a network evaluated twice in one loss has two gradients to add
            grads, net.grads = net.grads or MLP(net.sizes, torch.zeros_like(net.flat)), None
        grad_x = _backward(net, x.flatten(0, 1), ctx.hidden, grad.flatten(0, 1), grads, need_x)
        return None if grad_x is None else grad_x.view(x.shape), None if grads is None else grads.flat, None


def _forward(net: MLP, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The output (S*N, B, O) for x (S*N, B, I), and the hidden layers' activations for `_backward`."""
    if x.is_cuda:
        return _forward_batched(net, x)
    out = x.new_empty(*x.shape[:2], net.sizes[-1])
    hidden = []
    for h, y, layers in zip(x.unbind(0), out.unbind(0), net.slices, strict=True):
        kept = []  # one slice through all its layers: its activations are still in cache
        for weight, bias in layers[:-1]:
            h = _product(h, weight, bias, relu=True)
            kept.append(h)
        weight, bias = layers[-1]
        torch.addmm(bias, h, weight.t(), out=y)
        hidden.append(kept)
    return out, hidden


def _backward(net: MLP, x: Tensor, hidden: list[Any], grad: Tensor, grads: MLP | None, need_x: bool) -> Tensor | None:
    """Write the parameters' gradients to `grads` if given; return x's if needed. `grad` is the output's (S*N, B, O)."""
    if x.is_cuda:
        return _backward_batched(net, x, hidden, grad, grads, need_x)
    grad_x = torch.empty_like(x) if need_x else None
    for i, (first, g, layers) in enumerate(zip(x.unbind(0), grad.unbind(0), net.slices, strict=True)):
        inputs = [first, *hidden[i]]
        for k in reversed(range(len(layers))):
            h, weight = inputs[k], layers[k][0]
            if grads is not None:
                grad_weight, grad_bias = grads.slices[i][k]
                _product(g.t(), h.t(), out=grad_weight)
                torch.sum(g, 0, out=grad_bias)
            if k > 0:
                g = _product(g, weight.t())
                threshold_backward(g, h, 0, grad_input=g)  # ReLU's, in place
            elif grad_x is not None:
                _product(g, weight.t(), out=grad_x[i])
    return grad_x


threshold_backward = torch.ops.aten.threshold_backward.grad_input
onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None, relu: bool = False, out: Tensor | None = None) -> Tensor:
    """a @ b.T, (m, k) by (n, k), plus a bias, through a ReLU.

    oneDNN has kernels for every CPU's widest vectors, MKL only for Intel's (on a Zen 5 core 80 us against 138 for 100 x
    256 x 256), but MKL is faster where a side is narrow, unless it comes last. The rule looks at shapes alone, so that
    a run computes the same bits whenever it is started.
    """
    m, n, k = a.shape[0], b.shape[0], a.shape[1]
    if onednn_linear is not None and min(m, n, k) >= 64 and a.dtype == torch.float32:
        result = onednn_linear(a, b, bias, "relu" if relu else "none", [], "")
        return result if out is None else out.copy_(result)
    if n < 64 <= m:
        result = torch.mm(b, a.t()).t() if bias is None else torch.addmm(bias[:, None], b, a.t()).t()
    else:
        result = torch.mm(a, b.t()) if bias is None else torch.addmm(bias, a, b.t())
    if relu:
        result.relu_()
    return result if out is None else out.copy_(result)


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
