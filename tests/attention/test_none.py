"""The control without attention."""

import torch

from macformer.attention import NoAttention


def test_values_pass_through():
    query, key, value = torch.randn(3, 2, 3, 11, 5)
    out = NoAttention(num_heads=3, head_dim=5)(query, key, value)
    assert torch.equal(out, value) and out.data_ptr() != value.data_ptr()
