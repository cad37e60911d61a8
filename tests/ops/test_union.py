"""The softmax over a union of parts: torch's kernel against plain torch, and against one row."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from macformer.ops.permute import permute_rows
from macformer.ops.union import (
    Part,
    bias,
    keys_after,
    keys_before,
    union_attention,
    union_attention_reference,
)

B, H, L, E = 2, 3, 7, 5
SCALE = 0.7


def whole(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Part:
    mask = None if allowed is None else bias(allowed, query.dtype)
    return Part(query, key, value, mask, False, lambda x, _: x, lambda x: x)


def draw(num_keys: int = L, value_dim: int = E) -> list[Tensor]:
    shapes = ((L, E), (num_keys, E), (num_keys, value_dim))
    return [torch.randn(B, H, *shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def dense(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    logits = (SCALE * query @ key.mT).masked_fill(~allowed, -torch.inf)
    return logits.softmax(-1).nan_to_num() @ value


def assert_same(out: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert_close(out, expected)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted)


@pytest.mark.parametrize("union", [union_attention, union_attention_reference])
@pytest.mark.parametrize("value_dim", [E, E + 2, E - 2])
def test_parts_share_one_softmax(union, value_dim):
    query, key, value = inputs = draw(11, value_dim)
    allowed = torch.rand(B, 1, 1, 11) < 0.6
    allowed[..., 0] = True
    sets = [slice(0, 3), slice(3, 4), slice(4, 11)]
    parts = [whole(query, key[:, :, s], value[:, :, s], allowed[..., s]) for s in sets]
    assert_same(union(parts, scale=SCALE), dense(query, key, value, allowed), inputs)


@pytest.mark.parametrize("union", [union_attention, union_attention_reference])
def test_a_key_in_two_parts_counts_twice(union):
    query, key, value = inputs = draw()
    out = union([whole(query, key, value), whole(query, key[:, :, :2], value[:, :, :2])], scale=1.0)
    twice = torch.where(torch.arange(L) < 2, 2.0, 1.0).log()
    weights = (query @ key.mT + twice).softmax(-1)
    assert_same(out, weights @ value, inputs)


@pytest.mark.parametrize("union", [union_attention, union_attention_reference])
@pytest.mark.parametrize("distance", [0, 1, 3])
@pytest.mark.parametrize("side", [keys_before, keys_after])
def test_keys_on_one_side_of_a_diagonal(union, distance, side):
    """Queries that see none receive zero, and pass no gradient to what they do not see."""
    query, key, value = inputs = draw()
    present = torch.arange(L) != 3
    places = torch.arange(L)
    ahead = places[:, None] - places if side is keys_before else places - places[:, None]
    part = side(whole(query, key, value, present[None, None, None]), distance)
    expected = dense(query, key, value, (ahead >= distance) & present)
    nothing = ~((ahead >= distance) & present).any(-1)
    out = union([part], scale=SCALE)
    assert (out[:, :, nothing] == 0).all()
    with torch.no_grad():  # the softmax of nothing has no gradient to compare
        expected = expected.clone()
    assert_close(out, expected)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert all(x.isfinite().all() for x in gradients)
    assert (gradients[0][:, :, nothing] == 0).all()


def test_large_logits_neither_overflow_nor_vanish():
    query, key, value = draw()
    parts = [whole(query, 500 * key[:, :, :4], value[:, :, :4]), whole(query, key, value)]
    logits = torch.cat([500 * query @ key[:, :, :4].mT, query @ key.mT], -1)
    expected = logits.softmax(-1) @ torch.cat([value[:, :, :4], value], 2)
    assert_close(union_attention(parts, scale=1.0), expected)


def test_half_precision_is_summed_in_float32():
    query, key, value = (x.detach().to(torch.bfloat16) for x in draw())
    parts = [
        whole(query, key[:, :, :3], value[:, :, :3]),
        whole(query, key[:, :, 3:], value[:, :, 3:]),
    ]
    out = union_attention(parts, scale=SCALE)
    everything = torch.ones(L, L, dtype=torch.bool)
    expected = dense(query.double(), key.double(), value.double(), everything)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), expected, rtol=0.02, atol=0.02)


def test_the_gradient_of_a_permutation_is_its_inverse():
    x = torch.randn(L, E, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(L)
    out = permute_rows(x, order, order.argsort())
    assert torch.equal(out, x[order])
    grad = torch.randn_like(out)
    (got,) = torch.autograd.grad(out, x, grad)
    (expected,) = torch.autograd.grad(x[order], x, grad)
    assert torch.equal(got, expected)
