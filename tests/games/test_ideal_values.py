"""Ideal values by hand, and learned ones read back from a run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.toys import train

import iddpg
from common.checkpoint import Checkpoints
from common.errors import UsageError
from common.layout import read_table
from common.nets import MLP
from common.replay import Replay
from common.seeding import Streams
from envs.differential import reward
from games import ideal_values
from games.ideal_values import Ideal, LearnedRun, along, compare


@pytest.fixture(scope="module")
def line() -> Ideal:
    return Ideal(1, 0.99, cells=10)


@pytest.fixture(scope="module")
def plane() -> Ideal:
    return Ideal(2, 0.99, cells=5)


def r(*x: float) -> float:
    return float(reward(np.array(x)))


def test_the_centre_is_worth_one_reward_a_step_for_ever(line, plane):
    assert line.value(np.array([0.0])) == pytest.approx(100)
    assert plane.value(np.array([0.0, 0.0])) == pytest.approx(100)
    assert Ideal(3, 0.99, cells=2).value(np.zeros(3)) == pytest.approx(100)


def test_one_move_from_the_centre_is_worth_its_own_reward_and_a_discounted_centre(line):
    assert r(0.1) == 0
    assert line.value(np.array([0.1])) == pytest.approx(99)
    assert line.value(np.array([-0.05])) == pytest.approx(r(0.05) + 99)


def test_the_far_end_is_worth_the_straight_way_across_the_ring(line):
    way = sum(0.99**k * r(1 - 0.1 * k) for k in range(10))
    assert way > 0.3  # the ring pays on the way
    assert line.value(np.array([1.0])) == pytest.approx(way + 0.99**10 * 100)


def test_in_the_plane_coordinates_move_at_once(plane):
    # (.3, .1): three moves, the second of which can end at (.1, 0), inside of the hill
    assert plane.value(np.array([0.3, 0.1])) == pytest.approx(0.99**2 * r(0.1, 0.0) + 0.99**3 * 100)


def test_the_value_keeps_bellmans_equation_for_an_action_that_moves_a_cell(plane):
    x = np.array([0.62, -0.5])
    moves = [np.clip(x + [0.02 * i, 0.02 * j], -1, 1) for i in range(-5, 6) for j in range(-5, 6)]
    assert plane.value(x) == pytest.approx(r(*x) + 0.99 * max(plane.value(y) for y in moves))


def test_an_agents_value_is_the_best_over_what_the_other_may_do(plane):
    x = np.array([0.3, 0.1])
    for act in (-1.0, 0.0, 0.6):
        others = [plane.value(np.array([0.3 + 0.1 * act, 0.1 + 0.02 * j])) for j in range(-5, 6)]
        assert plane.q(0, x, np.array(act)) == pytest.approx(r(*x) + 0.99 * max(others))
    assert plane.q(0, x, np.array(-1.0)) == pytest.approx(plane.value(x))  # both go to the centre
    assert plane.q(1, x, np.array(0.0)) == pytest.approx(plane.value(x))  # agent 1 has a move to spare: it may wait
    assert plane.q(0, x, np.array(1.0)) < plane.value(x) - 1


def test_agents_are_alike_up_to_the_order_of_coordinates(plane):
    x, act = np.random.default_rng(0).uniform(-1, 1, (50, 2)), np.linspace(-1, 1, 50)
    assert plane.q(0, x, act) == pytest.approx(plane.q(1, x[:, ::-1], act))


def test_a_wall_stops_an_action_that_leads_beyond_it(line):
    assert line.q(0, np.array([0.98]), np.array(1.0)) == pytest.approx(line.q(0, np.array([0.98]), np.array(0.2)))


def test_a_finer_grid_changes_little():
    coarse, fine = Ideal(2, 0.99, cells=10), Ideal(2, 0.99, cells=20)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    assert np.abs(coarse.value(x) - fine.value(x)).max() < 0.3


CONFIG = {"algorithm": "iddpg", "env": "DifferentialGame-1", "seed": 3, "gamma": 0.99, "hid": 8, "l": 1}
CONFIG |= {"replay_size": 1000, "update_every": 50, "update_after": 100, "steps_per_epoch": 100}


@pytest.fixture
def run_folder(data_dir: Path) -> Path:
    """A run of 300 steps with random networks: checkpoint, config.json and three rows of progress.txt."""
    folder = data_dir / "toy" / "toy_s3"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "progress.txt").write_text("TotalEnvInteracts\tQVals\n100\t1.5\n200\t2.5\n300\t3.5\n")
    rng, replay = np.random.default_rng(0), Replay([3], 1, 1, 1, 1000)
    for _ in range(300):
        x, act = rng.uniform(-1, 1, (2, 1, 1, 1)).astype(np.float32)
        replay.store(x, act, x, np.zeros(1), np.zeros(1))
    one = np.ones(1, int)
    q = MLP.glorot([2, 8, 1], Streams([3], "weights"), 2 * one, one)
    parts = {"agents": {"q.flat": q.flat.detach()[0]}, "replay": replay.state_dict(0)}
    Checkpoints(folder / "checkpoint").save(300, parts, replay)
    torch.save(q.flat.detach(), folder / "q.pt")
    return folder


def test_learned_values_are_those_of_the_networks_saved(run_folder):
    run = LearnedRun(run_folder)
    assert run.load()
    q = MLP([2, 8, 1], torch.load(run_folder / "q.pt", weights_only=True))
    x, act = torch.linspace(-1, 1, 7)[:, None], torch.linspace(1, -1, 7)
    expected = q(torch.cat([x, act[:, None]], -1)[None, None])[0, 0, :, 0]
    assert run.learned(x.numpy(), act[None].numpy())[0] == pytest.approx(expected.numpy(), abs=1e-6)


def test_learned_values_are_those_of_a_run_that_iddpg_left(data_dir):
    size = {"epochs": 1, "steps_per_epoch": 60, "update_after": 20, "update_every": 10, "updates": 2, "hid": 8}
    run = train(iddpg, data_dir, [3], "DifferentialGame-2", num_test_episodes=1, test_ep_len=5, **size)
    kept = LearnedRun(run.folders[0].path)
    assert kept.load()
    x, act = np.random.default_rng(0).uniform(-1, 1, (2, 2, 7)).astype(np.float32)
    both = torch.from_numpy(np.concatenate([np.stack([x.T, x.T]), act[..., None]], -1))
    expected = run.parts["agents"].q(both[None])[0, ..., 0].detach().numpy()
    assert kept.learned(x.T, act) == pytest.approx(expected, abs=1e-6)
    assert kept.obs.shape == (60, 2)
    moved = np.clip(kept.obs[:24] + 0.1 * kept.act[:, :24].T, -1, 1)  # agent i moves coordinate i
    assert kept.obs[1:25] == pytest.approx(moved, abs=1e-6)


def test_along_a_run_the_ideal_mean_is_over_the_replay_that_batches_were_drawn_from(run_folder, line):
    run = LearnedRun(run_folder)
    run.load()
    rows = along(run, line)
    q = line.q(0, run.obs, run.act[0])
    assert rows[:, :2].tolist() == [[100, 1.5], [200, 2.5], [300, 3.5]]
    assert rows[0, 2] == pytest.approx(q[:100].mean())  # learning starts at step 100, with one block of batches
    assert rows[2, 2] == pytest.approx((q[:250].mean() + q[:300].mean()) / 2)


def test_a_network_that_is_ideal_but_for_a_constant_shows_that_constant(run_folder, line):
    run = LearnedRun(run_folder)
    run.load()
    run.learned = lambda x, act: line.q(0, x, act[0])[None] - 7  # type: ignore[method-assign]
    *values, actions = compare(run, line)
    assert len(values) == 2 and all("rms error   7.00  correlation  1.00" in text for text in values)
    assert re.search(r"actions +agent 0 +range +([0-9.]+) +ideal +\1 +correlation +1.00", actions)


def test_values_that_follow_the_state_alone_are_told_by_their_actions(run_folder, line):
    run = LearnedRun(run_folder)
    run.load()
    for keeps, range_, correlation in ((0, "0.00", "nan"), (-0.1, "0.17", "-1.00")):

        def learned(x, act, keeps=keeps):
            rest = line.q(0, x, np.zeros(len(x)))
            return (rest + keeps * (line.q(0, x, act[0]) - rest))[None]

        run.learned = learned  # type: ignore[method-assign]
        _, uniform, actions = compare(run, line)
        assert float(uniform.split()[-1]) > 0.95, keeps
        assert re.search(rf"range +{range_} .* correlation +{correlation}", actions), actions


def test_the_latest_transitions_are_the_last_ones(run_folder, line, monkeypatch):
    monkeypatch.setattr(ideal_values, "LATEST", 100)
    run = LearnedRun(run_folder)
    run.load()
    best = line.q(0, run.obs[200:], run.act[0, 200:]).mean()
    assert f"ideal {best:7.2f}" in compare(run, line)[0]


def test_ideal_values_have_the_discount_of_the_run(run_folder, tmp_path):
    (run_folder / "config.json").write_text(json.dumps({**CONFIG, "gamma": 0.5}))
    assert ideal_values.main([str(run_folder), "--out", str(tmp_path / "v.png")]) == 0
    assert 0 < read_table(run_folder / "ideal_values.txt")["IdealQVals"].max() < 2  # 1 / (1 - gamma) at the centre


def test_a_replay_that_has_wrapped_is_refused(run_folder):
    replay, zero = Replay([3], 1, 1, 1, 200), np.zeros((1, 1, 1))
    for _ in range(300):
        replay.store(zero, zero, zero, np.zeros(1), np.zeros(1))
    Checkpoints(run_folder / "checkpoint").save(400, {"replay": replay.state_dict(0)}, replay)
    (run_folder / "config.json").write_text(json.dumps({**CONFIG, "replay_size": 200}))
    with pytest.raises(UsageError, match="the replay has wrapped"):
        LearnedRun(run_folder).load()


def test_the_picture_has_learned_values_solid_and_ideal_ones_dotted(run_folder, monkeypatch):
    figures = []
    monkeypatch.setattr(ideal_values, "save", lambda figure, out: figures.append(figure))
    ideal_values.draw([LearnedRun(run_folder)], [np.array([[100, 1, 2], [200, 3, 4]])], run_folder)
    solid, dotted = figures[0].axes[0].lines
    assert (solid.get_label(), solid.get_linestyle(), solid.get_ydata().tolist()) == ("learned, seed 3", "-", [1, 3])
    assert (dotted.get_label(), dotted.get_linestyle(), dotted.get_ydata().tolist()) == ("ideal", ":", [2, 4])


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", "games.ideal_values", *flags]
    return subprocess.run(done, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_draws_and_can_do_without_the_checkpoint_the_next_time(run_folder, tmp_path):
    flags = [str(run_folder.parent), "--cells", "10", "--out", str(tmp_path / "v.png")]
    first = command(*flags)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "v.png").read_bytes()[:4] == b"\x89PNG"
    for path in (run_folder / "checkpoint").iterdir():
        path.unlink()
    again = command(*flags)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[:5] == first.stdout.splitlines()[:5]


@pytest.mark.parametrize(
    ("change", "message"), [({"env": "2x3HalfCheetah"}, "has no ideal values"), ({"l": 2}, "learns no Q")]
)
def test_a_run_without_such_values_is_refused_in_one_line(run_folder, change, message):
    (run_folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    done = command(str(run_folder), "--cells", "10")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
