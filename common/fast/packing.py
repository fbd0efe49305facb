"""Where a perceptron's weights, biases and norms lie in its row of one flat tensor."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

ALIGN = 16  # floats: every matrix starts on a cache line, as BLAS may round differently off it


def length(sizes: Sequence[int], layer_norm: bool = False) -> int:
    """Floats of one network in `flat`."""
    norms = 2 * sum(map(padded, sizes[1:-1])) if layer_norm else 0
    return norms + sum(padded(n_out * n_in) + padded(n_out) for n_in, n_out in pairwise(sizes))


def layers(sizes: Sequence[int], flat: Tensor, layer_norm: bool = False) -> tuple[list[Tensor], ...]:
    """Views of each layer's weights (..., out, in) and biases (..., out), of norms' scales and shifts (..., out)."""
    found: tuple[list[Tensor], ...] = ([], [], [], [])
    at = 0

    def take(part: list[Tensor], *shape: int) -> None:
        nonlocal at
        n = torch.Size(shape).numel()
        part.append(flat[..., at : at + n].unflatten(-1, shape) if len(shape) > 1 else flat[..., at : at + n])
        at += padded(n)

    for n_in, n_out in pairwise(sizes):
        take(found[0], n_out, n_in)
        take(found[1], n_out)
    for n_out in sizes[1:-1] if layer_norm else ():
        take(found[2], n_out)
        take(found[3], n_out)
    return found


def padded(n: int) -> int:
    """n floats, rounded up to whole cache lines."""
    return -(-n // ALIGN) * ALIGN
