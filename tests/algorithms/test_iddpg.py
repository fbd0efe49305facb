"""Independent DDPG's loss and update against oracles in float64. Its target is I2Q's own function: test_i2q_ddpg.py."""

import numpy as np
import pytest
import torch
from helpers.toys import Toy, make_agents, make_batch

import iddpg
from bench import naive

ENV = Toy(seeds=[3, 4])  # three agents of unequal width


@pytest.mark.parametrize("negative_td, loss_below", [(1.0, 4.0), (0.5, 1.0), (0.0, 0.0)])
def test_a_target_below_the_value_counts_by_the_square_of_its_factor(negative_td, loss_below):
    q, y = torch.tensor([3.0, 3.0]), torch.tensor([5.0, 1.0])  # errors of +2 and -2
    assert iddpg.q_loss(q, y, negative_td).tolist() == [4.0, loss_below]


@pytest.mark.parametrize("negative_td, gradient_below", [(1.0, 4.0), (0.5, 1.0), (0.0, 0.0)])
def test_its_gradient_is_scaled_alike(negative_td, gradient_below):
    q, y = torch.tensor([3.0, 3.0], requires_grad=True), torch.tensor([5.0, 1.0])
    iddpg.q_loss(q, y, negative_td).sum().backward()
    assert q.grad is not None
    assert q.grad.tolist() == [-4.0, gradient_below]


def test_distributed_learning_never_lowers_a_value():
    agents, cfg = make_agents(iddpg, ENV, torch.float64, negative_td=0.0, gamma=0.0)
    batch = make_batch(ENV, dtype=torch.float64)
    low = batch._replace(rew=torch.full_like(batch.rew, -1e3))
    before = agents.q.flat.detach().clone()
    iddpg.update(agents, low, cfg)
    assert torch.equal(agents.q.flat.detach(), before)
    iddpg.update(agents, low._replace(rew=-low.rew), cfg)
    assert not torch.equal(agents.q.flat.detach(), before)


def compare_updates(negative_td: float, dtype: torch.dtype, atol: float, B: int = 6, hid: int = 8) -> None:
    agents, cfg = make_agents(iddpg, ENV, dtype, negative_td=negative_td, polyak=0.9, hid=hid)
    learners = naive.learners_like(naive.Ddpg, agents, ENV, cfg)
    for turn in range(3):
        batch = make_batch(ENV, B, turn, dtype)
        iddpg.update(agents, batch, cfg)
        naive.update(learners, batch, ENV)
    for (s, i), learner in learners.items():
        for name, own, stacked in naive.pairs(learner, agents, ENV, s, i):
            torch.testing.assert_close(
                stacked, own.detach(), rtol=0, atol=atol, msg=lambda text, at=(name, s, i): f"{at}: {text}"
            )


@pytest.mark.parametrize("negative_td", [1.0, 0.5, 0.0])
def test_three_updates_equal_those_of_a_naive_learner_for_each_agent(negative_td):
    compare_updates(negative_td, torch.float64, atol=1e-9)  # three steps of Adam move a weight by up to 3e-3


def test_three_updates_in_single_precision_are_as_near_as_that_allows():
    compare_updates(1.0, torch.float32, atol=5e-6, B=100, hid=64)


def test_diagnostics_are_those_of_each_network():
    agents, cfg = make_agents(iddpg, ENV, torch.float64, q_lr=0.0)  # with Q held still, LossPi is of Q as it was
    batch = make_batch(ENV, dtype=torch.float64)
    q = iddpg.value(agents.q, batch.obs, batch.act).detach()
    pursued = iddpg.value(agents.q, batch.obs, agents.pi(batch.obs)).detach()
    y = iddpg.td_target(agents, batch, batch.next_obs, cfg.gamma).detach()
    shown = {name: loss.detach() for name, loss in iddpg.update(agents, batch, cfg).items()}
    assert shown.keys() == {"LossPi", "LossQ", "QVals"}
    for s, i in np.ndindex(2, 3):
        assert float(shown["QVals"][s, i]) == pytest.approx(float(q[s, i].mean()))
        assert float(shown["LossQ"][s, i]) == pytest.approx(float((q[s, i] - y[s, i]).square().mean()))
        assert float(shown["LossPi"][s, i]) == pytest.approx(-float(pursued[s, i].mean()))
