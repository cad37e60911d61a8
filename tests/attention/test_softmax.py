"""Softmax attention by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import SoftmaxAttention


def test_weights_by_hand():
    """Keys of log 3 and 0 have weights 3/4 and 1/4."""
    key = torch.tensor([math.log(3), 0.0]).view(1, 1, 2, 1)
    value = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    out = SoftmaxAttention(num_heads=1, head_dim=1, dropout=0.0)(torch.ones(1, 1, 1, 1), key, value)
    assert out.item() == pytest.approx((3 * 4 + 8) / 4)


def test_scale_is_the_root_of_the_head_dim():
    """q.k = 4 log 3 at width 16 counts as log 3."""
    query = torch.full((1, 1, 1, 16), 0.5)
    key = torch.stack([torch.full((16,), math.log(3) / 2), torch.zeros(16)]).view(1, 1, 2, 16)
    value = torch.tensor([4.0, 8.0]).view(1, 1, 2, 1)
    out = SoftmaxAttention(num_heads=1, head_dim=16, dropout=0.0)(query, key, value)
    assert out.item() == pytest.approx(5)


def test_every_key_reaches_every_query():
    query, key, value = torch.randn(3, 1, 1, 7, 5)
    attention = SoftmaxAttention(num_heads=1, head_dim=5, dropout=0.0)
    moved = value.clone()
    moved[..., -1, :] += 1
    assert (attention(query, key, moved) > attention(query, key, value)).all()


def test_a_fully_padded_row_is_zero():
    query, key, value = torch.randn(3, 2, 1, 7, 5)
    mask = torch.tensor([True, False])[:, None].expand(2, 7)
    out = SoftmaxAttention(num_heads=1, head_dim=5, dropout=0.0)(
        query, key, value, key_padding_mask=mask
    )
    assert_close(out[0], torch.zeros_like(out[0]))
    assert out[1].abs().sum() > 0


def test_weights_are_dropped_in_training_alone():
    """One key has all the weight: it is dropped, or counts 1 / (1 - 0.75)."""
    query, value = torch.randn(1, 1, 1000, 2), torch.ones(1, 1, 1, 1)
    attention = SoftmaxAttention(num_heads=1, head_dim=2, dropout=0.75)
    out = attention(query, query[..., :1, :], value)
    assert set(out.unique().tolist()) == {0.0, 4.0}
    assert abs(out.mean().item() - 1) < 5 * math.sqrt(3 / 1000)  # variance 4 - 1
    assert_close(attention.eval()(query, query[..., :1, :], value), torch.ones_like(out))
