"""Nystromformer against its formula on each example's present tokens."""

import math

import pytest
import torch
from torch.nn.functional import conv1d
from torch.testing import assert_close

from macformer.attention import Nystromformer, SoftmaxAttention
from macformer.attention.landmarks import nystromformer
from macformer.measuring import count_flops

SHAPES = {"num_heads": 2, "head_dim": 5}


def build(**changes) -> Nystromformer:
    options = {"num_landmarks": 4, "num_steps": 6, "conv_kernel": None}
    return Nystromformer(**SHAPES, **(options | changes)).double()


def weights(query, key):
    return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)


def means(x, num_segments):
    """Average the tokens whose rank times M over n rounds down to one number."""
    count = x.shape[1]
    ids = [rank * num_segments // count for rank in range(count)]
    return torch.stack(
        [x[:, [r for r in range(count) if ids[r] == i]].mean(1) for i in sorted(set(ids))], dim=1
    )


def approach_inverse(a, num_steps):
    """Third-order iteration, started for each head by itself."""
    eye = torch.eye(a.shape[-2], dtype=a.dtype)
    rows, columns = a.abs().sum(-1).amax(-1), a.abs().sum(-2).amax(-1)
    z = a.mT / (rows * columns)[:, None, None]
    for _ in range(num_steps):
        az = a @ z
        z = z @ (13 * eye - 15 * az + 7 * az @ az - az @ az @ az) / 4
    return z


def formula(query, key, value, positions):
    mean_q, mean_k = means(query, 4), means(key, 4)
    inverse = approach_inverse(weights(mean_q, mean_k), num_steps=6)
    return weights(query, mean_k) @ inverse @ weights(mean_q, key) @ value


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 13])
def test_output_is_that_of_the_formula(agree, padding, length):
    agree(build(), formula, padding(length), **SHAPES, length=length)


@pytest.mark.parametrize(("num_queries", "length"), [(11, 13), (3, 13), (13, 3), (2, 3)])
def test_queries_may_be_others_than_keys(agree, padding, num_queries, length):
    """With fewer of either than landmarks their matrix is not square."""
    mask = padding(length)
    agree(build(), formula, mask, **SHAPES, length=length, num_queries=num_queries)


def test_all_tokens_as_landmarks_and_enough_steps_give_softmax_attention():
    inputs = torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    exact = SoftmaxAttention(**SHAPES, dropout=0.0)(*inputs)
    outs = [build(num_landmarks=13, num_steps=steps)(*inputs) for steps in (6, 12, 25)]
    errors = [((out - exact).norm() / exact.norm()).item() for out in outs]
    assert errors[0] > 1e-3 > errors[1] and errors[2] < 1e-7


def test_a_short_row_has_the_landmarks_of_its_tokens():
    """More landmarks than tokens change nothing, however far the row is padded."""
    inputs = torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    out = build(num_landmarks=13)(*inputs)
    assert_close(build(num_landmarks=32)(*inputs), out)
    padded = [torch.nn.functional.pad(x, (0, 0, 0, 40), value=torch.nan) for x in inputs]
    mask = (torch.arange(53) >= 13).expand(2, -1)
    assert_close(build(num_landmarks=32)(*padded, key_padding_mask=mask)[:, :, :13], out)


def test_a_short_row_pays_for_the_landmarks_of_its_tokens_only():
    inputs = torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    few, many = (build(num_landmarks=m) for m in (13, 32))
    assert count_flops(lambda: many(*inputs)) == count_flops(lambda: few(*inputs))
    sizes = {"seq_len": 13, "head_dim": 5, "value_dim": 5}
    assert many.state_size(**sizes) == few.state_size(**sizes)


@pytest.mark.parametrize("length", [1, 4, 13])
def test_the_convolution_adds_a_filter_of_the_values_over_positions(agree, padding, length):
    attention = build(conv_kernel=3)
    filters = attention.conv.weight[:, 0, :, 0].detach()  # of each head

    def convolved(query, key, value, positions):
        full = value.new_zeros(2, length, 5)
        full[:, positions] = value
        rows = full.mT.reshape(2 * 5, 1, length)
        filtered = [
            conv1d(row, taps.view(1, 1, 3), padding=1)
            for row, taps in zip(rows.split(5), filters, strict=True)
        ]
        local = torch.cat(filtered).view(2, 5, length).mT
        return formula(query, key, value, positions) + local[:, positions]

    agree(attention, convolved, padding(length), **SHAPES, length=length)


def test_the_convolution_makes_positions_matter():
    assert not build().positional and not build().self_attention_only
    assert build(conv_kernel=3).positional and build(conv_kernel=3).self_attention_only


def test_an_even_filter_is_refused():
    with pytest.raises(ValueError, match="conv_kernel 4 is even"):
        build(conv_kernel=4)


def means_over_padding(x, *, num_segments, padding_mask=None):
    """Segments of positions, with zeros at padding."""
    full = x.new_zeros(*x.shape[:2], -(-x.shape[2] // num_segments) * num_segments, x.shape[-1])
    full[:, :, : x.shape[2]] = x
    mean = full.unflatten(2, (num_segments, -1)).mean(3)
    return mean, torch.zeros(len(x), num_segments, dtype=torch.bool)


def start_of_the_batch(matrix, value, *, num_steps):
    z = matrix.mT / matrix.sum(-2).max()
    for _ in range(num_steps):
        az = matrix @ z
        eye = torch.eye(az.shape[-1], dtype=az.dtype)
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z @ value


@pytest.mark.parametrize(
    ("name", "fault"),
    [("segment_means", means_over_padding), ("iterated_solve", start_of_the_batch)],
)
def test_the_formula_tells_a_published_fault(agree, padding_between, monkeypatch, name, fault):
    mask = padding_between(12)
    agree(build(), formula, mask, **SHAPES, length=12)
    monkeypatch.setattr(nystromformer, name, fault)
    with pytest.raises(AssertionError, match="not close"):
        agree(build(), formula, mask, **SHAPES, length=12)
