"""Errors at the recipes' sizes, against what attention adds to the mean of the values."""

import pytest
import torch
from torch.nn.functional import normalize

from macformer.attention.maclaurin.kernels import exp
from macformer.attention.maclaurin.samplers import optimal
from macformer.ops import fourier_attention, maclaurin_attention
from macformer.ops.fourier import fourier_attention_reference
from macformer.ops.maclaurin import maclaurin_attention_reference

BATCH, HEADS, LENGTH, HEAD_DIM, NUM_FEATURES = 1, 2, 256, 32, 128
BFLOAT16_ERROR = 5e-3


def draw_maclaurin():
    return optimal(
        exp().coefficients,
        num_features=NUM_FEATURES,
        num_heads=1,
        head_dim=HEAD_DIM,
        dot_bound=HEAD_DIM**-0.5,
    )


def draw_omega():
    return torch.randn(1, HEAD_DIM, NUM_FEATURES)


METHODS = [
    (maclaurin_attention, maclaurin_attention_reference, draw_maclaurin),
    (fourier_attention, fourier_attention_reference, draw_omega),
]


def draw_inputs(dtype):
    """Draw queries and keys of unit norm, as ppSBN leaves them."""
    query, key, value = (torch.randn(BATCH, HEADS, LENGTH, HEAD_DIM) for _ in range(3))
    return [x.to(dtype) for x in (normalize(query, dim=-1), normalize(key, dim=-1), value)]


def error_over_signal(out, exact, value):
    return float((out - exact).norm() / (exact - value.double().mean(-2, keepdim=True)).norm())


def in_float64(reference, inputs, features):
    exact = [x.double() for x in inputs]
    if isinstance(features, torch.Tensor):
        return reference(*exact, features.double())
    constants = {"signs": features.signs.double(), "weights": features.weights.double()}
    return reference(*exact, features._replace(**constants, constant=features.constant.double()))


@pytest.mark.parametrize(("op", "reference", "draw"), METHODS)
def test_float32(op, reference, draw):
    inputs, features = draw_inputs(torch.float32), draw()
    exact = in_float64(reference, inputs, features)
    assert float((op(*inputs, features) - exact).abs().max() / exact.abs().max()) <= 1e-5


@pytest.mark.parametrize(("op", "reference", "draw"), METHODS)
def test_bfloat16_inputs(op, reference, draw):
    inputs, features = draw_inputs(torch.bfloat16), draw()
    exact = in_float64(reference, inputs, features)
    out = op(*inputs, features, out_dtype=torch.float32)
    assert out.dtype == torch.float32
    assert error_over_signal(out, exact, inputs[2]) <= BFLOAT16_ERROR
    rounded = op(*inputs, features)
    assert rounded.dtype == torch.bfloat16
    assert error_over_signal(rounded, exact, inputs[2]) > BFLOAT16_ERROR


@pytest.mark.parametrize(("op", "reference", "draw"), METHODS)
def test_gradients_keep_the_dtype_of_their_inputs(op, reference, draw):
    inputs = [x.requires_grad_() for x in draw_inputs(torch.bfloat16)]
    out = op(*inputs, draw(), out_dtype=torch.float32)
    grads = torch.autograd.grad(out.square().sum(), inputs)
    assert [grad.dtype for grad in grads] == [torch.bfloat16] * 3


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter takes the place of a GPU")
@pytest.mark.parametrize(("op", "reference", "draw"), METHODS)
def test_bfloat16_inputs_of_the_kernels(op, reference, draw, monkeypatch):
    """The kernels on the CPU, where operands are rounded by hand: it has no bfloat16 products."""
    pytest.importorskip("triton")
    import triton.language as tl

    from macformer.ops import (
        fourier_triton,
        fused_backward,
        fused_kernels,
        fused_tiles,
        maclaurin_triton,
        passes,
    )

    roundings = []

    def nearest(x):  # to 8 bits; the interpreter's own conversion cuts off
        scaled = x * (2.0**16 + 1)
        return scaled - (scaled - x)

    def dot(a, b, operand):
        roundings.append(operand)
        return tl.dot(*(nearest(x.to(tl.float32)) for x in (a, b)))

    for module in (fourier_triton, fused_backward, fused_kernels, fused_tiles, maclaurin_triton):
        monkeypatch.setattr(module, "dot", dot)
    monkeypatch.setattr(passes, "takes_kernels", lambda *_: True)
    inputs, features = draw_inputs(torch.bfloat16), draw()
    exact = in_float64(reference, inputs, features)
    out = op(*inputs, features, out_dtype=torch.float32)
    assert set(roundings) == {tl.bfloat16}
    assert 1e-4 < error_over_signal(out, exact, inputs[2]) <= BFLOAT16_ERROR
