"""The Triton kernels, under the interpreter where there is no GPU, against float64 tiles."""

import pytest
import torch
from torch.testing import assert_close

from macformer.ops import tiled
from macformer.ops.maclaurin_tiled import Products

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402 (needs Triton)

from macformer.ops import fused, maclaurin_triton  # noqa: E402 (needs Triton)

BATCH, HEADS, HEAD_DIM, VALUE_DIM = 1, 2, 5, 7
WIDTHS = (35, 17, 3)  # groups of degree 3, 2 and 1, the last one with room left
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = 1e-6


def draw_inputs(query_len, key_len, sign_heads, dtype):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    query, key, value = (torch.randn(BATCH, HEADS, *shape) for shape in shapes)
    scale = HEAD_DIM**-0.75  # keeps the kernel near its constant, as ppSBN does
    inputs = [(scale * query).to(dtype), (scale * key).to(dtype), value.to(dtype)]
    signs = torch.randn(sign_heads, HEAD_DIM, sum(WIDTHS)).sign()
    weights, constant = 0.1 * torch.rand(WIDTHS[0]), torch.tensor(1.5)
    return [x.to(DEVICE) for x in (*inputs, signs, weights, constant)]


def run(forward, backward, feature_map, inputs, mask, grad):
    options = {"key_padding_mask": mask, "eps": EPS}
    out = forward(*inputs, feature_map, feature_map, **options)
    return [*out, *backward(*inputs, feature_map, feature_map, grad, *out, **options)]


def run_tiled(tensors, mask, grad):
    *inputs, signs, weights, constant = (x.double() for x in tensors)
    features = Products(signs, WIDTHS, False, weights, constant)
    return run(tiled.tiled_forward, tiled.tiled_backward, features, inputs, mask, grad.double())


def run_triton(tensors, mask, grad):
    *inputs, signs, weights, constant = tensors
    features = maclaurin_triton.products(signs, WIDTHS, weights, constant)
    return run(fused.fused_forward, fused.fused_backward, features, inputs, mask, grad)


def assert_same(tensors, mask, *, tolerance):
    """Compare output, denominator, state, and gradients, each relative to its largest entry."""
    grad = torch.randn(*tensors[0].shape[:-1], VALUE_DIM, device=DEVICE)
    results = run_triton(tensors, mask, grad), run_tiled(tensors, mask, grad)
    for got, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        assert_close(got.double(), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("most", [0, 2, 4], ids=["looped", "some", "unrolled"])
def test_degrees_that_the_compiler_knows(monkeypatch, most):
    """Levels kept in registers, or computed again, up to a group of degree 3 that is too high."""
    monkeypatch.setitem(maclaurin_triton.MAX_UNROLLED, tl.float32, most)
    tensors = draw_inputs(5, 19, HEADS, torch.float32)
    assert_same(tensors, torch.arange(19)[None] > 16, tolerance=1e-5)


def test_runs_are_groups_of_one_degree():
    widths = (128, 96, 16, 1)
    assert maclaurin_triton._runs(widths, 32, 4) == ((0, 1, 4, 2), (1, 3, 2, 2), (3, 4, 1, 1))
    assert maclaurin_triton._runs(widths, 64, 4) == ((0, 1, 4, 2), (1, 2, 2, 1))
    assert maclaurin_triton._runs(widths, 32, 2) == ((0, 1, 0, 0), (1, 3, 2, 2), (3, 4, 1, 1))
    assert maclaurin_triton._runs((35,), 16, 4) == ((0, 3, 1, 1),)


@pytest.mark.parametrize(("lengths", "sign_heads"), [((1, 18), 1), ((35, 2), HEADS)])
def test_float32(lengths, sign_heads):
    assert_same(draw_inputs(*lengths, sign_heads, torch.float32), None, tolerance=1e-5)


def test_float16_inputs():
    # The gradients are rounded to float16, half a unit in its last place being 5e-4.
    assert_same(draw_inputs(17, 18, 1, torch.float16), None, tolerance=6e-4)


@pytest.mark.gpu
def test_bfloat16_inputs():
    # Features are rounded to 8 bits before they meet the values.
    assert_same(draw_inputs(1000, 1000, 1, torch.bfloat16), None, tolerance=1e-2)


@pytest.mark.parametrize("trailing", [5, 19], ids=["some", "all"])
def test_padding(trailing):
    tensors = draw_inputs(7, 19, 1, torch.float32)
    mask = (torch.arange(19) >= 19 - trailing).expand(BATCH, 19).clone()
    mask[0, 3] = True
    tensors[1][:, :, mask[0]] = float("nan")
    tensors[2][:, :, mask[0]] = float("nan")
    assert_same(tensors, mask.to(DEVICE), tolerance=1e-5)


def test_strided_rows():
    tensors = draw_inputs(7, 19, 1, torch.float32)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors[:3]]
    assert not any(x.is_contiguous() for x in strided)
    assert_same([*strided, *tensors[3:]], None, tolerance=1e-5)


MASKS = {
    "expanded": lambda mask: mask[:1].expand(len(mask), -1),
    "transposed and stepped": lambda mask: mask.T.repeat_interleave(2, dim=0)[::2].T,
}


@pytest.mark.parametrize("stride", MASKS)
def test_masks_of_any_strides(stride):
    tensors = [x.repeat(3, 1, 1, 1) for x in draw_inputs(7, 19, 1, torch.float32)[:3]]
    features = draw_inputs(7, 19, 1, torch.float32)[3:]
    mask = torch.arange(19) >= torch.tensor([[4], [19], [11]])
    strided = MASKS[stride](mask).to(DEVICE)
    assert not strided.is_contiguous()
    assert_same([*tensors, *features], strided, tolerance=1e-5)


STRIDES = {
    "expanded": lambda x: x[:, :1].expand(-1, HEADS, -1, -1),
    "transposed": lambda x: x.mT.contiguous().mT,
    "sliced": lambda x: torch.cat([x, x], dim=-1)[..., : x.shape[-1]],
    "stepped": lambda x: x.repeat_interleave(2, dim=2)[:, :, ::2],
}


@pytest.mark.parametrize("stride", STRIDES)
def test_inputs_and_gradients_of_any_strides(stride):
    *inputs, signs, weights, constant = draw_inputs(7, 19, 1, torch.float32)
    strided = [STRIDES[stride](x) for x in inputs]
    grad = STRIDES[stride](torch.randn(BATCH, HEADS, 7, VALUE_DIM, device=DEVICE))
    assert not any(x.is_contiguous() for x in (*strided, grad))
    tensors = [*strided, signs, weights, constant]
    results = run_triton(tensors, None, grad), run_tiled(tensors, None, grad)
    for got, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        assert_close(got.double(), expected, rtol=0, atol=1e-5 * scale)


def test_no_number_of_heads_exceeds_a_grid(monkeypatch):
    """An axis but the first takes 65,535 programs, and heads of all examples may be more."""
    grids = []

    class Recorder:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *_, **__: None

    for kernel in ("state_kernel", "reduce_kernel", "read_kernel", "backward_kernel"):
        monkeypatch.setattr(fused, kernel, Recorder())
    *inputs, signs, weights, constant = draw_inputs(1, 1, 1, torch.float32)
    many = [x[:, :1].expand(70_000, 1, -1, -1) for x in inputs]
    grad = torch.ones(70_000, 1, 1, VALUE_DIM)
    run_triton([*many, signs, weights, constant], None, grad)
    assert len(grids) == 6  # two sums, each over slices and then over them; one reads; one pulls
    assert min(grid[0] for grid in grids) == 70_000
    assert max(axis for grid in grids for axis in grid[1:]) < 65_536


def test_kernels_run_where_their_inputs_are(monkeypatch):
    visited = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: visited.append(x) or device_of(x))
    tensors = draw_inputs(1, 2, 1, torch.float32)
    run_triton(tensors, None, torch.ones(BATCH, HEADS, 1, VALUE_DIM, device=DEVICE))
    assert len(visited) == 2 and all(x is tensors[0] for x in visited)


def test_split_of_the_sequence(monkeypatch):
    """Enough programs for few heads: the state is summed in slices, the last one shorter."""
    monkeypatch.setattr(fused, "NUM_PROGRAMS", 8)
    grids = []
    kernel = fused.state_kernel

    class Recorder:
        def __getitem__(self, grid):
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(fused, "state_kernel", Recorder())
    assert_same(draw_inputs(33, 70, 1, torch.float32), None, tolerance=1e-5)
    groups = 2  # 35 features, 32 in each
    assert grids == [(BATCH * HEADS, 2, groups)] * 2  # over keys, and over queries backwards


@pytest.mark.slow
def test_long_sequence():
    assert_same(draw_inputs(1000, 1000, 1, torch.float32), None, tolerance=1e-5)
