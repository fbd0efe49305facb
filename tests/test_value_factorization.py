"""One-step games: closed forms, what each factorisation can hold, and which joint action each learner ends at."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from value_factorization import GAMES, NAMES, Config, Learner, by_agent, make, train

ROOT = Path(__file__).resolve().parent.parent
GAME = GAMES["qplex-game"]
UNIFORM = torch.full((2, 3, 3), 1 / 9)


def new(name: str, n_seeds: int = 2) -> Learner:
    return make(name, Config(), [np.random.default_rng(k) for k in range(n_seeds)])


def fitted(name: str, rew: Tensor = GAME, updates: int = 2000, lr: float = 0.02) -> Learner:
    """Two seeds of a learner after full-batch descent on exactly uniform data."""
    learner = new(name)
    adam = torch.optim.Adam(learner.parameters, lr=lr)
    for _ in range(updates):
        adam.zero_grad()
        learner.loss(UNIFORM, rew).sum().backward()
        adam.step()
    return learner


def near(table: Tensor, expected: list, tolerance: float = 0.02) -> bool:
    return bool((table.detach() - torch.tensor(expected)).abs().max() < tolerance)


def test_iql_learns_the_mean_of_its_row():
    assert near(fitted("iql").q, [-16 / 3, -2, -2])


def test_i2q_learns_the_best_of_its_row_and_chooses_8():
    learner = fitted("i2q")
    assert near(learner.q, [8, 6, 6])
    assert (learner.greedy()[:, 0, 0] == 1).all()


def test_vdn_learns_the_best_additive_table_and_does_not_choose_8():
    learner = fitted("vdn")
    mean = -28 / 9
    a, b, c = 2 * -16 / 3 - mean, -16 / 3 - 2 - mean, -4 - mean
    assert (a, b, c) == pytest.approx((-7.56, -4.22, -0.89), abs=0.005)
    assert near(learner.joint(), [[a, b, b], [b, c, c], [b, c, c]])
    assert (learner.greedy()[:, 1:, 1:].sum((1, 2)) == 1).all()


def test_qatten_with_its_weights_can_hold_no_more_than_vdn():
    assert near(fitted("qatten").joint(), fitted("vdn").joint().tolist())


@pytest.mark.parametrize("name", ["vdn", "qmix", "qatten", "ow-qmix", "cw-qmix"])
def test_a_monotonic_qtot_never_falls_as_an_agents_value_rises(name):
    learner = new(name)
    with torch.no_grad():
        for k in range(3):
            before = learner.joint()
            learner.q[:, 0, k] += 0.5
            after = learner.joint()
            assert (after[:, k] > before[:, k]).all()
            assert (after - before)[:, [j for j in range(3) if j != k]].abs().max() == 0


@pytest.mark.parametrize("name", ["vdn", "qmix", "qatten", "qplex-1L4H", "qplex-3L2H"])
def test_the_greedy_joint_action_is_the_argmax_of_qtot(name):
    learner = new(name, 20)
    best = learner.joint().flatten(1).argmax(-1)
    assert (learner.greedy().flatten(1).argmax(-1) == best).all()


def test_qplex_values_a_greedy_action_alike_whatever_its_credit():
    learner = new("qplex-2L4H")
    q = learner.w.abs()[..., None] * learner.q + learner.b[..., None]  # type: ignore[attr-defined]
    value = (learner.joint() * learner.greedy()).sum((1, 2))
    assert torch.allclose(value, q.amax(-1).sum(-1))
    assert (learner.credit() > 0).all()  # type: ignore[attr-defined]


def test_qplex_is_vdn_of_its_transformed_values_where_every_credit_is_one():
    learner = new("qplex-1L4H")
    learner.credit = lambda: torch.ones(2, 2, 3, 3)  # type: ignore[attr-defined]
    q = learner.w.abs()[..., None] * learner.q + learner.b[..., None]  # type: ignore[attr-defined]
    assert torch.allclose(learner.joint(), q[:, 0, :, None] + q[:, 1, None, :])


def test_qplex_sizes_are_layers_and_heads():
    shapes = [tuple(weight.shape[1:]) for weight, _ in new("qplex-3L10H").net]  # type: ignore[attr-defined]
    assert shapes == [(10, 6, 64), (10, 64, 64), (10, 64, 2)]


def test_qtran_has_no_penalty_for_values_that_meet_its_conditions():
    learner = new("qtran")
    with torch.no_grad():
        learner.q_joint.copy_(GAME.expand(2, 3, 3))  # type: ignore[attr-defined]
        learner.q.copy_(torch.tensor([4.0, 3, 3]).expand(2, 2, 3))  # sums 8 at (0, 0), 7 or 6 elsewhere
        learner.v.zero_()  # type: ignore[attr-defined]
        assert (learner.loss(UNIFORM, GAME) == 0).all()
        learner.q[:, :, 0] = 3.5  # Q_0 + Q_1 is 7 at (0, 0), which pays 8, and stays the largest
        assert learner.loss(UNIFORM, GAME).tolist() == pytest.approx([1 + 1 / 9] * 2)


def test_weights_of_wqmix_are_by_optimism_and_by_the_greedy_action():
    error = torch.tensor([[2.0, 2, 2], [2, -2, 2], [2, 2, 2]])  # Qtot - r
    for name, full in (("ow-qmix", 1), ("cw-qmix", 2)):
        learner = new(name)
        learner.joint = lambda: GAME + error  # type: ignore[method-assign]
        with torch.no_grad():
            learner.q.copy_(torch.tensor([0.0, 0, 1]).expand(2, 2, 3))  # plays (2, 2), which pays 6
            learner.q_star.copy_(GAME.expand(2, 3, 3))  # type: ignore[attr-defined]
        # OW: (1, 1) alone is undervalued. CW: (2, 2) is greedy, (0, 0) pays more than it; (1, 1) pays no more
        assert learner.loss(UNIFORM, GAME).tolist() == pytest.approx([4 / 9 * (full + 0.1 * (9 - full))] * 2)


def test_an_agent_sees_its_own_action_first():
    table = torch.arange(9.0).view(1, 3, 3)
    assert by_agent(table)[0, 1, 0].tolist() == [0, 3, 6]


def test_i2q_counts_on_no_outcome_that_it_has_not_seen():
    learner = new("i2q")
    with torch.no_grad():
        learner.qss.copy_(by_agent(GAME.expand(2, 3, 3)))  # type: ignore[attr-defined]
        learner.q.copy_(torch.tensor([-12.0, 6, 5]).expand(2, 2, 3))
        share = torch.zeros(2, 3, 3)
        share[:, 0, 1] = share[:, 1, 0] = share[:, 1, 1] = 1 / 3  # never (0, 0), and nothing of action 2
        assert learner.loss(share, GAME).tolist() == [0, 0]


def short(name: str, updates: int, env: str = "qplex-game") -> np.ndarray:
    """Pay-offs at the end, of three seeds that learn from sampled batches."""
    return train(Config(env=env, num_runs=3, updates=updates, score_every=updates, exp_name="x"), name)[1][-1]  # type: ignore[arg-type]


@pytest.mark.parametrize("env", GAMES)
def test_i2q_and_qtran_find_8_in_both_games(env):
    assert short("i2q", 1500, env).tolist() == [8, 8, 8]
    assert short("qtran", 3000, env).tolist() == [8, 8, 8]


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix", "qatten"])
def test_the_others_stay_at_a_local_optimum(name):
    assert set(short(name, 1500).tolist()) <= {0, 6}


def test_a_seed_learns_the_same_alone_as_beside_others():
    both = train(Config(num_runs=2, updates=50, exp_name="x"), "qplex-2L4H")[0]
    alone = train(Config(seed=1, num_runs=1, updates=50, exp_name="x"), "qplex-2L4H")[0]
    assert torch.allclose(both.joint()[1], alone.joint()[0], atol=1e-5)


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "value_factorization.py", *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_trains_every_learner_and_does_not_train_a_finished_one_again(data_dir):
    flags = ["--env", "qtran-game", "--updates", "50", "--num_runs", "2", "--data_dir", str(data_dir)]
    first = command(*flags)
    assert first.returncode == 0, first.stderr
    folders = {path.parent.parent.name for path in data_dir.rglob("progress.txt")}
    assert folders == {f"value_factorization_qtran-game_{name}" for name in NAMES}
    again = command(*flags)
    assert again.stdout.count("finished already") == len(NAMES)
    assert again.stdout.splitlines()[len(NAMES) :] == first.stdout.splitlines()[len(NAMES) :]
    unknown = command("--learners", "qplex-4H")
    assert unknown.returncode == 2
    assert unknown.stderr.count("\n") == 1
