"""The exact quadratic features, in tiles and as products, against the matrix of weights."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import maclaurin_attention, passes, taylor_attention, tiling
from macformer.ops.taylor import as_products, num_quadratic_features, taylor_attention_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("dim", [1, 2, 5, 6])
@pytest.mark.parametrize("form", ["tiles", "products"])
def test_output_and_gradients_are_those_of_the_polynomial(dim, form, monkeypatch):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 16 * dim * (dim // 2 + 2))
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


@pytest.mark.parametrize(("dim", "num_features"), [(1, 2), (2, 6), (5, 20), (6, 30)])
def test_tiles_and_products_have_as_many_features(dim, num_features):
    """Of an even number of entries, those across the ring from each other meet twice."""
    operator = torch.ops.macformer.taylor_attention
    _, _, state = operator(*torch.randn(3, 1, 1, 4, dim), None, 1e-6)
    products = as_products(dim, torch.device("cpu"))
    assert state.shape[-1] == products.widths[0] == len(products.weights) == num_features
    assert num_quadratic_features(dim) == num_features


@pytest.mark.parametrize("dim", [5, 6])
def test_triton(dim, monkeypatch):
    """Pairs, of degree 2, and entries, of degree 1, share a block of features."""
    pytest.importorskip("triton")
    monkeypatch.setattr(passes, "takes_kernels", lambda *_: True)
    shapes = [(1, 2, 17, dim), (1, 2, 19, dim), (1, 2, 19, 7)]
    inputs = [torch.randn(shape, device=DEVICE) for shape in shapes]
    mask = torch.arange(19, device=DEVICE)[None] >= 16
    mask[0, 3] = True
    exact = [x.double().requires_grad_() for x in inputs]
    expected = taylor_attention_reference(*exact, key_padding_mask=mask)
    grad = torch.randn(expected.shape, device=DEVICE)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    for x in inputs[1:]:
        x.masked_fill_(mask[:, None, :, None], torch.nan)
    out = taylor_attention(*(x.requires_grad_() for x in inputs), key_padding_mask=mask)
    grads = torch.autograd.grad(out, inputs, grad)
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert_close(got.double(), wanted, rtol=0, atol=1e-5 * float(wanted.detach().abs().max()))
