"""Recorded updates, as a CPU replays them and with a stand-in for a GPU's; a replay that is sent to late."""

import numpy as np
import pytest
import torch
from checks import compiled
from test_replay import filled
from toys import Toy, make_agents, make_batch, parameters, same_bits

import i2q_ddpg
import i2q_expectile
import iddpg
import mbpo_baseline
from common.graphs import Graphed, graphed, tape
from common.nets import MLP
from common.replay import Batch

ALGORITHMS = [
    (i2q_ddpg, {"rule": "1"}),
    (i2q_ddpg, {"rule": "2", "forward": "bounded", "lam": 1.0}),
    (i2q_ddpg, {"rule": "released"}),
    (iddpg, {}),
    (iddpg, {"negative_td": 0.5}),
    (mbpo_baseline, {}),
    (i2q_expectile, {}),
    (i2q_expectile, {"form": "released"}),
]
NAMES = [" ".join([module.__name__, *map(str, flags.values())]) for module, flags in ALGORITHMS]


def record_by_hand(step):
    """As a graph: the result keeps its place, and is there only once it has been replayed."""
    for _ in range(3):
        step()
    out = {name: torch.full_like(value, torch.nan) for name, value in step().items()}

    def replay():
        for name, value in step().items():
            out[name].copy_(value)

    return replay, out


def wide_rows(batch: Batch) -> Batch:
    """The same batch as a replay draws it: parts of one tensor's rows."""
    widths = [batch.obs.shape[-1], batch.act.shape[-1], batch.next_obs.shape[-1], 1, 1]
    rows = torch.cat([*batch[:3], batch.rew[..., None], batch.terminated[..., None]], -1)
    obs, act, next_obs, rew, terminated = rows.split(widths, -1)
    return Batch(obs, act, next_obs, rew.squeeze(-1), terminated.squeeze(-1))


@pytest.mark.parametrize("record", [record_by_hand, tape])
@pytest.mark.parametrize("kernels", ["eager", "compiled"])
@pytest.mark.parametrize("module, flags", ALGORITHMS, ids=NAMES)
def test_a_recorded_update_trains_as_the_update_does_from_its_first_batch_on(
    module, flags, kernels, record, monkeypatch
):
    monkeypatch.setattr(MLP, "kernels", compiled() if kernels == "compiled" else None)
    env = Toy([1, 2])
    plain, cfg = make_agents(module, env, **flags)
    recorded, _ = make_agents(module, env, **flags)
    improve = Graphed(module.update, record)
    for turn in range(4):
        batch = make_batch(env, seed=turn)
        if kernels == "compiled":  # BLAS may round rows that lie apart otherwise than a record's own copy
            batch = wide_rows(batch)
        expected, actual = module.update(plain, batch, cfg), improve(recorded, batch, cfg)
        assert all(torch.equal(expected[name], actual[name]) for name in expected)
        for row in range(2):
            assert all(same_bits(parameters(plain, row), parameters(recorded, row)).values())
            before, after = plain.state_dict(row), recorded.state_dict(row)
            assert torch.equal(before["q_adam"]["exp_avg_sq"], after["q_adam"]["exp_avg_sq"])
            assert before["q_adam"]["steps"] == after["q_adam"]["steps"] == turn + 1


def test_records_share_no_memory_with_each_other_or_with_what_comes_between(monkeypatch):
    monkeypatch.setattr(MLP, "kernels", compiled())
    env, runs = Toy([1, 2]), []
    for _ in range(2):
        plain, cfg = make_agents(i2q_ddpg, env)
        recorded, _ = make_agents(i2q_ddpg, env)
        runs.append((plain, recorded, graphed(i2q_ddpg.update, "cpu")))
    for turn in range(6):
        for k, (plain, recorded, improve) in enumerate(runs):
            batch = make_batch(env, seed=10 * turn + k)
            improve(recorded, batch, cfg)
            i2q_ddpg.update(plain, batch, cfg)  # takes and frees memory of the same sizes
            between = [torch.full((n,), torch.nan) for n in (1, 2, 8, 16, 24, 36, 96, 144, 192, 480) for _ in range(9)]
            del between
    for plain, recorded, _ in runs:
        assert all(all(same_bits(parameters(plain, row), parameters(recorded, row)).values()) for row in range(2))
    assert not same_bits(parameters(runs[0][0], 0), parameters(runs[1][0], 0))["q"]


def test_what_is_recorded_runs_without_the_updates_python(monkeypatch):
    monkeypatch.setattr(MLP, "kernels", compiled())
    env, entered = Toy([1]), []

    def update(agents, batch, cfg):
        entered.append(1)
        return iddpg.update(agents, batch, cfg)

    agents, cfg = make_agents(iddpg, env)
    improve = graphed(update, "cpu")
    for turn in range(3):
        improve(agents, make_batch(env, seed=turn), cfg)
    assert len(entered) == 1


def test_what_an_update_makes_anew_and_then_changes_is_made_anew_in_each_replay():
    total = torch.zeros(3)

    def step():
        ones = torch.ones_like(total)  # has no form that writes to given memory
        ones += 1
        part = total.new_zeros(3)
        part[1:] += ones[1:]
        total.add_(part)
        return {"total": total * 1.0, "view": part.view(3, 1)[1:]}

    replay, out = tape(step)
    for turn in range(2, 5):
        replay()
        assert total.tolist() == out["total"].tolist() == [0, 2 * turn, 2 * turn]
        assert out["view"].tolist() == [[2], [2]]


def test_an_update_that_reads_a_number_cannot_be_recorded(monkeypatch):
    library, spare = compiled(), {}
    monkeypatch.setattr(MLP, "kernels", library)
    monkeypatch.setattr(MLP, "spare", spare)
    with pytest.raises(RuntimeError, match="reads a number out of a tensor"):
        tape(lambda: {"loss": torch.ones(3) * float(torch.ones(3).sum())})
    assert MLP.kernels is library and MLP.spare is spare


def test_on_a_cpu_without_compiled_kernels_nothing_is_recorded():
    assert graphed(iddpg.update, "cpu") is iddpg.update


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
