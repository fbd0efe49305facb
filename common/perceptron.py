"""Stacks of perceptrons in numpy, for one observation at a time: what a run acts with, and what a policy file holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Perceptron:
    """act(norm(linear)) in the hidden layers, a linear layer at the end; every network its own weights.

    Layer k has a weight (..., out, in) and a bias (..., out). Where hidden layers are normalised over their units
    (Ba et al. 2016), they have a scale and a shift (..., out) too.
    """

    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    scales: Sequence[np.ndarray] = ()
    shifts: Sequence[np.ndarray] = ()
    activation: str = "relu"

    @classmethod
    def named(cls, tensors: Mapping[str, np.ndarray], name: str) -> "Perceptron":
        """From <name>.<k>.weight, .bias, .scale, .shift and <name>.tanh, as MLP.named has them. KeyError: not there."""
        depth = max(1, sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in tensors))
        weights, biases = ([tensors[f"{name}.{k}.{kind}"] for k in range(depth)] for kind in ("weight", "bias"))
        normed = range(depth - 1 if f"{name}.0.scale" in tensors else 0)
        scales, shifts = ([tensors[f"{name}.{k}.{kind}"] for k in normed] for kind in ("scale", "shift"))
        return cls(weights, biases, scales, shifts, "tanh" if f"{name}.tanh" in tensors else "relu")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (S, N, I) -> (S, N, O)."""
        x = x[..., None]
        for k, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            x = weight @ x + bias[..., None]
            if self.scales:
                x = (x - x.mean(-2, keepdims=True)) / np.sqrt(x.var(-2, keepdims=True) + 1e-5)
                x = x * self.scales[k][..., None] + self.shifts[k][..., None]
            x = np.maximum(x, 0) if self.activation == "relu" else np.tanh(x)
        return (self.weights[-1] @ x)[..., 0] + self.biases[-1]
