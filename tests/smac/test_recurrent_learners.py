"""Claims that hold for every recurrent learner; what one alone has is tested in a file of its own."""

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checks import compiled
from helpers.recurrent import (
    IDS,
    LEARNERS,
    assert_same,
    command,
    joined,
    left,
    make_agents,
    nets_of,
    played,
    rows_of,
)

from bench import recurrent_naive as naive
from common import checkpoint
from common.errors import UsageError
from common.run import Run
from smac import envs, i2q_drqn, iql
from smac.envs import focusfire

all_learners = pytest.mark.parametrize("module, flags", LEARNERS, ids=IDS)


def game(seeds: tuple[int, ...] = (3, 4), copies: int = 1) -> envs.MaskedEnv:
    return envs.make("FocusFire-3", seeds, copies, 20)


@pytest.fixture
def at_step(monkeypatch) -> Iterator[Any]:
    """at_step(k) stops a running process during environment step k, once, by SIGTERM."""

    def at_step(k: int) -> None:
        check = Run.check

        def patched(self: Run, step: int, **arrays: np.ndarray) -> None:
            if step == k and "reward" in arrays:
                monkeypatch.setattr(Run, "check", check)
                signal.raise_signal(signal.SIGTERM)
            check(self, step, **arrays)

        monkeypatch.setattr(Run, "check", patched)

    yield at_step


@all_learners
def test_it_trains_and_logs_what_plot_and_a_reader_need(module, flags, data_dir):
    assert command(module, data_dir, **flags) == 0
    rows = rows_of(data_dir / "x" / "x_s0")
    assert [row["TotalEnvInteracts"] for row in rows] == [60, 120]
    assert {"AverageEpRet", "AverageTestEpRet", "EpLen", "TestEpLen", "TestWinRate", "LossQ", "QVals"} <= rows[0].keys()
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert all(0 <= row["TestWinRate"] <= 1 for row in rows)


@all_learners
@pytest.mark.parametrize("n_envs, compile", [(1, "off"), (4, "on")])
def test_a_run_stopped_and_resumed_equals_one_never_stopped(
    module, flags, n_envs, compile, at_step, data_dir, monkeypatch
):
    if compile == "on":
        compiled()
    monkeypatch.setattr(checkpoint, "CHUNK", 8)  # so that whole chunks are written, read and dropped
    flags = {**flags, "n_envs": n_envs, "compile": compile, "num_runs": 2, "replay_steps": 80, "max_ep_len": 6}
    assert command(module, data_dir / "straight", **flags) == 0
    for step in (52, 76):
        at_step(step)
        assert command(module, data_dir / "resumed", **flags) == 143
    assert command(module, data_dir / "resumed", **flags) == 0
    for seed in range(2):
        assert_same(*(left(data_dir / name / "x" / f"x_s{seed}") for name in ("straight", "resumed")))


@all_learners
@pytest.mark.parametrize("n_envs, compile", [(1, "off"), (3, "on")])
def test_a_seed_learns_the_same_alone_as_beside_others(module, flags, n_envs, compile, data_dir):
    if compile == "on":
        compiled()
    flags = {**flags, "n_envs": n_envs, "compile": compile, "replay_steps": 80}
    flags["rnn_hid"] = 7  # no multiple of a vector register
    assert command(module, data_dir / "beside", num_runs=3, **flags) == 0
    assert command(module, data_dir / "alone", seed=1, num_runs=1, **flags) == 0
    assert_same(*(left(data_dir / name / "x" / "x_s1") for name in ("beside", "alone")))


@all_learners
@pytest.mark.parametrize("shared", [True, False])
def test_agent_i_never_learns_from_agent_j(module, flags, shared):
    learned = []
    for poison in (False, True):
        env = game((3,))
        agents, cfg = make_agents(module, env, **flags)
        replay = played(env, 80)
        if poison:
            replay.rows["obs"][0, 1], replay.rows["rew"][0, 1], replay.finals["obs"][0, :, 1] = np.nan, np.nan, np.nan
        for _ in range(3):
            module.update(agents, replay.sample(0, 6, shared), cfg)
        learned.append(agents)
    for name, net in nets_of(learned[0]).items():
        other = nets_of(learned[1])[name]
        for i in (0, 2):
            assert torch.equal(net.flat[0, i], other.flat[0, i]), name
        if not name.endswith("_targ"):
            assert not torch.equal(net.flat[0, 1], other.flat[0, 1])


@all_learners
def test_what_fills_up_a_batch_changes_nothing(module, flags):
    learned = []
    for poison in (False, True):
        env = game((3,))
        agents, cfg = make_agents(module, env, **flags)
        batch = played(env, 80).sample(0, 6, shared=False)
        filling = batch.real == 0
        assert filling.any()
        if poison:
            batch.rew[filling] = 7.0
            later = torch.zeros(batch.obs.shape[:3], dtype=torch.bool)
            later[:, :, batch.next] = filling
            batch.obs[later] = 7.0
        module.update(agents, batch, cfg)
        learned.append(agents)
    for name, net in nets_of(learned[0]).items():
        assert torch.equal(net.flat, nets_of(learned[1])[name].flat), name


@all_learners
def test_a_seed_is_updated_by_itself_in_the_memory_of_all(module, flags):
    env = game()
    agents, cfg = make_agents(module, env, **flags)
    together, _ = make_agents(module, game(), **flags)
    replay = played(env, 80)
    batches = [replay.sample(0, 5, True), replay.sample(0, 5, True)]
    before = {name: net.flat.detach().clone() for name, net in nets_of(agents).items()}
    module.update(agents.split()[1], batches[0], cfg)
    for name, net in nets_of(agents).items():
        assert torch.equal(net.flat[0], before[name][0])
        assert torch.equal(net.flat[1], before[name][1]) == name.endswith("_targ")
    module.update(together, joined([batches[0]] * 2), cfg)
    for name, net in nets_of(together).items():
        torch.testing.assert_close(net.flat[1], nets_of(agents)[name].flat[1])


@all_learners
def test_every_target_network_becomes_what_it_is_the_target_of(module, flags):
    agents, _ = make_agents(module, game(), **flags)
    nets = nets_of(agents)
    targets = {name: name.removesuffix("_targ") for name in nets if name.endswith("_targ")}
    targets |= {"f_targ": "f_net"} if "f_targ" in nets else {}
    assert targets and not any(torch.equal(nets[a].flat, nets[b].flat) for a, b in targets.items())
    agents.update_targets()
    assert all(torch.equal(nets[a].flat, nets[b].flat) for a, b in targets.items())


ORACLES = {"iql": naive.IQL, "i2q_drqn": naive.I2Q, "d3g_discrete": naive.D3G}


@all_learners
def test_an_update_is_that_of_single_agents_written_by_hand(module, flags):
    env = game()
    agents, cfg = make_agents(module, env, torch.float64, **flags)
    learners = naive.learners_like(ORACLES[module.__name__.partition(".")[2]], agents, cfg)
    replay = played(env, 80)
    before = {net: part.flat.detach().clone() for net, part in nets_of(agents).items()}
    for _ in range(3):
        batch = joined([replay.sample(0, 5, True)] * 2, torch.float64)
        module.update(agents, batch, cfg)
        for (s, i), learner in learners.items():
            learner.update(naive.part(batch, s, i))
    for net, part in nets_of(agents).items():
        assert torch.equal(part.flat, before[net]) == net.endswith("_targ")
    for (s, i), learner in learners.items():
        for full, array in agents.policy(s).items():
            net, _, rest = full.partition(".")
            own = naive.parameter(getattr(learner, net), rest).detach().numpy()
            np.testing.assert_allclose(array[i], own, rtol=1e-6, atol=1e-9, err_msg=full)


def test_a_checkpoint_of_another_game_is_one_line(data_dir, monkeypatch, capfd):
    def other(*_: Any) -> None:
        raise KeyError("leaf17")

    assert command(iql, data_dir, epochs=1) == 0
    monkeypatch.setattr(focusfire.FocusFire, "_load", other)
    capfd.readouterr()
    assert command(iql, data_dir, epochs=2) == 2
    err = capfd.readouterr().err
    assert "60.json: does not hold what this run saves" in err and len(err.strip().splitlines()) == 1


@all_learners
def test_a_bad_flag_is_one_line_that_names_it(module, flags, data_dir, capfd):
    for name, value, text in (
        ("env", "Nothing", "--env 'Nothing': no such task; names are like FocusFire-3, smax:3m"),
        ("env", "3m", "--env '3m': no such task; names are like FocusFire-3, smax:3m"),
        ("env", "DifferentialGame-3", "--env 'DifferentialGame-3': a task of the continuous learners; use python"),
        ("env", "2x4dAnt", "--env '2x4dAnt': a task of the continuous learners; use python iddpg.py"),
        ("gamma", 1.5, "--gamma 1.5"),
        ("replay_steps", 3, "--replay_steps 3: has no room"),
        ("n_envs", 0, "--n_envs 0"),
        ("num_test_episodes", 0, "--num_test_episodes 0: must be 1 or more"),
        ("test_ep_len", 0, "--test_ep_len 0: must be 1 or more"),
    ):
        assert command(module, data_dir, **{**flags, name: value}) == 2
        err = capfd.readouterr().err
        assert text in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("flags", [{"mix": 0.5}, {"tau_expectile": 0.9}, {"form": "no_f", "lam": 1.0}], ids=str)
def test_a_flag_of_the_other_form_is_refused(flags):
    name, form = [*flags][-1], "f" if flags.get("form") else "no_f"
    with pytest.raises(UsageError, match=f"--{name} {flags[name]}: only --form {form} reads it"):
        i2q_drqn.Config(**flags)
    assert getattr(i2q_drqn.Config(**flags | {"form": form}), name) == flags[name]
