"""Uniform attention by hand."""

import torch

from macformer.attention import UniformAttention


def attend(mask):
    value = torch.tensor([[1.0, 3.0, 100.0], [5.0, 6.0, 7.0]]).view(2, 1, 3, 1)
    query, key = torch.randn(2, 1, 2, 1), torch.randn(2, 1, 3, 1)
    out = UniformAttention(num_heads=1, head_dim=1)(query, key, value, key_padding_mask=mask)
    return out.squeeze().tolist()


def test_every_query_receives_the_mean():
    expected = [[104 / 3] * 2, [6.0] * 2]
    torch.testing.assert_close(torch.tensor(attend(None)), torch.tensor(expected))


def test_padding_leaves_the_mean():
    mask = torch.tensor([[False, False, True], [True, False, False]])
    assert attend(mask) == [[2.0] * 2, [6.5] * 2]


def test_a_fully_padded_row_is_zero():
    mask = torch.tensor([[True] * 3, [False] * 3])
    assert attend(mask) == [[0.0] * 2, [6.0] * 2]


def test_a_sum_beyond_the_largest_half_has_its_mean():
    value = torch.full((1, 1, 4096, 1), 32.0, dtype=torch.float16)
    attention = UniformAttention(num_heads=1, head_dim=1)
    out = attention(value, value, value, key_padding_mask=torch.zeros(1, 4096, dtype=torch.bool))
    assert (out == 32).all()
