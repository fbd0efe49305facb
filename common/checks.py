"""What a run must not go on with: numbers that are not finite, values that no return can reach."""

from typing import Any

import numpy as np

from common.checkpoint import flatten
from common.log import Log

FAR = 2.0  # times the largest possible return: a warning is due


def not_finite(name: str, array: np.ndarray) -> dict[int, str]:
    """By row of an array (S, ...): which number of it is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(-1))
    return {int(row): f"{name} is not finite: {_first_bad(array[row])}" for row in bad}


def _first_bad(array: np.ndarray) -> str:
    """'nan, agent 1, number 0' for an array (N, O), 'inf, episode 3' for one (E,), 'nan' for a number."""
    index = tuple(np.argwhere(~np.isfinite(array))[0])
    names = ((), ("episode",), ("agent", "number"), ("agent", "environment", "number"))[array.ndim]
    return ", ".join([str(array[index]), *(f"{name} {i}" for name, i in zip(names, index))])


def bad_arrays(state: dict[str, Any]) -> list[str]:
    """Names of the arrays that hold a NaN or an infinity."""
    return [name for name, array in flatten(state)[0].items() if not np.isfinite(array).all()]


def stuck_agents(stuck: np.ndarray) -> dict[int, str]:
    """By row of stuck (S, N), the share of an agent's actions that are: which agents' policies are saturated."""
    found, all_of_them = {}, stuck == 1
    for row in np.flatnonzero(all_of_them.any(-1)):
        agents = np.flatnonzero(all_of_them[row])
        who = f"agent{'s' if len(agents) > 1 else ''} {', '.join(map(str, agents))}"
        found[int(row)] = (
            f"every action of {who} was at the same limit in all states of the tests; a saturated tanh passes no "
            "gradient on, so this may last (docs/trap.md)"
        )
    return found


def beyond_returns(log: Log, gamma: float) -> dict[int, str]:
    """By row: which mean value of the last batch passes FAR times what any discounted return can be."""
    bound = log.largest_rew / max(1 - gamma, 1e-12)
    found = {}
    for name, values in log.last.items():
        if not name.endswith("Vals"):
            continue
        largest = values.detach().abs().amax(-1).cpu().numpy()  # (S,)
        for row in map(int, np.flatnonzero(largest > FAR * bound + 1)):
            found[row] = (
                f"the mean {name} of a batch is {largest[row]:.3g}, but no return can exceed {bound[row]:.3g} (the "
                f"largest reward seen, {log.largest_rew[row]:.3g}, over 1 - gamma)"
            )
    return found
