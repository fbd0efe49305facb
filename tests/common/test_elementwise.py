"""Lists of elementwise operations against PyTorch's own, bit for bit."""

import functools

import pytest
import torch
from helpers.checks import compiled

from common.fast.elementwise import RULES, fused
from common.fast.recorders import Recorder

aten = torch.ops.aten
ODD = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-42, -1.0, 3e38])
WIDE = torch.randn(2, 3, 4, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
KNOWN = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "neg": lambda x, y: -x,
    "abs": lambda x, y: x.abs(),
    "square": lambda x, y: x.square(),
    "power of 1": lambda x, y: x.pow(1),
    "reciprocal": lambda x, y: x.reciprocal(),
    "clamp from below": lambda x, y: x.clamp(min=0.1),
    "clamp": lambda x, y: x.clamp(-0.1, 1e-3),
    "lower than a number": lambda x, y: x < 0.1,
    "lower than a tensor": lambda x, y: x < y,
    "greater than a number": lambda x, y: x > 0.1,
    "greater than a tensor": lambda x, y: x > y,
    "no greater than a number": lambda x, y: x <= 0.1,
    "no greater than a tensor": lambda x, y: x <= y,
    "no lower than a number": lambda x, y: x >= 0.1,
    "no lower than a tensor": lambda x, y: x >= y,
    "equal to a number": lambda x, y: x == -1,
    "equal to a tensor": lambda x, y: x == y,
    "one truth and another": lambda x, y: (x > 0.1).logical_and_(y > 0.1),
    "a number where a mask says": lambda x, y: (2 * x).masked_fill_(y > 0.1, 0.1),
    "where": lambda x, y: torch.where(x > y, x, y),
    "where of a mask by row": lambda x, y: torch.where((x[..., :1] > y[..., :1]), x, y),
    "add a number": lambda x, y: x + 0.1,
    "number less a tensor": lambda x, y: 1 - x,
    "times a number": lambda x, y: 0.1 * x,
    "by a number": lambda x, y: x / 3,
    "side by side": lambda x, y: torch.cat([x, y, x], -1),
    "one above the other": lambda x, y: torch.cat([x, y]),
    "broadcast": lambda x, y: x * y[:, :1],
    "a gap in a dim": lambda x, y: x[..., 1:3] + y[..., :2],
    "transposed": lambda x, y: x.mT[..., :4, :] * y[..., :4],
    "by PyTorch's form for a number": lambda x, y: aten.div.Scalar(aten.mul.Scalar(x, 0.1), 3),
    "of no dims": lambda x, y: x[0, 0, 0, 0] * y[0, 0, 0, 0],
    "rows of three times one row": lambda x, y: x[..., :3].contiguous() * y[:, :, :1, :3],
    "one row of three less rows": lambda x, y: y[:1, :, :1, :3] - x[..., :3].contiguous(),
    "rows of three by one number each": lambda x, y: x[..., :3].contiguous() / y[..., :1],
    "rows of three where each says": lambda x, y: torch.where(y[..., :1] > 0, x[..., :3].contiguous(), x[..., 3:6]),
    "many short rows": lambda x, y: x.view(-1, 2, 3) * y[0, 0, 0, :3] + y.view(-1, 2, 3)[:, :1],
    "double precision": lambda x, y: 1 - torch.where(x > 0.1, WIDE / 3, 0.9 * WIDE + WIDE.mT[..., :1, :].mT),
    "from double precision to single": lambda x, y: (WIDE / 0.9).float(),
    "ones": lambda x, y: torch.ones_like(x) * y,
    "beside what is empty": lambda x, y: torch.cat([x.view(-1)[:0], x, y[:, :, :, :0]], -1),
    "grown by one": lambda x, y: [aten._foreach_add_.Scalar([x], 1), x * y][1],
}
UNKNOWN = {
    "a reduction": lambda x, y: x.sum(-1),
    "negation in double precision": lambda x, y: -WIDE,
    "single precision and double": lambda x, y: x * y.double(),
    "a share of what is added": lambda x, y: torch.add(x, y, alpha=0.5),
    "a number less a share": lambda x, y: torch.rsub(x, 1, alpha=3),
    "a complex number": lambda x, y: x * 1j,
    "side by side, all empty": lambda x, y: torch.cat([x[:0], y[:0]], -1),
    "clamp from above": lambda x, y: x.clamp(max=0.1),
    "another power": lambda x, y: x.pow(3),
    "five dims of gaps": lambda x, y: x.new_ones(2, 3, 4, 5, 6)[:, :2, :3, :4, :5] * x.new_ones(2, 2, 3, 4, 5),
}


def inputs(seed: int) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(2, 3, 4, 16, generator=made) for _ in range(2)]
    for k, tensor in enumerate(tensors):  # every odd number beside every other
        tensor.view(-1)[: len(ODD) ** 2] = ODD.repeat(len(ODD)) if k else ODD.repeat_interleave(len(ODD))
    return tensors


def recorded(step, tensors) -> tuple[list, torch.Tensor]:
    recorder = Recorder()
    with recorder:
        out = step(*tensors)
    return recorder.calls, out


@pytest.mark.parametrize("name", KNOWN)
def test_it_has_pytorchs_bits_in_one_call(name):
    step = KNOWN[name]
    tensors, later = inputs(0), inputs(1)
    calls, out = recorded(step, tensors)
    (call,) = fused(calls, compiled())
    for tensor, value in zip(tensors, later, strict=True):
        tensor.copy_(value)
    written = step(*later)
    out.fill_(0)
    call()
    assert out.shape == written.shape
    if name in ("minimum", "maximum"):  # PyTorch's bits of a NaN and of 0 depend on the element's place
        assert torch.equal(out.nan_to_num(7), written.nan_to_num(7))
    else:
        assert out.numpy().tobytes() == written.numpy().tobytes()


@pytest.mark.parametrize("step", UNKNOWN.values(), ids=UNKNOWN)
def test_what_it_does_not_know_stays_the_call_that_it_was(step):
    calls, _ = recorded(step, inputs(0))
    assert fused(calls, compiled())[-1] is calls[-1]


@pytest.mark.parametrize("n", [1, 3, 15, 16])
def test_long_planes_of_short_rows_have_pytorchs_bits(n):
    """As rollouts of actions: rows that are repeated, and numbers that are, over more elements than fit a buffer."""
    made = torch.Generator().manual_seed(n)
    x, row, number = (torch.randn(2, 2, *size, generator=made) for size in ((1000, n), (1, n), (1000, 1)))

    def step(x, row, number):
        return torch.where(number > 0, row - x * row, number / x) * number + x.mT[..., :1, :].mT * x

    calls, out = recorded(step, (x, row, number))
    (call,) = fused(calls, compiled())
    for tensor in (x, row, number):
        tensor.copy_(tensor.flip(2) + 0.5)
    call()
    assert out.numpy().tobytes() == step(x, row, number).numpy().tobytes()


@pytest.mark.parametrize("shape", [(0,), (1, 1, 0), (2, 0), (0, 2), (2, 3, 0, 4)], ids=str)
def test_what_is_empty_is_left_so(shape):
    calls, out = recorded(lambda x, y: x.copy_(y), (torch.zeros(shape), torch.ones(shape)))
    (call,) = fused(calls, compiled())
    call()
    assert out.shape == shape


def test_the_order_of_calls_is_kept():
    x, y = inputs(0)

    def step(x, y):
        return (2 * x + y).tanh() - x

    calls, out = recorded(step, (x, y))
    new = fused(calls, compiled())
    assert len(calls) == 4 and len(new) == 3 and new[1] is calls[2]
    x.copy_(inputs(1)[0])
    for call in new:
        call()
    assert out.numpy().tobytes() == step(x, y).numpy().tobytes()


def test_every_rule_is_compared_here():
    used = set()
    for step in KNOWN.values():
        used |= {call.func for call in recorded(step, inputs(0))[0] if isinstance(call, functools.partial)}
    assert used >= set(RULES)
