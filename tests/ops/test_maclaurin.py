"""Every path of Maclaurin attention against the kernel matrix that it never builds."""

import jaxtyping
import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from macformer.ops import MaclaurinFeatures, lay_out, maclaurin_attention, tiled, tiling
from macformer.ops.maclaurin import maclaurin_attention_reference
from macformer.ops.maclaurin_tiled import Products

OPERATOR = torch.ops.macformer.maclaurin_attention.default

BATCH, HEADS, HEAD_DIM, VALUE_DIM = 2, 3, 5, 7
WIDTHS = (11, 7, 7, 2)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 64 * (sum(WIDTHS) + HEAD_DIM))


def draw_features(heads=1, *, linear=0.25, widths=WIDTHS) -> MaclaurinFeatures:
    num_features = widths[0] if widths else 0
    return MaclaurinFeatures(
        signs=torch.randn(heads, HEAD_DIM, sum(widths)).sign(),
        weights=0.1 * torch.rand(num_features),
        constant=torch.tensor(1.5),
        linear=linear,
        widths=widths,
    )


def draw_inputs(query_len, key_len, dtype=torch.float64):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    query, key, value = (torch.randn(BATCH, HEADS, *shape, dtype=torch.float64) for shape in shapes)
    scale = HEAD_DIM**-0.75  # keeps the kernel near its constant, as ppSBN does
    return tuple(x.to(dtype).requires_grad_() for x in (scale * query, scale * key, value))


def kernel_matrix(query, key, features):
    """Sum the estimate's definition over features, one (L, S) matrix after another."""
    signs, weights = features.signs.double(), features.weights.double()
    kernel = features.constant.double() + features.linear * query @ key.mT
    for f in range(len(weights)):
        product, offset = weights[f], 0
        for width in features.widths:
            if f < width:
                column = signs[..., offset + f].unsqueeze(-1)  # (heads, E, 1)
                product = product * (query @ column) * (key @ column).mT
            offset += width
        kernel = kernel + product
    return kernel


def attend(query, key, value, features, mask=None, eps=1e-6):
    kernel = kernel_matrix(query, key, features)
    if mask is not None:
        kernel = kernel.masked_fill(mask[:, None, None, :], 0)
    z = kernel.sum(-1, keepdim=True)
    guarded = torch.where(z.abs() < eps, torch.copysign(torch.tensor(eps).double(), z.detach()), z)
    return kernel @ value / guarded


def assert_same(op, inputs, features, mask=None, *, rtol=1e-9, atol=1e-11):
    """Compare the output and every gradient with those of the kernel matrix."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = attend(*exact, features, mask)
    grad = torch.randn_like(expected).to(inputs[2].dtype)
    expected_grads = torch.autograd.grad(expected, exact, grad.double())
    out = op(*inputs, features, key_padding_mask=mask)
    grads = torch.autograd.grad(out, inputs, grad)
    assert out.dtype == inputs[2].dtype
    assert_close(out.double(), expected, rtol=rtol, atol=atol)
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert_close(got.double(), wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
@pytest.mark.parametrize("length", [1, 31, 33, 257])
@pytest.mark.parametrize("op", [maclaurin_attention_reference, maclaurin_attention])
def test_output_and_gradients(op, length, heads):
    assert_same(op, draw_inputs(length, length + 2), draw_features(heads))


@pytest.mark.parametrize(("query_len", "key_len"), [(1000, 37), (37, 1000)])
def test_long_sequence(query_len, key_len):
    assert_same(maclaurin_attention, draw_inputs(query_len, key_len), draw_features())


@pytest.mark.parametrize(
    "features",
    [
        {"linear": 0.0},
        {"widths": ()},
        {"widths": (), "linear": 0.0},
        {"widths": (3,), "linear": 0.0},
        {"widths": (3,)},
        {"widths": (4, 4, 4)},
    ],
    ids=str,
)
def test_every_layout_of_features(features):
    assert_same(maclaurin_attention, draw_inputs(70, 68), draw_features(**features))


def test_float32_error():
    inputs = draw_inputs(37, 1000, torch.float32)
    assert_same(maclaurin_attention, inputs, draw_features(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_output(dtype):
    inputs = draw_inputs(257, 257, dtype)
    features = draw_features()
    exact = attend(*(x.detach().double() for x in inputs), features)
    out = maclaurin_attention(*inputs, features)
    assert out.dtype == dtype
    half_ulp = torch.finfo(dtype).eps / 2
    assert_close(out.double(), exact, rtol=1.01 * half_ulp, atol=1e-6)


def test_autocast_keeps_float32():
    inputs = draw_inputs(33, 33, torch.float32)
    features = draw_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = maclaurin_attention(*inputs, features)
    assert_close(out, maclaurin_attention(*inputs, features), rtol=0, atol=0)


def padding(lengths, total) -> torch.Tensor:
    return torch.arange(total) >= torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("lengths", [(1, 131), (64, 65)], ids=str)
def test_padding(lengths):
    assert_same(maclaurin_attention, draw_inputs(67, 131), draw_features(), padding(lengths, 131))


def test_padding_inside_a_sequence():
    mask = torch.rand(BATCH, 131) < 0.5
    assert_same(maclaurin_attention, draw_inputs(67, 131), draw_features(), mask)


def test_garbage_at_padding_is_inert():
    query, key, value = draw_inputs(67, 131)
    mask = padding((40, 100), 131)
    mask[1, 7] = True
    features = draw_features()
    out = maclaurin_attention(query, key, value, features, key_padding_mask=mask)
    rows = mask[:, None, :, None]
    dirty_key = key.detach().masked_fill(rows, float("nan")).requires_grad_()
    dirty_value = value.detach().masked_fill(rows, float("inf")).requires_grad_()
    dirty = maclaurin_attention(query, dirty_key, dirty_value, features, key_padding_mask=mask)
    assert_close(dirty, out, rtol=0, atol=0)
    for grad in torch.autograd.grad(dirty.sum(), (dirty_key, dirty_value)):
        assert torch.equal(grad.masked_select(rows), torch.zeros_like(grad.masked_select(rows)))


def test_fully_padded_example_gives_zeros():
    inputs = draw_inputs(67, 31)
    mask = padding((0, 31), 31)
    out = maclaurin_attention(*inputs, draw_features(), key_padding_mask=mask)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    for grad in torch.autograd.grad(out.sum(), inputs):
        assert torch.equal(grad[0], torch.zeros_like(grad[0]))
        assert grad.isfinite().all()


@pytest.mark.parametrize("sign", [1, -1])
def test_denominator_is_guarded_with_its_sign(sign):
    features = MaclaurinFeatures(
        signs=torch.ones(1, 1, 0),
        weights=torch.zeros(0),
        constant=torch.tensor(0.0),
        linear=1.0,
        widths=(),
    )
    query = torch.tensor(sign * 1e-9).reshape(1, 1, 1, 1).requires_grad_()
    key = torch.tensor([2.0, 1.0]).reshape(1, 1, 2, 1)
    value = torch.tensor([5.0, 4.0]).reshape(1, 1, 2, 1)
    out = maclaurin_attention(query, key, value, features)
    # (2 * 5 + 1 * 4) q over sign * 1e-6, whose own gradient is cut.
    assert_close(out, torch.full_like(out, 0.014), rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(out, query)
    assert_close(grad, torch.full_like(grad, sign * 1.4e7), rtol=1e-6, atol=0)


def test_non_contiguous_inputs():
    features = draw_features(HEADS)
    inputs = draw_inputs(67, 131)
    strided = tuple(
        x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs
    )
    assert not any(x.is_contiguous() for x in strided)
    assert_same(maclaurin_attention, strided, features)


def test_expanded_gradient():
    query, key, value = draw_inputs(33, 33)
    features = draw_features()
    out = maclaurin_attention(query, key, value, features)
    (grad,) = torch.autograd.grad(out.sum(), query)  # sum's gradient has strides of zero
    expected = attend(query, key, value, features)
    assert_close(grad, torch.autograd.grad(expected.sum(), query)[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("length", "visits"), [(31, {(2, 31), (1, 31)}), (131, {(1, 44), (1, 43)})], ids=str
)
def test_tiles(length, visits, monkeypatch):
    """Short examples share a tile between heads; long ones are cut."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    seen = set()
    features = Products.features

    def record(self, x, tile):
        seen.add(tuple(x.shape[:2]))
        return features(self, x, tile)

    monkeypatch.setattr(Products, "features", record)
    assert_same(maclaurin_attention, draw_inputs(length, length), draw_features())
    assert seen == visits


@pytest.mark.parametrize("heads", [1, HEADS], ids=["shared", "per_head"])
def test_short_examples_share_a_tile(heads, monkeypatch):
    """One that ends amid the heads of an example, too."""
    seen = set()
    features = Products.features

    def record(self, x, tile):
        seen.add(len(x))
        return features(self, x, tile)

    # up to nine rows of ten tokens; an example has three
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 99 * (sum(WIDTHS) + HEAD_DIM))
    monkeypatch.setattr(Products, "features", record)
    inputs = [torch.cat([x, x, x, x]).detach().requires_grad_() for x in draw_inputs(10, 10)]
    mask = padding((10, 3, 0, 1, 7, 10, 9, 2), 10)
    mask[6, 4] = True
    assert_same(maclaurin_attention, inputs, draw_features(heads), mask)
    assert seen == {8}


def test_no_tile_is_spent_on_trailing_padding(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    inputs = draw_inputs(1, 640)
    rows = []
    load = tiled.load_keys

    def record(key, value, padding, dtype):
        rows.append(len(key) * key.shape[1])
        return load(key, value, padding, dtype)

    monkeypatch.setattr(tiled, "load_keys", record)
    maclaurin_attention(*inputs, draw_features(), key_padding_mask=padding((70, 0), 640))
    assert sum(rows) == HEADS * 70


def test_without_keys_the_output_is_zero():
    for mask in (None, torch.zeros(BATCH, 0, dtype=torch.bool)):
        out = maclaurin_attention(*draw_inputs(3, 0), draw_features(), key_padding_mask=mask)
        assert_close(out, torch.zeros_like(out), rtol=0, atol=0)


def test_features_are_not_saved():
    inputs = draw_inputs(257, 257)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.shape) or x, lambda x: x
    ):
        maclaurin_attention(*inputs, draw_features())
    num_features = WIDTHS[0] + HEAD_DIM
    assert (BATCH, HEADS, VALUE_DIM + 1, num_features) in saved  # the state
    assert max(shape[-1] for shape in saved if 257 in shape) <= VALUE_DIM


def test_flops_by_hand():
    features = draw_features(widths=(3, 2), linear=0.0)
    query, key, value = draw_inputs(11, 13)
    projections = 2 * HEAD_DIM * 5  # multiplications and additions per token
    products_with_values = 2 * 3 * (VALUE_DIM + 1)
    forward = BATCH * HEADS * (11 + 13) * (projections + products_with_values)
    with FlopCounterMode(display=False) as counter:
        out = maclaurin_attention(query, key, value, features)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_entries_are_copied_on_the_way_back():
    laid_out = lay_out(draw_features())
    products = Products(laid_out.signs, laid_out.widths, True, laid_out.weights, laid_out.constant)
    x = torch.randn(HEADS, 10, HEAD_DIM)
    y, state = torch.randn(HEADS, 10, 2), torch.randn(HEADS, 2, laid_out.widths[0])
    with FlopCounterMode(display=False) as counter:
        (phi,), pull = products.pullback(x, (0, slice(0, HEADS), slice(0, 10)))
        assert torch.equal(phi[..., -HEAD_DIM:], x)
        pull(y, state)
    drawn = 2 * HEAD_DIM * sum(WIDTHS)  # projections and the gradient through them
    assert counter.get_total_flops() == 2 * HEADS * 10 * (drawn + 2 * laid_out.widths[0])


def test_a_second_level_that_multiplies_entries_is_refused():
    laid_out = lay_out(draw_features(widths=(3,)))
    features = laid_out._replace(widths=(4, 4))  # of 3 drawn features and 5 entries
    with pytest.raises(ValueError, match=r"widths \(4, 4\) leave no 5 features of degree 1"):
        maclaurin_attention(*draw_inputs(5, 6), features)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("linear", [0.0, 0.25])
def test_opcheck(masked, linear, monkeypatch):
    monkeypatch.undo()  # poisoned memory makes equal runs differ
    query, key, value = draw_inputs(5, 6, torch.float32)
    features = lay_out(draw_features(linear=linear))
    assert features.has_entries == bool(linear)
    mask = padding((3, 6), 6) if masked else None
    args = (query, key, value, features.signs, features.weights, features.constant)
    options = (list(features.widths), features.has_entries, mask, 1e-6)
    torch.library.opcheck(OPERATOR, (*args, *options))


def test_compiles_to_one_graph(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks are no graph code
    inputs = draw_inputs(67, 67, torch.float32)
    features = draw_features()
    compiled = torch.compile(maclaurin_attention, fullgraph=True, backend="aot_eager")
    grad = torch.randn_like(inputs[2])
    mask = padding((40, 67), 67)
    out = compiled(*inputs, features, key_padding_mask=mask)
    expected = maclaurin_attention(*inputs, features, key_padding_mask=mask)
    assert_close(out, expected)
    assert_close(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad)
    )
