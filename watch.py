"""Play the policy of a run, or film it: python watch.py data/NAME/NAME_s0 [--video FILE.mp4]

The environment is rebuilt from the run's config.json; the policy is read by common/policy.py, so no torch is needed and
no code from the file is run. Episodes are those of the run's tests: no exploration noise, test_ep_len steps at most.

What a film costs: a frame of HalfCheetah takes about 50 ms of a core without a GPU, 25 ms with --size 240, so an
episode of 1,000 steps takes most of a minute; --steps 200 shows the gait in ten seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import envs
from common.errors import UsageError
from common.film import Film
from common.layout import CONFIG, read_config
from common.parser import Parser, number
from common.policy import Policy, load_policy
from common.program import status

Played = tuple[float, int]  # return and length of an episode


def settings(run: Path) -> dict[str, Any]:
    """The run's config.json. UsageError where there is no run, or no whole one."""
    form = "a run's folder is <data_dir>/<exp_name>/<exp_name>_s<seed>"
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; {form}")
    if not (run / CONFIG).is_file():
        runs = sorted(found.parent for found in run.glob(f"**/{CONFIG}"))
        raise UsageError(f"{run}: no {CONFIG}, so no run; {f'did you mean {runs[0]}?' if runs else form}")
    config = read_config(run)
    if {"n_envs", "rnn_hid"} <= config.keys():
        raise UsageError(f"{run}: a run of a recurrent learner, played by python smac/watch.py {shlex.quote(str(run))}")
    missing = [key for key in ("env", "obs", "legacy_actuators", "test_ep_len") if key not in config]
    if missing:
        raise UsageError(f"{run / CONFIG}: no {', '.join(missing)}, so not the configuration of a run of this project")
    return config


def read_env(run: Path, args: argparse.Namespace) -> envs.VectorEnv:
    """The environment that the run was tested in, with the flags' seed, length of an episode and size of a picture."""
    config = settings(run)
    env = envs.make(
        config["env"],
        [args.seed],
        obs=config["obs"],
        max_ep_len=args.steps or config["test_ep_len"],
        legacy_actuators=config["legacy_actuators"],
    )
    if args.size and env.family == "parallel":
        raise UsageError(f"--size {args.size}: {env.name} draws at a size of its own; leave --size out")
    env.side = args.size or env.side
    return env


def read_policy(run: Path, env: envs.VectorEnv) -> Policy:
    """The run's policy. UsageError where there is none, or one of another environment."""
    policy = load_policy(run)
    have, need = (policy.n_agents, policy.n_obs, policy.n_act), (env.n_agents, env.n_obs, env.n_act)
    if have != need:
        raise UsageError(f"{run}: its policy has {have} agents, observation and action numbers; the environment {need}")
    return policy


def play(env: envs.VectorEnv, policy: Policy, film: Callable[[np.ndarray], None] | None = None) -> Played:
    """One episode of row 0. Every state is filmed, the first and the last too."""
    played: list[Played] = []
    with tqdm(total=env.max_ep_len + 1, unit=" frames", leave=False, disable=None if film else True) as bar:
        for _ in states(env, policy, played):
            if film:
                film(env.render(0))
            bar.update()
    return played[0]


def states(env: envs.VectorEnv, policy: Policy, played: list[Played]) -> Iterator[None]:
    """Row 0 in each state of an episode, one after another; what it came to goes to `played` at the end."""
    env.reset()
    ret, length, over = 0.0, 0, False
    while not over:
        yield
        _, rew, terminated, truncated = env.step(policy(env.obs))
        ret, length, over = ret + float(rew[0]), length + 1, bool(terminated[0] or truncated[0])
    played.append((ret, length))
    yield


def pictures(env: envs.VectorEnv, policy: Policy, played: list[Played]) -> Iterator[np.ndarray]:
    """Those of an episode's states."""
    return (env.render(0) for _ in states(env, policy, played))


def abreast(plays: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Their pictures side by side, until the last has ended; of one that ends earlier the last picture stays."""
    last = [next(play) for play in plays]
    moved = True
    while moved:
        yield np.hstack(last)
        moved = False
        for k, play in enumerate(plays):
            picture = next(play, None)
            last[k], moved = (last[k], moved) if picture is None else (picture, True)


def watch_abreast(args: argparse.Namespace) -> None:
    """Film an episode of each run, side by side from the same seed, and print their returns."""
    with Film(args.video) as film:
        runs = [args.run, args.beside]
        games = [read_env(run, args) for run in runs]
        if len({env.name for env in games}) > 1:
            raise UsageError(
                f"--beside {args.beside}: a run of {games[1].name}, and {args.run} is one of {games[0].name}"
            )
        film.fps = args.fps or games[0].fps
        played: list[list[Played]] = [[], []]
        for k in range(args.episodes):
            plays = [pictures(env, read_policy(run, env), p) for run, env, p in zip(runs, games, played)]
            for picture in abreast(plays):
                film.add(picture)
            for run, episodes in zip(runs, played):
                print(
                    f"episode {k + 1}, {run.name}: return {episodes[-1][0]:.2f}, length {episodes[-1][1]}", flush=True
                )
    print(f"film: {film.path}")


def watch(args: argparse.Namespace) -> None:
    """Print each episode's return and length and their mean, and film them all if `video`."""
    film = Film(args.video) if args.video else None
    with film or contextlib.nullcontext():
        env = read_env(args.run, args)
        policy = read_policy(args.run, env)
        if film:
            film.fps = args.fps or env.fps
        played = []
        for k in range(args.episodes):
            ret, length = play(env, policy, film.add if film else None)
            played.append((ret, length))
            print(f"episode {k + 1}: return {ret:.2f}, length {length}", flush=True)
        if args.episodes > 1:
            mean_return, mean_length = np.mean(played, axis=0)
            print(f"mean of {args.episodes}: return {mean_return:.2f}, length {mean_length:.1f}")
        env.close()
    if film:
        print(f"film: {film.path}")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("watch.py", __doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUNDIR", help="folder of one seed: data/NAME/NAME_s0")
    add("--episodes", type=number(1), default=1, metavar="K", help="how many to play [%(default)s]")
    add("--steps", type=number(1), metavar="T", help="steps after which an episode ends [the run's test_ep_len]")
    add("--seed", type=number(0), default=0, help="of the environment's starting states [%(default)s]")
    add("--video", type=Path, metavar="FILE.mp4", help="film them all into this file; no screen is needed")
    add("--beside", type=Path, metavar="RUNDIR", help="film this run too, to the right of the other, from equal states")
    add("--size", type=number(16, 4096), metavar="PIXELS", help="width and height of the film [480]")
    add("--fps", type=number(1), help="environment steps per second of film [the task's: HalfCheetah 20, games 25]")
    args = parser.parse_args(argv)
    if args.beside and not args.video:
        parser.error(f"--beside {args.beside}: it is for a film; name one with --video FILE.mp4")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    return status("watch.py", lambda: watch_abreast(args) if args.beside else watch(args))


if __name__ == "__main__":
    sys.exit(main())
