"""RMSprop over a stack of networks, and the base of an algorithm's Agents."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from common import state
from common.agents import Stacks
from common.errors import UsageError
from common.fast import packing
from common.fast.kernels import Kernels
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
        increment_version(self.net.flat)  # by it PyTorch refuses a way back through old weights

    def _plain(self, grad: Tensor) -> None:
        norm = torch.linalg.vector_norm(grad, dim=-1, keepdim=True)  # (S, N, 1)
        grad = grad * (self.clip / (norm + 1e-6)).clamp(max=1)
        self.square_avg.lerp_(grad.square(), 1 - self.alpha)
        self.net.flat.detach().addcdiv_(grad, self.square_avg.sqrt().add_(self.eps), value=-self.lr)

    def state(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name != "grads"}


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
        found = state.leaves(self.split()[row], self._constants())
        nets = {leaf.name.removesuffix(".flat"): leaf.owner for leaf in found if isinstance(leaf.owner, Net)}
        return {f"{name}.{part}": array for name, net in nets.items() for part, array in net.named(0).items()}

    def split(self) -> list[Any]:
        """Each seed's part: Agents of one seed, whose tensors and arrays are views of these; always the same ones.

        What is no row of a seed, as a number, each part has for itself, and a checkpoint holds that of the parts.
        """
        return self._parts.by_row

    @functools.cached_property
    def _parts(self) -> "Parts":
        """Raises UsageError where a first axis may be that of seeds or another of the same length."""
        S, N, found = self.layout.seeds, len(self.n_legal), state.tensors(self, self._constants())
        for name, tensor in found.items() if S in (N, self.n_obs, self.n_act, self.rnn_hid) and S > 1 else ():
            if state.by_seed(tensor, S) and tensor.shape[:2] != (S, N):
                raise UsageError(
                    f"agents.{name} of shape {tuple(tensor.shape)}: its first axis may be that of the {S} seeds or "
                    "another; give it the shape (S, N, ...), N agents, or a leading axis of 1 if all seeds start alike"
                )
        shared = {id(each): each for each in self._constants()}
        shared[id(self.layout)] = dataclasses.replace(self.layout, seeds=1)
        return Parts([state.part(self, row, S, shared.copy()) for row in range(S)], self._whole())

    def _whole(self) -> dict[str, str]:
        """What hangs on the Agents of all seeds, to be compared: rows by where they lie, all else by value."""
        found = {}
        for name, value, *_ in state.leaves(self, self._constants()):
            if isinstance(value, (Tensor, np.ndarray)):
                tensor = torch.as_tensor(value)
                value = tensor.data_ptr() if state.by_seed(tensor, self.layout.seeds) else tensor.tolist()
            found[name] = repr(value)
        return found

    def use(self, kernels: Kernels | None) -> None:
        for agents in (self, *self.split()):
            Stacks.use(agents, kernels)

    def state_dict(self, row: int) -> dict[str, Any]:
        """Of a seed's part. Raises UsageError where something changed on the Agents of all seeds that no part sees."""
        was, now = self._parts.whole, self._whole()
        if changed := sorted(name for name in {*was, *now} if was.get(name) != now.get(name)):
            raise UsageError(
                f"agents.{changed[0]} was changed on the Agents of all seeds, and each seed learns with its own part: "
                f"change it there, as in `for part in agents.split(): part.{changed[0]} = ...`"
            )
        return state.save(self.split()[row], 0, 1, self._constants())

    def load_state_dict(self, row: int, saved: dict[str, Any]) -> None:
        state.load(self.split()[row], 0, 1, saved, self._constants())


@dataclasses.dataclass(frozen=True)
class Parts:
    """Agents by seed, and what those of all seeds held when they were split."""

    by_row: list[Any]
    whole: dict[str, str]
