"""Exponential attention against the kernel matrix that it never builds."""

import jaxtyping
import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from macformer.ops import exponential_attention, tiling
from macformer.ops.exponential import exponential_attention_reference

triton = pytest.importorskip("triton")
from macformer.ops import exponential_triton, fused  # noqa: E402 (needs Triton)

OPERATOR = torch.ops.macformer.exponential_attention.default

BATCH, HEADS, HEAD_DIM, VALUE_DIM, NUM_FEATURES = 2, 3, 5, 7, 37
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 64 * NUM_FEATURES)


def draw_inputs(query_len, key_len, heads=1, dtype=torch.float64, norm=1.0):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    inputs = [torch.randn(BATCH, HEADS, *shape, dtype=torch.float64) for shape in shapes]
    scales = norm * HEAD_DIM**-0.5, norm * HEAD_DIM**-0.5, 1.0
    omega = torch.randn(heads, HEAD_DIM, NUM_FEATURES, dtype=torch.float64)
    tensors = [(scale * x).to(dtype) for scale, x in zip(scales, inputs, strict=True)]
    return *(x.requires_grad_() for x in tensors), omega.to(dtype)


def attend(query, key, value, omega, mask=None):
    """Sum over features in the exponent: softmax over keys of what each pair's features add up to.

    Nothing is shifted by anything but the log-sum's own maximum.
    """
    exponents = [x @ omega - x.square().sum(-1, keepdim=True) / 2 for x in (query, key)]
    pairs = (exponents[0].unsqueeze(-2) + exponents[1].unsqueeze(-3)).logsumexp(-1)
    if mask is not None:
        pairs = pairs.masked_fill(mask[:, None, None, :], -torch.inf)
    return pairs.softmax(-1) @ value


def assert_same(op, inputs, mask=None, *, rtol=1e-9, atol=1e-11):
    *leaves, omega = inputs
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = attend(*exact, omega.double(), mask)
    grad = torch.randn_like(expected).to(leaves[2].dtype)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    out = op(*inputs, key_padding_mask=mask)
    assert_close(out.double(), expected, rtol=rtol, atol=atol)
    for got, wanted in zip(torch.autograd.grad(out, leaves, grad), expected_grads, strict=True):
        assert_close(got.double(), wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
@pytest.mark.parametrize("length", [1, 31, 33, 131])
@pytest.mark.parametrize("op", [exponential_attention_reference, exponential_attention])
def test_output_and_gradients(op, length, heads):
    assert_same(op, draw_inputs(length, length + 2, heads))


def test_exponents_beyond_every_range():
    """Where exp(w x - |x|^2 / 2) is 0 even in float64, the shifts cancel all of it.

    The keys make several tiles, each with a peak of its own.
    """
    inputs = draw_inputs(11, 131, norm=300.0)
    assert exponential_attention_reference(*inputs).isnan().any()  # zeros over zeros
    assert_same(exponential_attention, inputs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("op", [exponential_attention_reference, exponential_attention])
def test_a_scale_is_one_of_dot_products(op):
    *inputs, omega = draw_inputs(67, 131)
    out, expected = (
        op(*inputs, omega, scale=0.3),
        attend(*(x * 0.3**0.5 for x in inputs[:2]), inputs[2], omega),
    )
    assert_close(out, expected, rtol=1e-9, atol=1e-11)
    grad = torch.randn_like(out)
    wanted = torch.autograd.grad(expected, inputs, grad)
    assert_close(torch.autograd.grad(out, inputs, grad), wanted, rtol=1e-9, atol=1e-11)


def test_what_is_kept_is_that_of_two_softmaxes():
    query, key, value, omega = draw_inputs(67, 31, norm=30.0)
    _, normaliser, state = OPERATOR(query, key, value, omega, 1.0, None, 1e-6)
    exponents = (key @ omega - key.square().sum(-1, keepdim=True) / 2).mT
    means, ones, shifts = state.split((VALUE_DIM, 1, 1), -2)
    assert_close(means.mT, exponents.softmax(-1) @ value)
    assert (ones == 1).all()
    assert_close(shifts.mT, exponents.logsumexp(-1, keepdim=True))
    assert_close(normaliser, (query @ omega + shifts).logsumexp(-1, keepdim=True))


def test_denominators_of_the_kernels_are_at_least_one():
    *inputs, omega = draw_inputs(5, 6, norm=30.0, dtype=torch.float32)
    query, key, value, omega = (x.detach().to(DEVICE) for x in (*inputs, omega))
    peaks = exponential_triton.find_peaks(key, omega, None)
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    options = {"key_padding_mask": None, "eps": 1e-6}
    _, denominator, _ = fused.fused_forward(query, key, value, queries, keys, **options)
    assert float(denominator.min()) >= 1 - 1e-6


def test_padding():
    mask = torch.arange(131) >= torch.tensor([[100], [131]])
    mask[1, 5] = True
    query, key, value, omega = draw_inputs(67, 131, HEADS, norm=30.0)
    for x in (key, value):
        x.data[mask[:, None].expand(-1, HEADS, -1)] = torch.nan
    clean = [torch.where(x.isnan(), 7.0, x).detach().requires_grad_() for x in (query, key, value)]
    out = exponential_attention(query, key, value, omega, key_padding_mask=mask)
    grad = torch.randn_like(out)
    expected = attend(*clean, omega, mask)
    assert_close(out, expected, rtol=1e-7, atol=1e-7)
    grads = torch.autograd.grad(out, (query, key, value), grad)
    for got, wanted in zip(grads, torch.autograd.grad(expected, clean, grad), strict=True):
        assert_close(got, wanted, rtol=1e-7, atol=1e-7)


def test_fully_padded_example_gives_zeros():
    *inputs, omega = draw_inputs(67, 31)
    mask = torch.tensor([True, False])[:, None].expand(BATCH, 31)
    out = exponential_attention(*inputs, omega, key_padding_mask=mask)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    for grad in torch.autograd.grad(out.sum(), inputs):
        assert torch.equal(grad[0], torch.zeros_like(grad[0])) and grad.isfinite().all()


def test_float32_error():
    inputs = draw_inputs(37, 300, 1, torch.float32)
    assert_same(exponential_attention, inputs, rtol=1e-5, atol=1e-5)


def test_bfloat16_rounds_only_the_output():
    inputs = draw_inputs(67, 67, HEADS, torch.bfloat16)
    exact = attend(*(x.double() for x in inputs))
    half_ulp = torch.finfo(torch.bfloat16).eps / 2
    out = exponential_attention(*inputs)
    assert_close(out.double(), exact, rtol=1.01 * half_ulp, atol=1e-5)


def test_directions_that_ask_for_a_gradient_are_refused():
    *inputs, omega = draw_inputs(3, 3)
    with pytest.raises(ValueError, match="omega requires a gradient"):
        exponential_attention(*inputs, omega.requires_grad_())


def test_features_are_not_saved():
    inputs = draw_inputs(257, 257)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.shape) or x, lambda x: x
    ):
        exponential_attention(*inputs)
    assert max(shape[-1] for shape in saved if 257 in shape) <= VALUE_DIM


def test_flops_by_hand():
    inputs = draw_inputs(11, 13)
    per_token = 2 * HEAD_DIM * NUM_FEATURES + 2 * NUM_FEATURES * (VALUE_DIM + 1)
    with FlopCounterMode(display=False) as counter:
        exponential_attention(*inputs)
    assert counter.get_total_flops() == BATCH * HEADS * (11 + 13) * per_token


def test_opcheck(monkeypatch):
    monkeypatch.undo()  # poisoned memory makes equal runs differ
    torch.library.opcheck(OPERATOR, (*draw_inputs(5, 6, HEADS, torch.float32), 0.5, None, 1e-6))


def test_compiles_to_one_graph(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    *inputs, omega = draw_inputs(67, 67, HEADS, torch.float32)
    compiled = torch.compile(exponential_attention, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*inputs, omega), exponential_attention(*inputs, omega))


def run_triton(inputs, omega, mask, grad):
    query, key, value = inputs
    options = {"key_padding_mask": mask, "eps": 1e-6}
    peaks = exponential_triton.find_peaks(key, omega, mask)
    queries, keys = exponential_triton.exponentials(query, omega, peaks)
    results = fused.fused_forward(query, key, value, queries, keys, **options)
    grads = fused.fused_backward(query, key, value, queries, keys, grad, *results, **options)
    return [results[0], *grads]


@pytest.mark.parametrize(
    ("lengths", "heads", "norm", "dtype", "tolerance"),
    [
        ((1, 18), 1, 1.0, torch.float32, 1e-5),
        ((35, 2), HEADS, 1.0, torch.float32, 1e-5),
        ((5, 19), 1, 20.0, torch.float32, 1e-4),  # exponents of 200, whose rounding is 1e-5
        ((17, 18), 1, 1.0, torch.float16, 6e-4),  # half a unit in the gradients' last place
    ],
    ids=str,
)
def test_triton(lengths, heads, norm, dtype, tolerance):
    *inputs, omega = draw_inputs(*lengths, heads, dtype, norm)
    inputs, omega = [x.detach().to(DEVICE) for x in inputs], omega.float().to(DEVICE)
    mask = torch.zeros(BATCH, lengths[1], dtype=torch.bool, device=DEVICE)
    if lengths[1] > 2:
        mask[0, -3:] = mask[1, 1] = True
    exact = [x.double().requires_grad_() for x in inputs]
    expected = attend(*exact, omega.double(), mask)
    grad = torch.randn(expected.shape, device=DEVICE)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    poisoned = [x.clone() for x in inputs]
    for x in poisoned[1:]:
        x[mask[:, None].expand(-1, HEADS, -1)] = float("nan")
    results = run_triton(poisoned, omega, mask, grad)
    for got, wanted in zip(results, (expected.detach(), *expected_grads), strict=True):
        scale = float(wanted.abs().max())
        assert_close(got.double(), wanted, rtol=0, atol=tolerance * scale)


def test_triton_of_a_fully_padded_example():
    *inputs, omega = (x.detach().to(DEVICE) for x in draw_inputs(5, 6, 1, torch.float32))
    mask = torch.tensor([[True] * 6, [False] * 6], device=DEVICE)
    results = run_triton(inputs, omega, mask, torch.ones(BATCH, HEADS, 5, VALUE_DIM, device=DEVICE))
    for got in results:
        assert torch.equal(got[0], torch.zeros_like(got[0])) and got.isfinite().all()
