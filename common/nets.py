"""Stacks of small networks: S seeds times N agents, each its own weights, all evaluated by one call.

Speed comes from three choices that the algorithm files need not know of. One autograd node spans a whole stack of
networks, so autograd is entered once per stack and not once per layer. All parameters of a role lie in one flat buffer,
so Adam and polyak averaging are one call each. And a stack's passes have three forms (common/fast/passes.py), of which
the compiled one is taken where the run has compiled kernels. On the CPU a slice's bits do not depend on its neighbours.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.func import functional_call, vmap
from torch.optim.adam import adam

from common.errors import UsageError
from common.fast import packing, passes
from common.fast.kernels import Kernels, Stack
from common.seeding import Streams


class Net:
    """S * N networks of one kind: x (S, N, B, I) -> (S, N, B, O). `flat` (S, N, P) holds every parameter."""

    name = ""  # what it is called among the agents, for messages
    kernels: Kernels | None = None  # to compute with, where the run has them

    def __init__(self, flat: Tensor, squash: Tensor | None = None):
        self.flat, self.squash = flat, None if squash is None else squash.to(flat)
        self.grads: Any = None  # a stack of gradients to write to, lent by Adam, which takes the result at once

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The networks' output for `inputs` (S, N, B, .) side by side. With `squash`, a mask (N, 1, O), tanh of it."""
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)
        out = self.evaluate(x)
        return out if self.squash is None else torch.tanh(out) * self.squash

    def evaluate(self, x: Tensor) -> Tensor:
        """(S, N, B, I) -> (S, N, B, O), before any squashing."""
        raise NotImplementedError

    def like(self, flat: Tensor) -> Any:
        """The same networks with other parameters."""
        raise NotImplementedError

    def named(self, row: int) -> dict[str, np.ndarray]:
        """One seed's parameters by name, each with an axis of agents in front."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {"flat": self.flat}

    @property
    def frozen(self) -> Any:
        """The same networks, passing gradients on to their input but taking none themselves."""
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, "flat": self.flat.detach()}
        return view

    def copy(self) -> Any:
        """Target networks: equal values, own storage, no gradient."""
        return self.like(self.flat.detach().clone())

    def polyak_(self, online: "Net", polyak: float) -> None:
        """target <- polyak * target + (1 - polyak) * online."""
        self.flat.lerp_(online.flat.detach(), 1 - polyak)


class MLP(Net):
    """S * N perceptrons: act(norm(linear)) in the hidden layers, a linear layer at the end.

    `sizes` is (I, hidden..., O), `activation` "relu" or "tanh"; with `layer_norm` a hidden layer is normalised over its
    units, scaled and shifted before the activation (Ba et al. 2016). Layer k's weight (S, N, out, in) and bias
    (S, N, out) are views into `flat`, in the orientation of torch.nn.Linear; scales and shifts are (S, N, out).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        flat: Tensor,
        activation: str = "relu",
        layer_norm: bool = False,
        squash: Tensor | None = None,
    ):
        if activation not in passes.ACTIVATIONS:
            raise UsageError(f"activation {activation!r}: known are {', '.join(passes.ACTIVATIONS)}")
        self.sizes, self.activation, self.layer_norm = tuple(sizes), activation, layer_norm
        S, N, length = flat.shape
        assert length == packing.length(sizes, layer_norm) and flat.is_contiguous(), "flat is no such stack"
        super().__init__(flat, squash)
        self.weights, self.biases, self.scales, self.shifts = packing.layers(self.sizes, flat.detach(), layer_norm)
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
        **form: Any,
    ) -> "MLP":
        """Uniform Glorot weights and zero biases, each network with its own fans.

        n_in, n_out: (N,) the dims that agent i really has; sizes are padded to the widest agent. The limit of a layer
        is sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010), as in Keras and in the authors' code. `form`:
        activation, layer_norm and squash.
        """
        n_agents, n_seeds = len(n_in), len(streams.rngs)
        net = cls(sizes, torch.zeros(n_seeds, n_agents, packing.length(sizes, form.get("layer_norm", False))), **form)
        for k, weight in enumerate(net.weights):
            fan_in = n_in if k == 0 else np.full(n_agents, sizes[k])
            fan_out = n_out if k == len(sizes) - 2 else np.full(n_agents, sizes[k + 1])
            limit = np.sqrt(6 / (fan_in + fan_out))[:, None, None]
            weight.copy_(torch.from_numpy((streams.uniform(*weight.shape[1:]) * limit).astype(np.float32)))
        for scale in net.scales:
            scale.fill_(1)
        return cls(sizes, net.flat.to(device).requires_grad_(), **form)

    def like(self, flat: Tensor) -> "MLP":
        net = MLP(self.sizes, flat, self.activation, self.layer_norm, self.squash)
        net.kernels = self.kernels
        return net

    def slice(self, i: int) -> list[tuple[Tensor, Tensor]]:
        """The weight (out, in) and bias (out) of each layer of network i of the S * N."""
        return [(w.flatten(0, 1)[i], b.flatten(0, 1)[i]) for w, b in zip(self.weights, self.biases, strict=True)]

    def evaluate(self, x: Tensor) -> Tensor:
        return passes.evaluate(self, x)

    def named(self, row: int) -> dict[str, np.ndarray]:
        """One seed's weights (N, out, in), biases, scales and shifts (N, out) by layer; "tanh" where that is used.

        Where the output is squashed, what leads to padded dims is zero: a reader needs no mask.
        """
        named = {}
        for k, part in enumerate(self.weights):
            named |= {f"{k}.weight": part[row], f"{k}.bias": self.biases[k][row]}
        for k, part in enumerate(self.scales):
            named |= {f"{k}.scale": part[row], f"{k}.shift": self.shifts[k][row]}
        if self.squash is not None:
            last, real = len(self.weights) - 1, self.squash[:, 0]
            named |= {f"{last}.weight": self.weights[last][row] * real[..., None]}
            named |= {f"{last}.bias": self.biases[last][row] * real}
        arrays = {name: np.ascontiguousarray(part.cpu().numpy()) for name, part in named.items()}
        return arrays | ({"tanh": np.ones(1, np.float32)} if self.activation == "tanh" else {})


class Module(Net):
    """S * N copies of a torch.nn.Module of your own, x (B, I) -> (B, O), in the place of an MLP: slower, but whole.

    `make` builds one; its initial parameters are drawn per seed and agent. With `squash`, a mask (N, 1, O), the output
    is tanh of the module's. Raises UsageError where it has buffers, as batch norm has: they would be neither saved nor
    averaged into targets.
    """

    def __init__(
        self,
        make: Callable[[], torch.nn.Module],
        streams: Streams,
        n_agents: int,
        device: torch.device | str = "cpu",
        squash: Tensor | None = None,
    ):
        rows = []
        with torch.random.fork_rng(devices=[]):  # a module draws its weights from the global generator
            for seed in streams.integers(2**31, n_agents).flatten().tolist():
                torch.manual_seed(seed)
                module = make()
                rows.append(torch.cat([part.detach().flatten() for part in module.parameters()]))
        if buffers := [name for name, _ in module.named_buffers()]:
            raise UsageError(f"{type(module).__name__} has buffers ({', '.join(buffers)}), which a stack cannot hold")
        self.module = module.to("meta")
        flat = torch.stack(rows).unflatten(0, (-1, n_agents)).contiguous().to(device).requires_grad_()
        super().__init__(flat, squash)

    def like(self, flat: Tensor) -> "Module":
        net = object.__new__(Module)
        net.__dict__ = {**self.__dict__, "flat": flat, "grads": None, "name": ""}
        return net

    def evaluate(self, x: Tensor) -> Tensor:
        flat, x = self.flat.flatten(0, 1), x.flatten(0, 1)
        if x.is_cuda:
            return vmap(self._one)(flat, x).unflatten(0, self.flat.shape[:2])
        slices = [self._one(*pair) for pair in zip(flat, x, strict=True)]  # vmap's bits would depend on their number
        return torch.stack(slices).unflatten(0, self.flat.shape[:2])

    def _one(self, flat: Tensor, x: Tensor) -> Tensor:
        return functional_call(self.module, self._split(flat), (x,))

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        """flat (..., P) as the module's parameters, by name."""
        named = dict(self.module.named_parameters())
        parts = flat.split([part.numel() for part in named.values()], -1)
        return {name: part.unflatten(-1, old.shape) for (name, old), part in zip(named.items(), parts)}

    def named(self, row: int) -> dict[str, np.ndarray]:
        """One seed's parameters by the module's names, and "module", which marks what only torch can compute."""
        parts = self._split(self.flat.detach()[row].cpu()) | {"module": torch.ones(1)}
        return {name: np.ascontiguousarray(part.numpy()) for name, part in parts.items()}


class Adam:
    """One Adam (Kingma & Ba 2015) per network of a stack, as one call: Adam is elementwise.

    betas .9 and .999, eps 1e-8, as everywhere.
    """

    def __init__(self, net: Net, lr: float):
        self.net, self.lr = net, lr
        self.grads = net.like(torch.zeros_like(net.flat))
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
        increment_version(self.net.flat)  # fused Adam does not; by it PyTorch refuses a way back through old weights

    def state(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "grads"}
