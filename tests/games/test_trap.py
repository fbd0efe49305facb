"""What the program about the ring measures, by hand, and on a run."""

import re

import numpy as np
import pytest
import torch
from helpers.toys import train
from safetensors.numpy import load_file, save_file

import i2q_ddpg
from common.checkpoint import CHUNK
from common.layout import read_config, read_table
from common.nets import MLP
from common.seeding import Streams
from envs.differential import RADIUS, length
from games.trap import PANELS, Snapshot, at_distance, draw, fill, main, shares

CONFIG = {"hid": 6, "l": 1, "forward": "bounded"}


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    """Three agents: Q is 7, pi stays, f moves everything inward by a full move."""
    nets = {}
    for name, n_in, n_out in (("pi", 3, 1), ("q", 4, 1), ("f_net", 4, 3)):
        net = MLP.glorot((n_in, 6, n_out), Streams([0], "weights"), np.full(3, n_in), np.full(3, n_out))
        net.flat.detach().zero_()
        nets[name] = net
    nets["q"].biases[-1].fill_(7)
    first, last = nets["f_net"].weights
    for j in range(3):  # f = tanh(-1000 (relu(x) - relu(-x)))
        first[..., j, j], first[..., 3 + j, j] = 1, -1
        last[..., j, j], last[..., j, 3 + j] = -1000, 1000
    path = tmp_path / "0.safetensors"
    save_file({f"{name}.flat": net.flat.detach()[0].numpy() for name, net in nets.items()}, path)
    return Snapshot(path, CONFIG, 3)


def test_models_that_move_everything_inward_agree_and_measure_one(snapshot):
    value, inward, apart = snapshot.measure(at_distance(0.8, 3))
    assert value == pytest.approx(7)
    assert inward == pytest.approx(1, abs=0.01)
    assert apart == pytest.approx(0, abs=1e-3)


def test_inward_is_how_a_model_moves_the_others_alone(snapshot):
    for i in range(3):
        snapshot.nets["f_net"].weights[-1][0, i, i].zero_()  # agent i's model leaves its own coordinate where it is
    _, inward, _ = snapshot.measure(at_distance(0.8, 3))
    assert inward == pytest.approx(1, abs=0.01)


def test_inward_is_what_a_model_proposes_where_its_agent_moves_inward(snapshot):
    first, last = (weight[0] for weight in snapshot.nets["f_net"].weights)
    first.zero_()
    first[:, 0, 3], first[:, 1, 3], last[:, :, 0], last[:, :, 1] = 1000, -1000, 1, -1  # all coordinates go the way of a
    states = np.minimum(np.abs(at_distance(0.8, 3)), 0.85)  # away from the walls
    assert snapshot.measure(states)[1] == pytest.approx(1, abs=0.01)
    states[:, 0] *= -1  # what is inward for agent 0 is outward for the others: four of six pairs
    assert snapshot.measure(states)[1] == pytest.approx((2 - 4) / 6, abs=0.01)


def test_the_value_is_that_of_the_policys_own_action(snapshot):
    snapshot.nets["pi"].biases[-1].fill_(np.arctanh(0.25))
    snapshot.nets["q"].weights[0][..., 0, 3], snapshot.nets["q"].weights[1][..., 0, 0] = 1, 1  # 7 + relu(a)
    assert snapshot.measure(at_distance(0.8, 3))[0] == pytest.approx(7.25, abs=1e-4)


def test_a_residual_model_is_the_state_and_what_its_network_says(snapshot):
    snapshot.bounded = False
    for weight in snapshot.nets["f_net"].weights:
        weight.zero_()
    snapshot.nets["f_net"].biases[-1].fill_(0.7)
    obs = np.full((3, 1, 3), 0.9)
    assert snapshot.f(obs, np.zeros((3, 1, 1))) == pytest.approx(obs + 0.7)


def test_the_picture_tells_seeds_that_ended_beyond_the_ring_from_those_that_stayed(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("games.trap.save", lambda figure, out: figures.append(figure))
    x, low, high = np.arange(10), [30.0] * 5, [90.0] * 5
    columns = {name: np.zeros(10) for name, _ in PANELS} | {"TotalEnvInteracts": 1000 * x, "VRing": x, "VCentre": 3 * x}
    draw([{**columns, "AverageTestEpRet": np.array(returns)} for returns in (low + high, high + low)], tmp_path / "x")
    panels = {ax.get_title(): ax for ax in figures[0].axes}
    gain = panels["V at the centre - V on the ring"].lines
    assert [line.get_ydata().tolist() for line in gain] == [[2 * k for k in x]] * 2
    legend = dict(zip(("left the ring", "stayed"), (line.get_color() for line in panels["test return"].lines[2:])))
    assert [line.get_color() for line in gain] == [legend["left the ring"], legend["stayed"]]


def test_a_model_that_differs_is_so_many_moves_apart(snapshot):
    snapshot.nets["f_net"].weights[-1][0, 2].zero_()  # agent 2's model stays where it is
    _, inward, apart = snapshot.measure(at_distance(0.8, 3))
    assert inward == pytest.approx(2 / 3, abs=0.01)
    assert apart == pytest.approx((0 + 2 * np.sqrt(3)) / 3, abs=0.02)  # pairs (0, 1), (0, 2), (1, 2)


def test_a_policy_that_does_the_same_everywhere_is_stuck(snapshot):
    assert snapshot.stuck() == 1  # they all stay
    snapshot.nets["pi"].weights[0][0, 1].fill_(1)
    snapshot.nets["pi"].weights[1][0, 1].fill_(1)
    assert snapshot.stuck() == pytest.approx(2 / 3)
    snapshot.nets["pi"].biases[1][0, 1].fill_(20)  # saturated
    assert snapshot.stuck() == 1


def test_a_model_keeps_as_much_of_its_own_move_as_its_proposals_differ_by(snapshot):
    assert snapshot.own() == 0  # they move inward, whatever the action
    first, last = (weight[0, 0] for weight in snapshot.nets["f_net"].weights)
    first.zero_()
    last.zero_()
    first[0, 3], first[1, 3], last[0, 0] = 1000, -1000, 1  # agent 0: x0 + .1 tanh(relu(1000 a))
    assert snapshot.own() == pytest.approx(0.5 / 3)  # stays for -1, a full move for 1
    last[0, 1] = -1
    assert snapshot.own() == pytest.approx(1 / 3)


def test_states_lie_at_their_distance():
    np.testing.assert_allclose(length(at_distance(0.05, 3)), 0.05)
    assert (np.abs(at_distance(0.8, 3)) <= 1).all()


def test_the_share_on_the_hill_is_that_of_an_epochs_transitions(tmp_path):
    rows = np.ones((3, CHUNK, 9), np.float32)
    rows[:, :2500, :3] = RADIUS[3] / np.sqrt(2) * 0.99  # l = sqrt(2/3 3 x^2)
    rows[:, 2500:5000, :3] = RADIUS[3] / np.sqrt(2) * 1.01
    save_file({"rows": rows}, tmp_path / "replay_000001.safetensors")
    found = shares(tmp_path, 3, np.array([CHUNK, 2 * CHUNK]))
    assert np.isnan(found[0]) and found[1] == 0.25


def test_what_is_measured_again_counts_and_what_is_gone_is_taken_from_the_earlier_table():
    table = {"TotalEnvInteracts": np.array([1, 2, 3]), "Hill": np.array([0.1, np.nan, np.nan])}
    fill(table, {"TotalEnvInteracts": np.array([1.0, 2]), "Hill": np.array([0.7, 0.2])})
    assert np.array_equal(table["Hill"], [0.1, 0.2, np.nan], equal_nan=True)
    fill(table, {"TotalEnvInteracts": np.array([10.0, 20, 30]), "Hill": np.array([0.7, 0.2, 0.4])})  # of other epochs
    assert np.isnan(table["Hill"][2])


def test_a_run_that_keeps_its_networks_is_measured_and_its_table_stays(tmp_path, capsys):
    size = {"steps_per_epoch": 60, "epochs": 2, "start_steps": 10, "update_after": 10, "updates": 2, "hid": 8}
    run = train(i2q_ddpg, tmp_path / "runs", [0], "DifferentialGame-2", **size, num_test_episodes=1, keep=1)
    folder = run.folders[0].path
    kept = sorted(path.name for path in (folder / "networks").iterdir())
    assert kept == ["120.safetensors", "60.safetensors"]
    assert {"pi.flat", "q.flat", "qss.flat", "f_net.flat"} <= load_file(folder / "networks" / kept[0]).keys()
    last = run.parts["agents"].q.flat.detach()[0]
    assert torch.equal(torch.from_numpy(load_file(folder / "networks" / kept[0])["q.flat"]), last)

    picture = tmp_path / "trap.png"
    assert main([str(tmp_path / "runs"), "--out", str(picture)]) == 0
    table = (folder / "trap.txt").read_text()
    assert len(table.splitlines()) == 3 and "nan" not in table.split("\n")[1].split("\t")[3:]
    columns, last_one = read_table(folder / "trap.txt"), Snapshot(folder / "networks" / kept[0], read_config(folder), 2)
    for place, l in (("Ring", 0.8), ("Halfway", (0.12 + 0.6) / 2), ("Centre", 0.05)):
        measured = [columns[f"{name}{place}"][1] for name in ("V", "Inward", "Apart")]
        assert measured == pytest.approx(last_one.measure(at_distance(l, 2)))
    (folder / "checkpoint").rename(tmp_path / "gone")
    table = re.sub(r"(?m)^(60\t[^\t]+)\tnan", r"\1\t0.5", table)  # the share on the hill, had there been more steps
    (folder / "trap.txt").write_text(table)
    assert main([str(tmp_path / "runs"), "--out", str(picture)]) == 0
    assert "\t0.5\t" in table and (folder / "trap.txt").read_text() == table
    (folder / "networks").rename(tmp_path / "gone too")
    assert main([str(tmp_path / "runs"), "--out", str(picture)]) == 0
    assert (folder / "trap.txt").read_text() == table
    (folder / "trap.txt").unlink()
    assert main([str(tmp_path / "runs"), "--out", str(picture)]) == 2
    assert "train with --keep 1" in capsys.readouterr().err


def test_a_run_of_another_task_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"env": "2x3HalfCheetah"}')
    assert main([str(tmp_path), "--out", str(tmp_path / "x.png")]) == 2
    assert "this is about DifferentialGame-n" in capsys.readouterr().err
