"""RMSprop over a stack of networks, and the base of an algorithm's Agents."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.agents import Stacks
from common.fast import packing
from common.fast.passes import check_memory, compiled
from common.nets import MLP, Net
from smac.common.nets import Recurrent, fill


class RMSprop:
    """One RMSprop (Tieleman & Hinton 2012) per network of a stack, as one call; eps is added to the root.

    Every network's gradient is clipped to the norm `clip` by itself: a norm over several would couple agents.
    """

    def __init__(self, net: Net, lr: float, alpha: float, eps: float, clip: float):
        self.net, self.lr, self.alpha, self.eps, self.clip = net, lr, alpha, eps, clip
        self.square_avg = torch.zeros_like(net.flat)
        self.grads = net.like(torch.zeros_like(net.flat))

    def descend(self, loss: Tensor) -> None:
        """One step of every network down its own part of `loss`, a sum over seeds and agents."""
        self.net.grads = self.grads
        (grad,) = torch.autograd.grad(loss, self.net.flat)
        self.net.grads = None
        with torch.no_grad():
            (self._compiled if compiled(self.net) else self._plain)(grad)

    def _compiled(self, grad: Tensor) -> None:
        check_memory(self.net)
        S, N, length = grad.shape
        parts = (part.data_ptr() for part in (grad.contiguous(), self.square_avg, self.net.flat))
        self.net.kernels.rmsprop(S * N, length, *parts, self.lr, self.alpha, self.eps, self.clip)  # pyright: ignore

    def _plain(self, grad: Tensor) -> None:
        norm = torch.linalg.vector_norm(grad, dim=-1, keepdim=True)  # (S, N, 1)
        grad = grad * (self.clip / (norm + 1e-6)).clamp(max=1)
        self.square_avg.lerp_(grad.square(), 1 - self.alpha)
        self.net.flat.detach().addcdiv_(grad, self.square_avg.sqrt().add_(self.eps), value=-self.lr)

    def state(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "grads"}

    def row(self, row: int, net: Net) -> "RMSprop":
        """That of one seed's networks, in the same memory."""
        part = copy.copy(self)
        part.net, part.square_avg = net, self.square_avg[row : row + 1]
        part.grads = net.like(self.grads.flat[row : row + 1])
        return part


class RecurrentStacks(Stacks):
    """Base of a recurrent algorithm's Agents: makes its networks, and lends out one seed's part of them.

    Seeds end their episodes at different times, so each is updated by itself: `split` gives every seed's part, in the
    same memory, as Agents of one seed.
    """

    def __init__(self, env: Any, cfg: Any, seeds: Sequence[int], hidden: Sequence[int] = ()):
        super().__init__(env, seeds, hidden, cfg.device)
        self.n_obs, self.n_act, self.rnn_hid = env.n_obs, env.n_act, cfg.rnn_hid
        self.n_seen, self.n_legal = env.obs_mask.sum(-1), env.act_mask.sum(-1)  # (N,) what an agent really has

    def _constants(self) -> tuple[Any, ...]:
        return *super()._constants(), self.n_seen, self.n_legal

    def recurrent(self) -> Recurrent:
        """Networks from an observation and the last action to hidden states and a value for each action."""
        sizes = (self.n_obs + self.n_act, self.rnn_hid, self.n_act)
        return Recurrent.create(sizes, self.layout.weights, self.n_seen + self.n_legal, self.layout.device)

    def mlp(self, n_states: int, n_out: int, act: bool = False) -> MLP:
        """Perceptrons of so many hidden states, side by side, and if `act` an action; they start as PyTorch's do."""
        n_in = n_states * self.rnn_hid
        sizes = [n_in + self.n_act * act, *self.layout.hidden, n_out]
        net = MLP(sizes, torch.zeros(self.layout.seeds, len(self.n_legal), packing.length(sizes)))
        for k, parts in enumerate(zip(net.weights, net.biases)):
            fan_in = n_in + self.n_legal * act if k == 0 else np.full(len(self.n_legal), sizes[k])
            for part in parts:
                fill(part, fan_in, self.layout.weights)
        return MLP(sizes, net.flat.to(self.layout.device).requires_grad_())

    def policy(self, row: int) -> dict[str, np.ndarray]:
        """One seed's networks by name, layer and part, for policy.safetensors: acting takes one of them or several."""
        nets = {name: net for name, net in vars(self).items() if isinstance(net, Net)}
        return {f"{name}.{part}": array for name, net in nets.items() for part, array in net.named(row).items()}

    def split(self) -> list[Any]:
        """Each seed's part: Agents of one seed whose tensors are views of these."""
        views = []
        for row in range(self.layout.seeds):
            view, nets = copy.copy(self), {}
            for name, part in vars(self).items():
                if isinstance(part, Net):
                    flat = part.flat.detach()[row : row + 1].requires_grad_(part.flat.requires_grad)
                    nets[id(part)] = part.like(flat)
                    setattr(view, name, nets[id(part)])
            for name, part in vars(self).items():
                if isinstance(part, RMSprop):
                    setattr(view, name, part.row(row, nets[id(part.net)]))
            views.append(view)
        return views
