"""Play the policy of a run, or film it: python watch.py data/NAME/NAME_s0 [--video FILE.mp4]

The environment is rebuilt from the run's config.json; the policy is read by common/policy.py, so no torch is needed and
no code from the file is run. Episodes are those of the run's tests: no exploration noise,
test_ep_len steps at most.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import envs
from common.policy import Policy, load_policy


def read_config(run: Path) -> dict[str, Any]:
    """The run's config.json. ValueError where there is no run, or no whole one."""
    if not run.is_dir():
        raise ValueError(f"{run}: no such folder; a run's folder is <data_dir>/<exp_name>/<exp_name>_s<seed>")
    path = run / "config.json"
    if not path.is_file():
        runs = sorted(found.parent for found in run.glob("**/config.json"))
        way_out = f"did you mean {runs[0]}?" if runs else "a run's folder is <data_dir>/<exp_name>/<exp_name>_s<seed>"
        raise ValueError(f"{run}: no config.json, so no run; {way_out}")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); start the run anew, in another folder") from None
    missing = [key for key in ("env", "obs", "legacy_actuators", "test_ep_len") if key not in config]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)}, so not the configuration of a run of this project")
    return config


def read_policy(run: Path, env: envs.VectorEnv) -> Policy:
    """The run's policy. ValueError where there is none, or one of another environment."""
    policy = load_policy(run)
    have, need = (policy.n_agents, policy.n_obs, policy.n_act), (env.n_agents, env.n_obs, env.n_act)
    if have != need:
        raise ValueError(f"{run}: its policy has {have} agents, observation and action numbers; the environment {need}")
    return policy


def play(env: Any, policy: Policy, film: Callable[[np.ndarray], None] | None = None) -> tuple[float, int]:
    """One episode of row 0: its return and its length. Every state is filmed, the first and the last too."""
    env.reset()
    ret, length, over = 0.0, 0, False
    while not over:
        if film:
            film(env.render(0))
        _, rew, terminated, truncated = env.step(policy(env.obs))
        ret, length, over = ret + float(rew[0]), length + 1, bool(terminated[0] or truncated[0])
    if film:
        film(env.render(0))
    return ret, length


class Film:
    """An H.264 film of (H, W, 3) uint8 frames. It is written beside `path` and takes its name when whole."""

    def __init__(self, path: Path, fps: int) -> None:
        """ValueError where the film could not be written."""
        if path.suffix != ".mp4" or path.is_dir():
            raise ValueError(f"--video {path}: name a file that ends in .mp4")
        try:
            import imageio_ffmpeg
        except ImportError:
            raise ValueError("--video needs imageio-ffmpeg: .venv/bin/python -m pip install '.[video]'") from None
        self.path, self.fps, self.part = path, fps, path.with_suffix(f".{os.getpid()}.part.mp4")
        self.write_frames = imageio_ffmpeg.write_frames
        self.writer: Any = None  # a generator that takes frames; the first frame gives the size, so starts it
        try:
            self.part.touch()
        except OSError as error:
            raise ValueError(f"--video {path}: cannot be written ({error.strerror}); name another place") from None

    def add(self, frame: np.ndarray) -> None:
        if self.writer is None:
            height, width = frame.shape[:2]
            self.writer = self.write_frames(str(self.part), (width, height), fps=self.fps, macro_block_size=2)
            self.writer.send(None)
        self.writer.send(np.ascontiguousarray(frame))

    def close(self, keep: bool) -> None:
        """End the film: under its own name if `keep`, else leave nothing."""
        if self.writer is not None:
            self.writer.close()
        if keep:
            self.part.replace(self.path)
        self.part.unlink(missing_ok=True)


def watch(run: Path, episodes: int, seed: int, video: Path | None, fps: int) -> None:
    """Print each episode's return and length and their mean, and film them all if `video`."""
    config = read_config(run)
    film = Film(video, fps) if video else None
    whole = False
    try:
        env = envs.make(
            config["env"],
            [seed],
            obs=config["obs"],
            max_ep_len=config["test_ep_len"],
            legacy_actuators=config["legacy_actuators"],
        )
        policy = read_policy(run, env)
        played = []
        for k in range(episodes):
            ret, length = play(env, policy, film.add if film else None)
            played.append((ret, length))
            print(f"episode {k + 1}: return {ret:.2f}, length {length}", flush=True)
        mean_return, mean_length = np.mean(played, axis=0)
        print(f"mean of {episodes}: return {mean_return:.2f}, length {mean_length:.1f}")
        env.close()
        whole = True
    finally:
        if film:
            film.close(keep=whole)
    if film:
        print(f"film: {film.path}")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="watch.py", description="Play the policy of a run, or film it.")
    parser.add_argument("run", type=Path, metavar="RUNDIR", help="folder of one seed: data/NAME/NAME_s0")
    parser.add_argument("--episodes", type=int, default=3, metavar="K", help="how many to play (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the environment's starting states (default 0)")
    parser.add_argument(
        "--video", type=Path, metavar="FILE.mp4", help="film them all into this file; no screen is needed"
    )
    parser.add_argument("--fps", type=int, default=25, help="environment steps per second of film (default 25)")
    args = parser.parse_args(argv)
    for name, low in (("episodes", 1), ("seed", 0), ("fps", 1)):
        if getattr(args, name) < low:
            parser.error(f"--{name} {getattr(args, name)}: at least {low}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        watch(args.run, args.episodes, args.seed, args.video, args.fps)
    except ValueError as error:
        print(f"watch.py: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:  # no OpenGL to draw with, or no ffmpeg
        print(f"watch.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough; Python's last flush must not complain of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
