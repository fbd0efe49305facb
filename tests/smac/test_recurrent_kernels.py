"""The compiled passes of recurrent networks and RMSprop's compiled step against PyTorch, and their bits."""

import numpy as np
import pytest
import torch
from helpers.checks import compiled, compiled_for
from helpers.recurrent import IDS, LEARNERS, make_agents, nets_of, played
from torch import Tensor

from common.seeding import Streams
from smac import envs
from smac.common import passes as unrolling
from smac.common.nets import Recurrent, unroll
from smac.common.optim import RMSprop

S, N = 2, 2
RUNNING = (7, 7, 6, 3, 3, 1)


@pytest.fixture
def native(monkeypatch):
    monkeypatch.setattr(Recurrent, "kernels", compiled())
    return Recurrent.kernels


def stack(*sizes: int, seed: int = 0) -> Recurrent:
    return Recurrent.create(sizes, Streams(range(seed, seed + S), "weights"), np.full(N, sizes[0]), "cpu")


def doubled(net: Recurrent) -> Recurrent:
    """In double precision networks go another way, through PyTorch."""
    return net.like(net.flat.detach().double().requires_grad_())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def passes(net: Recurrent, target: Recurrent, x: Tensor, told: str, running: tuple[int, ...] = RUNNING) -> list[Tensor]:
    """h, q and those of the target, and the gradients of x and the parameters of a loss of h, of q or of both."""
    x = x.detach().requires_grad_()
    h, q, *aside = unroll(x, running, net, target)
    parts = {"h": h, "q": q}
    loss = sum((parts[name] * normal(*parts[name].shape, seed=1).to(x)).sum() for name in told)
    return [part.detach() for part in (h, q, *aside, *torch.autograd.grad(loss, [x, net.flat]))]  # pyright: ignore


# below, at and above the width of a vector and of a panel on any CPU
@pytest.mark.parametrize("hid", [1, 3, 4, 8, 11, 15, 16, 17, 32, 33, 64])
@pytest.mark.parametrize("told", ["q", "h", "hq"])
def test_kernels_equal_double_precision_at_every_remainder_of_a_vector(hid, told, native):
    net, target, x = stack(5, hid, 3), stack(5, hid, 3, seed=7), 3 * normal(S, N, sum(RUNNING), 5)
    expected = passes(doubled(net), doubled(target), x.double(), told)
    for actual, double in zip(passes(net, target, x, told), expected, strict=True):
        torch.testing.assert_close(actual.double(), double, rtol=1e-5, atol=2e-6 * float(double.abs().max()))


@pytest.mark.parametrize("sign", [1, -1])
def test_gates_are_right_from_the_smallest_to_the_largest_inputs(sign, native):
    net = stack(1, 1, 1)
    for part in net.parts(net.flat.detach()).values():
        part.fill_(sign)
    net.parts(net.flat.detach())["first.weight"].fill_(1)
    sizes = torch.logspace(-7, 2, 400)
    rows = torch.cat([sizes.neg(), sizes]).expand(S, N, -1)[..., None].contiguous()
    for h in (-1.0, 0.0, 1.0):
        start = torch.full_like(rows, h)
        actual, expected = net.step(rows, start), doubled(net).step(rows.double(), start.double())
        torch.testing.assert_close(actual[0].double(), expected[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("cpu", ["native", "haswell"])
def test_no_bit_depends_on_the_compiler_or_on_the_width_of_vectors(compiler, cpu, native, monkeypatch):
    def learned() -> list[Tensor]:
        net, x = stack(9, 37, 5), normal(S, N, sum(RUNNING), 9)
        found, rms = passes(net, net, x, "hq"), RMSprop(net, 1e-2, 0.9, 1e-5, 10)
        for _ in range(3):
            rms.descend(unroll(x, RUNNING, net, net)[1].square().sum())
        return [*found, net.flat.detach(), rms.square_avg]

    expected = learned()
    monkeypatch.setattr(Recurrent, "kernels", compiled_for(compiler, cpu, monkeypatch))
    assert all(map(torch.equal, learned(), expected))


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_a_way_back_through_weights_that_have_changed_since_is_refused(form, monkeypatch):
    monkeypatch.setattr(Recurrent, "kernels", compiled() if form == "compiled" else None)
    net, x = stack(5, 8, 3), normal(S, N, sum(RUNNING), 5).requires_grad_()
    loss = unroll(x, RUNNING, net, net)[1].square().sum()
    RMSprop(net, 1e-2, 0.9, 1e-5, 10).descend(unroll(x, RUNNING, net, net)[1].square().sum())
    with pytest.raises(RuntimeError, match=r"modified (by an )?inplace"):
        torch.autograd.grad(loss, x)


def test_threads_share_out_networks_and_change_no_bit(native):
    net, x = stack(9, 20, 5), normal(S, N, sum(RUNNING), 9)
    alone = passes(net, net, x, "hq")
    try:
        for threads in (2, 3, 20):
            native.threads(threads)
            for _ in range(20):
                assert all(map(torch.equal, passes(net, net, x, "hq"), alone))
    finally:
        native.threads(1)


def test_stepping_has_the_bits_of_unrolling_in_any_company(native):
    net, x = stack(5, 20, 3), normal(S, N, sum(RUNNING), 5)
    expected, at = unroll(x, RUNNING, net, net), 0
    h = torch.zeros(S, N, RUNNING[0], 20)
    for m in RUNNING:
        h, q = net.step(x[:, :, at : at + m], h[:, :, :m])
        assert torch.equal(h, expected[0][:, :, at : at + m]) and torch.equal(q, expected[1][:, :, at : at + m])
        at += m


def test_gradients_are_right_for_episodes_that_go_on_from_a_hidden_state(native):
    found = []
    for net in (stack(5, 20, 3), doubled(stack(5, 20, 3))):
        start, x = normal(S * N, RUNNING[0], 20, seed=2).to(net.flat), normal(S * N, sum(RUNNING), 5).to(net.flat)
        h, q = unrolling.unroll(net, x, RUNNING, start)
        found.append(
            [part.detach().double() for part in (h, q, *torch.autograd.grad(h.square().sum() + q.sum(), net.flat))]
        )
    for actual, double in zip(*found, strict=True):
        torch.testing.assert_close(actual, double, rtol=1e-5, atol=2e-6 * float(double.abs().max()))


def test_inputs_may_be_slices_of_wider_rows(native):
    net, wide = stack(5, 20, 3), normal(S, N, sum(RUNNING), 12)
    for view in (wide[..., 2:7], wide[..., :5].flip(-1), wide.transpose(0, 1)[..., ::2][..., :5]):
        assert all(map(torch.equal, passes(net, net, view, "hq"), passes(net, net, view.contiguous(), "hq")))


def test_a_nan_of_a_network_stays_a_nan_of_that_network(native):
    net = stack(5, 20, 3)
    net.flat.detach()[0, 1, 0] = torch.nan
    bad = [part.isnan().flatten(2).any(-1) for part in passes(net, net, normal(S, N, sum(RUNNING), 5), "hq")]
    assert all(part.tolist() == [[False, True], [False, False]] for part in bad)


def test_parameters_that_were_moved_in_memory_are_refused(native):
    net = stack(5, 20, 3)
    net.name, net.flat = "q", net.flat.detach().clone().requires_grad_()
    with pytest.raises(ValueError, match="network q: its parameters were moved"):
        unroll(normal(S, N, sum(RUNNING), 5), RUNNING, net, net)


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_a_step_of_rmsprop_is_that_of_pytorch(size, native):
    nets = {"compiled": stack(5, 20, 3), "plain": stack(5, 20, 3)}
    nets["plain"].kernels = None
    optimisers = {name: RMSprop(net, 1e-2, 0.9, 1e-5, 10) for name, net in nets.items()}
    for turn in range(5):
        for name, net in nets.items():
            optimisers[name].descend((net.flat * size * normal(*net.flat.shape, seed=turn)).sum())
    torch.testing.assert_close(nets["compiled"].flat, nets["plain"].flat, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(optimisers["compiled"].square_avg, optimisers["plain"].square_avg, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("module, flags", LEARNERS, ids=IDS)
def test_an_update_computed_by_kernels_is_that_of_pytorch(module, flags):
    learned = {}
    for name, library in {"plain": None, "compiled": compiled()}.items():
        env = envs.make("FocusFire-3", (3,), 1, 20)
        agents, cfg = make_agents(module, env, lr=1e-3, **flags)
        agents.use(library)
        replay = played(env, 80)
        for _ in range(4):
            module.update(agents, replay.sample(0, 6, shared=True), cfg)
        learned[name] = nets_of(agents)
    for name, net in learned["plain"].items():  # a step moves a number by lr: an error in a gradient would show
        torch.testing.assert_close(learned["compiled"][name].flat, net.flat, rtol=0, atol=1e-4)
    assert any((learned["compiled"][name].flat != net.flat).any() for name, net in learned["plain"].items())
