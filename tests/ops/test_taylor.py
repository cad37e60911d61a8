"""The exact quadratic features, in tiles and as products, against the matrix of weights."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import maclaurin_attention, taylor_attention, tiled
from macformer.ops.taylor import as_products, taylor_attention_reference


@pytest.mark.parametrize("dim", [1, 2, 5, 6])
@pytest.mark.parametrize("form", ["tiles", "products"])
def test_output_and_gradients_are_those_of_the_polynomial(dim, form, monkeypatch):
    monkeypatch.setattr(tiled, "TILE_NUMBERS", 16 * dim * (dim // 2 + 2))
    shapes = [(2, 3, 37, dim), (2, 3, 41, dim), (2, 3, 41, 7)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.arange(41) >= torch.tensor([[41], [23]])
    expected = taylor_attention_reference(*inputs, key_padding_mask=mask)
    if form == "tiles":
        out = taylor_attention(*inputs, key_padding_mask=mask)
    else:
        products = as_products(dim, torch.device("cpu"))
        out = maclaurin_attention(*inputs, products, key_padding_mask=mask)
    grad = torch.randn_like(out)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}  # weights of products are float32
    assert_close(out, expected, **tolerance)
    for got, wanted in zip(
        torch.autograd.grad(out, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        strict=True,
    ):
        assert_close(got, wanted, **tolerance)
