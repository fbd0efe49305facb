"""Stacked networks against one torch.nn module for each network."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from helpers.checks import compiled
from helpers.toys import Toy, make_agents
from torch import Tensor, nn

import iddpg
from common import state
from common.agents import Actor
from common.errors import UsageError
from common.fast import packing, passes
from common.nets import MLP, Adam, Module
from common.seeding import Streams

S, N = 3, 2
SIZES = {  # input, hidden, output; batch
    "small": ((3, 5, 4, 2), 7),
    "no hidden layer": ((3, 2), 7),
    "a value's": ((9, 96, 96, 1), 100),
    "a model's": ((9, 70, 70, 8), 100),
    "must be a multiple of a vector": ((67, 71, 65), 61),
    "one row": ((9, 70, 8), 1),
}


def stack(sizes: Sequence[int], seeds: Sequence[int] = range(S), n_agents: int = N, dtype=torch.float32) -> MLP:
    """A stack whose biases are not zero. A seed's parameters depend on that seed alone."""
    first, last = np.full(n_agents, sizes[0]), np.full(n_agents, sizes[-1])
    streams = Streams(list(seeds), "weights")
    net = MLP.glorot(sizes, streams, first, last)
    for bias in net.biases:
        bias.copy_(torch.from_numpy(streams.uniform(*bias.shape[1:])))
    return MLP(sizes, net.flat.detach().to(dtype).requires_grad_())


def separate(net: MLP) -> list[nn.Sequential]:
    """The S * N networks of a stack as modules of their own."""
    modules = []
    for s, i in np.ndindex(*net.flat.shape[:2]):
        layers: list[nn.Module] = []
        for weight, bias in zip(net.weights, net.biases):
            linear = nn.Linear(weight.shape[-1], weight.shape[-2], dtype=net.flat.dtype)
            linear.weight.data.copy_(weight[s, i])
            linear.bias.data.copy_(bias[s, i])
            layers += [linear, nn.ReLU()]
        modules.append(nn.Sequential(*layers[:-1]))
    return modules


def evaluate(modules: list[nn.Sequential], x: Tensor) -> Tensor:
    return torch.stack([module(part) for module, part in zip(modules, x.flatten(0, 1))]).unflatten(0, x.shape[:2])


def flat(modules: list[nn.Sequential], net: MLP, what: str = "data") -> Tensor:
    """The modules' parameters, or their gradients, laid out as the stack's `flat`, with zeros between."""
    like = MLP(net.sizes, torch.zeros_like(net.flat.detach()))
    for k, (weight, bias) in enumerate(zip(like.weights, like.biases)):
        for at, module in zip(np.ndindex(*net.flat.shape[:2]), modules):
            weight[at], bias[at] = (getattr(part, what) for part in module[2 * k].parameters())
    return like.flat


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To the last digits of the type, of numbers whose sums have the size of the largest one."""
    loose = 1e-12 if expected.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual, expected, rtol=loose, atol=loose * float(expected.detach().abs().max()))


@pytest.fixture(params=["eager", "compiled"])
def cpu_path(request, monkeypatch):
    """Both ways of a CPU through a stack: without and with compiled kernels."""
    if request.param == "compiled":
        monkeypatch.setattr(MLP, "kernels", compiled())
    return request.param


@pytest.fixture(params=["eager", "compiled", "batched"])
def path(request, monkeypatch):
    """All ways: also a GPU's, forced on the CPU."""
    if request.param == "compiled":
        monkeypatch.setattr(MLP, "kernels", compiled())
    if request.param == "batched":
        monkeypatch.setattr(passes, "_forward", lambda net, x, keep=False: passes._forward_batched(net, x))
        monkeypatch.setattr(passes, "_backward", passes._backward_batched)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("sizes, B", SIZES.values(), ids=SIZES.keys())
def test_a_stack_equals_separate_modules_in_value_and_both_gradients(sizes, B, dtype, path):
    net = stack(sizes, dtype=dtype)
    modules = separate(net)
    x = random(S, N, B, sizes[0], dtype=dtype).requires_grad_()
    weight = random(S, N, B, sizes[-1], seed=1, dtype=dtype)

    out = net(x)
    grad_x, grad_flat = torch.autograd.grad((out * weight).sum(), [x, net.flat])

    expected = evaluate(modules, x)
    assert_close(out, expected)
    (expected * weight).sum().backward()
    assert x.grad is not None
    assert_close(grad_x, x.grad)
    assert_close(grad_flat, flat(modules, net, "grad"))


@pytest.mark.parametrize("sizes, B", SIZES.values(), ids=SIZES.keys())
def test_evaluating_without_gradients_gives_the_same_bits(sizes, B, path):
    net, x = stack(sizes), random(S, N, B, sizes[0])
    with torch.no_grad():
        plain = net(x)
    assert torch.equal(plain, net(x))


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_a_network_used_several_times_in_a_loss_adds_the_gradients(uses, path):
    net = stack((3, 5, 2))
    adam = Adam(net, lr=0.1)
    for turn in range(3):  # Adam lends one buffer for gradients: what the turn before left there must not come back
        modules = separate(net)
        xs = [random(S, N, 7, 3, seed=10 * turn + use) for use in range(uses if turn < 2 else 1)]
        adam.descend(sum(net(x).square().sum() for x in xs))  # pyright: ignore[reportArgumentType]
        loss = torch.stack([evaluate(modules, x).square().sum() for x in xs]).sum()
        loss.backward()
        assert net.flat.grad is not None
        assert_close(net.flat.grad, flat(modules, net, "grad"))


def test_a_network_fed_with_its_own_output_adds_the_gradients(path):
    net = stack((3, 5, 3))
    modules, x = separate(net), random(S, N, 7, 3)
    adam = Adam(net, lr=0.1)
    adam.descend(net(net(x)).square().sum())
    evaluate(modules, evaluate(modules, x)).square().sum().backward()
    assert net.flat.grad is not None
    assert_close(net.flat.grad, flat(modules, net, "grad"))


def test_a_frozen_stack_passes_gradients_on_and_takes_none(path):
    net, x = stack((3, 5, 2)), random(S, N, 7, 3).requires_grad_()
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    loss = net.frozen(x).square().sum()
    grad_x, grad_flat = torch.autograd.grad(loss, [x, net.flat], allow_unused=True)
    assert torch.equal(grad_x, expected)
    assert grad_flat is None


def test_a_frozen_stack_has_the_present_weights():
    net, x = stack((3, 5, 2)), random(S, N, 7, 3)
    adam, frozen = Adam(net, lr=0.1), net.frozen
    adam.descend(net(x).square().sum())
    assert torch.equal(frozen(x), net(x))


def test_stacked_layers_start_in_the_range_that_each_would_have_alone():
    n_in, n_out = np.array([1, 40]), np.array([20, 3])  # agents of unequal width, padded to 40 inputs and 20 outputs
    net = MLP.glorot([40, 50, 60, 20], Streams(range(30), "weights"), n_in, n_out)
    rng = torch.Generator().manual_seed(0)
    for i in range(2):
        fans = [(n_in[i], 50), (50, 60), (60, n_out[i])]
        for weight, (fan_in, fan_out) in zip(net.weights, fans):
            draws = [nn.init.xavier_uniform_(torch.empty(fan_out, fan_in), generator=rng) for _ in range(100)]
            alone = torch.stack(draws)
            real = weight.detach()[:, i, :fan_out, :fan_in]
            assert float(real.abs().max()) == pytest.approx(float(alone.abs().max()), rel=0.03)
            assert float(real.std()) == pytest.approx(float(alone.std()), rel=0.05)
            assert abs(float(real.mean())) < 0.1 * float(alone.std())


def test_biases_start_at_zero_and_no_two_networks_start_alike():
    net = MLP.glorot([3, 5, 2], Streams(range(S), "weights"), np.full(N, 3), np.full(N, 2))
    assert all(not bias.any() for bias in net.biases)
    assert len({slice.numpy().tobytes() for slice in net.flat.detach().flatten(0, 1)}) == S * N


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_adam_of_a_stack_is_an_adam_for_each_network(dtype):
    net = stack((3, 16, 2), dtype=dtype)
    modules = separate(net)
    adam, adams = Adam(net, lr=1e-2), [torch.optim.Adam(module.parameters(), lr=1e-2) for module in modules]
    for turn in range(10):
        x, y = random(S, N, 7, 3, seed=turn, dtype=dtype), random(S, N, 7, 2, seed=100 + turn, dtype=dtype)
        adam.descend((net(x) - y).square().mean((-1, -2)).sum())
        for module, own, x_i, y_i in zip(modules, adams, x.flatten(0, 1), y.flatten(0, 1)):
            own.zero_grad()
            (module(x_i) - y_i).square().mean().backward()
            own.step()
    loose = 1e-10 if dtype == torch.float64 else 1e-5  # of steps that come to 1e-1
    torch.testing.assert_close(net.flat.detach(), flat(modules, net), rtol=0, atol=loose)


def test_polyak_keeps_that_share_of_the_target_and_leaves_the_online_network():
    online = stack((3, 5, 2))
    target = online.copy()
    target.flat.copy_(random(*target.flat.shape))
    before, there = target.flat.double(), online.flat.detach().double()
    target.polyak_(online, 0.995)
    torch.testing.assert_close(target.flat.double(), 0.995 * before + 0.005 * there, rtol=1e-6, atol=1e-7)
    assert torch.equal(online.flat.detach().double(), there)


def test_a_target_network_starts_equal_and_stays_behind():
    online, x = stack((3, 5, 2)), random(S, N, 7, 3)
    target = online.copy()
    before = target(x)
    assert torch.equal(before, online(x))
    assert not before.requires_grad
    Adam(online, lr=0.1).descend(online(x).square().sum())
    assert torch.equal(target(x), before)
    assert not torch.equal(online(x), before)


def between(net: MLP) -> np.ndarray:
    """(P,) bool: where no weight and no bias lies."""
    uses = MLP(net.sizes, torch.zeros_like(net.flat.detach()))
    for part in (*uses.weights, *uses.biases):
        part += 1
    assert float(uses.flat.max()) == 1  # no two layers overlap
    return uses.flat[0, 0].numpy() == 0


def test_every_matrix_starts_on_a_cache_line_of_its_own():
    net = stack((3, 5, 2))
    assert all(part.data_ptr() % 64 == 0 for i in range(S * N) for layer in net.slice(i) for part in layer)
    assert between(net).any()


def test_what_lies_between_the_matrices_stays_zero():
    net = stack((3, 5, 2))
    target, adam = net.copy(), Adam(net, lr=0.1)
    gap = between(net)
    for turn in range(3):
        x = random(S, N, 7, 3, seed=turn)
        adam.descend(net(x).square().sum() + net(-x).sum())
        target.polyak_(net, 0.5)
    assert not net.flat.detach()[..., gap].any()
    assert not target.flat[..., gap].any()
    assert net.flat.detach()[..., ~gap].all()


@pytest.mark.parametrize("n_agents", [1, 2])
@pytest.mark.parametrize("sizes, B", SIZES.values(), ids=SIZES.keys())
def test_a_seeds_bits_do_not_depend_on_the_seeds_beside_it(sizes, B, n_agents, cpu_path):
    x, y = random(S, n_agents, B, sizes[0]), random(S, n_agents, B, sizes[-1], seed=1)

    def three_steps(rows: list[int]) -> list[Tensor]:
        net = stack(sizes, rows, n_agents)
        target, adam, own = net.copy(), Adam(net, lr=0.1), x[rows].requires_grad_()
        for _ in range(3):
            out = net(own)
            (grad_x,) = torch.autograd.grad((out - y[rows]).square().sum(), own)
            adam.descend((net(own) - y[rows]).square().sum())
            target.polyak_(net, 0.9)
        assert net.flat.grad is not None
        return [out, grad_x, net.flat.grad, net.flat.detach(), target.flat]  # pyright: ignore

    together = three_steps([0, 1, 2])
    for row in range(S):
        for beside, alone in zip(together, three_steps([row])):
            assert beside[row].detach().numpy().tobytes() == alone[0].detach().numpy().tobytes()


@pytest.mark.parametrize("sizes, B", SIZES.values(), ids=SIZES.keys())
def test_the_actor_is_the_network_for_a_batch_of_one(sizes, B):
    net, obs = stack(sizes), random(S, N, sizes[0])
    actor = Actor(net)
    assert_close(torch.from_numpy(actor(obs.numpy())), net(obs[:, :, None])[:, :, 0].detach())


def test_the_actor_follows_the_network_after_refresh():
    net, obs = stack((3, 5, 2)), random(S, N, 3)
    actor = Actor(net)
    before = actor(obs.numpy())
    Adam(net, lr=0.1).descend(net(obs[:, :, None]).square().sum())
    actor.refresh()
    after = torch.from_numpy(actor(obs.numpy()))
    assert_close(after, net(obs[:, :, None])[:, :, 0].detach())
    assert np.abs(after.numpy() - before).min() > 1e-3


@pytest.mark.parametrize("sizes", [(3, 5, 2), (11, 256, 256, 3)])
def test_a_seed_acts_the_same_to_the_bit_alone_as_beside_others(sizes):
    obs = random(S, N, sizes[0]).numpy()
    together = Actor(stack(sizes))(obs)
    for row in range(S):
        assert Actor(stack(sizes, [row]))(obs[row : row + 1]).tobytes() == together[row].tobytes()


def test_a_row_of_an_adam_goes_on_in_another_stack():
    x, y = random(S, N, 7, 3), random(S, N, 7, 2)

    def descend(net: MLP, adam: Adam, rows: list[int]) -> None:
        adam.descend((net(x[rows]) - y[rows]).square().sum())

    net = stack((3, 5, 2))
    adam = Adam(net, lr=0.1)
    descend(net, adam, [0, 1, 2])
    saved = {name: part.clone() for name, part in state.save(adam, 2, S).items() if isinstance(part, Tensor)}
    descend(net, adam, [0, 1, 2])

    other = stack((3, 5, 2), seeds=[7])
    again = Adam(other, lr=0.1)
    state.load(again, 0, 1, {**saved, "lr": 0.1})
    descend(other, again, [2])
    assert torch.equal(other.flat.detach()[0], net.flat.detach()[2])


# What does not fit is refused


@pytest.mark.parametrize("grad", [True, False], ids=["gradient", "no gradient"])
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(S, N, 7, 4),
        torch.zeros(S, N, 7, 6),
        torch.zeros(S - 1, N, 7, 5),
        torch.zeros(S, N + 1, 7, 5),
        torch.zeros(N, S, 7, 5),
        torch.zeros(S * N, 7, 5),
        torch.zeros(S, N, 7, 5, 1),
        torch.zeros(S, N, 7, 5, dtype=torch.float64),
        torch.zeros(S, N, 7, 5, dtype=torch.int64),
        torch.zeros(S, N, 7, 5, device="meta"),
    ],
    ids=lambda x: f"{tuple(x.shape)} {x.dtype} {x.device}",
)
def test_an_input_that_does_not_fit_is_refused_with_both_shapes_and_the_networks_name(x, grad, path):
    net = stack((5, 8, 2))
    net.name = "q"
    with torch.set_grad_enabled(grad), pytest.raises(ValueError, match="network q: input") as error:
        net(x)
    text = str(error.value)
    assert str(tuple(x.shape)) in text and f"({S}, {N}, B, 5)" in text and str(x.dtype) in text


def test_networks_know_their_names_among_the_agents():
    agents, _ = make_agents(iddpg, Toy([1]))
    assert {net.name for net in vars(agents).values() if isinstance(net, MLP)} == {"pi", "q", "pi_targ", "q_targ"}
    with pytest.raises(ValueError, match="network q_targ: input"):
        agents.q_targ(torch.zeros(1, 1, 7, 4))


def test_parameters_that_moved_in_memory_are_refused(path):
    """Without kernels, too: the layers that it computes with, and acts with, are views of the old ones."""
    net, x = stack((5, 8, 2)), torch.zeros(S, N, 7, 5)
    net.flat = net.flat.detach().clone()
    with torch.no_grad(), pytest.raises(ValueError, match="moved in memory"):
        net(x)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_way_back_through_weights_that_have_changed_since_is_refused(frozen, path):
    """As PyTorch does of modules: activations of the old weights and the new ones give no gradient of anything."""
    net, x = stack((3, 5, 2)), random(S, N, 7, 3).requires_grad_()
    loss = (net.frozen if frozen else net)(x).square().sum()
    Adam(net, lr=0.1).descend(net(x).square().sum())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x)


@pytest.mark.parametrize("sizes, B", [((3, 5, 2), 0), ((0, 5, 2), 7), ((0, 5, 2), 300)], ids=str)
def test_of_no_rows_and_of_no_inputs_gradients_are_those_of_separate_modules(sizes, B, path):
    net = stack(sizes)
    adam = Adam(net, lr=0.1)
    adam.descend(net(random(S, N, 4, sizes[0])).square().sum())  # what is left in its buffer must not come back
    modules, x = separate(net), random(S, N, B, sizes[0])
    adam.descend(net(x).square().sum())
    evaluate(modules, x).square().sum().backward()
    assert net.flat.grad is not None
    assert_close(net.flat.grad, flat(modules, net, "grad"))


def test_buffers_of_another_length_are_refused():
    with pytest.raises(AssertionError):
        MLP((5, 8, 2), torch.zeros(S, N, 7))
    with pytest.raises(AssertionError):
        MLP((5, 8, 2), torch.zeros(S, N, 2 * packing.length((5, 8, 2)))[..., ::2])


# Second derivatives


def penalty(net, x: Tensor) -> Tensor:
    """A gradient penalty beside a loss on the same output: (|d out / d x| - 1)^2 + out^2."""
    x = x.detach().requires_grad_()
    out = net(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return (slope.norm(dim=-1) - 1).square().sum() + out.square().sum()


def test_a_gradient_penalty_descends_what_separate_modules_descend_on_the_eager_path():
    net = stack((3, 8, 6, 2), dtype=torch.float64)
    modules, x = separate(net), random(S, N, 7, 3, dtype=torch.float64)
    (grad,) = torch.autograd.grad(penalty(net, x), net.flat)
    penalty(lambda x: evaluate(modules, x), x).backward()
    assert_close(grad, flat(modules, net, "grad"))


def test_second_derivatives_of_frozen_networks_reach_the_input_alone():
    net = stack((3, 8, 1), dtype=torch.float64)
    x = random(S, N, 7, 3, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(net.frozen(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    modules, twin = separate(net), x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(evaluate(modules, twin).square().sum(), twin, create_graph=True)
    (expected,) = torch.autograd.grad(slope.sum(), twin)
    assert_close(second, expected)


def test_the_compiled_form_refuses_second_derivatives_and_names_the_way_out(monkeypatch):
    monkeypatch.setattr(MLP, "kernels", compiled())
    with pytest.raises(RuntimeError, match=r"second derivatives.*--compile off"):
        penalty(stack((3, 8, 2)), random(S, N, 7, 3))


def test_the_compiled_form_refuses_forward_mode_derivatives(monkeypatch):
    from torch.autograd import forward_ad

    monkeypatch.setattr(MLP, "kernels", compiled())
    net, x = stack((3, 8, 2)), random(S, N, 7, 3)
    with forward_ad.dual_level(), torch.no_grad(), pytest.raises(RuntimeError, match=r"forward-mode.*--compile off"):
        net(forward_ad.make_dual(x, torch.ones_like(x)))


# Other networks


def other(form: dict, seeds: Sequence[int] = range(S), dtype: torch.dtype = torch.float32) -> MLP:
    streams = Streams(list(seeds), "weights")
    net = MLP.glorot((5, 9, 8, 2), streams, np.full(N, 5), np.full(N, 2), **form)
    for part in (*net.biases, *net.scales, *net.shifts):
        part += torch.from_numpy(streams.uniform(*part.shape[1:]))
    return MLP(net.sizes, net.flat.detach().to(dtype).requires_grad_(), **form)


FORM = [{"activation": "tanh"}, {"layer_norm": True}, {"activation": "tanh", "layer_norm": True}]


def modules_of(net: MLP) -> list[nn.Sequential]:
    found = []
    for s, i in np.ndindex(S, N):
        parts: list[nn.Module] = []
        for k, (weight, bias) in enumerate(zip(net.weights, net.biases)):
            linear = nn.Linear(weight.shape[-1], weight.shape[-2], dtype=net.flat.dtype)
            linear.weight.data.copy_(weight[s, i])
            linear.bias.data.copy_(bias[s, i])
            parts.append(linear)
            if k < len(net.weights) - 1 and net.layer_norm:
                norm = nn.LayerNorm(weight.shape[-2], dtype=net.flat.dtype)
                norm.weight.data.copy_(net.scales[k][s, i])
                norm.bias.data.copy_(net.shifts[k][s, i])
                parts.append(norm)
            parts.append(nn.Tanh() if net.activation == "tanh" else nn.ReLU())
        found.append(nn.Sequential(*parts[:-1]))
    return found


@pytest.mark.parametrize("form", FORM, ids=str)
def test_tanh_and_layer_norm_are_those_of_torch_in_value_both_gradients_and_second_derivatives(form, cpu_path):
    net = other(form, dtype=torch.float64)
    modules, x = modules_of(net), random(S, N, 7, 5, dtype=torch.float64).requires_grad_()
    twin = x.detach().requires_grad_()
    assert_close(net(x), evaluate(modules, twin))
    (grad,) = torch.autograd.grad(penalty(net, x), net.flat)
    penalty(lambda x: evaluate(modules, x), x).backward()
    mine = MLP(net.sizes, grad, **form)
    for at, module in zip(np.ndindex(S, N), modules):
        linears = [layer for layer in module if isinstance(layer, nn.Linear)]
        for k, layer in enumerate(linears):
            assert_close(mine.weights[k][at], layer.weight.grad)  # pyright: ignore
            assert_close(mine.biases[k][at], layer.bias.grad)  # pyright: ignore
        for k, layer in enumerate(layer for layer in module if isinstance(layer, nn.LayerNorm)):
            assert_close(mine.scales[k][at], layer.weight.grad)  # pyright: ignore
            assert_close(mine.shifts[k][at], layer.bias.grad)  # pyright: ignore


@pytest.mark.parametrize("form", FORM, ids=str)
def test_another_form_has_the_same_bits_alone_as_beside_others_and_its_actor_agrees(form, cpu_path):
    together, x = other(form), random(S, N, 7, 5)
    for row in range(S):
        alone = other(form, [row])
        assert torch.equal(alone(x[row : row + 1]), together(x)[row : row + 1])
    acted = Actor(together)(x[:, :, 0].numpy())
    assert_close(torch.from_numpy(acted), together(x).detach()[:, :, 0])


def test_an_unknown_activation_is_refused():
    with pytest.raises(UsageError, match=r"activation 'gelu': known are relu, tanh"):
        other({"activation": "gelu"})


class Gated(nn.Module):
    """A network that is no perceptron."""

    def __init__(self):
        super().__init__()
        self.inner, self.gate, self.out = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.inner(x) * torch.sigmoid(self.gate(x)))


def gated(seeds: Sequence[int] = range(S)) -> Module:
    return Module(Gated, Streams(list(seeds), "weights"), N)


def test_a_module_of_ones_own_is_a_stack_of_separate_ones():
    net, x = gated(), random(S, N, 7, 5)
    for s, i in np.ndindex(S, N):
        module, parts = Gated(), net.named(s)
        for name, part in module.named_parameters():
            part.data.copy_(torch.from_numpy(parts[name][i]))
        assert_close(net(x)[s, i], module(x[s, i]))
    (grad,) = torch.autograd.grad(net(x)[1, 0].sum(), net.flat)
    touched = grad.abs().sum(-1) > 0
    assert touched.tolist() == [[s == 1 and i == 0 for i in range(N)] for s in range(S)]


def test_a_module_of_ones_own_draws_its_weights_by_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    together, alone = gated(), gated([1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(together.flat[1], alone.flat[0])
    assert not torch.equal(together.flat[0, 0], together.flat[0, 1])
    x = random(S, N, 7, 5)
    assert torch.equal(together(x)[1], alone(x[1:2])[0])


def test_a_module_of_ones_own_descends_averages_and_acts():
    net, x = gated(), random(S, N, 7, 5)
    adam, target = Adam(net, 0.01), net.copy()
    start = float(net(x).square().sum())
    for _ in range(20):
        adam.descend(net(x).square().sum())
    assert float(net(x).square().sum()) < 0.5 * start
    old = target.flat.clone()
    target.polyak_(net, 0.9)
    assert_close(target.flat, 0.9 * old + 0.1 * net.flat.detach())
    acted = Actor(net)(x[:, :, 0].numpy())
    assert_close(torch.from_numpy(acted), net(x).detach()[:, :, 0])


def test_a_module_with_buffers_is_refused():
    with pytest.raises(UsageError, match="has buffers"):
        Module(lambda: nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)), Streams([0], "weights"), N)
