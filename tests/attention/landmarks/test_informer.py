"""Informer against its definition, and its two measures."""

import math

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import (
    AllKeys,
    Informer,
    SampledKeys,
    SoftmaxAttention,
    UniformAttention,
)
from macformer.attention.landmarks import informer
from macformer.attention.landmarks.informer import quotas

SHAPES = {"num_heads": 2, "head_dim": 5}
MEASURES = {"all": AllKeys, "sampled": SampledKeys}


def build(measure=AllKeys, num_queries: int = 3, max_seq_len: int = 17) -> Informer:
    """At 17 positions c is 2, so that 6 of 13 queries attend."""
    return Informer(
        **SHAPES, max_seq_len=max_seq_len, num_queries=num_queries, measure=measure
    ).double()


def quota(count: int) -> int:
    return min(count, 2 * math.ceil(math.log(count)))


def scores_of(attention: Informer, query, key):
    """Return the scores that the measure is to see: all, or those of each query's draws."""
    scores = query @ key.mT
    if isinstance(attention.measure, AllKeys):
        return scores
    drawn = attention.measure.fractions[: query.shape[1], : quota(key.shape[1])] * key.shape[1]
    return scores.gather(2, drawn.long().expand(len(scores), -1, -1))


def definition(attention: Informer):
    def attend(query, key, value, positions):
        scores = scores_of(attention, query, key)
        out = value.mean(1, keepdim=True).repeat(1, query.shape[1], 1)
        if scores.shape[-1]:
            measure = scores.amax(-1) - scores.mean(-1)
            weights = (query @ key.mT / math.sqrt(5)).softmax(-1)
            for head in range(len(out)):
                for i in measure[head].argsort(descending=True)[: quota(query.shape[1])]:
                    out[head, i] = weights[head, i] @ value[head]
        return out

    return attend


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_output_is_that_of_the_definition(agree, padding, measure, length):
    attention = build(MEASURES[measure])
    agree(attention, definition(attention), padding(length), **SHAPES, length=length)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("num_queries", "length"), [(13, 11), (11, 13)])
def test_queries_may_be_others_than_keys(agree, padding, measure, num_queries, length):
    attention, mask = build(MEASURES[measure]), padding(length)
    oracle = definition(attention)
    agree(attention, oracle, mask, **SHAPES, length=length, num_queries=num_queries)


@pytest.mark.parametrize("measure", MEASURES)
def test_chunks_of_queries_change_nothing(agree, padding_between, monkeypatch, measure):
    monkeypatch.setattr(informer, "CHUNK", 65)
    attention = build(MEASURES[measure])
    agree(attention, definition(attention), padding_between(13), **SHAPES, length=13)


def test_one_example_with_one_head_is_no_exception():
    inputs = torch.randn(3, 1, 1, 13, 5, dtype=torch.float64)
    attention = build()
    expected = definition(attention)(*(x[0] for x in inputs), None)
    assert_close(attention(*inputs)[0], expected)


def test_all_queries_give_softmax_attention_and_none_give_the_mean(padding):
    inputs = torch.randn(3, 3, 2, 13, 5, dtype=torch.float64)
    mask = padding(13)
    present = slice(None) if mask is None else ~mask
    for num_queries, exact in (
        (17, SoftmaxAttention(**SHAPES, dropout=0.0)),
        (0, UniformAttention(**SHAPES)),
    ):
        out = build(num_queries=num_queries)(*inputs, key_padding_mask=mask)
        expected = exact(*inputs, key_padding_mask=mask)
        assert_close(out.transpose(1, 2)[present], expected.transpose(1, 2)[present])


@pytest.mark.parametrize(
    ("num_tokens", "expected"), [(2000, 136), (2048, 136), (4000, 144), (4096, 144), (1024, 133)]
)
def test_about_as_many_queries_attend_as_in_skyformers_code(num_tokens, expected):
    """Its five tasks have c of 17, 16, 16, 19 and 19."""
    attention = build(num_queries=128, max_seq_len=num_tokens)
    assert quotas(torch.tensor([num_tokens]), attention.factor).item() == expected


def test_quotas_are_exact_integers_around_powers_of_e():
    count = torch.arange(0, 5000)
    expected = [0, *(min(n, 7 * math.ceil(math.log(n))) for n in range(1, 5000))]
    assert quotas(count, 7).tolist() == expected


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("num_queries", [0, 3])
def test_where_no_query_attends_there_is_the_mean(measure, num_queries):
    """Among one query, whose logarithm is 0, and where none is asked for."""
    longest = 17 if num_queries == 0 else 1
    attention = build(MEASURES[measure], num_queries=num_queries, max_seq_len=longest)
    inputs = [x.requires_grad_() for x in torch.randn(3, 2, 2, longest, 5, dtype=torch.float64)]
    out = attention(*inputs)
    assert_close(out, inputs[2].mean(2, keepdim=True).expand_as(out))
    out.sum().backward()
    assert_close(inputs[2].grad, torch.full_like(out, 1.0))


def test_samples_are_saved_and_never_drawn_again():
    saved, other = build(SampledKeys), build(SampledKeys)
    inputs = torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    out = saved.eval()(*inputs)
    assert torch.equal(saved.train()(*inputs), out)
    assert not torch.equal(other(*inputs), out)
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(*inputs), out)


class SumOverAllKeys(SampledKeys):
    """Divide the sum over the sample by the number of all keys."""

    def forward(self, query, key, *, queries, keys):
        scale = keys.sum(1)[:, None, None] / quotas(keys.sum(1), self.factor)[:, None, None]
        count = keys.sum(1)[:, None, None]
        drawn = (self.fractions[queries.cumsum(1) - 1] * count).long()[:, None]
        scores = (query @ key.mT).gather(-1, drawn.expand(-1, 2, -1, -1))
        return scores.amax(-1) - scores.mean(-1) / scale


def ignored(x, padding_mask):
    return torch.ones(x.shape[0], x.shape[2], dtype=torch.bool)


def test_the_definition_tells_a_mean_over_another_number(agree):
    attention = build(SumOverAllKeys)
    with pytest.raises(AssertionError, match="not close"):
        agree(attention, definition(attention), None, **SHAPES, length=13)


def test_the_definition_tells_an_ignored_mask(agree, padding_between, monkeypatch):
    attention, mask = build(), padding_between(13)
    agree(attention, definition(attention), mask, **SHAPES, length=13)
    monkeypatch.setattr(informer, "mark_present", ignored)
    with pytest.raises(AssertionError, match="not close"):
        agree(attention, definition(attention), mask, **SHAPES, length=13)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_measure_is_not_rounded_under_autocast(measure):
    """Rounded to eight bits, many queries would be equal, and others would attend."""
    attention = build(MEASURES[measure], num_queries=128, max_seq_len=512).float()
    inputs = [torch.randn(2, 2, 512, 5).bfloat16() for _ in range(3)]
    expected = attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention(*inputs), expected)


def test_no_padding_is_drawn_where_a_fraction_rounds_to_one():
    """0.9999 of 5 keys is the last of them; bfloat16 makes 1 of it, and a key behind them."""
    measure = SampledKeys(max_seq_len=8, factor=2).bfloat16()
    query, key = (torch.randn(1, 1, 8, 4) for _ in range(2))
    keys = torch.arange(8)[None] < 5
    found = []
    for fraction in (0.9, 0.9999):
        measure.fractions.zero_()
        measure.fractions[:, 0] = fraction
        found.append(measure(query, key, queries=keys, keys=keys))
    assert torch.equal(*found)
