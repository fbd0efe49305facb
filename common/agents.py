"""The base of an algorithm's Agents, and the policy networks as the environment loop asks them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import limits, state
from common.fast import packing, passes
from common.fast.kernels import Kernels
from common.nets import MLP, Net
from common.perceptron import Perceptron
from common.seeding import Streams


@dataclass(frozen=True)
class Layout:
    """What an algorithm's networks have in common."""

    seeds: int
    hidden: Sequence[int]
    device: torch.device | str
    weights: Streams  # initial weights are drawn from


class Stacks:
    """Base of an algorithm's Agents: makes networks by what they take and give; saves whatever hangs on it, by seed.

    What is saved: common/state.py. Tensors that differ by seed have a leading axis of seeds. The masks `obs_mask`
    (N, 1, O) and `act_mask` (N, 1, A) are 1 for the dims that an agent really has.
    """

    def __init__(self, env: Any, seeds: Sequence[int], hidden: Sequence[int], device: torch.device | str = "cpu"):
        self.layout = Layout(len(seeds), hidden, device, Streams(seeds, "weights"))
        self.obs_mask = torch.tensor(env.obs_mask, dtype=torch.float32, device=device)[:, None]
        self.act_mask = torch.tensor(env.act_mask, dtype=torch.float32, device=device)[:, None]

    def net(self, inputs: Sequence[np.ndarray], output: np.ndarray | int, squash: bool = False, **form: Any) -> MLP:
        """Networks from the dims that these masks (N, I) mark, side by side, to those of `output`, or so many numbers.

        With `squash` they give tanh of that, in [-1, 1], and zero in padded dims. `form`: activation and layer_norm, as
        MLP has them.
        """
        if squash:
            form["squash"] = torch.tensor(output, dtype=torch.float32, device=self.layout.device)[:, None]
        if isinstance(output, int):
            output = np.ones((len(inputs[0]), output), bool)
        sizes = [sum(mask.shape[-1] for mask in inputs), *self.layout.hidden, output.shape[-1]]
        n_in = np.sum([mask.sum(-1) for mask in inputs], 0)
        more = self.layout.seeds * len(output) * packing.length(sizes, form.get("layer_norm", False))
        made = sum(net.flat.numel() for net in vars(self).values() if isinstance(net, Net))
        limits.check_networks(self.layout.hidden, made, more, self.layout.device)
        return MLP.glorot(sizes, self.layout.weights, n_in, output.sum(-1), self.layout.device, **form)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Net) and not value.name:
            value.name = name
        object.__setattr__(self, name, value)

    def use(self, kernels: Kernels | None) -> None:
        """Compute with these compiled kernels, or without."""
        for leaf in state.leaves(self, self._constants()):
            if isinstance(leaf.owner, Net):
                leaf.owner.kernels = kernels
                leaf.owner.name = leaf.owner.name or leaf.name.removesuffix(".flat")

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that an update may change, by name; themselves, not copies."""
        return state.tensors(self, self._constants())

    def scratch(self) -> list[Tensor]:
        """Memory of an update that is written before it is read: the optimisers' gradients."""
        found = {id(leaf.owner): getattr(leaf.owner, "grads", None) for leaf in state.leaves(self, self._constants())}
        return [grads.flat for grads in found.values() if isinstance(grads, Net)]

    def state_dict(self, row: int) -> dict[str, Any]:
        return state.save(self, row, self.layout.seeds, self._constants())

    def load_state_dict(self, row: int, saved: dict[str, Any]) -> None:
        state.load(self, row, self.layout.seeds, saved, self._constants())

    def _constants(self) -> tuple[Any, ...]:
        return self.obs_mask, self.act_mask

    def policy(self, row: int) -> dict[str, np.ndarray]:
        """The policy's parameters, for policy.safetensors."""
        return {f"pi.{name}": part for name, part in self.pi.named(row).items()}  # pyright: ignore


class Actor:
    """The policy networks for one observation at a time: (S, N, O) -> (S, N, A).

    An environment step asks for a batch of one, where a torch call costs more than its arithmetic: an MLP is computed
    by the compiled kernels, or in numpy where there are none. numpy chooses its code for products by the CPU, and with
    it the last bits; the kernels do not. On the CPU the weights are shared with `net`; from another device `refresh`
    copies them.
    """

    def __init__(self, net: Net):
        self.net = net
        self.refresh()

    def refresh(self) -> None:
        """Take over the networks' present weights: to be called after a block of updates."""
        if isinstance(self.net, MLP):
            net = self.net
            parts = net.weights, net.biases, net.scales, net.shifts
            weights, biases, scales, shifts = ([p.cpu().numpy() for p in part] for part in parts)
            self.perceptron = Perceptron(weights, biases, scales, shifts, net.activation)
            self.squash = None if net.squash is None else net.squash[:, 0].cpu().numpy()

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        if not isinstance(self.net, MLP):
            device = self.net.flat.device
            with torch.no_grad():
                out = self.net(*(torch.from_numpy(x).to(device)[:, :, None] for x in inputs))
            return out[:, :, 0].cpu().numpy()
        x = np.concatenate(inputs, -1)
        out = passes.act(self.net, x)
        out = self.perceptron(x) if out is None else out
        return out if self.squash is None else np.tanh(out) * self.squash
