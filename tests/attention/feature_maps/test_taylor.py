"""Exact features of the quadratic polynomial, against the polynomial."""

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import TaylorAttention

B, H, E, EV = 2, 3, 5, 7


@pytest.mark.parametrize("lengths", [(1, 1), (11, 13)], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_output_and_gradients_are_those_of_the_polynomial(lengths, padded):
    query_len, key_len = lengths
    shapes = [(B, H, query_len, E), (B, H, key_len, E), (B, H, key_len, EV)]
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    query, key, value = inputs
    mask = torch.arange(key_len).expand(B, -1) >= torch.tensor([[key_len], [2]])
    t = query @ key.mT / E**0.5
    weights = 1 + t + t.square() / 2
    weights = weights.masked_fill(mask[:, None, None, :], 0) if padded else weights
    expected = weights @ value / weights.sum(-1, keepdim=True)
    attention = TaylorAttention(num_heads=H, head_dim=E).double()
    out = attention(*inputs, key_padding_mask=mask if padded else None)
    assert_close(out, expected)
    direction = torch.randn_like(out)
    grads = torch.autograd.grad((out * direction).sum(), inputs)
    assert_close(grads, torch.autograd.grad((expected * direction).sum(), inputs))


def test_nothing_is_stored_and_nothing_learnt():
    assert not TaylorAttention(num_heads=H, head_dim=E).state_dict()
