"""How fast the recurrent learners are on one core of this machine: python -m bench.recurrent [--quick]

update     ms of one update at 5 agents, 32 episodes of 10 to 30 steps, 80 numbers seen and 11 actions, against the
           naive module-per-agent update of bench/recurrent_naive.py: processor time, in turns, best of several
task       environment steps a second, acting included, of the tasks that are installed
hours      for a million steps of smax:2s3z: steps and updates at its mean length, one update an episode, and one per 8
memory     of the replay, per seed, for 5000 episodes
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch

from bench import recurrent_naive as naive
from bench.clock import compiled
from smac import d3g_discrete, envs, i2q_drqn, iql
from smac.common.play import Memory
from smac.common.replay import EpisodeReplay

LEARNERS: dict[str, tuple[ModuleType, Any, dict[str, Any]]] = {
    "iql": (iql, naive.IQL, {}),
    "i2q f": (i2q_drqn, naive.I2Q, {"form": "f"}),
    "i2q rule 1": (i2q_drqn, naive.I2Q, {"form": "f", "rule": "1"}),
    "i2q no_f": (i2q_drqn, naive.I2Q, {"form": "no_f"}),
    "d3g": (d3g_discrete, naive.D3G, {}),
}


class Noise(envs.MaskedEnv):
    """Random observations and masks, episodes of 10 to `longest` steps, in the sizes of a map."""

    def __init__(self, n_agents: int, n_obs: int, n_act: int, longest: int, seed: int = 0):
        shapes = np.ones((n_agents, n_obs), bool), np.ones((n_agents, n_act), bool)
        super().__init__("noise", (seed,), 1, *shapes, max_ep_len=longest)

    def _start(self, row: int, copy: int) -> tuple[np.ndarray, np.ndarray]:
        self.length = int(self.rng(0, 0).integers(10, self.max_ep_len + 1))
        return self._seen()

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        avail = self.rng(0, 0).random(self.act_mask.shape) < 0.7
        avail[:, 0] = True
        return self.rng(0, 0).normal(size=self.obs_mask.shape), avail

    def _play(self, row: int, copy: int, act: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool, bool, float]:
        return *self._seen(), float(self.rng(0, 0).normal()), int(self.t[0, 0]) + 1 >= self.length, False, 0.0


def filled(env: envs.MaskedEnv, episodes: int) -> EpisodeReplay:
    replay, rng = EpisodeReplay(env, episodes, episodes * env.max_ep_len), np.random.default_rng(0)
    env.reset()
    while replay.episodes[0] < episodes:
        obs, avail = env.obs, env.avail
        act = np.where(avail, rng.random(avail.shape), -1).argmax(-1)
        rew, terminated, truncated = env.step(act)
        replay.store(obs, avail, act, rew, terminated)
        replay.end(env.obs, env.avail, env.t, terminated | truncated)
        env.reset(terminated | truncated)
    return replay


def in_turns(calls: Sequence[Callable[[], Any]], times: int) -> list[float]:
    """The least processor seconds of each call, taken in turns: a busy machine slows all of them alike, if any."""
    best = [np.inf] * len(calls)
    for _ in range(times):
        for k, call in enumerate(calls):
            start = time.process_time()
            call()
            best[k] = min(best[k], time.process_time() - start)
    return best


def updates(times: int, n_agents: int = 5, longest: int = 30) -> dict[str, tuple[float, float]]:
    """Seconds of one update, ours and naive, by learner."""
    env, found = Noise(n_agents, 80, 11, longest), compiled(partial(print, file=sys.stderr))
    replay, times_of = filled(env, 200), {}
    for name, (module, kind, flags) in LEARNERS.items():
        cfg = module.Config(**flags)
        agents = module.Agents(env, cfg, env.seeds)
        learners = naive.learners_like(kind, agents, cfg)
        agents.use(found)

        batch = replay.sample(0, cfg.batch_size, shared=True)
        parts = {at: naive.part(batch, *at) for at in learners}

        def ours(module: Any = module, agents: Any = agents, batch: Any = batch, cfg: Any = cfg) -> None:
            module.update(agents, batch, cfg)

        def theirs(learners: Any = learners, parts: Any = parts) -> None:
            for at, learner in learners.items():
                learner.update(parts[at])

        ours()  # the first calls take memory
        theirs()
        mine, other = in_turns([ours, theirs], times)
        times_of[name] = mine, other
    return times_of


def steps_per_second(name: str, copies: int, seconds: float) -> tuple[float, float]:
    """Environment steps a second with random legal actions and an IQL's acting; mean length of an episode."""
    env = envs.make(name, [0], copies, envs.schedule(name)["max_ep_len"])
    learners = iql.Agents(env, iql.Config(), env.seeds).split()
    memory, rng, lengths, steps = Memory(env, 64, "cpu"), np.random.default_rng(0), [], 0
    env.reset()

    def step() -> None:
        memory.values(learners, env)
        act = np.where(env.avail, rng.random(env.avail.shape), -1).argmax(-1)
        _, terminated, truncated = env.step(act)
        lengths.extend(env.t[terminated | truncated].tolist())
        memory.acted(act, terminated | truncated)
        env.reset(terminated | truncated)

    for _ in range(5):
        step()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or not lengths:
        step()
        steps += copies
    return steps / (time.perf_counter() - start), float(np.mean(lengths))


def memory_of(n_agents: int, n_obs: int, n_act: int, longest: int) -> tuple[float, float]:
    """GB of a seed's replay at the flags' defaults, and of 5000 full episodes of float32, padded."""
    replay = EpisodeReplay(Noise(n_agents, n_obs, n_act, longest), iql.Config.replay_size, iql.Config.replay_steps)
    ours = replay.rows.nbytes + replay.finals.nbytes + replay.table.nbytes
    return ours / 1e9, 5000 * (longest + 1) * n_agents * n_obs * 4 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.recurrent", description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: half a minute, and rougher")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print("update: 5 agents, 32 episodes of 10 to 30 steps, ms of the best")
    for name, (ours, other) in updates(3 if quick else 15).items():
        print(f"  {name:12} ours {1e3 * ours:7.1f}   naive {1e3 * other:7.1f}   {other / ours:.1f} times as fast")
    tasks = [("FocusFire-3", 1), ("FocusFire-3", 8)]
    if importlib.util.find_spec("jaxmarl"):
        tasks += [(f"smax:{title}", copies) for title in ("3m", "2s3z", "8m") for copies in (1, 8)]
    print("task: environment steps a second, acting included; mean length under random play")
    rates = {}
    for name, copies in tasks:
        rates[name, copies] = rate, length = steps_per_second(name, copies, 1 if quick else 5)
        print(f"  {name:12} {copies} at once   {rate:7.0f} steps/s   length {length:.0f}")
    if ("smax:2s3z", 8) in rates:
        rate, length = rates["smax:2s3z", 8]
        print(f"hours: a million steps of smax:2s3z, 8 at once, {length:.0f} steps an episode")
        for name, (ours, _) in updates(2 if quick else 5, longest=100).items():
            one, eight = (1e6 / rate + 1e6 / length / k * ours for k in (1, 8))
            print(f"  {name:12} an update an episode {one / 3600:.1f} h, one per 8 episodes {eight / 3600:.1f} h")
    print("memory: GB of a seed's replay, and of 5000 episodes padded to full length in float32")
    for title, sizes in {"8m": (8, 205, 13, 100), "2s3z": (5, 127, 10, 100), "3m": (3, 75, 8, 100)}.items():
        ours, padded = memory_of(*sizes)
        print(f"  {title:12} {ours:.2f} against {padded:.2f}")


if __name__ == "__main__":
    main()
