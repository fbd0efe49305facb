"""Stacked recurrent networks against torch.nn, one network at a time; RMSprop against torch.optim."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.recurrent_naive import Agent
from common.seeding import Streams
from smac import envs, i2q_drqn
from smac.common.nets import Recurrent, unroll
from smac.common.optim import RMSprop

S, N, B, T, SIZES = 2, 3, 5, 7, (6, 8, 4)
RUNNING = (5, 5, 4, 2, 2, 1, 1)


def stack(seeds: range = range(S)) -> Recurrent:
    return Recurrent.create(SIZES, Streams(seeds, "weights"), np.array([6, 4, 5]), "cpu")


def module_like(net: Recurrent, s: int, i: int) -> Agent:
    agent = Agent(*SIZES)
    for name, array in net.named(s).items():
        agent.get_parameter(name).data = torch.from_numpy(array[i].copy())
    return agent.double()


def x_of(seed: int = 0) -> torch.Tensor:
    return torch.randn(S, N, B, T, SIZES[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def doubled(net: Recurrent) -> Recurrent:
    return net.like(net.flat.detach().double().requires_grad_())


def rows(grid: torch.Tensor, running: tuple[int, ...]) -> torch.Tensor:
    """(S, N, B, T, .) -> (S, N, R, .)."""
    return torch.cat([grid[:, :, :n, t] for t, n in enumerate(running)], 2)


@pytest.mark.parametrize("running", [(B,) * T, RUNNING])
def test_unrolled_values_and_gradients_are_those_of_a_gru_cell_stepped_by_hand(running):
    net, target, x = doubled(stack()), doubled(stack(range(5, 5 + S))), x_of()
    packed = rows(x, running).requires_grad_()
    weights = torch.randn(S, N, B, T, SIZES[2], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h, q, *aside = unroll(packed, running, net, target)
    assert not any(part.requires_grad for part in aside)
    torch.testing.assert_close(aside, list(unroll(packed.detach(), running, target, net)[:2]))
    grad, grad_x = torch.autograd.grad((q * rows(weights, running)).sum() + h.square().sum(), [net.flat, packed])
    for s, i in np.ndindex(S, N):
        agent, own, hidden, loss = module_like(net, s, i), x[s, i].clone().requires_grad_(), None, 0.0
        hidden, hs, qs = torch.zeros(B, SIZES[1], dtype=torch.float64), [], []
        for t, n in enumerate(running):
            value, hidden = agent(own[:n, t], hidden[:n])
            hs.append(hidden)
            qs.append(value)
            loss = loss + (value * weights[s, i, :n, t]).sum() + hidden.square().sum()
        torch.testing.assert_close((h[s, i], q[s, i]), (torch.cat(hs), torch.cat(qs)))
        loss.backward()  # pyright: ignore
        assert own.grad is not None
        torch.testing.assert_close(grad_x[s, i], rows(own.grad[None, None], running)[0, 0])
        for name, part in net.like(grad).named(s).items():
            torch.testing.assert_close(torch.from_numpy(part[i]), agent.get_parameter(name).grad)


def test_stepping_gives_what_unrolling_gives():
    net, x = doubled(stack()), x_of()
    h, q = (part.unflatten(2, (T, B)) for part in unroll(rows(x, (B,) * T), (B,) * T, net, net)[:2])
    hidden = torch.zeros(S, N, B, 8, dtype=torch.float64)
    for t in range(T):
        hidden, q_t = net.step(x[:, :, :, t], hidden)
        torch.testing.assert_close((hidden, q_t), (h[:, :, t], q[:, :, t]))
        torch.testing.assert_close(net.head(hidden), q_t)


def test_networks_start_in_the_ranges_of_torch_modules_with_their_own_fan_in():
    net = Recurrent.create((60, 64, 9), Streams(range(3), "weights"), np.array([60, 20]), "cpu")
    largest = {name: np.abs(array).reshape(2, -1).max(1) for name, array in net.named(0).items()}
    for i, fan_in in enumerate((60, 20)):
        like = nn.Linear(fan_in, 64)
        np.testing.assert_allclose(largest["first.weight"][i], like.weight.abs().max().item(), rtol=0.02)
    for name in ("gru.weight_ih", "gru.weight_hh", "gru.bias_hh", "last.weight"):
        np.testing.assert_allclose(largest[name], 1 / 8, rtol=0.05)


def test_agents_networks_start_with_the_fan_in_that_each_agent_really_has():
    env = envs.make("helpers.battles:today", [0], 1, 12)
    agents = i2q_drqn.Agents(env, i2q_drqn.Config(), env.seeds)
    seen, legal = env.obs_mask.sum(1), env.act_mask.sum(1)
    assert seen.tolist() == [5, 4, 5] and legal.tolist() == [5, 5, 4]
    q, f = agents.q.named(0), agents.f_net.named(0)
    for i in range(3):
        fan_in = {"q": seen[i] + legal[i], "f": 64 + 64 + legal[i]}
        assert np.abs(q["first.weight"][i]).max() == pytest.approx(fan_in["q"] ** -0.5, rel=0.02)
        assert np.abs(f["0.weight"][i]).max() == pytest.approx(fan_in["f"] ** -0.5, rel=0.002)
        for layer in ("1.weight", "2.weight"):
            assert np.abs(f[layer][i]).max() == pytest.approx(1 / 16, rel=0.02)


def test_a_seeds_weights_are_the_same_alone_as_beside_others():
    assert torch.equal(stack(range(2)).flat[1:], stack(range(1, 2)).flat)


def test_rmsprop_takes_the_steps_of_torch_optim_with_each_networks_own_clip():
    net = stack()
    before, steps = net.flat.detach().clone(), [torch.randn(S, N, net.flat.shape[2]) * 10**k for k in (-1, 0, 1)]
    rms = RMSprop(net, lr=1e-2, alpha=0.9, eps=1e-5, clip=10)
    for grad in steps:
        rms.descend((net.flat * grad).sum())
    for s, i in np.ndindex(S, N):
        own = before[s, i].clone().requires_grad_()
        optimiser = torch.optim.RMSprop([own], lr=1e-2, alpha=0.9, eps=1e-5)
        for grad in steps:
            own.grad = grad[s, i].clone()
            nn.utils.clip_grad_norm_([own], 10)
            optimiser.step()
        torch.testing.assert_close(net.flat.detach()[s, i], own.detach())
