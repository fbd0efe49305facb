"""Useful FLOPs: what the matrix products of an update need."""

import itertools
import re
from collections.abc import Sequence

N_OBS, N_ACT = 11, 3  # of every agent: Farama's two-agent HalfCheetah
PPO_ITERS = 5  # steps of the policy, and of the value, in an update of IPPO; its own 80 and 80 are as fast each

# What a network takes and gives: o(bservation), a(ction), 1 number. The second input is the one that gradients enter
SHAPES = {"pi": ("o", "", "a"), "q": ("o", "a", "1"), "qss": ("o", "o", "1"), "f": ("o", "a", "o")}
SHAPES |= {"v": ("o", "", "1"), "tau": ("o", "", "o"), "inverse": ("o", "o", "a")}

# The products of one update of one agent, in the order in which its file makes them: a network evaluated (q), evaluated
# and its parameters' gradient taken (q!), evaluated and a gradient passed on to its second input (q>). Each line with
# how often it is run. A value that an update needs twice counts once, also where our code computes it again.
PASSES: dict[str, dict[str, float]] = {
    "i2q_ddpg": {"pi f qss  qss!  f! qss>  f qss qss pi q  q!  pi! q>": 1},
    "i2q_ddpg --rule 2": {"pi f qss  qss!  f! qss>  f qss qss  q!  pi! q>": 1},
    "i2q_ddpg --rule released": {"pi q  qss!  f! qss>  f qss qss pi q  q!  pi! q>": 1},
    "iddpg": {"pi q  q!  pi! q>": 1},
    "mbpo_baseline": {"pi f qss  qss!  f!  f qss qss pi q  q!  pi! q>": 1},
    "d3g": {"tau inverse f qss qss  qss!  qss!  inverse!  f!": 1, "tau! inverse> f> qss>": 1 / 2},
    "i2q_expectile": {"v  qss!  qss v!  q qss  q!  pi! q>": 1},
    "i2q_expectile --form released": {"v  qss!  qss v!  pi q  q!  v q  q!  pi! q> q>": 1},
    "ippo": {"v": 1, "pi! v!": PPO_ITERS},
}


def flops(kind: str, widths: tuple[int, int, int], hidden: Sequence[int], batch: int) -> float:
    """Of one pass: evaluated "", with its parameters' gradient "!", with its second input's ">"."""
    first, second, out = widths
    sizes = [first + second, *hidden, out]
    products = [n_in * n_out for n_in, n_out in itertools.pairwise(sizes)]
    below = sum(products[1:])  # d loss / d activations, from the output down to the first hidden layer
    back = {"": 0, "!": sum(products) + below, ">": below + second * sizes[1]}[kind]
    return 2 * batch * (sum(products) + back)


def useful(name: str, hidden: Sequence[int], batch: int, n_obs: int = N_OBS, n_act: int = N_ACT) -> float:
    """FLOPs of the products in one update of one agent of one seed."""
    widths, total = {"": 0, "o": n_obs, "a": n_act, "1": 1}, 0.0
    for line, times in PASSES[name].items():
        for network, kind in re.findall(r"(\w+)([!>]?)", line):
            first, second, out = SHAPES[network]
            total += times * flops(kind, (widths[first], widths[second], widths[out]), hidden, batch)
    return total
