"""What the benchmark counts and compares, and how it reports; never how long anything takes."""

import argparse
import contextlib
import io
import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import ALGORITHMS, ROOT
from helpers.toys import Toy, make_agents, make_batch
from torch.utils.flop_counter import FlopCounterMode

import iddpg
from bench import naive, updates
from bench.__main__ import main
from bench.clock import Clock, spread
from bench.environments import ROBOTS
from bench.flops import N_ACT, N_OBS, PASSES, SHAPES, flops, useful
from bench.ranks import MPIRUN, together
from common.fast import passes
from envs.vector import VectorEnv, mask

# what our code evaluates again: the same networks on the same inputs, or a diagnostic
AGAIN = {"i2q_ddpg --rule released": "pi q", "i2q_expectile --form released": "pi", "ippo": "pi pi v v"}


# Counting


@pytest.mark.parametrize("kind, per_row", [("", 9 + 12 + 8), ("!", 3 * (9 + 12 + 8) - 9), (">", 2 * (9 + 12 + 8) - 3)])
def test_a_pass_costs_its_products_once_twice_or_nearly_three_times(kind, per_row):
    """1 + 2 inputs, 3 and 4 units, 2 outputs. Of the inputs' gradient only that of the last two is wanted."""
    assert flops(kind, (1, 2, 2), [3, 4], batch=5) == 2 * 5 * per_row


def test_an_update_of_iddpg_by_hand():
    pi, q = 11 * 256 + 256**2 + 256 * 3, 14 * 256 + 256**2 + 256
    forward = 2 * pi + 3 * q
    to_parameters = 2 * pi - 11 * 256 + 2 * q - 14 * 256
    to_the_action = q - 11 * 256
    assert useful("iddpg", [256, 256], 100) == 200 * (forward + to_parameters + to_the_action)


def products_of(line: str) -> Counter:
    """{("q", ""): times evaluated, ("q", "!"): parameter gradients, ("q", ">"): input gradients, ...}."""
    found = re.findall(r"(\w+)([!>]?)", line)
    return Counter((name, "") for name, _ in found) + Counter((name, kind) for name, kind in found if kind)


def set_up(name: str):
    """An update at the bench's widths, and how many rows its batch has."""
    env = VectorEnv("bench", [0], mask([N_OBS]), mask([N_ACT]), 1000)
    size = {"rollout": 12} if name == "ippo" else {"batch_size": 12}
    cfg = updates.CASES[name].module.Config(hid=16, **updates.CASES[name].flags, **size)
    case = updates.CASES[name]
    agents, (batch,) = case.module.Agents(env, cfg, env.seeds), updates.transitions(case, env, cfg, "cpu", 1)
    return case.updates(case.module.update, agents, itertools.repeat(batch), cfg)


@pytest.mark.parametrize("name", updates.CASES)
def test_the_passes_are_those_that_an_update_makes(name, monkeypatch):
    widths, made = {"": 0, "o": N_OBS, "a": N_ACT, "1": 1}, Counter()
    names = {(widths[a] + widths[b], widths[out]): name for name, (a, b, out) in SHAPES.items()}
    forward, backward = passes._forward, passes._backward

    def count_forward(net, *args, **kwargs):
        made[names[net.sizes[0], net.sizes[-1]], ""] += 1
        return forward(net, *args, **kwargs)

    def count_backward(net, x, hidden, grad, grads, need_x):
        for kind, wanted in (("!", grads is not None), (">", need_x)):
            made[names[net.sizes[0], net.sizes[-1]], kind] += wanted
        return backward(net, x, hidden, grad, grads, need_x)

    monkeypatch.setattr(passes, "_forward", count_forward)
    monkeypatch.setattr(passes, "_backward", count_backward)
    update, expected = set_up(name), Counter()
    update()
    update()
    for line, times in PASSES[name].items():
        expected += Counter({key: int(2 * times * count) for key, count in products_of(line).items()})
    assert +made == expected + products_of(" ".join([AGAIN.get(name, "")] * 2))


@pytest.mark.parametrize("name", updates.CASES)
def test_useful_flops_are_those_of_pytorchs_products_less_what_is_thrown_away(name):
    update = set_up(name)
    with FlopCounterMode(display=False) as counter:
        update()
        update()
    needed = 2 * useful(name, [16, 16], 12)
    widths = {"pi": (11, 0, 3), "q": (11, 3, 1), "v": (11, 0, 1)}
    again = 2 * sum(flops("", widths[network], [16, 16], 12) for network in AGAIN.get(name, "").split())
    thrown_away = sum(2 * times * line.count(">") for line, times in PASSES[name].items()) * 2 * 12 * 11 * 16
    assert counter.get_total_flops() == needed + again + thrown_away


# Comparing


@pytest.mark.parametrize("name", sorted(updates.CASES.keys() - {"ippo"}))  # it keeps its moments in single precision
def test_three_updates_equal_those_of_a_naive_learner_for_each_agent(name):
    case, env = updates.CASES[name], Toy([3, 4])
    agents, cfg = make_agents(case.module, env, torch.float64, **case.flags)
    learners = naive.learners_like(case.learner, agents, env, cfg)
    batches = [make_batch(env, seed=turn, dtype=torch.float64) for turn in range(3)]
    step = case.updates(case.module.update, agents, iter(batches), cfg)
    for batch in batches:
        step()
        naive.update(learners, batch, env)
    for at, learner in learners.items():
        for parameter, own, stacked in naive.pairs(learner, agents, env, *at):
            torch.testing.assert_close(stacked, own.detach(), rtol=0, atol=1e-9, msg=f"{at} {parameter}")


def test_three_updates_of_ippo_equal_those_of_a_naive_learner_in_single_precision():
    args = argparse.Namespace(device="cpu", kernels=None, rollout=130)
    _, differences, _ = updates.contestants(updates.CASES["ippo"], 2, 2, args)
    assert 0 < differences["apart"] < 1e-4


def test_contestants_take_turns():
    log: list[str] = []
    clock = Clock("cpu", rounds=3, seconds=0.0)
    taken = clock.turns({name: lambda n, name=name: log.append(name) for name in "ab"})
    assert re.fullmatch(r"(a+b+){4}", "".join(log))  # to warm up, and three rounds
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3}


def test_a_spread_is_median_least_and_greatest():
    assert spread(np.array([3.0, 1.0, 2.0, 10.0])) == {"median": 2.5, "min": 1.0, "max": 10.0}


def run(*argv: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(["--quick", *argv])
    return status, out.getvalue()


def test_an_update_that_differs_from_the_naive_one_is_marked_and_is_a_failure(monkeypatch):
    track = naive.track
    monkeypatch.setattr(naive, "track", lambda target, online, polyak: track(target, online, 0.99))  # not .995
    status, out = run("--only", "iddpg")
    assert status == 1
    assert "DIFFERS" in out


# Reporting


def test_quick_reports_everything_as_json():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    numbers = {"median", "min", "max"}
    assert report["machine"].keys() == {"device", "torch", "threads"}
    assert report["settings"] == {"obs": 11, "act": 3, "batch_size": 8, "hid": 16, "rollout": 50, "rounds": 2}
    assert any(row["product"].startswith("torch.mm") for row in report["peak"])
    for row in report["peak"]:
        assert row.keys() == {"product", "gflops", "before", "after"}
        assert row["gflops"].keys() == numbers
    assert {row["algorithm"] for row in report["updates"]} == set(updates.CASES)
    assert {row["way"] for row in report["updates"]} >= {"eager", "naive"}
    for row in report["updates"]:
        assert (row["seeds"], row["agents"]) == (1, 2)
        for name in ("ms", "gflops", "of_mm", "of_best", "times_naive"):
            assert row[name].keys() == numbers
            assert 0 < row[name]["min"] <= row[name]["median"] <= row[name]["max"]
        checked = row["way"] in ("compiled", "eager")
        assert row["apart"] is None or (checked and row["difference"] > 0 and 0 < row["apart"] < updates.TOLERANCE)
    assert sum(row["apart"] is not None for row in report["updates"]) == len(updates.CASES)
    assert {(row["env"], row["way"]) for row in report["env"]} == {
        ("DifferentialGame-3", "ours"),
        *((name, way) for name in ROBOTS for way in ("ours", "gymnasium", "mamujoco")),
    }
    for row in report["train"]:
        whole, apart = {"steps_per_s", "updates_alone_per_s", "of_updates_alone"}, {"us_without_update", "us_of_test"}
        assert row.keys() == {"algorithm", "env", "share_of_tests", *whole, *apart}
        assert row["of_updates_alone"]["max"] < 1 and 0 < row["share_of_tests"]["min"] < 1
    assert [row["algorithm"] for row in report["train"]] == ["i2q_ddpg", "iddpg"]
    assert report["ranks"] == []  # takes all cores, so only on demand


def test_updates_of_several_ranks_count_while_all_of_them_train():
    assert together([[0.0, 1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5]]) == (2 + 2) / 2.0


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside this python")
def test_ranks_are_compared_by_their_number(monkeypatch):
    monkeypatch.setattr("bench.__main__.TRAINED", (iddpg,))
    status, out = run("--only", "ranks", "--json")
    rows = json.loads(out)["ranks"]
    assert (status, [(row["algorithm"], row["ranks"]) for row in rows]) == (0, [("iddpg", 1), ("iddpg", 2)])
    assert rows[0]["of_first"]["median"] == 1 and rows[0]["updates_per_s"]["min"] > 0


def test_the_table_has_a_line_for_each_contestant():
    status, out = run("--only", "iddpg", "--rounds", "1")
    assert status == 0
    lines = [line.split() for line in out.splitlines() if line.startswith("iddpg")]
    assert [line[:4] for line in lines if line[3] != "compiled"] == [
        ["iddpg", "1", "2", way] for way in ("eager", "naive")
    ]


@pytest.mark.parametrize(
    "argv, word",
    [
        (["--only", "qmix"], "qmix"),
        (["--sizes", "5"], "'5' is no S,N"),
        (["--rounds", "0"], "1 or more"),
        (["--device", "tpu"], "known are cpu, cuda"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--colour"], "--colour"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(argv, word, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench: ") and word in line


def test_every_algorithm_is_measured():
    assert {case.module.__name__ for case in updates.CASES.values()} == {*ALGORITHMS}
