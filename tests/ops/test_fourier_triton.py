"""The Triton kernels of Fourier features against float64 autograd on stored features."""

from typing import no_type_check

import pytest
import torch
from torch.testing import assert_close

from macformer.ops.fourier import fourier_attention_reference

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402 (needs Triton)

from macformer.ops import fourier_triton, fused  # noqa: E402 (needs Triton)

BATCH, HEADS, HEAD_DIM, VALUE_DIM = 1, 2, 5, 7
NUM_FREQUENCIES = 17  # the first group has sines and cosines, the second has room left
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6


@triton.jit
@no_type_check
def sine_kernel(x, out, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(out + i, fourier_triton._sine(tl.load(x + i)))


def draw_inputs(query_len, key_len, omega_heads, dtype=torch.float32):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    query, key, value = (torch.randn(BATCH, HEADS, *shape) for shape in shapes)
    scale = HEAD_DIM**-0.75  # keeps the kernel away from zero
    omega = torch.randn(omega_heads, HEAD_DIM, NUM_FREQUENCIES)
    inputs = (scale * query).to(dtype), (scale * key).to(dtype), value.to(dtype), omega
    return [x.to(DEVICE) for x in inputs]


def run_triton(inputs, mask, grad):
    query, key, value, omega = inputs
    options = {"key_padding_mask": mask, "eps": EPS}
    grad_omega = torch.zeros_like(omega)
    waves = fourier_triton.waves(omega, grad_omega)
    results = fused.fused_forward(query, key, value, waves, waves, **options)
    grads = fused.fused_backward(query, key, value, waves, waves, grad, *results, **options)
    return [results[0], *grads, grad_omega]


def run_reference(inputs, mask, grad):
    exact = [x.double().requires_grad_() for x in inputs]
    out = fourier_attention_reference(*exact, key_padding_mask=mask, eps=EPS)
    return [out, *torch.autograd.grad(out, exact, grad.double())]


def assert_same(inputs, mask, *, tolerance):
    """Compare the output and every gradient, each relative to its largest entry."""
    grad = torch.randn(*inputs[0].shape[:-1], VALUE_DIM, device=DEVICE)
    results = run_triton(inputs, mask, grad), run_reference(inputs, mask, grad)
    for got, expected in zip(*results, strict=True):
        scale = float(expected.detach().abs().max())
        assert_close(got.double(), expected.detach(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("lengths", "omega_heads"), [((1, 18), 1), ((35, 2), HEADS)])
def test_float32(lengths, omega_heads):
    assert_same(draw_inputs(*lengths, omega_heads), None, tolerance=1e-5)


def test_float16_inputs():
    # The gradients are rounded to float16, half a unit in its last place being 5e-4.
    assert_same(draw_inputs(17, 18, 1, torch.float16), None, tolerance=6e-4)


@pytest.mark.gpu
def test_bfloat16_inputs():
    # Frequencies and features are rounded to 8 bits.
    assert_same(draw_inputs(1000, 1000, 1, torch.bfloat16), None, tolerance=1e-2)


@pytest.mark.parametrize("trailing", [5, 19], ids=["some", "all"])
def test_padding(trailing):
    inputs = draw_inputs(7, 19, 1)
    mask = (torch.arange(19) >= 19 - trailing).expand(BATCH, 19).clone()
    mask[0, 3] = True
    poisoned = [x.clone() for x in inputs]
    for x in poisoned[1:3]:
        x[:, :, mask[0]] = float("nan")
    grad = torch.randn(BATCH, HEADS, 7, VALUE_DIM, device=DEVICE)
    got = run_triton(poisoned, mask.to(DEVICE), grad)
    assert_close(
        [x.double() for x in got],
        [x.detach() for x in run_reference(inputs, mask.to(DEVICE), grad)],
        rtol=1e-4,
        atol=1e-4,
    )


def test_split_of_the_sequence(monkeypatch):
    """Each slice adds its share of the state and of the gradient at omega."""
    monkeypatch.setattr(fused, "NUM_PROGRAMS", 8)
    inputs = draw_inputs(33, 70, 1)
    (_, splits, _), *_ = fused.slice_grid("omega", inputs[1], VALUE_DIM, 2 * NUM_FREQUENCIES)
    assert splits > 1
    assert_same(inputs, None, tolerance=1e-5)


def test_sine():
    """Angles of up to 300 half turns are reduced without loss."""
    angles = torch.linspace(-1000, 1000, 4096, device=DEVICE)
    sines = torch.empty_like(angles)
    sine_kernel[4,](angles, sines, SIZE=1024)
    assert_close(sines.double(), angles.double().sin(), rtol=0, atol=2e-7)


@pytest.mark.slow
def test_long_sequence():
    assert_same(draw_inputs(1000, 1000, 1), None, tolerance=1e-5)
