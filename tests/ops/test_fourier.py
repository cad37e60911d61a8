"""Fourier and arc-cosine attention against the kernel matrices that they never build."""

import math

import jaxtyping
import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from macformer.ops import arccos_attention, fourier_attention, tiling
from macformer.ops.fourier import fourier_attention_reference, fourier_features
from macformer.ops.sphere import EPS

OPERATOR = torch.ops.macformer.fourier_attention.default

BATCH, HEADS, HEAD_DIM, VALUE_DIM, NUM_FEATURES = 2, 3, 5, 7, 11


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 64 * 2 * NUM_FEATURES)


def draw_inputs(query_len, key_len, heads=1, dtype=torch.float64):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    inputs = [torch.randn(BATCH, HEADS, *shape, dtype=torch.float64) for shape in shapes]
    scale = HEAD_DIM**-0.75  # keeps the kernels away from zero
    omega = torch.randn(heads, HEAD_DIM, NUM_FEATURES, dtype=torch.float64)
    tensors = (scale * inputs[0], scale * inputs[1], inputs[2], omega)
    return tuple(x.to(dtype).requires_grad_() for x in tensors)


def gaussian(query, key, omega):
    r"""Average cos(w (q - k)) over frequencies: what sines and cosines add up to."""
    difference = query.unsqueeze(-2) - key.unsqueeze(-3)
    return (difference @ omega.unsqueeze(-3)).cos().mean(-1)


def arccos(query, key, omega):
    angles_q, angles_k = query @ omega, key @ omega
    pairs = angles_q.clamp(min=0).unsqueeze(-2) * angles_k.clamp(min=0).unsqueeze(-3)
    return 2 * pairs.mean(-1)


def assert_same(op, kernel, inputs, mask=None, *, rtol=1e-9, atol=1e-11):
    exact = [x.detach().double().requires_grad_() for x in inputs]
    query, key, value, omega = exact
    matrix = kernel(query, key, omega)
    if mask is not None:
        matrix = matrix.masked_fill(mask[:, None, None, :], 0)
    expected = matrix @ value / matrix.sum(-1, keepdim=True)
    grad = torch.randn_like(expected).to(inputs[2].dtype)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    out = op(*inputs, key_padding_mask=mask)
    assert_close(out.double(), expected, rtol=rtol, atol=atol)
    for got, wanted in zip(torch.autograd.grad(out, inputs, grad), expected_grads, strict=True):
        assert_close(got.double(), wanted, rtol=rtol, atol=atol)


OPS = [
    (fourier_attention_reference, gaussian),
    (fourier_attention, gaussian),
    (arccos_attention, arccos),
]


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
@pytest.mark.parametrize("length", [1, 31, 33, 257])
@pytest.mark.parametrize(("op", "kernel"), OPS)
def test_output_and_gradients(op, kernel, length, heads):
    inputs = draw_inputs(length, length + 2, heads)
    if kernel is arccos:  # a query beyond all half-spaces has no kernel at all
        inputs = (*(x.detach().abs().requires_grad_() for x in inputs[:2]), *inputs[2:])
        inputs = (*inputs[:3], inputs[3].detach().abs().requires_grad_())
    assert_same(op, kernel, inputs)


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
@pytest.mark.parametrize(("op", "kernel"), OPS[1:])
def test_padding(op, kernel, heads):
    mask = torch.arange(131) >= torch.tensor([[100], [131]])
    mask[1, 5] = True
    inputs = draw_inputs(67, 131, heads)
    if kernel is arccos:
        with torch.no_grad():  # one direction points where all tokens are; the others, anywhere
            for x in (*inputs[:2], inputs[3].mT):
                x[..., 0].abs_().add_(0.1)
            inputs[3][..., 0] = inputs[3].new_tensor([1.0, 0, 0, 0, 0])
    assert_same(op, kernel, inputs, mask)


@pytest.mark.parametrize("op", [fourier_attention, arccos_attention])
def test_on_the_sphere_is_after_division_by_the_norm(op):
    inputs = draw_inputs(67, 131, HEADS)
    with torch.no_grad():
        inputs[1][:, :, 5] = 0.0  # its gradient is finite
    lengths = ((x.square().sum(-1, keepdim=True) + EPS).sqrt() for x in inputs[:2])
    units = [x / length for x, length in zip(inputs[:2], lengths, strict=True)]
    out, expected = op(*inputs, on_sphere=True), op(*units, *inputs[2:])
    assert_close(out, expected, rtol=1e-9, atol=1e-11)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted, rtol=1e-9, atol=1e-11)


def test_fully_padded_example_gives_zeros():
    inputs = draw_inputs(67, 31)
    mask = torch.tensor([True, False])[:, None].expand(BATCH, 31)
    out = fourier_attention(*inputs, key_padding_mask=mask)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    for grad in torch.autograd.grad(out.sum(), inputs):
        assert grad.isfinite().all()


def test_float32_error():
    assert_same(
        fourier_attention, gaussian, draw_inputs(37, 1000, 1, torch.float32), rtol=1e-5, atol=1e-5
    )


def test_bfloat16_rounds_only_the_output():
    inputs = draw_inputs(67, 67, HEADS, torch.bfloat16)
    out = fourier_attention(*inputs)
    exact = fourier_attention_reference(*(x.double() for x in inputs))
    half_ulp = torch.finfo(torch.bfloat16).eps / 2
    assert_close(out.double(), exact, rtol=1.01 * half_ulp, atol=1e-5)


def test_frozen_omega_receives_no_gradient():
    query, key, value, omega = draw_inputs(33, 33)
    out = fourier_attention(query, key, value, omega.detach())
    expected = fourier_attention_reference(query, key, value, omega.detach())
    inputs = (query, key, value)
    assert_close(
        torch.autograd.grad(out.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
    )


def test_features_are_not_saved():
    inputs = draw_inputs(257, 257)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.shape) or x, lambda x: x
    ):
        fourier_attention(*inputs)
    assert max(shape[-1] for shape in saved if 257 in shape) <= VALUE_DIM


def test_flops_by_hand():
    inputs = draw_inputs(11, 13)
    per_token = 2 * HEAD_DIM * NUM_FEATURES + 2 * 2 * NUM_FEATURES * (VALUE_DIM + 1)
    with FlopCounterMode(display=False) as counter:
        fourier_attention(*inputs)
    assert counter.get_total_flops() == BATCH * HEADS * (11 + 13) * per_token


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
def test_opcheck(heads, monkeypatch):
    monkeypatch.undo()  # poisoned memory makes equal runs differ
    inputs = draw_inputs(5, 6, heads, torch.float32)
    torch.library.opcheck(OPERATOR, (*inputs, True, None, 1e-6))


def test_compiles_to_one_graph(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    inputs = draw_inputs(67, 67, HEADS, torch.float32)
    compiled = torch.compile(fourier_attention, fullgraph=True, backend="aot_eager")
    grad = torch.randn_like(inputs[2])
    out, expected = compiled(*inputs), fourier_attention(*inputs)
    assert_close(out, expected)
    assert_close(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )


def test_many_features_approach_the_gaussian_kernel():
    """E cos(w d) = exp(-|d|^2 / 2) for normal w: each kernel value is within 5 standard errors."""
    torch.manual_seed(0)
    query, key, _, _ = (x.detach() for x in draw_inputs(13, 13))
    num_features = 20_000
    omega = torch.randn(1, HEAD_DIM, num_features, dtype=torch.float64)
    kernel = fourier_features(query, omega) @ fourier_features(key, omega).mT
    exact = (-torch.cdist(query, key).square() / 2).exp()
    # The variance of cos(w d) is (1 - exp(-|d|^2))^2 / 2.
    error = (1 - exact.square()) / math.sqrt(2 * num_features)
    assert ((kernel - exact).abs() <= 5 * error + 1e-12).all()
