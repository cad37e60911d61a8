"""Hedgehog's attention by tiles against the matrix of its weights."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import hedgehog_attention, tiling

B, H, E, EV = 2, 3, 5, 7


def weigh(query, key, weight_query, weight_key):
    """Add up products of exponentials over their sum, of entries and of their opposites."""
    phi = []
    for x, weight in ((query, weight_query), (key, weight_key)):
        projected = torch.einsum("bhne,hfe->bhnf", x, weight)
        exponentials = torch.cat([projected.exp(), (-projected).exp()], -1)
        phi.append(exponentials / exponentials.sum(-1, keepdim=True))
    return phi[0] @ phi[1].mT


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("query_len", "key_len"), [(37, 45), (1, 2)])
def test_output_and_gradients_are_those_of_the_matrix(query_len, key_len, padded, monkeypatch):
    """Of an example over several tiles, and of several in one."""
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 16 * 2 * E)
    shapes = (B, H, query_len, E), (B, H, key_len, E), (B, H, key_len, EV), (H, E, E), (H, E, E)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    query, key, value, *weights = inputs
    mask = torch.zeros(B, key_len, dtype=torch.bool)
    mask[0, key_len // 2 :] = mask[1, 0] = padded
    matrix = weigh(query, key, *weights).masked_fill(mask[:, None, None], 0)
    expected = matrix @ value / matrix.sum(-1, keepdim=True)
    out = hedgehog_attention(*inputs, key_padding_mask=mask if padded else None)
    assert_close(out, expected)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted)
