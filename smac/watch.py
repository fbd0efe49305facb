"""Play a trained run, or film it: python smac/watch.py data/NAME/NAME_s0 [--episodes K] [--video FILE.mp4]

Prints every step of greedy episodes: what each agent does, what the team is paid, and how the game stands (of SMAX:
positions and health of all units). The agents are those of the run's last checkpoint.
"""

import argparse
import contextlib
import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started from here: imports begin above

import numpy as np

from common.checkpoint import Checkpoints, Damaged
from common.errors import UsageError
from common.film import Film
from common.parser import Parser, number
from common.program import status
from smac import envs
from smac.common.picture import draw
from smac.common.play import Memory

FPS = 5  # steps of a game per second of film


def load(run: Path, seed: int, copies: int = 1) -> tuple[envs.MaskedEnv, Any, int]:
    """So many copies of a run's environment, its agents as they were saved last, and the size of their memory.

    Raises UsageError.
    """
    try:
        config = json.loads((run / "config.json").read_text())
        module = importlib.import_module(f"smac.{config['algorithm']}")
        known = {name: value for name, value in config.items() if name in module.Config.__dataclass_fields__}
        cfg = module.Config(**{**known, "device": "cpu"})
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(
            f"{run}: no run of a recurrent learner ({error}); its folder is data/NAME/NAME_s0. Runs of the continuous "
            f"learners are played by python watch.py {shlex.quote(str(run))}"
        ) from None
    env = envs.make(cfg.env, [seed], copies, cfg.test_ep_len)
    agents, checkpoints = module.Agents(env, cfg, (cfg.seed,)), Checkpoints(run / "checkpoint")
    steps = checkpoints.steps()
    if not steps:
        raise UsageError(f"{run}: no checkpoint yet; let the run go on first")
    try:
        agents.load_state_dict(0, checkpoints.load(steps[-1])["agents"])
    except Damaged as damage:
        raise UsageError(f"{run}: its last checkpoint is damaged ({damage}); continue the run") from None
    return env, agents.split()[0], cfg.rnn_hid


def play(env: envs.MaskedEnv, agents: Any, hid: int, film: Film | None) -> tuple[float, int, float]:
    """One greedy episode, printed and filmed: its return, length, and whether it was won."""
    env.reset()
    memory, over = Memory(env, hid, "cpu"), False
    print(f"   0  {env.describe()}")
    start = env.units() if film else None
    if film and start:
        film.add(draw(start, start, np.full(env.n_agents, -1), f"{env.name}, step 0"))
    while not over:
        act = memory.values([agents], env).argmax(-1)
        rew, terminated, truncated = env.step(act)
        memory.acted(act)
        does = ", ".join(env.action_name(int(a)) for a in act[0, :, 0])
        print(f"{env.t[0, 0]:4}  {does}  ->  reward {rew[0, 0]:.2f}  {env.describe()}", flush=True)
        over = bool(terminated[0, 0] or truncated[0, 0])
        if film and start:
            film.add(draw(env.units(), start, env.target(act[0, :, 0]), f"{env.name}, step {env.t[0, 0]}"))
    return float(env.ret[0, 0]), int(env.t[0, 0]), float(env.won[0, 0])


def watch(args: argparse.Namespace) -> None:
    """Print, and film if `video`, so many episodes, and their mean."""
    env, agents, hid = load(args.run, args.seed)
    film = Film(args.video) if args.video else None
    with film or contextlib.nullcontext():
        if film:
            film.fps = FPS
        played = []
        for k in range(args.episodes):
            ret, length, won = play(env, agents, hid, film)
            played.append((ret, won))
            print(f"episode {k + 1}: return {ret:.2f}, length {length}{', won' if won == 1 else ''}")
        ret, won = np.mean(played, axis=0)
        print(f"mean of {args.episodes}: return {ret:.2f}, won {won:.2f}")
    if film:
        print(f"film: {film.path}")


def main(argv: list[str] | None = None) -> int:
    parser = Parser("smac/watch.py", __doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUNDIR", help="folder of one seed: data/NAME/NAME_s0")
    add("--episodes", type=number(1), default=1, metavar="K", help="how many to play [%(default)s]")
    add("--video", type=Path, metavar="FILE.mp4", help="film places, health and targets of all units")
    add("--seed", type=number(0), default=0, help="of the environment [%(default)s]")
    args = parser.parse_args(argv)
    return status("smac/watch.py", lambda: watch(args))


if __name__ == "__main__":
    sys.exit(main())
