"""Gaussian attention against its definition, and what divides it from softmax attention."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import GaussianAttention

SHAPES = {"num_heads": 2, "head_dim": 5}


def gaussian(query, key, value, positions):
    return torch.exp(-torch.cdist(query, key).square() / (2 * math.sqrt(5))) @ value


def attention(dropout: float = 0.0):
    return GaussianAttention(**SHAPES, dropout=dropout)


@pytest.mark.parametrize("length", [1, 2, 13])
def test_weights_are_those_of_the_definition(agree, padding, length):
    agree(attention(), gaussian, padding(length), **SHAPES, length=length)


def test_queries_may_be_others_than_keys(agree, padding):
    agree(attention(), gaussian, padding(13), **SHAPES, length=13, num_queries=11)


@pytest.mark.parametrize("scale", [0.0, 10.0], ids=["on one point", "far apart"])
def test_points_may_coincide_or_have_no_neighbours(agree, padding, scale):
    agree(attention(), gaussian, padding(13), **SHAPES, length=13, scale=scale)


def test_it_is_softmax_with_a_bias_once_divided_by_its_sums():
    """Values of one give the sums."""
    query, key, value = torch.randn(3, 1, 2, 13, 5, dtype=torch.float64)
    attend = partial(attention(), query, key)
    bias = -key.square().sum(-1)[..., None, :] / (2 * math.sqrt(5))
    weights = (query @ key.mT / math.sqrt(5) + bias).softmax(-1)
    assert_close(attend(value) / attend(torch.ones_like(value)), weights @ value)


def test_float32_is_as_exact_as_a_sum_of_that_many_terms():
    """2,048 tokens; the sum of the weights is a thousand times the output's rounding."""
    query, key, value = torch.randn(3, 1, 1, 2048, 32, dtype=torch.float64)
    exact = attention()(query, key, value)
    out = attention()(query.float(), key.float(), value.float())
    assert out.dtype == torch.float32
    assert (out - exact).abs().max() < 1e-5 * exact.abs().max()


def test_half_precision_rounds_inputs_and_outputs_alone():
    inputs = torch.randn(3, 1, 1, 64, 32).bfloat16()
    out, exact = attention()(*inputs), attention()(*inputs.float())
    assert out.dtype == torch.bfloat16
    assert_close(out, exact.bfloat16())


def test_weights_are_dropped_in_training_alone():
    """A value at the query's own place has weight one: it is dropped, or counts 1 / (1 - 0.75)."""
    query = 100 * torch.arange(1000.0).view(1, 1, -1, 1)
    dropping, value = attention(dropout=0.75), torch.ones(1, 1, 1000, 1)
    out = dropping(query, query, value)
    assert_close(out.unique(), torch.tensor([0.0, 4.0]))
    assert abs(out.mean().item() - 1) < 5 * math.sqrt(3 / 1000)  # variance 4 - 1
    assert_close(dropping.eval()(query, query, value), value)
