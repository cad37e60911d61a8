"""Linformer against its formula, and its three projections."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.attention import (
    FixedProjection,
    LearntProjection,
    Linformer,
    SegmentMeans,
    SoftmaxAttention,
)
from macformer.attention.landmarks import linformer

SHAPES = {"num_heads": 2, "head_dim": 5}
WEIGHTED = {"fixed": FixedProjection, "learnt": LearntProjection}


def build(projection, **options) -> Linformer:
    project = partial(projection, **options)
    return Linformer(**SHAPES, max_seq_len=17, num_slots=4, project=project).double()


def softmax_attention(query, key, value):
    return (query @ key.mT / math.sqrt(5)).softmax(-1) @ value


def formula(attention: Linformer):
    """Columns of the projection are the keys' positions; each head has its own."""

    def attend(query, key, value, positions):
        columns = attention.project.weight.detach()[..., positions]
        return softmax_attention(query, columns @ key, columns @ value)

    return attend


def means(query, key, value, positions):
    """The formula with the means of four runs, or with the tokens where there are fewer."""
    count = key.shape[1]
    ids = torch.arange(count) * 4 // count
    rows = torch.stack([(ids == i).double() / (ids == i).sum() for i in ids.unique()])
    return softmax_attention(query, rows @ key, rows @ value)


@pytest.mark.parametrize("projection", WEIGHTED)
@pytest.mark.parametrize("length", [1, 3, 4, 5, 13])
def test_output_is_that_of_the_formula(agree, padding, projection, length):
    attention = build(WEIGHTED[projection], std=0.5)
    agree(attention, formula(attention), padding(length), **SHAPES, length=length)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 13])
def test_segment_means_are_those_of_the_present_tokens(agree, padding, length):
    agree(build(SegmentMeans), means, padding(length), **SHAPES, length=length)


@pytest.mark.parametrize("projection", WEIGHTED)
def test_queries_may_be_others_than_keys(agree, padding, projection):
    attention = build(WEIGHTED[projection], std=0.5)
    agree(attention, formula(attention), padding(13), **SHAPES, length=13, num_queries=11)


def test_the_identity_gives_softmax_attention():
    inputs = torch.randn(3, 2, 2, 4, 5, dtype=torch.float64)
    attention = build(LearntProjection, std=0.5)
    nn.init.zeros_(attention.project.weight)
    attention.project.weight.data[..., :4] = torch.eye(4)
    assert_close(attention(*inputs), SoftmaxAttention(**SHAPES, dropout=0.0)(*inputs))
    assert_close(build(SegmentMeans)(*inputs), SoftmaxAttention(**SHAPES, dropout=0.0)(*inputs))


def test_only_weights_make_positions_matter():
    assert build(FixedProjection, std=0.5).positional
    assert build(LearntProjection, std=0.5).positional
    assert not build(SegmentMeans).positional


@pytest.mark.parametrize("length", [1, 3, 4, 13])
def test_a_slot_that_stays_empty_is_not_kept(length):
    attention = build(SegmentMeans)
    _, is_empty = attention.project(torch.randn(1, 2, length, 5), None)
    size = attention.state_size(seq_len=length, head_dim=5, value_dim=7)
    assert size == (~is_empty).sum() * (5 + 7)
    fixed = build(FixedProjection, std=0.5)
    assert fixed.state_size(seq_len=length, head_dim=5, value_dim=7) == 4 * (5 + 7)


def test_a_row_beyond_the_weights_is_refused():
    with pytest.raises(ValueError, match="18 tokens, but max_seq_len is 17"):
        build(FixedProjection, std=0.5)(*torch.randn(3, 1, 2, 18, 5, dtype=torch.float64))


def test_weights_have_the_standard_deviation_asked_for():
    weight = FixedProjection(num_heads=2, max_seq_len=1000, num_slots=16, std=0.02).weight
    assert abs(weight.std().item() / 0.02 - 1) < 5 / math.sqrt(2 * 32_000)


def assert_weights_are_saved(projection):
    saved, other = (build(projection, std=0.5) for _ in range(2))
    other.load_state_dict(saved.state_dict())
    inputs = torch.randn(3, 1, 2, 13, 5, dtype=torch.float64)
    assert torch.equal(other(*inputs), saved(*inputs))


def assert_weights_are_learnt(projection):
    attention = build(projection, std=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1)), *attention.parameters()], lr=0.1)
    before = attention.project.weight.detach().clone()
    attention(*torch.randn(3, 1, 2, 17, 5, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert (attention.project.weight != before).all()


class LostOnTheWay(LearntProjection):
    """A parameter that moves to another device, or type, becomes a plain tensor."""

    def __init__(self, **options):
        super().__init__(**options)
        weight = self.weight.double()
        del self.weight
        self.weight = weight


def test_the_fixed_projection_is_saved():
    assert_weights_are_saved(FixedProjection)
    assert not list(build(FixedProjection, std=0.5).parameters())


def test_the_learnt_projection_is_saved_and_learnt():
    assert_weights_are_saved(LearntProjection)
    assert_weights_are_learnt(LearntProjection)


@pytest.mark.parametrize("check", [assert_weights_are_saved, assert_weights_are_learnt])
def test_a_projection_that_is_lost_is_told(check):
    with pytest.raises(AssertionError):
        check(LostOnTheWay)


def test_the_formula_tells_a_projection_of_padding(agree, padding_between, monkeypatch):
    def leave_padding(query, key, value, key_padding_mask):
        return [x.nan_to_num(1.0) for x in (query, key, value)]

    attention = build(FixedProjection, std=0.5)
    monkeypatch.setattr(linformer, "blank_padding", leave_padding)
    with pytest.raises(AssertionError, match="not close"):
        agree(attention, formula(attention), padding_between(13), **SHAPES, length=13)
