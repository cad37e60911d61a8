"""Attention through features of single entries against the matrix of its weights."""

import math
from functools import partial

import pytest
import torch
from torch.nn.functional import elu
from torch.testing import assert_close

from macformer.ops import cosine_attention, elu_attention, relu_attention, tiling

BATCH, HEADS, HEAD_DIM, VALUE_DIM = 2, 3, 5, 7
SHIFT, HORIZON = 0.25, 200


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_NUMBERS", 64 * HEAD_DIM)


def elu_weights(query, key):
    return (elu(query) + 1) @ (elu(key) + 1).mT


def relu_weights(query, key):
    return (query.relu() + SHIFT) @ (key.relu() + SHIFT).mT


def cosine_weights(query, key):
    query_place, key_place = (torch.arange(x.shape[-2], dtype=x.dtype) for x in (query, key))
    distance = query_place[:, None] - key_place
    return query.relu() @ key.relu().mT * (distance * math.pi / (2 * HORIZON)).cos()


OPS = {
    "elu": (elu_attention, elu_weights),
    "relu": (partial(relu_attention, shift=SHIFT), relu_weights),
    "cosine": (partial(cosine_attention, horizon=HORIZON), cosine_weights),
}
PARAMETERS = {"elu": (), "relu": (SHIFT,), "cosine": (HORIZON,)}


def draw_inputs(query_len, key_len, dtype=torch.float64):
    shapes = [(query_len, HEAD_DIM), (key_len, HEAD_DIM), (key_len, VALUE_DIM)]
    inputs = [torch.randn(BATCH, HEADS, *shape, dtype=torch.float64) for shape in shapes]
    for x in inputs[:2]:
        x[..., 0].abs_().add_(0.1)  # keeps each sum of weights away from zero
    return [x.to(dtype).requires_grad_() for x in inputs]


def draw_mask(key_len):
    mask = torch.arange(key_len) >= torch.tensor([[key_len], [key_len - key_len // 3]])
    mask[0, 1] = True
    return mask


def attend(weigh, inputs, mask=None):
    query, key, value = inputs
    weights = weigh(query, key)
    if mask is not None:
        weights = weights.masked_fill(mask[:, None, None, :], 0)
    return weights @ value / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("lengths", [(1, 3), (10, 9), (31, 33), (131, 150)], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", OPS)
def test_output_and_gradients_are_those_of_the_weights(name, padded, lengths):
    """What stands in padding, NaN here, reaches nothing."""
    op, weigh = OPS[name]
    inputs = draw_inputs(*lengths)
    mask = draw_mask(lengths[1]) if padded else None
    expected = attend(weigh, inputs, mask)
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)
    if mask is not None:
        with torch.no_grad():
            for x in inputs[1:]:
                x.masked_fill_(mask[:, None, :, None], torch.nan)
    out = op(*inputs, key_padding_mask=mask)
    assert_close(out, expected)
    assert_close(torch.autograd.grad(out, inputs, grad), expected_grads)


@pytest.mark.parametrize("name", OPS)
def test_fully_padded_example_gives_zeros(name):
    inputs = draw_inputs(67, 31)
    mask = torch.tensor([True, False])[:, None].expand(BATCH, 31)
    out = OPS[name][0](*inputs, key_padding_mask=mask)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    for grad in torch.autograd.grad(out.sum(), inputs):
        assert torch.equal(grad[0], torch.zeros_like(grad[0])) and grad.isfinite().all()


@pytest.mark.parametrize("name", OPS)
def test_bfloat16_rounds_only_the_output(name):
    op, weigh = OPS[name]
    inputs = draw_inputs(67, 67, torch.bfloat16)
    exact = attend(weigh, [x.double() for x in inputs])
    half_ulp = torch.finfo(torch.bfloat16).eps / 2
    assert_close(op(*inputs).double(), exact, rtol=1.01 * half_ulp, atol=1e-5)


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name, monkeypatch):
    monkeypatch.undo()  # poisoned memory makes equal runs differ
    operator = getattr(torch.ops.macformer, f"{name}_attention").default
    inputs = draw_inputs(5, 6, torch.float32)
    torch.library.opcheck(operator, (*inputs, *PARAMETERS[name], draw_mask(6), 1e-6))
