"""Updates: compiled, recorded and plain, against a naive one."""

import argparse
import copy
import dataclasses
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from bench import naive
from bench.clock import Clock, Peaks, Work, repeat, spread
from bench.flops import N_ACT, N_OBS, PPO_ITERS, useful
from common.fast.record import Recorded
from common.fast.recorders import cuda_graph, operations
from common.replay import Replay
from envs.vector import VectorEnv, mask

SIZES = {"cpu": [(1, 2), (5, 2), (1, 6), (1, 8)], "cuda": [(1, 2), (5, 2), (16, 2), (1, 8), (16, 8)]}  # (S, N)
TOLERANCE = 0.05  # of `apart`


@dataclass(frozen=True)
class Case:
    """A learner to measure: its file, what its Config differs in, its naive form, and whether at every (S, N)."""

    module: ModuleType
    learner: type[naive.Learner]
    flags: dict[str, Any] = dataclasses.field(default_factory=dict)
    everywhere: bool = True

    def updates(self, update: Any, agents: Any, batches: Iterator[Any], cfg: Any) -> Callable[[], Any]:
        """What makes one update after another."""
        if self.module is not d3g:
            return lambda: update(agents, next(batches), cfg)
        moves = itertools.cycle([False] * (cfg.tau_every - 1) + [True])
        return lambda: update(agents, next(batches), cfg, next(moves))


ITERS = {"train_pi_iters": PPO_ITERS, "train_v_iters": PPO_ITERS, "target_kl": 1e6}  # so that no agent stops early
CASES = {
    "i2q_ddpg": Case(i2q_ddpg, naive.I2q),
    "i2q_ddpg --rule 2": Case(i2q_ddpg, naive.I2q, {"rule": "2"}, everywhere=False),
    "i2q_ddpg --rule released": Case(i2q_ddpg, naive.I2q, {"rule": "released"}, everywhere=False),
    "iddpg": Case(iddpg, naive.Ddpg),
    "mbpo_baseline": Case(mbpo_baseline, naive.Mbpo),
    "d3g": Case(d3g, naive.D3g),
    "i2q_expectile": Case(i2q_expectile, naive.Expectile),
    "i2q_expectile --form released": Case(i2q_expectile, naive.Expectile, {"form": "released"}, everywhere=False),
    "ippo": Case(ippo, naive.Ppo, ITERS),
}


def transitions(case: Case, env: VectorEnv, cfg: Any, device: str, count: int) -> list[Any]:
    """Batches as an algorithm's loop draws them, of random transitions."""
    shape, rng = (len(env.seeds), env.n_agents), np.random.default_rng(0)
    if case.module is ippo:
        rollout = ippo.Rollout(*shape, env.n_obs, env.n_act, cfg.rollout)
        for k in range(cfg.rollout):
            obs, next_obs = rng.uniform(-1, 1, (2, *shape, env.n_obs))
            end = np.full(len(env.seeds), k % 50 == 49)
            rollout.store(obs, rng.normal(size=(*shape, env.n_act)), next_obs, rng.normal(size=shape[0]), end & 0, end)
        return [rollout.steps(device)]
    replay = Replay(env.seeds, env.n_agents, env.n_obs, env.n_act, 1000, device)
    for _ in range(replay.size):
        obs, next_obs = rng.uniform(-1, 1, (2, *shape, env.n_obs))
        terminated = rng.random(shape[0]) < 0.1
        replay.store(obs, rng.uniform(-1, 1, (*shape, env.n_act)), next_obs, rng.normal(size=shape[0]), terminated)
    return list(replay.sample(cfg.batch_size, count))


def contestants(case: Case, S: int, N: int, args: argparse.Namespace) -> tuple[dict[str, Work], dict[str, float], Any]:
    """An update in each of its ways, how far three of the first and of the naive one end apart, and the Config."""
    env = VectorEnv("bench", range(S), mask([N_OBS] * N), mask([N_ACT] * N), 1000)
    ppo = case.module is ippo  # has sizes of its own
    sizes = {"rollout": args.rollout} if ppo else {"hid": args.hid, "batch_size": args.batch_size}
    cfg = case.module.Config(device=args.device, **case.flags, **sizes)
    batches = transitions(case, env, cfg, args.device, 20)
    ways = ["batched" if args.device != "cpu" else "eager"]
    if args.device != "cpu":
        ways.insert(0, "graph")
    elif args.kernels:
        ways.insert(0, "compiled")
    stacks = [case.module.Agents(env, cfg, env.seeds) for _ in ways]
    learners = naive.learners_like(case.learner, stacks[0], env, cfg)
    works: dict[str, Work] = {}
    for agents, way in zip(stacks, ways):
        update, turn = case.module.update, itertools.cycle(batches)
        if way == "compiled":
            agents.use(args.kernels)
        if way in ("compiled", "graph"):
            make = functools.partial(operations, args.kernels) if way == "compiled" else cuda_graph
            update = Recorded(update, make, print, required=True, exact=way == "compiled")
        works[way] = repeat(case.updates(update, agents, turn, cfg))
    naive_turn = itertools.cycle(batches)
    works["naive"] = repeat(lambda: naive.update(learners, next(naive_turn), env))

    before = copy.deepcopy(learners)
    works[ways[0]](3)
    works["naive"](3)
    difference = 0.0
    apart: dict[Any, float] = defaultdict(float)  # squared distances, by network
    moved: dict[Any, float] = defaultdict(float)
    for at, learner in learners.items():
        both = zip(naive.pairs(learner, stacks[0], env, *at), naive.pairs(before[at], stacks[0], env, *at))
        for (name, own, stacked), (_, old, _) in both:
            network, error = (at, name.split(".")[0]), (own - stacked).detach()
            difference = max(difference, float(error.abs().max()))
            apart[network] += float(error.square().sum())
            moved[network] += float((own - old).detach().square().sum())
    relative = max(math.sqrt(apart[network] / (moved[network] or math.nan)) for network in apart)
    return works, {"difference": difference, "apart": relative}, cfg


def update_rows(name: str, args: argparse.Namespace, clock: Clock, peaks: Peaks) -> Iterator[dict[str, Any]]:
    """A learner's updates at every (S, N), each in all its ways."""
    case = CASES[name]
    groups = {(S, N): contestants(case, S, N, args) for S, N in (args.sizes if case.everywhere else args.sizes[:1])}
    works: dict[Any, Work] = {**peaks.works()}
    works |= {(size, way): work for size, (ways, *_) in groups.items() for way, work in ways.items()}
    taken = clock.turns(works, period=next((cfg.tau_every for *_, cfg in groups.values() if name == "d3g"), 1))
    mm, best = peaks.add(taken)
    for (S, N), (ways, differences, cfg) in groups.items():
        batch = getattr(cfg, "batch_size", 0) or cfg.rollout
        count = S * N * useful(name, [cfg.hid] * cfg.l, batch)
        for way in ways:
            seconds = taken[(S, N), way]
            yield {
                "algorithm": name,
                "seeds": S,
                "agents": N,
                "way": way,
                "ms": spread(1e3 * seconds),
                "useful_mflop": count / 1e6,
                "gflops": spread(count / seconds / 1e9),
                "of_mm": spread(count / seconds / mm),
                "of_best": spread(count / seconds / best),
                "times_naive": spread(taken[(S, N), "naive"] / seconds),
                **(differences if way == next(iter(ways)) else dict.fromkeys(differences)),
            }
