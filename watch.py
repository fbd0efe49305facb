"""Play the policy of a run, or film it: python watch.py data/NAME/NAME_s0 [--video FILE.mp4]

The environment is rebuilt from the run's config.json; the actors are read from its policy.safetensors into numpy, so
no torch is needed and no code from the file is run. Episodes are those of the run's tests: no exploration noise,
test_ep_len steps at most.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

import envs
from common.errors import UsageError
from common.layout import CONFIG, POLICY, read_config
from common.parser import Parser, number
from common.perceptron import Perceptron

Policy = Callable[[np.ndarray], np.ndarray]


def settings(run: Path) -> dict[str, Any]:
    """The run's config.json. UsageError where there is no run, or no whole one."""
    form = "a run's folder is <data_dir>/<exp_name>/<exp_name>_s<seed>"
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; {form}")
    if not (run / CONFIG).is_file():
        runs = sorted(found.parent for found in run.glob(f"**/{CONFIG}"))
        raise UsageError(f"{run}: no {CONFIG}, so no run; {f'did you mean {runs[0]}?' if runs else form}")
    config = read_config(run)
    missing = [key for key in ("env", "obs", "legacy_actuators", "test_ep_len") if key not in config]
    if missing:
        raise UsageError(f"{run / CONFIG}: no {', '.join(missing)}, so not the configuration of a run of this project")
    return config


def policy_of(tensors: dict[str, np.ndarray], act_mask: np.ndarray) -> Policy:
    """obs (S, N, O) -> act (S, N, A) = tanh(pi(obs)), zero in padded dims. KeyError: no policy.

    D3G's file has no pi but tau and inverse: act = tanh(inverse(obs, obs + tau(obs))).
    """
    if "tau.0.weight" in tensors:
        tau, inverse = Perceptron.named(tensors, "tau"), Perceptron.named(tensors, "inverse")
        return lambda obs: np.tanh(inverse(np.concatenate([obs, obs + tau(obs)], -1))) * act_mask
    pi = Perceptron.named(tensors, "pi")
    return lambda obs: np.tanh(pi(obs)) * act_mask


def read_policy(run: Path, act_mask: np.ndarray, n_obs: int) -> Policy:
    """The run's actors. UsageError where the file is missing, damaged, or of another environment."""
    path = run / POLICY
    if not path.is_file():
        raise UsageError(f"{path}: not there yet; it comes with the run's first checkpoint, so let the run go on first")
    try:
        tensors = load_file(path)
        policy = policy_of(tensors, act_mask)
        sees, acts = ("tau", "inverse") if "tau.0.weight" in tensors else ("pi", "pi")
        first, last = Perceptron.named(tensors, sees).weights[0], Perceptron.named(tensors, acts).biases[-1]
    except (OSError, SafetensorError, KeyError) as error:
        raise UsageError(f"{path}: damaged or no policy ({error}); continue the run, which writes it again") from None
    have = (first.shape[0], first.shape[-1], last.shape[-1])
    need = (act_mask.shape[0], n_obs, act_mask.shape[1])
    if have != need:
        raise UsageError(f"{path}: for {have} agents, observation and action numbers; the environment has {need}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise UsageError(f"{path}: holds NaN or infinity: the training diverged; watch another seed")
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
        """UsageError where the film could not be written."""
        if path.suffix != ".mp4" or path.is_dir():
            raise UsageError(f"--video {path}: name a file that ends in .mp4")
        try:
            import imageio_ffmpeg
        except ImportError:
            raise UsageError("--video needs imageio-ffmpeg: .venv/bin/python -m pip install '.[video]'") from None
        self.path, self.fps, self.part = path, fps, path.with_suffix(f".{os.getpid()}.part.mp4")
        self.write_frames = imageio_ffmpeg.write_frames
        self.writer: Any = None  # a generator that takes frames; the first frame gives the size, so starts it
        try:
            self.part.touch()
        except OSError as error:
            raise UsageError(f"--video {path}: cannot be written ({error.strerror}); name another place") from None

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
    config = settings(run)
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
        policy = read_policy(run, env.act_mask, env.n_obs)
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
    parser = Parser("watch.py", __doc__)
    add = parser.add_argument
    add("run", type=Path, metavar="RUNDIR", help="folder of one seed: data/NAME/NAME_s0")
    add("--episodes", type=number(1), default=3, metavar="K", help="how many to play [%(default)s]")
    add("--seed", type=number(0), default=0, help="of the environment's starting states [%(default)s]")
    add("--video", type=Path, metavar="FILE.mp4", help="film them all into this file; no screen is needed")
    add("--fps", type=number(1), default=25, help="environment steps per second of film [%(default)s]")
    return parser.parse_args(argv)


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
