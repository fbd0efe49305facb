"""Recorded updates, as a CPU replays them and with a stand-in for a GPU's; a replay that is sent to late."""

import ctypes
import dataclasses
import functools
import itertools
import types

import numpy as np
import pytest
import torch
from helpers import algorithms
from helpers.checks import compiled
from helpers.replays import filled
from helpers.toys import Toy, make_agents, make_batch, parameters, same_bits

import d3g
import i2q_ddpg
import i2q_expectile
import iddpg
import ippo
import mbpo_baseline
from common.fast.record import Plain, Recorded
from common.fast.recorders import Loop, Unrecordable, operations, repeated
from common.replay import Batch
from common.seeding import Streams

ALGORITHMS = [
    (i2q_ddpg, {"rule": "1"}),
    (i2q_ddpg, {"rule": "2", "forward": "bounded", "lam": 1.0}),
    (i2q_ddpg, {"rule": "released"}),
    (iddpg, {}),
    (iddpg, {"negative_td": 0.5}),
    (mbpo_baseline, {}),
    (i2q_expectile, {}),
    (i2q_expectile, {"form": "released"}),
    (d3g, {}),
    (ippo, {"train_pi_iters": 6, "train_v_iters": 4, "pi_lr": 0.01, "target_kl": 0.02}),  # some agents stop early
]
NAMES = [" ".join([module.__name__, *map(str, flags.values())]) for module, flags in ALGORITHMS]


def q_loss(agents, batch, cfg):
    """Independent DDPG's, for updates made up of it: (S, N, B)."""
    with torch.no_grad():
        y = iddpg.td_target(agents, batch, batch.next_obs, cfg.gamma)
    return iddpg.q_loss(iddpg.value(agents.q, batch.obs, batch.act), y, 1.0)


def record_by_hand(step):
    """As a graph: the result keeps its place, and is there only once it has been replayed."""
    for _ in range(3):
        step()
    out = {name: torch.full_like(value, torch.nan) for name, value in step().items()}

    def replay():
        for name, value in step().items():
            out[name].copy_(value)

    return replay, out


def steps_of(batch: Batch) -> ippo.Steps:
    """These transitions as a rollout, of episodes that ended where the task was over and at every third step."""
    ended = batch.terminated.clone()
    ended[..., ::3] = 1
    return ippo.Steps(*batch, ended)


def wide_rows(batch: Batch) -> Batch:
    """The same batch as a replay draws it: parts of one tensor's rows."""
    widths = [batch.obs.shape[-1], batch.act.shape[-1], batch.next_obs.shape[-1], 1, 1]
    rows = torch.cat([*batch[:3], batch.rew[..., None], batch.terminated[..., None]], -1)
    obs, act, next_obs, rew, terminated = rows.split(widths, -1)
    return Batch(obs, act, next_obs, rew.squeeze(-1), terminated.squeeze(-1))


class Bench:
    """Two equal sets of agents: one is updated as written, the other by a record; what was said of it."""

    def __init__(self, module, update=None, kernels=None, make=None, required=False, **flags):
        self.env, self.said = Toy([1, 2]), []
        self.module, self.update = module, update or module.update
        self.plain, self.cfg = make_agents(module, self.env, **flags)
        self.recorded, _ = make_agents(module, self.env, **flags)
        for agents in (self.plain, self.recorded):
            agents.use(kernels)
        make = make or functools.partial(operations, kernels)
        self.fast = Recorded(self.update, make, self.said.append, required)

    def turn(self, seed, *more):
        """One update of each; whether they end the same in every bit of every tensor and diagnostic."""
        batch = wide_rows(make_batch(self.env, seed=seed))
        batch = steps_of(batch) if self.module is ippo else batch
        expected = self.update(self.plain, batch, self.cfg, *more)
        actual = self.fast(self.recorded, batch, self.cfg, *more)
        return all(torch.equal(expected[name], actual[name]) for name in expected | actual) and self.same()

    def same(self):
        pairs = zip(self.plain.tensors().items(), self.recorded.tensors().items(), strict=True)
        return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "operations"])
@pytest.mark.parametrize("form", ["eager", "compiled"])
@pytest.mark.parametrize("module, flags", ALGORITHMS, ids=NAMES)
def test_a_recorded_update_trains_as_the_update_does_from_its_first_batch_on(module, flags, form, by_hand):
    bench = Bench(
        module, kernels=compiled() if form == "compiled" else None, make=record_by_hand if by_hand else None, **flags
    )
    for turn in range(12):
        more = [turn % 2 == 1] if module is d3g else []
        assert bench.turn(turn, *more)
    assert bench.said == [] and bench.fast.plain is None
    counted = {i2q_ddpg: "f_adam", d3g: "f_adam", ippo: "v_adam"}.get(module, "q_adam")
    assert int(getattr(bench.recorded, counted).step) == 12 * flags.get("train_v_iters", 1)


def test_agents_of_a_recorded_rollout_stop_when_they_would_alone():
    bench, stops = Bench(ippo, kernels=compiled(), train_pi_iters=12, pi_lr=0.01, target_kl=0.02), []
    for turn in range(6):
        assert bench.turn(turn)
        (record,) = bench.fast.records.values()
        stops += record.out["StopIter"].flatten().tolist()
    assert len(set(stops)) > 3 and bench.said == []


def test_records_share_no_memory_with_each_other_or_with_what_comes_between():
    benches = [Bench(i2q_ddpg, kernels=compiled()) for _ in range(2)]
    for turn in range(8):
        for k, bench in enumerate(benches):
            assert bench.turn(10 * turn + k)
            between = [torch.full((n,), torch.nan) for n in (1, 2, 8, 16, 24, 36, 96, 144, 192, 480) for _ in range(9)]
            del between
    assert not same_bits(*(parameters(bench.plain, 0) for bench in benches))["q"]


def test_what_is_recorded_runs_without_the_updates_python_but_for_the_calls_that_are_tested(capsys):
    def update(agents, batch, cfg):
        print("entered")
        return iddpg.update(agents, batch, cfg)

    bench = Bench(iddpg, update, compiled())
    entered = []
    for turn in range(12):
        bench.fast(bench.recorded, make_batch(bench.env, seed=turn), bench.cfg)
        entered += [turn + 1] * capsys.readouterr().out.count("entered")
    assert entered == [1, 1, 2, 3, 10]


def test_what_an_update_makes_anew_and_then_changes_is_made_anew_in_each_replay():
    total = torch.zeros(3)

    def step():
        ones = torch.ones_like(total)  # has no form that writes to given memory
        ones += 1
        part = total.new_zeros(3)
        part[1:] += ones[1:]
        total.add_(part)
        return {"total": total * 1.0, "view": part.view(3, 1)[1:]}

    replay, out = operations(None, step)
    for turn in range(2, 5):
        replay()
        assert total.tolist() == out["total"].tolist() == [0, 2 * turn, 2 * turn]
        assert out["view"].tolist() == [[2], [2]]


@pytest.mark.parametrize("times", [0, 1, 2, 7])
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_of_a_loop_a_record_holds_one_round_and_runs_them_all(form, times):
    total, x = torch.zeros(3), torch.ones(3)

    def step():
        for _ in repeated(times):
            for _ in repeated(2):
                total.add_(x.sin())
            total.mul_(2)
        return {"total": total + 0}

    replay, out = operations(compiled() if form == "compiled" else None, step)
    total.zero_()
    replay()
    recorded = total.clone()
    assert torch.equal(out["total"], recorded)
    total.zero_()
    assert torch.equal(step()["total"], recorded) and (recorded != 0).all() == (times > 0)
    loops = [call for call in replay.__self__.calls if isinstance(call, Loop)]
    assert [len(loop.calls) for loop in loops] == [2] * (times > 0)


def test_a_loop_whose_rounds_differ_is_found_out():
    def update(agents, batch, cfg):
        weight = torch.ones_like(batch.rew)
        for _ in repeated(3):
            weight = weight * 0.5
            agents.q_adam.descend((q_loss(agents, batch, cfg) * weight).mean(-1).sum())
        return {"LossQ": weight.mean(-1)}

    bench = Bench(iddpg, update, compiled())
    assert all(bench.turn(turn) for turn in range(4))
    (line,) = bench.said
    assert "replay gives a different" in line


@pytest.mark.parametrize(
    "odd, reason",
    [
        (lambda loss: float(loss.sum()) * loss, "reads a number out of a tensor"),
        (lambda loss: float(loss.numpy().mean()) * loss, "reads numbers out of a tensor (numpy)"),
        (lambda loss: max(loss[0].tolist()) * loss, "reads numbers out of a tensor (tolist)"),
        (lambda loss: float(np.asarray(loss).mean()) * loss, "reads numbers out of a tensor (__array__)"),
        (lambda loss: loss[loss > 0].sum() * torch.ones_like(loss), "shape of a result depends on values"),
    ],
    ids=["item", "numpy", "tolist", "asarray", "mask"],
)
def test_an_update_that_cannot_be_recorded_runs_as_written_and_says_why_in_one_line(odd, reason):
    def update(agents, batch, cfg):
        out = iddpg.update(agents, batch, cfg)
        return {**out, "odd": odd(out["LossQ"].detach())}

    library = compiled()
    spare = library.spare
    bench = Bench(iddpg, update, library)
    assert all(bench.turn(turn) for turn in range(5))
    (line,) = bench.said
    assert reason in line and "as written" in line and "\n" not in line
    assert library.spare is spare and library.record is None


def test_with_record_on_an_update_that_cannot_be_recorded_is_refused():
    def update(agents, batch, cfg):
        out = iddpg.update(agents, batch, cfg)
        return {**out, "odd": float(out["LossQ"].sum()) * out["LossQ"]}

    with pytest.raises(RuntimeError, match=r"--record on.*reads a number"):
        Bench(iddpg, update, compiled(), required=True).turn(0)


# A record is a guess that is tested


def test_a_counter_in_the_update_makes_it_run_as_written():
    """TD3 as one writes it first: the policy moves at every second update."""

    def update(agents, batch, cfg):
        agents.count += 1
        loss_q = q_loss(agents, batch, cfg).mean(-1)
        agents.q_adam.descend(loss_q.sum())
        if agents.count % 2 == 0:
            agents.pi_adam.descend(-iddpg.value(agents.q.frozen, batch.obs, agents.pi(batch.obs)).mean(-1).sum())
        return {"LossQ": loss_q}

    bench = Bench(iddpg, update, compiled())
    bench.plain.count = bench.recorded.count = 0
    start = parameters(bench.recorded, 0)["pi"]
    for turn in range(6):
        assert bench.turn(turn)
    (line,) = bench.said
    assert "agents.count" in line and "argument" in line
    assert bench.recorded.count == 6 and int(bench.recorded.pi_adam.step) == 3
    assert (parameters(bench.recorded, 0)["pi"] != start).any()


def test_d3g_as_it_was_written_before_counts_on():
    counts = {"n": 0}

    def update(agents, batch, cfg):
        agents.n_updates += 1
        return d3g.update(agents, batch, cfg, agents.n_updates % cfg.tau_every == 0)

    bench = Bench(d3g, update, compiled())
    bench.plain.n_updates = bench.recorded.n_updates = counts["n"]
    assert all(bench.turn(turn) for turn in range(6))
    assert "agents.n_updates" in bench.said[0]


def test_each_value_of_an_argument_has_its_own_record():
    bench = Bench(d3g, kernels=compiled())
    for turn in range(30):
        assert bench.turn(turn, turn % 3 == 0)
    assert len(bench.fast.records) == 2 and bench.said == []


def test_a_step_size_that_was_changed_between_updates_takes_effect_and_is_said():
    bench = Bench(iddpg, kernels=compiled())
    for turn in range(8):
        if turn == 5:
            bench.plain.q_adam.lr = bench.recorded.q_adam.lr = 0.05
        assert bench.turn(turn)
    (line,) = bench.said
    assert "agents.q_adam.lr" in line and "anew" in line


def test_a_step_size_that_always_changes_ends_the_recording():
    bench = Bench(iddpg, kernels=compiled())
    for turn in range(12):
        for agents in (bench.plain, bench.recorded):
            agents.q_adam.lr *= 0.9
        assert bench.turn(turn)
    assert "changes again and again" in bench.said[-1] and len(bench.said) < 6
    assert bench.fast.plain is not None


def test_a_config_that_is_replaced_between_updates_takes_effect():
    """As of a schedule: a Config is frozen, so dataclasses.replace is how it changes."""
    bench = Bench(iddpg, kernels=compiled())
    for turn in range(18):
        if 4 < turn < 9 or turn > 13:
            bench.cfg = dataclasses.replace(bench.cfg, gamma=0.5 / turn)
        assert bench.turn(turn)
    assert len(bench.said) == 1 and "more than 8 values" in bench.said[0]


@pytest.mark.parametrize("what", ["flag", "config", "network", "list", "array", "global", "closure"])
def test_whatever_python_value_changes_between_updates_takes_effect(what):
    scale = 1.0

    def update(agents, batch, cfg):
        weight = agents.sign * agents.parts[0] * float(agents.table[0]) * cfg.gamma * FACTOR * scale
        loss = (q_loss(agents, batch, cfg) * weight).mean(-1)
        agents.q_adam.descend(loss.sum())
        return {"LossQ": loss}

    bench = Bench(iddpg, update, compiled())
    for agents in (bench.plain, bench.recorded):
        agents.sign, agents.parts, agents.table = 1.0, [1.0, 2.0], np.ones(2)
    for turn in range(4, 12):
        if turn == 9:
            for agents in (bench.plain, bench.recorded):
                if what == "flag":
                    agents.sign = 2.0
                elif what == "list":
                    agents.parts[0] = 2.0
                elif what == "array":
                    agents.table[0] = 2.0
                elif what == "network":
                    agents.q_targ = agents.q_targ.like(agents.q_targ.flat * 2)
            if what == "config":
                object.__setattr__(bench.cfg, "gamma", 0.5)
            elif what == "closure":
                scale = 2.0
            elif what == "global":
                globals()["FACTOR"] = 2.0
        assert bench.turn(turn)
    globals()["FACTOR"] = 1.0
    assert len(bench.said) == 1 and "has changed" in bench.said[0]


FACTOR = 1.0


def test_a_replay_that_gives_something_else_is_found_out_and_the_agents_are_as_the_update_leaves_them():
    def update(agents, batch, cfg):
        rew = ctypes.c_float.from_address(
            batch.rew.data_ptr()
        ).value  # goes round PyTorch: a record would keep the first
        loss = (q_loss(agents, batch, cfg) * rew).mean(-1)
        agents.q_adam.descend(loss.sum())
        return {"LossQ": loss}

    bench = Bench(iddpg, update, compiled())
    assert all(bench.turn(turn) for turn in range(6))
    (line,) = bench.said
    assert "replay gives a different" in line


def test_what_a_record_gets_wrong_later_is_found_at_the_tenth_update():
    late = {"wrong": False}

    def make(step):
        replay, out = operations(None, step)

        def sometimes():
            replay()
            if late["wrong"]:
                bench.recorded.q.flat.detach()[0, 0, 0] += 1e-6

        return sometimes, out

    bench = Bench(iddpg, make=make)
    for turn in range(8):
        assert bench.turn(turn)
    late["wrong"] = True
    bench.turn(8)
    assert not bench.same()
    bench.turn(9)
    assert "update 10" in bench.said[0] and "replay gives a different q.flat" in bench.said[0]


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randn(1),
        lambda: np.random.normal(),  # noqa: NPY002
        lambda: __import__("random").random(),
    ],
)
def test_an_update_may_not_draw_from_a_global_generator(draw, recorded):
    def update(agents, batch, cfg):
        draw()
        return iddpg.update(agents, batch, cfg)

    env = Toy([1])
    agents, cfg = make_agents(iddpg, env)
    fast = Recorded(update, functools.partial(operations, compiled()), print) if recorded else Plain(update)
    with pytest.raises(RuntimeError, match=r"global generator.*Streams"):
        fast(agents, make_batch(env), cfg)


@pytest.mark.parametrize("reads", [False, True])
def test_gradients_that_add_up_on_the_parameters_are_added_once_a_call(reads):
    """By backward(), which adds to .grad: the calls of the comparison must leave nothing there."""

    def update(agents, batch, cfg):
        loss = q_loss(agents, batch, cfg).mean(-1)
        loss.sum().backward()
        with torch.no_grad():
            agents.q.flat.sub_(agents.q.flat.grad, alpha=0.1 if reads and float(loss.sum()) < 0 else 0.01)
        return {"LossQ": loss}

    bench = Bench(iddpg, update, compiled())
    assert all(bench.turn(turn) for turn in range(4))
    assert len(bench.said) == 1 and ("reads a number" if reads else "in place that does not hang") in bench.said[0]


def test_noise_by_seed_is_an_argument():
    def update(agents, batch, cfg, noise):
        loss = (q_loss(agents, batch, cfg) * (1 + noise)).mean(-1)
        agents.q_adam.descend(loss.sum())
        return {"LossQ": loss}

    bench, streams = Bench(iddpg, update, compiled()), Streams([1, 2], "update")
    for turn in range(12):
        assert bench.turn(turn, torch.from_numpy(streams.normal(3, 6)))
    assert bench.said == []


def test_an_argument_that_no_record_can_be_found_by_makes_it_run_as_written():
    def update(agents, batch, cfg, weights):
        loss = (q_loss(agents, batch, cfg) * float(weights[0])).mean(-1)
        agents.q_adam.descend(loss.sum())
        return {"LossQ": loss}

    bench = Bench(iddpg, update, compiled())
    assert all(bench.turn(turn, np.full(1, turn)) for turn in range(4))
    (line,) = bench.said
    assert "an argument is a ndarray" in line


# What an update does beside what hangs on its agents


def weighted(agents, batch, cfg, weight):
    """An update whose loss has this weight, a number or a tensor."""
    loss = (q_loss(agents, batch, cfg) * weight).mean(-1)
    agents.q_adam.descend(loss.sum())
    return {"LossQ": loss}


class Scale:
    """As a normaliser of one's own that run.track saves."""

    def __init__(self):
        self.tensor, self.streams, self.count = torch.ones(1), Streams([1], "update"), 0

    def state(self):
        return {"x": self.tensor.numpy().tobytes() + self.streams.state_dict(0)["generator"].encode()}


RUNNING = torch.ones(1)


@pytest.mark.parametrize("what", ["argument", "object", "global", "streams"])
def test_what_is_changed_beside_the_agents_is_changed_once_by_each_call(what):
    ends = []
    for recorded in (False, True):
        scale, said, prio = Scale(), [], torch.ones(2, 3, 4)
        RUNNING.fill_(1)

        def update(agents, batch, cfg, prio, scale=scale):
            out = weighted(agents, batch, cfg, scale.tensor * RUNNING)
            if what == "argument":
                prio[..., 1:].add_(batch.rew[..., :3])
            elif what == "object":
                scale.tensor.lerp_(batch.rew.mean(), 0.1)
            elif what == "global":
                RUNNING.lerp_(batch.rew.mean(), 0.1)
            else:
                scale.streams.normal(3)
            return out

        env = Toy([1, 2])
        agents, cfg = make_agents(iddpg, env)
        agents.use(compiled())
        fast = Recorded(update, functools.partial(operations, compiled()), said.append, others=scale.state)
        for turn in range(5):
            (fast if recorded else update)(agents, make_batch(env, seed=turn), cfg, prio)
        ends.append([prio, RUNNING.clone(), scale.state(), *agents.tensors().values()])
        if recorded:
            (line,) = said
            assert "update 1: from here on the update runs as written" in line
            assert "does not hang on Agents" in line
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(*ends, strict=True))


GAINS = {"q": 1.0}
METHOD, BEHIND, CACHED, DEFAULT = [1.0], [1.0], [1.0], [1.0]
CALLS, DUE = itertools.count(), itertools.count()
SCALE = torch.tensor(1.0)


class Schedule:
    factor = 1.0

    def __init__(self):
        self.gain = 1.0

    def value(self):
        return self.gain

    def of_all(self):
        return METHOD[0]


class Slotted:
    __slots__ = ("gain",)

    def __init__(self):
        self.gain = 1.0


@functools.lru_cache
def cached():
    return [CACHED]


def behind(scale=1.0):
    return BEHIND[0] * scale


def with_default(gains=DEFAULT):
    return gains[0]


def helper_module():
    """A module of a user's own, with a function that reads what the module holds."""
    module = types.ModuleType("a_helper")
    exec("GAIN = [1.0]\ndef gain(): return GAIN[0]", module.__dict__)
    return module


helper = helper_module()


@pytest.mark.parametrize(
    "what",
    ["dict", "argument", "closure", "method", "object", "tensor", "captured", "helper", "class", "slots", "partial"]
    + ["bound", "cache", "default", "attribute", "entry", "data"],
)
def test_whatever_it_names_is_watched_also_in_functions_that_it_calls(what, monkeypatch):
    schedule, given, captured = Schedule(), Schedule(), torch.tensor(1.0)
    slotted, partial, bound = Slotted(), functools.partial(behind, scale=1.0), schedule.value

    def capture():
        nonlocal captured
        captured = torch.tensor(2.0)

    ways = {
        "dict": (lambda agents, given: GAINS["q"], lambda: GAINS.update(q=2.0)),
        "argument": (lambda agents, given: given.value(), lambda: setattr(given, "gain", 2.0)),
        "closure": (lambda agents, given: schedule.gain, lambda: setattr(schedule, "gain", 2.0)),
        "method": (lambda agents, given: agents.gain(), lambda: METHOD.__setitem__(0, 2.0)),
        "object": (lambda agents, given: given.of_all(), lambda: METHOD.__setitem__(0, 2.0)),
        "tensor": (lambda agents, given: SCALE, lambda: globals().update(SCALE=torch.tensor(2.0))),
        "captured": (lambda agents, given: captured, capture),
        "helper": (lambda agents, given: helper.gain(), lambda: helper.GAIN.__setitem__(0, 2.0)),
        "class": (lambda agents, given: Schedule.factor, lambda: monkeypatch.setattr(Schedule, "factor", 2.0)),
        "slots": (lambda agents, given: slotted.gain, lambda: setattr(slotted, "gain", 2.0)),
        "partial": (lambda agents, given: partial(), lambda: BEHIND.__setitem__(0, 2.0)),
        "bound": (lambda agents, given: bound(), lambda: setattr(schedule, "gain", 2.0)),
        "cache": (lambda agents, given: cached()[0][0], lambda: CACHED.__setitem__(0, 2.0)),
        "default": (lambda agents, given: with_default(), lambda: DEFAULT.__setitem__(0, 2.0)),
        "attribute": (lambda agents, given: update.gain, lambda: setattr(update, "gain", 2.0)),
        "entry": (lambda agents, given: agents.gains[0], lambda: on_agents("gains", 0)),
        "data": (lambda agents, given: agents.scale, lambda: on_agents("scale", None)),
    }
    read, change = ways[what]

    def on_agents(name, key):
        for agents in (bench.plain, bench.recorded):
            if key is None:
                getattr(agents, name).data = torch.tensor(2.0)
            else:
                getattr(agents, name)[key] = torch.tensor(2.0)

    def update(agents, batch, cfg, given):
        return weighted(agents, batch, cfg, read(agents, given))

    update.gain = 1.0
    for name, held in (("q", GAINS), ("GAIN", vars(helper))):
        monkeypatch.setitem(held, name, [1.0] if name == "GAIN" else 1.0)
    monkeypatch.setattr(iddpg.Agents, "gain", lambda self: METHOD[0], raising=False)
    bench = Bench(iddpg, update, compiled())
    for agents in (bench.plain, bench.recorded):
        agents.gains, agents.scale = [torch.tensor(1.0), torch.tensor(1.0)], torch.tensor(1.0)
    for turn in range(4, 12):
        if turn == 9:
            change()
        assert bench.turn(turn, given)
    METHOD[0] = BEHIND[0] = CACHED[0] = DEFAULT[0] = 1.0
    globals().update(SCALE=torch.tensor(1.0))
    (line,) = bench.said
    assert "has changed" in line


def every(n):
    """True at each n-th call."""
    for k in itertools.count(1):
        yield k % n == 0


@pytest.mark.parametrize("what", ["attribute", "class", "default", "count", "generator", "closure"])
def test_whatever_it_counts_by_it_runs_as_written_and_counts_once_a_call(what, monkeypatch):
    ends = []
    for recorded in (False, True):
        said, turns = [], every(3)
        monkeypatch.setitem(globals(), "CALLS", itertools.count(1))
        monkeypatch.setitem(globals(), "DUE", every(3))
        monkeypatch.setattr(Schedule, "factor", 0)

        def tick(state=[0]):  # noqa: B006 (a default that changes is the case)
            state[0] += 1
            return state[0] % 3 == 0

        def by_attribute():
            by_attribute.calls += 1
            return by_attribute.calls % 3 == 0

        def by_class():
            Schedule.factor += 1
            return Schedule.factor % 3 == 0

        by_attribute.calls = 0
        ways = {
            "attribute": by_attribute,
            "class": by_class,
            "default": tick,
            "closure": functools.partial(next, turns),
        }
        ways |= {"count": lambda: next(CALLS) % 3 == 0, "generator": lambda: next(DUE)}
        count = ways[what]

        def update(agents, batch, cfg, count=count):
            return weighted(agents, batch, cfg, 2.0 if count() else 1.0)

        env = Toy([1, 2])
        agents, cfg = make_agents(iddpg, env)
        agents.use(compiled())
        fast = Recorded(update, functools.partial(operations, compiled()), said.append)
        for turn in range(12):
            (fast if recorded else update)(agents, make_batch(env, seed=turn), cfg)
        ends.append(agents.tensors())
        if recorded:
            (line,) = said
            assert "update 1: from here on the update runs as written" in line
            assert ("an iterator" if what in ("count", "generator", "closure") else "in Python") in line
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_an_argument_of_another_type_has_a_record_of_its_own():
    bench = Bench(iddpg, weighted, compiled())
    for turn, weight in enumerate([torch.tensor(0), torch.tensor(0.5), torch.tensor(2), torch.tensor(0.25)] * 3):
        assert bench.turn(turn, weight)
    assert len(bench.fast.records) == 2
    for turn, weight in enumerate([1, 1.0, True]):
        assert bench.turn(turn, weight)
    assert len(bench.fast.records) == 5 and bench.said == []


def test_diagnostics_are_the_callers_to_keep_and_to_change():
    bench = Bench(iddpg, kernels=compiled())
    kept = []
    for turn in range(8):
        out = bench.fast(bench.recorded, make_batch(bench.env, seed=turn), bench.cfg)
        kept.append((out["LossQ"], out["LossQ"].clone()))
        out.pop("LossQ")
        out["mine"] = torch.zeros(2, 3)
    assert all(torch.equal(loss, then) for loss, then in kept)
    assert not torch.equal(kept[-1][0], kept[-2][0])
    assert "mine" not in bench.fast(bench.recorded, make_batch(bench.env, seed=9), bench.cfg)


def test_a_number_that_differs_in_each_call_ends_in_one_line_and_in_few_records():
    bench = Bench(iddpg, weighted, compiled())
    for turn in range(12):
        assert bench.turn(turn, 1 + turn / 100)
        assert len(bench.fast.records) <= 8
    (line,) = bench.said
    assert "update 9" in line and "more than 8 values" in line
    bench = Bench(iddpg, weighted, compiled())
    assert all(bench.turn(turn, torch.tensor(1 + turn / 100)) for turn in range(12))
    assert bench.said == []


def test_arguments_may_be_given_by_name():
    said, env = [], Toy([1, 2])
    one, cfg = make_agents(iddpg, env)
    other, _ = make_agents(iddpg, env)
    fast = Recorded(weighted, functools.partial(operations, None), said.append)
    for turn in range(6):
        weight = torch.tensor(1.0 + turn)
        weighted(one, make_batch(env, seed=turn), cfg, weight=weight)
        fast(other, make_batch(env, seed=turn), cfg, weight=weight)
    assert all(map(torch.equal, one.tensors().values(), other.tensors().values()))
    assert said == []


@pytest.mark.filterwarnings("error")
def test_operations_that_take_more_than_most_are_recorded_without_a_warning():
    def update(agents, batch, cfg):
        out = weighted(agents, batch, cfg, 1.0)
        with torch.no_grad():
            q = iddpg.value(agents.q, batch.obs, batch.act)
            copied = torch.empty_like(q).copy_(q, non_blocking=True)
        return {**out, "median": q.quantile(0.5, -1), "copied": copied.mean(-1)}

    bench = Bench(iddpg, update, compiled())
    assert all(bench.turn(turn) for turn in range(12))
    assert bench.said == []


def test_a_record_that_may_round_otherwise_is_held_to_a_tolerance():
    def make(step):
        replay, out = operations(None, step)

        def rounded():
            replay()
            bench.recorded.q.flat.detach().mul_(1 + error)

        return rounded, out

    for error, said in ((1e-6, 0), (1e-2, 1)):  # noqa: B007
        bench = Bench(iddpg, make=make)
        bench.fast.exact = False
        bench.turn(0)
        assert len(bench.said) == said


def test_unrecordable_is_no_error_of_the_users():
    assert not issubclass(Unrecordable, ValueError)


@pytest.mark.parametrize("steps", [7, 50, 51, 120])
def test_a_replay_that_is_sent_to_late_holds_and_draws_the_same(steps):
    at_once, late = filled(0), filled(0)
    late.sends_late = True
    rng = np.random.default_rng(0)
    for t in range(steps):
        obs = rng.normal(size=(2, 3, 2)).astype(np.float32)
        for replay in (at_once, late):
            replay.store(obs, obs[..., :1], -obs, obs[:, 0, 0], np.zeros(2, bool))
        if t % 30 == 29 or t == steps - 1:
            for (a,), (b,) in [(at_once.sample(9, 1), late.sample(9, 1))]:
                assert all(map(torch.equal, a, b))
    start = max(0, steps - 50)
    assert np.array_equal(at_once.read(1, start, steps), late.read(1, start, steps))


def test_a_checkpoint_holds_the_rows_that_wait():
    replay = filled(0)
    replay.sends_late = True
    obs = np.ones((2, 3, 2), np.float32)
    replay.store(obs, obs[..., :1], obs, np.ones(2), np.zeros(2, bool))
    assert (replay.read(0, 0, 1) == [1, 1, 1, 1, 1, 1, 0]).all()


def test_every_algorithm_that_is_recorded_is_compared_here():
    assert {module.__name__ for module, _ in ALGORITHMS} == {*algorithms()}
