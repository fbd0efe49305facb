"""Trained policies in numpy: `load_policy(folder)` needs no torch and runs no code from the file.

policy.safetensors holds, for each network, layer k's <name>.<k>.weight (N, out, in) and .bias (N, out). With layer norm
each hidden layer also has .scale and .shift (N, out), and <name>.tanh marks tanh units in place of ReLU.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from common.errors import UsageError
from common.layout import POLICY
from common.perceptron import Perceptron


class Policy:
    """What the agents of one seed do, without exploration noise: obs (..., N, O) -> act (..., N, A) in [-1, 1].

    Observations of narrower agents are padded with zeros to the widest agent, as the environments here give them; so
    are the actions. act = tanh(pi(o)); where the file holds tau and inverse, act = tanh(inverse(o, o + tau(o))).
    """

    def __init__(self, tensors: dict[str, np.ndarray]):
        """ValueError where these are not the networks of a policy."""
        names = ["tau", "inverse"] if any(name.startswith("tau.") for name in tensors) else ["pi"]
        self.nets = [_network(tensors, name) for name in names]
        self.n_agents, _, self.n_obs = self.nets[0].weights[0].shape
        self.n_act = self.nets[-1].weights[-1].shape[1]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        obs = np.asarray(obs, np.float32)
        if obs.shape[-2:] != (self.n_agents, self.n_obs):
            raise ValueError(f"observations {obs.shape}: this policy takes (..., {self.n_agents}, {self.n_obs})")
        x = obs
        if len(self.nets) == 2:
            x = np.concatenate([obs, obs + self.nets[0](obs)], -1)
        return np.tanh(self.nets[-1](x))


def load_policy(folder: str | Path) -> Policy:
    """The trained policy of a run's folder. Raises UsageError where there is none that numpy can compute."""
    path = Path(folder) / POLICY
    if not path.is_file():
        found = sorted(path.parent.glob(f"**/{POLICY}"))
        hint = (
            f"did you mean {found[0].parent}?"
            if found
            else "a run writes it with its first checkpoint; results/ has none"
        )
        raise UsageError(f"{path}: no such file; {hint}")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: damaged ({error}); resume the run, which writes it again") from None
    try:
        policy = Policy(tensors)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UsageError(f"{path}: holds NaN or infinity: the training diverged; use another seed")
    return policy


def _network(tensors: dict[str, np.ndarray], name: str) -> Perceptron:
    """The stacked MLPs of this name. ValueError where the tensors are something else."""
    own = {key.removeprefix(f"{name}."): part for key, part in tensors.items() if key.startswith(f"{name}.")}
    if not own:
        raise ValueError(f"no network {name!r} in it, so no policy of this project")
    if "module" in own:
        raise ValueError(f"{name!r} is a torch.nn.Module, which only torch computes; load the run's checkpoint instead")
    try:
        net = Perceptron.named(tensors, name)
    except KeyError:
        net = None
    if net is None or not _fits(net, len(own) - ("tanh" in own)):
        raise ValueError(f"network {name!r} is no MLP of this project: it holds {', '.join(sorted(own))}")
    return net


def _fits(net: Perceptron, tensors: int) -> bool:
    """Whether the layers fit onto each other and are made of that many tensors."""
    depth, normed = len(net.weights), len(net.scales)
    if (len(net.biases), len(net.shifts), 2 * (depth + normed)) != (depth, normed, tensors):
        return False
    shapes = [weight.shape for weight in net.weights]
    vectors = [*zip(net.biases, shapes), *zip(net.scales, shapes), *zip(net.shifts, shapes)]
    return (
        normed in (0, depth - 1)
        and all(len(shape) == 3 for shape in shapes)
        and all(low[:2] == (high[0], high[2]) for low, high in pairwise(shapes))
        and all(vector.shape == shape[:2] for vector, shape in vectors)
    )
