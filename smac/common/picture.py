"""A picture of a game of units: where they stand, how much health they have left, and whom they attack."""

from typing import NamedTuple

import numpy as np


class Units(NamedTuple):
    """All units of a game, the agents' first."""

    place: np.ndarray  # (U, 2)
    health: np.ndarray  # (U,), 0: dead
    n_agents: int
    ground: tuple[tuple[float, float], tuple[float, float]] | None = (
        None  # two corners of what they move on, if they do
    )


def draw(units: Units, start: Units, targets: np.ndarray, title: str, side: int = 480) -> np.ndarray:
    """(side, side, 3) uint8: agents blue, enemies orange, a bar of the health that is left of that at the `start`.

    targets (n_agents,) is the number of the enemy that an agent attacks, negative where it attacks none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late; without pyplot: no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), dpi=side / 4.8, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    alive, mine = units.health > 0, np.arange(len(units.health)) < units.n_agents
    low, high = np.array(start.ground or (start.place.min(0), start.place.max(0)))
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1) * (1.1 if start.ground else 1.3)
    axes.set(xlim=middle[0] + np.array([-half, half]), ylim=middle[1] + np.array([-half, half]), title=title)
    for agent in np.flatnonzero((targets >= 0) & alive[: units.n_agents]):
        line = units.place[[agent, units.n_agents + targets[agent]]]
        axes.plot(line[:, 0], line[:, 1], color="#0072B2", lw=1, alpha=0.5)
    for colour, team in (("#0072B2", mine), ("#D55E00", ~mine)):
        axes.plot(*units.place[team & alive].T, "o", color=colour, ms=9)
        axes.plot(*units.place[team & ~alive].T, "x", color=colour, ms=6)
    for (x, y), left in zip(units.place[alive], (units.health / np.maximum(start.health, 1e-9))[alive]):
        begin, width, above = x - 0.06 * half, 0.12 * half, y + 0.07 * half
        axes.plot([begin, begin + width], [above, above], color="#dddddd", lw=3, solid_capstyle="butt")
        axes.plot([begin, begin + width * left], [above, above], color="#009E73", lw=3, solid_capstyle="butt")
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
