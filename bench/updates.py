"""How fast updates, environments and training are: against this core's matrix products, a naive update, gymnasium.

    python -m bench                              all of it, about three minutes of a free core
    python -m bench --only i2q_ddpg env          a part of it
    python -m bench --json > speed.json          the same numbers to read by programs
    python -m bench --device cuda                the updates and training on a card

One process, one thread, single precision. Whatever is compared takes turns, round after round, and a ratio is taken
within a round: what else the machine does hits all alike. Every number is the median over rounds, with the least and
the greatest. Absolute times tell of the machine and of its neighbours; ratios are what counts.

Useful FLOPs are those of the matrix products that the mathematics of an update needs (PASSES), a multiplication and an
addition each; ReLU, Adam, losses and target networks count as nothing. `of torch.mm` is useful FLOP/s over the best of
torch.mm in the same round, `of best` over the best product by any library, which can be twice that: MKL, on which
torch.mm stands, leaves half of an AMD core's vector units unused. `naive` is naive.py, a torch.nn module and an Adam
for each network of each agent; after three updates of both, `difference` is the largest one of any parameter, and
`apart` how far any two networks ended apart over how far they had come: rounding makes up to 1e-2.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import itertools
import json
import math
import re
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar
from unittest import mock

import gymnasium
import numpy as np
import torch

import d3g
import envs
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from bench import naive
from common.console import Once
from common.fast import kernels, passes, record
from common.folder import Folder
from common.nets import MLP
from common.ranks import Ranks
from common.replay import Replay
from common.run import Process, Run
from common.signals import Signals
from envs import partitioned
from envs.vector import VectorEnv, mask

Work = Callable[[int], None]  # does what is measured so many times
Key = TypeVar("Key")

N_OBS, N_ACT = 11, 3  # of every agent: Farama's two-agent HalfCheetah
SIZES = {"cpu": [(1, 2), (5, 2), (1, 6), (1, 8)], "cuda": [(1, 2), (5, 2), (16, 2), (1, 8), (16, 8)]}  # (S, N)
TOLERANCE = 0.05  # of `apart`
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
ROBOTS = {"2x3HalfCheetah": "HalfCheetah-v5", "2x4Ant": "Ant-v5", "2x3Walker": "Walker2d-v4"}
PARTS = [*CASES, "env", "train"]


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


# Measuring


class Clock:
    """Times contestants in turns."""

    def __init__(self, device: str, rounds: int, seconds: float):
        self.rounds, self.seconds = rounds, seconds  # each contestant works for at least so long a round
        self.wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def once(self, work: Work, n: int) -> float:
        """Seconds that one of n takes."""
        self.wait()
        start = time.perf_counter()
        work(n)
        self.wait()
        return (time.perf_counter() - start) / n

    def turns(self, contestants: Mapping[Key, Work], period: int = 1) -> dict[Key, np.ndarray]:
        """Seconds of each contestant, by round. Where every `period`-th turn of a work is longer, all kinds count."""
        counts: dict[Key, int] = {}
        taken = {key: np.zeros(self.rounds) for key in contestants}
        for key, work in contestants.items():
            work(1)  # loads, allocates, compiles
            counts[key] = period * max(1, math.ceil(self.seconds / self.once(work, 1) / period))
        for k in range(self.rounds):
            for key, work in contestants.items():
                work(1)  # brings its data back into the caches
                taken[key][k] = self.once(work, counts[key])
        return taken


def spread(values: np.ndarray | Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(map(float, values)), "min": float(min(values)), "max": float(max(values))}


def products(args: argparse.Namespace) -> dict[str, tuple[float, Work]]:
    """Matrix products by library and shape: FLOPs, and the work. A large square one, and a hidden layer's."""
    found: dict[str, tuple[float, Work]] = {}
    side = args.square
    for m, n in ((side, side), (args.batch_size, args.hid)):
        a, w = torch.randn(m, n, device=args.device), torch.randn(n, n, device=args.device)
        c, size = torch.empty(m, n, device=args.device), f"{m} x {n} x {n}"
        found[f"torch.mm {size}"] = 2 * m * n * n, repeat(lambda a=a, w=w, c=c: torch.mm(a, w.t(), out=c))
        if args.device != "cpu":
            continue
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):  # private to PyTorch: may go
            packed, linear = torch.ops.mkldnn._reorder_linear_weight(w, m), torch.ops.mkldnn._linear_pointwise
            linear(a, packed, None, "none", [], "")
            work = repeat(lambda a=a, packed=packed, linear=linear: linear(a, packed, None, "none", [], ""))
            found[f"oneDNN {size}"] = 2 * m * n * n, work
        if args.kernels:
            layer, x = MLP([n, n], torch.randn(1, 1, passes.length([n, n]))), torch.randn(1, 1, m, n)
            layer.kernels = args.kernels
            found[f"mlp.cpp {size}"] = 2 * m * n * n, repeat(lambda layer=layer, x=x: layer(x))
    return found


def repeat(call: Callable[[], Any]) -> Work:
    def work(n: int) -> None:
        for _ in range(n):
            call()

    return work


class Peaks:
    """FLOP/s of the products, measured beside all else."""

    def __init__(self, args: argparse.Namespace):
        self.products = products(args)
        self.seen: list[dict[str, np.ndarray]] = []  # a group after another: product -> FLOP/s by round

    def works(self) -> dict[str, Work]:
        return {name: torch.no_grad()(work) for name, (_, work) in self.products.items()}

    def add(self, taken: dict[Any, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """FLOP/s of torch.mm's best and of the best of all, by round, of the group just measured."""
        self.seen.append({name: self.products[name][0] / taken[name] for name in self.products})
        best = np.max([*self.seen[-1].values()], 0)
        return np.max([rate for name, rate in self.seen[-1].items() if name.startswith("torch.mm")], 0), best

    def rows(self) -> list[dict[str, Any]]:
        """Over all groups, in GFLOP/s, and the medians of the first and the last group."""
        return [
            {
                "product": name,
                "gflops": spread(np.concatenate([group[name] for group in self.seen]) / 1e9),
                "before": float(np.median(self.seen[0][name])) / 1e9,
                "after": float(np.median(self.seen[-1][name])) / 1e9,
            }
            for name in self.products
        ]


# Updates


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
    if args.device != "cpu" and not ppo:
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
        if way in ("compiled", "graph") and not ppo:
            make = functools.partial(record.operations, args.kernels) if way == "compiled" else record.cuda_graph
            update = record.Recorded(update, make, print, required=True, exact=way == "compiled")
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


# Environments


def env_rows(args: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """A step of one robot by us, by gymnasium and by MaMuJoCo, through the same episodes; a step of a game, by us.

    Restarts are part of it: Ant and Walker fall often, as in the first steps of a run.
    """
    mamujoco = partitioned.load("gymnasium_robotics").mamujoco_v1
    for name, whole in ROBOTS.items():
        body, kwargs = partitioned.BODIES[partitioned.parse(name)[1]][1].removesuffix("Env"), {}
        if body == "Ant":
            kwargs = {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}
        own = {"agent_obsk": 0, "local_categories": [["qpos", "qvel"]], "global_categories": ()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Walker2d-v4: v5 has another friction
            ours, plain = envs.make(name, [0]), gymnasium.make(whole, disable_env_checker=True, **kwargs)
            farama = mamujoco.parallel_env(body, partitioned.parse(name)[0], **own, **kwargs)
        act = np.random.default_rng(0).uniform(-1, 1, (500, 1, *ours.act_mask.shape)).astype(np.float32)
        joint = act.reshape(len(act), -1)[:, ours.source].astype(np.float64)  # pyright: ignore[reportAttributeAccessIssue]
        dicts = [dict(zip(farama.possible_agents, row[0].astype(np.float64))) for row in act]

        def step_ours(k: int, env: Any = ours, act: np.ndarray = act) -> bool:
            _, _, terminated, truncated = env.step(act[k])
            return bool(terminated[0] | truncated[0])

        def step_plain(k: int, env: Any = plain, act: np.ndarray = joint) -> bool:
            _, _, terminated, truncated, _ = env.step(act[k])
            return terminated or truncated

        def step_farama(k: int, env: Any = farama, act: list = dicts) -> bool:
            _, _, terminated, truncated, _ = env.step(act[k])
            return any(terminated.values()) or any(truncated.values())

        for env in (plain, farama):
            env.reset(seed=0)
        ours.reset()
        ways = {"ours": episodes(step_ours, ours.reset, len(act))}
        ways["gymnasium"] = episodes(step_plain, plain.reset, len(act))
        ways["mamujoco"] = episodes(step_farama, farama.reset, len(act))
        yield from _compared(name, 1, clock.turns(ways), "gymnasium")
        for env in (ours, plain, farama):
            env.close()
    for S in (1, 64):
        env = envs.make("DifferentialGame-3", range(S))
        act = np.random.default_rng(0).uniform(-1, 1, (500, S, *env.act_mask.shape)).astype(np.float32)

        def step(k: int, env: VectorEnv = env, act: np.ndarray = act) -> bool:
            env.step(act[k])
            return False

        env.reset()
        yield from _compared("DifferentialGame-3", S, clock.turns({"ours": episodes(step, env.reset, len(act))}), "")


def episodes(step: Callable[[int], bool], reset: Callable[[], Any], length: int) -> Work:
    """n steps on the same actions again and again, starting over where an episode ends or the actions do."""
    k = length

    def work(n: int) -> None:
        nonlocal k
        for _ in range(n):
            if k == length:
                reset()
                k = 0
            k = length if step(k) else k + 1

    return work


def _compared(name: str, rows: int, taken: dict[str, np.ndarray], reference: str) -> Iterator[dict[str, Any]]:
    for way, seconds in taken.items():
        yield {
            "env": name,
            "rows": rows,
            "way": way,
            "us": spread(1e6 * seconds),
            "steps_per_s": spread(rows / seconds),
            "over_gymnasium": spread(seconds / taken[reference]) if reference else None,
        }


# Training


def train_row(module: ModuleType, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of the algorithm's own loop at one update a step, by blocks of 50, and its updates' share."""
    env, name = "2x3HalfCheetah", module.__name__
    settings = {**module.defaults(env, "own"), "hid": args.hid, "batch_size": args.batch_size, "device": args.device}
    every = settings["update_every"]
    steps = args.update_after + every * args.blocks
    settings |= {"epochs": 1, "steps_per_epoch": steps, "num_test_episodes": 1, "test_ep_len": 1}
    settings |= {"update_after": args.update_after}
    wait = torch.cuda.synchronize if args.device != "cpu" else lambda: None
    began: list[float] = []
    ended: list[float] = []

    original = Run.record

    def timed(run: Run, update: Any) -> Any:
        recorded = original(run, update)

        def call(*arguments: Any) -> Any:
            wait()
            began.append(time.perf_counter())
            out = recorded(*arguments)
            wait()
            ended.append(time.perf_counter())
            return out

        return call

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        cfg = module.Config(env=env, exp_name="bench", data_dir=folder, threads=1, **settings)
        signals = Signals()
        try:
            with Folder(cfg, name, 0) as kept, mock.patch.object(Run, "record", timed):
                run = Run(Process(cfg, Ranks(), signals, Once(0)), {0: kept}, kernels=args.kernels)
                module.train(cfg, run)
                run.close()
        finally:
            signals.restore()
    per_block = settings["updates"]
    ends = np.array(ended)[per_block - 1 :: per_block]  # of each block of updates; the first one warms up
    inside = (np.array(ended) - np.array(began)).reshape(-1, per_block).sum(1)[1:]
    whole = np.diff(ends)
    return {
        "algorithm": name,
        "env": env,
        "steps_per_s": spread(every / whole),
        "updates_alone_per_s": spread(per_block / inside),
        "of_updates_alone": spread(inside / whole),
    }


# Report


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything asked for, as it goes into --json."""
    torch.set_num_threads(1)
    args.kernels = None
    if args.device == "cpu":
        try:
            args.kernels = kernels.load()
            args.kernels.threads(1)
        except RuntimeError as error:
            say(f"bench: not compiled: {error}")
    clock, peaks = Clock(args.device, args.rounds, args.seconds), Peaks(args)
    report: dict[str, Any] = {
        "machine": {"device": device_name(args.device), "torch": torch.__version__, "threads": 1},
        "settings": {"obs": N_OBS, "act": N_ACT}
        | {name: getattr(args, name) for name in ("batch_size", "hid", "rollout", "rounds")},
        "updates": [],
        "env": [],
        "train": [],
    }
    peaks.add(clock.turns(peaks.works()))
    for name in CASES:
        if name in args.only:
            say(f"bench: {name}")
            report["updates"] += update_rows(name, args, clock, peaks)
    if "env" in args.only:
        say("bench: environments")
        report["env"] = [*env_rows(args, clock)]
    if "train" in args.only:
        for module in (i2q_ddpg, iddpg):
            say(f"bench: training with {module.__name__}")
            report["train"].append(train_row(module, args))
    peaks.add(clock.turns(peaks.works()))
    return {**report, "peak": peaks.rows()}


def device_name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return "cpu"


def differs(row: dict[str, Any]) -> bool:
    """Whether this update does not give what the naive one gives; a NaN does not."""
    return row["apart"] is not None and not row["apart"] <= TOLERANCE


def table(report: dict[str, Any]) -> str:
    """The report for people: median (min .. max)."""

    def cell(values: dict[str, float] | None, digits: int = 2) -> str:
        if values is None:
            return "-"
        return "{median:.{d}f} ({min:.{d}f}..{max:.{d}f})".format(**values, d=digits)

    of, s = report["machine"], report["settings"]
    lines = [f"{of['device']}, {of['threads']} thread, torch {of['torch']}; median (min..max) of {s['rounds']} rounds"]
    lines += ["", f"{'one product, GFLOP/s':30} {'':22} {'before':>8} {'after':>8}"]
    for row in report["peak"]:
        lines.append(f"{row['product']:30} {cell(row['gflops'], 0):22} {row['before']:8.0f} {row['after']:8.0f}")
    if report["updates"]:
        title = f"updates: observation {s['obs']}, {s['act']} actions, batch {s['batch_size']}, {s['hid']}-{s['hid']}"
        lines += ["", f"{title}; IPPO: {PPO_ITERS} + {PPO_ITERS} steps on a rollout of {s['rollout']}, 64-64"]
        head = f"{'':30} {'S':>2} {'N':>2} {'':9} {'ms an update':24} {'MFLOP':>8} {'of torch.mm':20} {'of best':20} "
        lines.append(head + f"{'times naive':20} {'difference':10} apart")
    for row in report["updates"]:
        check = "" if row["apart"] is None else f"{row['difference']:<10.1e} {row['apart']:.1e}"
        check += "  DIFFERS" if differs(row) else ""
        lines.append(
            f"{row['algorithm']:30} {row['seeds']:2} {row['agents']:2} {row['way']:9} {cell(row['ms']):24} "
            f"{row['useful_mflop']:8.1f} {cell(row['of_mm']):20} {cell(row['of_best']):20} "
            f"{cell(row['times_naive']):20} {check}".rstrip()
        )
    if report["env"]:
        lines += ["", f"{'environments':22} {'rows':>4} {'':10} {'us a step':26} {'over gymnasium':20} {'steps/s':>10}"]
    for row in report["env"]:
        lines.append(
            f"{row['env']:22} {row['rows']:4} {row['way']:10} {cell(row['us'], 1):26} {cell(row['over_gymnasium']):20} "
            f"{row['steps_per_s']['median']:10.0f}"
        )
    if report["train"]:
        lines += ["", f"{'training, an update a step':30} {'steps/s':24} {'updates alone, 1/s':24} of updates alone"]
    for row in report["train"]:
        lines.append(
            f"{row['algorithm'] + ' ' + row['env']:30} {cell(row['steps_per_s'], 0):24} "
            f"{cell(row['updates_alone_per_s'], 0):24} {cell(row['of_updates_alone'])}"
        )
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bench.py: {message}; --help explains\n")


def pair(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9]\d*,[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no S,N, as 5,2 for five seeds of two agents")
    S, N = text.split(",")
    return int(S), int(N)


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 an update differs from the naive one, 2 usage."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser("bench.py", description=description, epilog=epilog, formatter_class=layout)
    add = parser.add_argument
    text = f"some of {', '.join(shlex.quote(part) for part in PARTS)}"
    add("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=text)
    add("--sizes", nargs="+", type=pair, metavar="S,N", help="seeds and agents [1,2 5,2 1,6 1,8]")
    add("--batch_size", type=positive, default=100, help="transitions per update, seed and agent [%(default)s]")
    add("--hid", type=positive, default=256, help="units of each of two hidden layers [%(default)s]")
    add("--rounds", type=positive, default=9, help="turns of each contestant [%(default)s]")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 [%(default)s]")
    add("--quick", action="store_true", help="everything once, in tiny sizes: does it run?")
    add("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", args.device):
        parser.error(f"--device {args.device!r}: known are cpu, cuda and cuda:<number>")
    if args.device != "cpu" and int(args.device[5:] or 0) >= torch.cuda.device_count():
        parser.error(f"--device {args.device}: this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    args.sizes = args.sizes or SIZES[args.device[:4].rstrip(":")]
    args.seconds, args.square = 0.02, 512 if args.device == "cpu" else 4096
    args.rollout, args.update_after, args.blocks = 4000, 1000, 9
    if args.quick:
        args.sizes, args.rounds, args.hid, args.batch_size = args.sizes[:1], 2, 16, 8
        args.seconds, args.square, args.rollout, args.update_after, args.blocks = 1e-4, 64, 50, 50, 2
    report = measure(args, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(report, indent=1) if args.json else table(report))
    return int(any(map(differs, report["updates"])))


if __name__ == "__main__":
    sys.exit(main())
