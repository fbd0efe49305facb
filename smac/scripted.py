"""Which decisions lose a run's games on SMAX: python smac/scripted.py data/NAME/NAME_s0 [--episodes K]

Plays greedy episodes again and again, from the same starts, with a script for a part of the decisions:

walk      an agent without an enemy in range goes towards the nearest one that lives, seen or not
attack    an agent with enemies in range attacks: the one that its own values put first (own), the nearest one (nearest)
          or the one with the least health (weakest)

Prints, for each choice of scripts, the return, the share of games won, their length, and of the steps of living agents
the share that have an enemy in range. The agents remember what was done, whoever chose it.
"""

import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started from here: imports begin above

import numpy as np

from common.errors import UsageError
from common.parser import Parser, number
from common.program import status
from smac import envs
from smac.common.play import Memory
from smac.envs.smax import ATTACKS, Smax
from smac.watch import load

TARGETS = "", "own", "nearest", "weakest"  # "": no script attacks
UP, RIGHT, DOWN, LEFT = range(4)


class Outcome(NamedTuple):
    """Means over episodes."""

    ret: float
    won: float
    length: float
    in_range: float  # of the steps of living agents: the share with an enemy in range


def choose(env: envs.MaskedEnv, values: np.ndarray, walk: bool, target: str) -> np.ndarray:
    """What one seed's agents do (1, N, L): what their values (1, N, L, A) put first, but for what a script decides."""
    act = values.argmax(-1)
    for copy in range(env.copies):
        units = env.units(0, copy)
        away = units.place[None, env.n_agents :] - units.place[: env.n_agents, None]  # (N, enemies, 2)
        distance, health = np.linalg.norm(away, axis=-1), units.health[env.n_agents :]
        for i in np.flatnonzero(units.health[: env.n_agents] > 0):
            legal = env.avail[0, i, copy, ATTACKS:]
            cost = {"own": -values[0, i, copy, ATTACKS:], "nearest": distance[i], "weakest": health}
            if legal.any() and target:
                act[0, i, copy] = ATTACKS + np.where(legal, cost[target], np.inf).argmin()
            elif not legal.any() and walk and (health > 0).any():
                x, y = away[i, np.where(health > 0, distance[i], np.inf).argmin()]
                act[0, i, copy] = (RIGHT if x > 0 else LEFT) if abs(x) > abs(y) else (UP if y > 0 else DOWN)
    return act


def play(env: envs.MaskedEnv, agents: Any, hid: int, walk: bool, target: str) -> Outcome:
    """One episode of each copy of the game, from the starts that the environment's seed gives."""
    env.reseed(range(env.copies))
    env.reset()
    memory, going = Memory(env, hid, "cpu"), np.ones((1, env.copies), bool)
    won, living, in_range = np.zeros(env.copies), 0, 0
    while going.any():
        act = choose(env, memory.values([agents], env), walk, target)
        alive = (env.avail[0].sum(-1) > 1) & going  # the dead may only stop
        living += alive.sum()
        in_range += (alive & env.avail[0, ..., ATTACKS:].any(-1)).sum()
        _, terminated, truncated = env.step(act, going)
        won += env.won[0] * going[0]
        memory.acted(act)
        going &= ~(terminated | truncated)
    return Outcome(float(env.ret.mean()), float(won.mean()), float(env.t.mean()), float(in_range / living))


def table(run: Path, episodes: int) -> None:
    """Print an outcome for each choice of scripts. Raises UsageError where the run is none on SMAX."""
    env, agents, hid = load(run, 0, episodes)
    if not isinstance(env, Smax):
        raise UsageError(f"{run}: it plays {env.name}, and the scripts know smax: tasks alone")
    print(f"{env.name}, {episodes} episodes each\n{'scripts':24} return   won  length  enemy in range")
    for walk, target in itertools.product((False, True), TARGETS):
        name = " and ".join(filter(None, ["walk" * walk, target and f"attack {target}"])) or "none"
        out = play(env, agents, hid, walk, target)
        print(f"{name:24} {out.ret:5.2f}  {out.won:.2f}  {out.length:6.1f}  {out.in_range:.2f}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = Parser("smac/scripted.py", __doc__)
    parser.add_argument("run", type=Path, metavar="RUNDIR", help="folder of one seed: data/NAME/NAME_s0")
    parser.add_argument("--episodes", type=number(1), default=64, metavar="K", help="for each row [%(default)s]")
    args = parser.parse_args(argv)
    return status("smac/scripted.py", lambda: table(args.run, args.episodes))


if __name__ == "__main__":
    sys.exit(main())
