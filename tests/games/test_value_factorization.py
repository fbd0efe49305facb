"""One-step games: closed forms, what each factorisation can hold, and which joint action each learner ends at."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch import Tensor

from common.layout import read_progress, read_table
from games.shared import Seed
from games.value_factorization import (
    GAMES,
    JOINT,
    NAMES,
    Config,
    DuplexDueling,
    Learner,
    by_agent,
    clip,
    forward,
    make,
    report,
    run,
    train,
)

GAME = GAMES["qplex-game"]
UNIFORM = torch.full((2, 3, 3), 1 / 9)


def new(name: str, n_seeds: int = 2) -> Learner:
    return make(name, Config(), [np.random.default_rng(k) for k in range(n_seeds)])


def duplex(name: str, n_seeds: int = 2) -> DuplexDueling:
    learner = new(name, n_seeds)
    assert isinstance(learner, DuplexDueling)
    return learner


def holding(learner: Learner, values: list[float]) -> Tensor:
    """Make both agents of both seeds hold these values, and return them: (2, 2, 3)."""
    q = torch.tensor(values).repeat(2, 2, 1)
    learner.q = lambda: q  # type: ignore[method-assign]
    return q


def descend(learner: Learner, rew: Tensor, updates: int, lr: float) -> Learner:
    """Full-batch descent on exactly uniform data."""
    adam = torch.optim.Adam(learner.parameters, lr=lr, fused=True)
    for _ in range(updates):
        adam.zero_grad()
        learner.loss(UNIFORM, rew).sum().backward()
        adam.step()
    return learner


def fitted(name: str) -> Learner:
    return descend(new(name), GAME, 2000, 0.02)


def near(table: Tensor, expected: list, tolerance: float = 0.02) -> bool:
    return bool((table.detach() - torch.tensor(expected)).abs().max() < tolerance)


def test_iql_learns_the_mean_of_its_row():
    assert near(fitted("iql").q(), [-16 / 3, -2, -2])


def test_i2q_learns_the_best_of_its_row_and_chooses_8():
    learner = fitted("i2q")
    assert near(learner.q(), [8, 6, 6])
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
    q = holding(learner, [0.3, -0.2, 0.1])
    with torch.no_grad():
        for k in range(3):
            before = learner.joint()
            q[:, 0, k] += 0.5
            after = learner.joint()
            assert (after[:, k] > before[:, k]).all()
            assert (after - before)[:, [j for j in range(3) if j != k]].abs().max() == 0


@pytest.mark.parametrize("name", ["vdn", "qmix", "qatten", "qplex-1L4H", "qplex-3L2H"])
def test_the_greedy_joint_action_is_the_argmax_of_qtot(name):
    learner = new(name, 20)
    best = learner.joint().flatten(1).argmax(-1)
    assert (learner.greedy().flatten(1).argmax(-1) == best).all()


def test_qplex_values_a_greedy_action_alike_whatever_its_credit():
    learner = duplex("qplex-2L4H")
    value = (learner.joint() * learner.greedy()).sum((1, 2))
    assert torch.allclose(value, learner.transformed().amax(-1).sum(-1))
    assert (learner.credit() > 0).all()


def test_qplex_is_vdn_of_its_transformed_values_where_every_credit_is_one():
    learner = duplex("qplex-1L4H")
    learner.credit = lambda: torch.ones(2, 2, 3, 3)  # type: ignore[method-assign]
    q = learner.transformed()
    assert torch.allclose(learner.joint(), q[:, 0, :, None] + q[:, 1, None, :])


def test_qplex_holds_any_table_whose_largest_entry_is_the_greedy_one():
    learner = duplex("qplex-1L4H")
    credit = torch.zeros(2, 2, 3, 3)
    credit[:, 0, 1:] = (8 - GAME[1:]) / 2
    credit[:, 1, 1:, 1:] = (8 - GAME[1:, 1:]) / 2
    credit[:, 0, 1:, 0], credit[:, 1, 0, 1:] = 20, 20
    learner.transformed = lambda: torch.tensor([4.0, 3, 3]).expand(2, 2, 3)  # type: ignore[method-assign]
    learner.credit = lambda: credit  # type: ignore[method-assign]
    assert torch.allclose(learner.joint(), GAME.expand(2, 3, 3))


def test_a_local_optimum_that_qplex_fits_as_well_as_it_can_goes_on_drawing_its_agents_to_8():
    learner = duplex("qplex-1L4H")
    q = torch.tensor([2.0, 3, 2.9]).repeat(2, 2, 1).requires_grad_()  # plays (1, 1), which pays 6
    credit = torch.tensor([[0.0, 18, 18], [18, 0, 60], [18, 60, 0]]).expand(2, 2, 3, 3).clone()
    credit[:, 0, 1, 0] = credit[:, 1, 0, 1] = 0  # of what is greedy no credit matters
    credit[:, 0, 2, 0] = credit[:, 1, 0, 2] = credit[:, 0, 1, 2] = credit[:, 1, 2, 1] = 0
    learner.transformed = lambda: q  # type: ignore[method-assign]
    learner.credit = lambda: credit  # type: ignore[method-assign]
    error = learner.joint() - GAME
    assert error[0].flatten().tolist() == pytest.approx([-2] + [0] * 8, abs=1e-5)
    learner.loss(UNIFORM, GAME).sum().backward()
    assert q.grad is not None
    assert q.grad[0, 0].tolist() == pytest.approx([-4 / 9, 0, 0], abs=1e-5)


@pytest.mark.parametrize("name", ["qplex-2L4H", "qplex-2L1H"])
def test_the_credit_of_qplex_is_that_of_a_loop_over_heads(name):
    learner = duplex(name, 1)

    def evaluate(net: list, head: int, x: Tensor) -> Tensor:
        (w1, b1), (w2, b2) = ((weight[0, head], bias[0, head, 0]) for weight, bias in net)
        return torch.relu(x @ w1 + b1) @ w2 + b2

    for first, second in ((0, 2), (1, 0)):
        acts = torch.zeros(8)  # the state, then both actions
        acts[2 + first] = acts[5 + second] = 1
        total = torch.zeros(2)
        for head in range(len(learner.k[0][0][0])):
            key, agent = evaluate(learner.k, head, acts[:2]).abs(), evaluate(learner.g, head, acts[:2]).sigmoid()
            total += key * agent * evaluate(learner.m, head, acts).sigmoid()
        assert torch.allclose(learner.credit()[0, :, first, second], total)


@pytest.mark.parametrize(("name", "additive"), [("qplex-1L4H", True), ("qplex-2L4H", False)])
def test_of_one_layer_the_logit_of_a_credit_is_a_sum_over_the_two_actions(name, additive):
    logit = forward(duplex(name).m, JOINT).unflatten(2, (3, 3))
    both, one, other, none = logit[:, :, 1, 1], logit[:, :, 1, 0], logit[:, :, 0, 1], logit[:, :, 0, 0]
    assert torch.allclose(both - one, other - none, atol=1e-6) == additive


def test_qplex_sizes_are_layers_and_heads():
    shapes = [tuple(weight.shape[1:]) for weight, _ in duplex("qplex-3L10H").m]
    assert shapes == [(10, 8, 64), (10, 64, 64), (10, 64, 2)]


def test_qtran_has_no_penalty_for_values_that_meet_its_conditions():
    learner = new("qtran")
    with torch.no_grad():
        learner.q_joint.copy_(GAME.expand(2, 3, 3))  # type: ignore[attr-defined]
        q = holding(learner, [4.0, 3, 3])  # sums 8 at (0, 0), 7 or 6 elsewhere
        learner.v.zero_()  # type: ignore[attr-defined]
        assert (learner.loss(UNIFORM, GAME) == 0).all()
        q[:, :, 0] = 3.5  # Q_0 + Q_1 is 7 at (0, 0), which pays 8, and stays the largest
        assert learner.loss(UNIFORM, GAME).tolist() == pytest.approx([1 + 1 / 9] * 2)


def test_weights_of_wqmix_are_by_optimism_and_by_the_greedy_action():
    error = torch.tensor([[2.0, 2, 2], [2, -2, 2], [2, 2, 2]])  # Qtot - r
    for name, full in (("ow-qmix", 1), ("cw-qmix", 2)):
        learner = new(name)
        learner.joint = lambda: GAME + error  # type: ignore[method-assign]
        holding(learner, [0.0, 0, 1])  # plays (2, 2), which pays 6
        with torch.no_grad():
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
        holding(learner, [-12.0, 6, 5])
        share = torch.zeros(2, 3, 3)
        share[:, 0, 1] = share[:, 1, 0] = share[:, 1, 1] = 1 / 3  # never (0, 0), and nothing of action 2
        assert learner.loss(share, GAME).tolist() == [0, 0]
        other = torch.zeros(2, 3, 3)
        other[:, 0, 1] = 1  # what an earlier batch had counts on: agent 1's action 1 may still pay 6
        assert learner.loss(other, GAME).tolist() == [0, 0]


def test_what_i2q_believes_of_outcomes_is_not_drawn_to_its_values_of_actions():
    learner = new("i2q")
    with torch.no_grad():
        learner.qss.copy_(by_agent(GAME.expand(2, 3, 3)))  # type: ignore[attr-defined]
    learner.loss(UNIFORM, GAME).sum().backward()
    assert (learner.qss.grad == 0).all() and (learner.table.grad != 0).all()  # type: ignore[attr-defined]


def test_the_agents_of_i2q_have_gradients_of_their_own():
    grads = []
    for other in (0.0, 1000.0):
        learner = new("i2q")
        with torch.no_grad():
            learner.table[:, 1] += other  # type: ignore[attr-defined]
            learner.qss[:, 1] -= other  # type: ignore[attr-defined]
        learner.loss(UNIFORM, GAME).sum().backward()
        found = [p.grad for p in learner.parameters if p.grad is not None]
        clip(found, learner.apart, 1.0)
        grads.append(torch.cat([grad[:, 0].flatten(1) for grad in found], 1))
    assert (grads[0] == grads[1]).all()
    assert grads[0].norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_a_gradient_is_clipped_seed_by_seed():
    grads = [torch.tensor([[3.0], [30.0]]), torch.tensor([4.0, 40.0])]
    clip(grads, 1, 10.0)
    assert grads[0].flatten().tolist() == pytest.approx([3, 6], abs=1e-4)
    assert grads[1].tolist() == pytest.approx([4, 8], abs=1e-4)


def test_a_seed_has_batches_of_its_own_which_are_the_same_for_all_learners(monkeypatch):
    drawn: dict[str, list[Tensor]] = {}
    cfg = Config(updates=3, score_every=3)
    for name in ("vdn", "iql"):
        learner, kept = type(new(name)), drawn.setdefault(name, [])
        loss = learner.loss

        def noted(self, share, rew, loss=loss, kept=kept):
            kept.append(share)
            return loss(self, share, rew)

        monkeypatch.setattr(learner, "loss", noted)
        train(cfg, name, [0, 1])
    vdn, iql = torch.stack(drawn["vdn"]), torch.stack(drawn["iql"])
    assert torch.equal(vdn, iql) and (vdn[:, 0] != vdn[:, 1]).any()
    assert (vdn[0] != vdn[1]).any() and torch.allclose(vdn.sum((2, 3)), torch.ones(3, 2))


@pytest.mark.parametrize("still", [{"lr": 0.0}, {"max_norm": 0.0}])
def test_a_learner_takes_steps_of_the_size_asked_for(still):
    begun, (learner, _) = new("qmix"), train(Config(updates=5, score_every=5, **still), "qmix", [0, 1])
    assert all(map(torch.equal, learner.parameters, begun.parameters))
    moved, _ = train(Config(updates=5, score_every=5), "qmix", [0, 1])
    assert not any(map(torch.equal, moved.parameters, begun.parameters))


def test_a_learner_has_the_sizes_and_the_weight_asked_for():
    cfg, rngs = Config(embed=7, heads=5, w_alpha=0.3), [np.random.default_rng(0)]
    for name in ("ow-qmix", "cw-qmix"):
        learner = make(name, cfg, rngs)
        assert (learner.alpha, learner.rule, learner.w1.shape) == (0.3, name[:2], (1, 2, 7))  # type: ignore[attr-defined]
    assert make("qatten", cfg, rngs).w.shape == (1, 5)  # type: ignore[attr-defined]


def test_qatten_shares_each_head_out_among_the_agents():
    learner = new("qatten")
    with torch.no_grad():
        learner.w.fill_(-0.25)  # type: ignore[attr-defined]
        learner.c.fill_(2)  # type: ignore[attr-defined]
        holding(learner, [5.0, 5, 5])
        assert torch.allclose(learner.joint(), torch.tensor(7.0))  # 4 heads, in each of which 5 a are shared out


def test_the_files_of_a_seed_have_what_it_learned(data_dir):
    cfg = Config(env="qtran-game", seed=3, num_runs=3, updates=4, score_every=2, data_dir=str(data_dir), exp_name="x")
    run(cfg, "vdn")
    for seed in (3, 4, 5):
        folder = data_dir / "x_vdn" / f"x_vdn_s{seed}"
        learner, history = train(cfg, "vdn", [seed])
        columns = read_progress(folder)
        assert [column.tolist() for column in columns.values()] == [[1, 2], history[:, 0].tolist(), [64, 128]]
        row, *acts = read_table(folder / "values.txt").values()
        assert row.tolist() == [0, 1, 2, -1, -2]  # of Qtot, then Q_0 and Q_1
        expected = torch.cat([learner.joint()[0], learner.q()[0]]).detach()
        assert np.stack(acts, 1) == pytest.approx(expected.numpy(), abs=1e-6)


def test_the_report_has_the_quartiles_of_the_seeds_and_how_many_found_the_best(data_dir):
    cfg = Config(learners=("vdn",), seed=2, num_runs=5, data_dir=str(data_dir), exp_name="x")
    for k, pay in enumerate((8, 6, 8, 0, -12)):
        folder = Seed.of(cfg, "vdn", 2 + k).folder
        folder.mkdir(parents=True)
        (folder / "progress.txt").write_text(f"Epoch\tAverageTestEpRet\n1\t8\n2\t{pay}\n")
        (folder / "values.txt").write_text(f"Row\tAct0\tAct1\tAct2\n0\t1\t2\t{k * k}\n-1\tnan\t5\t6\n")
    title, _, row, _, _, values, _ = report(cfg).splitlines()
    assert title.endswith("after 20000 updates, 5 seeds")
    assert row.split() == ["vdn", "6.00", "0.00", "8.00", "2", "of", "5"]
    assert values.split() == ["vdn", "1.00", "2.00", "4.00", "|", "-", "5.00", "6.00"]


def short(name: str, updates: int, env: str = "qplex-game") -> np.ndarray:
    """Pay-offs at the end, of three seeds that learn from sampled batches, faster than by default."""
    cfg = Config(env=env, updates=updates, score_every=updates, lr=0.01, exp_name="x")  # type: ignore[arg-type]
    return train(cfg, name, range(3))[1][-1]


@pytest.mark.parametrize(("name", "updates"), [("i2q", 1200), ("qtran", 1200), ("ow-qmix", 400), ("cw-qmix", 400)])
@pytest.mark.parametrize("env", GAMES)
def test_learners_that_can_tell_8_find_it_in_both_games(env, name, updates):
    assert short(name, updates, env).tolist() == [8, 8, 8]


def test_qplex_finds_8_soon_where_the_other_equilibria_pay_nothing():
    assert short("qplex-2L4H", 600, "qtran-game").tolist() == [8, 8, 8]


def test_qplex_learns_the_whole_table_where_its_agents_prefer_the_best_actions():
    learner = duplex("qplex-2L4H")
    q = torch.tensor([4.0, 3, 3]).expand(2, 2, 3)
    learner.transformed = lambda: q  # type: ignore[method-assign]
    learner.loss(UNIFORM, GAME).sum().backward()
    learner.parameters = [p for p in learner.parameters if p.grad is not None]  # those of the credit
    descend(learner, GAME, 600, 0.01)
    assert near(learner.joint(), GAME.tolist(), 0.1)


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix", "qatten"])
def test_the_others_stay_at_a_local_optimum(name):
    assert set(short(name, 800).tolist()) <= {0, 6}


@pytest.mark.parametrize("name", [*NAMES, "qplex-2L3H"])
def test_a_seed_learns_the_same_alone_as_beside_others_bit_for_bit(name):
    cfg = Config(updates=40, score_every=40, embed=5, heads=3, exp_name="x")  # sizes that no vector of a CPU divides
    beside, alone = (train(cfg, name, seeds)[0] for seeds in ([0, 2, 1, 3, 4], [2]))
    for many, one in zip(beside.parameters, alone.parameters, strict=True):
        assert torch.equal(many[1], one[0])
    assert torch.equal(beside.joint()[1].nan_to_num(), alone.joint()[0].nan_to_num())


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "games.value_factorization", *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_trains_every_learner_and_does_not_train_a_finished_one_again(data_dir):
    size = ["--updates", "20", "--score_every", "10", "--num_runs", "2"]
    flags = ["--env", "qtran-game", *size, "--data_dir", str(data_dir)]
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


def test_seeds_that_are_added_leave_finished_ones_as_they_are(data_dir):
    flags = ["--learners", "vdn", "--updates", "20", "--score_every", "10", "--data_dir", str(data_dir)]
    assert command(*flags, "--num_runs", "2").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.*") if path.name != ".lock"}
    assert len(before) == 6
    more = command(*flags, "--num_runs", "3")
    assert more.returncode == 0, more.stderr
    assert more.stdout.startswith("vdn s0 s1 finished already: ")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    found = {path.parent.name[-2:] for path in data_dir.rglob("values.txt")}
    assert found == {"s0", "s1", "s2"}
