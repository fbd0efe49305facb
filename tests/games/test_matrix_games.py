"""Trees of matrix games: the games, both learners against loops over single entries, and what ends where."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import ROOT

from common.layout import read_progress, read_table
from games.matrix_games import (
    TWO_OPTIMA,
    Config,
    Games,
    Tables,
    defaults,
    edges,
    optimal,
    returns,
    scores,
    table,
    train,
    write,
)
from games.shared import Seed

NO_COIN = np.zeros((10, 1, 2, 3))


def test_five_layers_of_nine_children_have_66430_nodes():
    games = Games.random(1, 5)
    assert games.n_edges + 1 == 66_430
    assert games.n_inner == 1 + 9 + 81 + 729 + 6561


def test_leaving_a_node_pays_the_same_on_all_its_edges_and_a_leaf_pays_nothing():
    rew = Games.random(1, 2).rew[0, 0].reshape(10, 9)
    assert (rew == rew[:, :1]).all()
    assert np.unique(rew).size == 10  # of 91 nodes the 81 leaves pay nothing
    assert np.abs(rew).max() < 1


def test_game_k_is_drawn_from_seed_k_whatever_the_number_of_games():
    roots = [np.random.default_rng(k).uniform(-1, 1) for k in range(3)]
    assert Games.random(3, 2).rew[:, 0, 0] == pytest.approx(roots, abs=1e-7)


def test_the_best_return_is_that_of_the_best_of_all_paths():
    games = Games.random(3, 3)
    paths = [games.rew[:, 0, a] + games.rew[:, 0, 9 + 9 * a + b] for a in range(9) for b in range(9)]
    third = [path + games.rew[:, 0, 90 + 81 * (k // 9) + 9 * (k % 9)] for k, path in enumerate(paths)]
    assert games.best == pytest.approx(np.max(third, 0), abs=1e-6)


def test_both_agents_numberings_name_the_same_transition():
    games = Games.random(1, 3)
    node = np.zeros((1, 2), int)
    for act in ([[2, 1]], [[0, 2]], [[1, 0]]):
        edge = edges(node, np.array(act))
        assert games.mirror[edge[0, 1]] == edge[0, 0]
        assert games.rew[0, 0, edge[0, 0]] == games.rew[0, 1, edge[0, 1]]
        node = edge + 1


def slow_update(games: Games, seen: list[list[int]], batches: list[np.ndarray], i2q: bool, alpha: float) -> np.ndarray:
    """Both agents' Q (2, I, 3) of game 0 after these batches (2, B): dictionaries and loops, one entry at a time."""
    q = np.zeros((2, games.n_inner, 3))
    for i in range(2):
        qss = dict.fromkeys(seen[i], 0.0)
        for batch in batches:
            last = dict.fromkeys(batch[i].tolist())  # an entry drawn twice is updated once
            old = dict(qss)
            if i2q:
                for e in last:
                    onward = [old[9 * (e + 1) + k] for k in range(9) if 9 * (e + 1) + k in old]
                    qss[e] += alpha * (games.rew[0, i, e] + max(onward, default=0.0) - qss[e])
            before = q[i].copy()
            for e in batch[i].tolist():  # in order: the last draw of an entry stays
                s, act = divmod(e // 3, 3)
                if i2q:
                    e = max((k for k in range(3 * (e // 3), 3 * (e // 3) + 3) if k in qss), key=lambda k: qss[k])
                onward = before[e + 1].max() if e + 1 < games.n_inner else 0.0
                q[i, s, act] = before[s, act] + alpha * (games.rew[0, i, e] + onward - before[s, act])
    return q


@pytest.mark.parametrize("learner", ["iql", "i2q"])
def test_updates_equal_those_of_a_loop_over_single_entries(learner):
    games, rng = Games.random(1, 3), np.random.default_rng(0)
    tables = Tables(games, learner, 0.1)
    seen: list[list[int]] = [[], []]
    for _ in range(150):
        node = np.zeros((1, 2), int)
        for _ in range(3):
            edge = edges(node, rng.integers(3, size=(1, 2)))
            tables.see(edge)
            seen[0].append(int(edge[0, 0]))
            seen[1].append(int(edge[0, 1]))
            node = edge + 1
    batches = [np.stack([rng.choice(seen[i], 40) for i in range(2)]) for _ in range(60)]
    for batch in batches:
        tables.update(batch[None])
    expected = slow_update(games, seen, batches, learner == "i2q", 0.1)
    learned = tables.q.reshape(2, -1)[:, :-3].reshape(2, -1, 3)
    assert np.abs(expected).max() > 0.5
    assert learned == pytest.approx(expected, abs=1e-5)


def test_i2q_never_counts_on_a_successor_that_it_has_not_seen():
    games = Games.one_stage(TWO_OPTIMA, 1)
    tables = Tables(games, "i2q", 1.0)
    tables.see(np.array([[3, 1]]))  # the joint action (1, 0), which pays 10, as either agent numbers it
    tables.see(np.array([[8, 8]]))  # (2, 2), which pays 0
    for _ in range(3):
        tables.update(np.array([[[3, 8], [1, 8]]]))
    assert tables.q[:3].tolist() == [0, 10, 0]
    assert tables.qss[[0, 1, 2]].tolist() == [-np.inf] * 3


def learned_from_everything(learner, alpha: float = 0.1, updates: int = 400) -> tuple[Games, Tables]:
    """One-stage game after many updates on all nine joint actions, in equal shares."""
    games = Games.one_stage(TWO_OPTIMA, 1)
    tables = Tables(games, learner, alpha)
    everything = np.stack([np.arange(9), games.mirror])
    for edge in everything.T:
        tables.see(edge[None])
    rng = np.random.default_rng(0)
    for _ in range(updates):
        tables.update(rng.permuted(everything, axis=1)[None])
    return games, tables


def test_i2q_learns_the_best_outcome_of_each_action_and_two_are_tied():
    _, tables = learned_from_everything("i2q")
    assert tables.q.reshape(2, -1)[:, :3] == pytest.approx(np.array([[10, 10, 0]] * 2), abs=1e-4)


def test_iql_learns_the_mean_outcome_of_each_action_and_so_chooses_9_99():
    games, tables = learned_from_everything("iql", alpha=0.01, updates=4000)
    assert tables.q[:3] == pytest.approx([19.99 / 3, 10 / 3, 0], abs=0.5)
    assert returns(games, tables, NO_COIN[:1])[0] == pytest.approx(9.99)


def test_tied_agents_that_break_ties_each_by_itself_miss_each_other_half_of_the_time():
    games, tables = learned_from_everything("i2q")
    rng = np.random.default_rng(1)
    plays = [returns(games, tables, rng.random((1, 1, 2, 3)))[0] for _ in range(400)]
    shares = [np.mean(np.isclose(plays, pay)) for pay in (10, 9.99, 0)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.1)


def test_only_values_that_differ_by_less_than_1e_5_are_tied():
    tables = Tables(Games.one_stage(TWO_OPTIMA, 1), "iql", 0.1)
    coin = np.array([[[0.9, 0.1, 0.5]] * 2])
    for gap, chosen in ((2e-5, 1), (5e-6, 0)):
        tables.q.reshape(2, -1)[:, :3] = [1, 1 + gap, 0]
        assert (tables.greedy(np.zeros((1, 2), int), coin) == chosen).all()


def test_with_eta_tied_agents_choose_the_same_successor_every_time():
    games, tables = learned_from_everything("i2q_eta")
    rng = np.random.default_rng(1)
    plays = [returns(games, tables, rng.random((1, 1, 2, 3)))[0] for _ in range(50)]
    assert plays == pytest.approx([10] * 50)


def test_eta_gives_a_state_the_same_rank_for_both_agents():
    tables = Tables(Games.random(1, 2), "i2q_eta", 0.1)
    of_agent = tables.eta.reshape(2, -1)
    assert (of_agent[1] == of_agent[0][tables.games.mirror]).all()


SMALL = Config(layers=2, games=12, steps=4000, start_steps=400, exp_name="x")


def test_a_worse_policy_has_a_lower_score_where_the_best_return_is_negative_too():
    best = Games.random(100, 2).best
    assert (best < 0).sum() == 6
    assert optimal(scores(best, best)).all()
    worse = scores(best - [[0.001], [0.1]], best)
    assert (worse[1] < worse[0]).all() and (worse[0] < 1).all() and not optimal(worse).any()
    assert scores(np.array([-2.0, 1.0, -1.0]), np.array([-1.0, 2.0, 2.0])).tolist() == [0, 0.5, -0.5]


def test_on_small_trees_i2q_finds_the_optimum_of_every_game_and_iql_does_not():
    games = Games.random(12, 2)
    i2q = train(SMALL, games, "i2q", 0)[-1] / games.best
    iql = train(SMALL, games, "iql", 0)[-1] / games.best
    assert i2q == pytest.approx(np.ones(12), abs=1e-6)
    assert iql.mean() < 0.97


def test_a_game_is_learned_the_same_alone_as_beside_others():
    cfg = Config(layers=2, games=3, steps=600, start_steps=100)
    many, one = Games.random(3, 2), Games.random(1, 2)
    assert (train(cfg, many, "i2q", 7)[:, 0] == train(cfg, one, "i2q", 7)[:, 0]).all()


def test_each_agent_explores_by_itself_with_probability_epsilon(monkeypatch):
    seen: list[np.ndarray] = []
    monkeypatch.setattr(Tables, "see", lambda self, edge: seen.append(edge))
    cfg = Config(games=20, layers=1, steps=1000, start_steps=2000, epsilon=0.3)
    train(cfg, Games.one_stage(TWO_OPTIMA, 20), "i2q_eta", 0)  # which has a greedy action from the start
    act = np.array(seen) // 3  # (steps, G, 2)
    other = act != [[np.bincount(act[..., i].ravel()).argmax() for i in range(2)]]
    assert other.mean((0, 1)) == pytest.approx([0.2] * 2, abs=0.015)  # a third of uniform actions is the greedy one
    assert other.all(-1).mean() == pytest.approx(0.04, abs=0.01)


def seen_and_drawn(monkeypatch, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of a short run the edges that agents met, (T, 2), and the batches that they learned from, (2, B) each."""
    seen: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    monkeypatch.setattr(Tables, "see", lambda self, edge: seen.append(edge[0]))
    monkeypatch.setattr(Tables, "update", lambda self, edge: drawn.append(edge[0]))
    size: dict[str, Any] = {"layers": 2, "games": 1, "steps": 40, "update_every": 10, "score_every": 10}
    train(Config(**size, start_steps=20, updates=2, batch_size=500), Games.random(1, 2), "iql", seed)
    return np.array(seen), drawn


def test_batches_are_drawn_by_each_agent_apart_from_all_that_it_has_met(monkeypatch):
    seen, drawn = seen_and_drawn(monkeypatch, 0)
    assert len(drawn) == 2 * 3  # at steps 20, 30 and 40
    for stop, batch in zip((20, 20, 30, 30, 40, 40), drawn):
        assert [set(batch[i]) for i in range(2)] == [set(seen[:stop, i]) for i in range(2)]
        assert (Games.random(1, 2).mirror[batch[1]] != batch[0]).any()
    assert (seen != seen_and_drawn(monkeypatch, 1)[0]).any()


def test_agent_0_never_learns_from_what_agent_1_draws_from_its_replay():
    games, rng = Games.random(1, 2), np.random.default_rng(0)
    first, second = Tables(games, "i2q", 0.1), Tables(games, "i2q", 0.1)
    for tables in (first, second):
        for edge in range(games.n_edges):
            tables.see(np.array([[edge, games.mirror[edge]]]))
    for _ in range(20):
        mine, other, another = rng.integers(games.n_edges, size=(3, 30))
        first.update(np.stack([mine, other])[None])
        second.update(np.stack([mine, another])[None])
    half = first.q.size // 2
    assert (first.q[:half] == second.q[:half]).all()
    assert (first.q[half:] != second.q[half:]).any()


def test_the_files_and_the_table_have_what_the_seeds_came_to(data_dir):
    size: dict[str, Any] = {"layers": 1, "games": 2, "steps": 200, "num_runs": 2}
    cfg = Config(**size, learners=("i2q",), seed=3, data_dir=str(data_dir), exp_name="x")
    games = Games.one_stage(TWO_OPTIMA, 2)
    for seed, score in ((3, [[0.0, 0.5], [1.0, 0.5]]), (4, [[0.0, 0.0], [1.0, 0.9]])):
        folder = Seed.of(cfg, "i2q", seed).folder
        folder.mkdir(parents=True)
        write(cfg, games, folder, np.array(score), 10)
    columns = read_progress(data_dir / "x_i2q" / "x_i2q_s3")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "Epoch": [1, 2],
        "AverageTestEpRet": [0.25, 0.75],
        "StdTestEpRet": [0.25, 0.25],
        "MaxTestEpRet": [0.5, 1],
        "MinTestEpRet": [0, 0.5],
        "Optimal": [0, 0.5],
        "TotalEnvInteracts": [100, 200],
        "Time": [5, 10],
    }
    of_games = read_table(data_dir / "x_i2q" / "x_i2q_s4" / "games.txt")
    assert [column.tolist() for column in of_games.values()] == [[0, 1], [10, 10], [1, 0.9]]
    row = table(cfg).splitlines()[2]
    assert row.split() == ["i2q", "2", "0.8500", "(", "0.7500", "0.9500)", "0.9500", "0.5000", "50.0%"]


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "games.matrix_games", *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_leaves_run_folders_and_does_not_train_a_finished_seed_again(data_dir):
    size = ["--layers", "2", "--games", "4", "--steps", "800", "--start_steps", "200", "--num_runs", "2"]
    flags = [*size, "--seed", "1", "--learners", "i2q", "--data_dir"]
    first = command(*flags, str(data_dir))
    assert first.returncode == 0, first.stderr
    progress = data_dir / "matrix_games_trees_i2q" / "matrix_games_trees_i2q_s1" / "progress.txt"
    header, *rows = progress.read_text().splitlines()
    assert "AverageTestEpRet" in header.split("\t")
    assert len(rows) == 8
    written = progress.stat().st_mtime_ns
    again = command(*flags, str(data_dir))
    assert "finished already" in again.stdout
    assert progress.stat().st_mtime_ns == written
    assert again.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]
    other = command(*flags, str(data_dir), "--alpha", "0.2")
    assert other.returncode == 2
    assert "alpha 0.1, not 0.2" in other.stderr
    assert other.stderr.count("\n") == 1


def test_steps_that_do_not_end_with_an_episode_are_refused_in_one_line():
    with pytest.raises(ValueError, match="--update_every 50: must be a multiple of --layers 4"):
        Config(layers=4)


def test_two_optima_has_one_layer_by_default_and_no_other():
    flags = {"env": "two-optima", "update_every": 7, "score_every": 70, "steps": 700}
    assert Config(**{**defaults("two-optima", "full"), **flags}).layers == 1
    with pytest.raises(ValueError, match="--layers 2: two-optima has one layer; leave it out, or give --env trees"):
        Config(**{**defaults("two-optima", "full"), "env": "two-optima", "layers": 2})
