"""Local attention, Longformer and Sparse Transformer against their definitions as dense masks."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from macformer.attention.blocks import (
    FixedSparseAttention,
    LocalAttention,
    Longformer,
    StridedSparseAttention,
    local,
    longformer,
)

H, E = 3, 5
BLOCK = 4


def build(factory, **options):
    return factory(num_heads=H, head_dim=E, **options)


def local_pattern(i, j, *, block_size, num_global=0):
    return (i // block_size == j // block_size) | (i < num_global) | (j < num_global)


def longformer_pattern(i, j, *, window, num_global=0):
    near = (j - i > window // 2 - window) & (j - i <= window // 2)
    return near | (i < num_global) | (j < num_global)


def fixed_pattern(i, j, *, block_size, num_first, num_last, causal):
    own = i // block_size == j // block_size
    place = j % block_size
    seen = own | (place < num_first) | (place >= block_size - num_last)
    return seen & (j <= i) if causal else seen


def strided_pattern(i, j, *, block_size, causal):
    seen = ((i - j).abs() < block_size) | ((i - j) % block_size == 0)
    return seen & (j <= i) if causal else seen


FIXED = {"block_size": BLOCK, "num_first": 1, "num_last": 1}
CASES = {
    "local": (LocalAttention, local_pattern, {"block_size": BLOCK, "num_global": 0}),
    "local, 2 global": (LocalAttention, local_pattern, {"block_size": BLOCK, "num_global": 2}),
    "longformer": (Longformer, longformer_pattern, {"window": 2 * BLOCK, "num_global": 0}),
    "longformer, odd": (Longformer, longformer_pattern, {"window": 2 * BLOCK + 1, "num_global": 0}),
    "longformer, 2 global": (Longformer, longformer_pattern, {"window": 6, "num_global": 2}),
    "longformer, narrow": (Longformer, longformer_pattern, {"window": 2, "num_global": 1}),
    "fixed": (FixedSparseAttention, fixed_pattern, FIXED | {"causal": False}),
    "fixed, causal": (FixedSparseAttention, fixed_pattern, FIXED | {"causal": True}),
    "fixed, last only": (
        FixedSparseAttention,
        fixed_pattern,
        {"block_size": BLOCK, "num_first": 0, "num_last": 2, "causal": True},
    ),
    "strided": (StridedSparseAttention, strided_pattern, {"block_size": BLOCK, "causal": False}),
    "strided, causal": (
        StridedSparseAttention,
        strided_pattern,
        {"block_size": BLOCK, "causal": True},
    ),
}


@pytest.fixture
def masked(dense):
    """Return the oracle of a pattern."""

    def oracle(pattern, query, key, value, present):
        i, j = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
        return dense(query, key, value, pattern(i, j) & present[:, None, None])

    return lambda pattern, **options: partial(oracle, partial(pattern, **options))


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, True),
        (BLOCK - 1, True),
        (BLOCK, True),
        (BLOCK + 1, True),
        (2 * BLOCK, True),
        (3 * BLOCK + 1, True),
        (3 * BLOCK + 1, False),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_a_pattern_is_its_dense_mask(name, length, padded, masked, hold_against_oracle):
    factory, pattern, options = CASES[name]
    oracle = masked(pattern, **options)
    hold_against_oracle(build(factory, **options), oracle, length, padded=padded)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, 13), (14, 7)])
@pytest.mark.parametrize("name", CASES)
def test_queries_and_keys_may_differ_in_number(
    name, num_queries, num_keys, masked, hold_against_oracle
):
    factory, pattern, options = CASES[name]
    attention, oracle = build(factory, **options), masked(pattern, **options)
    hold_against_oracle(attention, oracle, num_queries, num_keys, padded=True, value_dim=E + 2)


LIMITS = {
    "one block": (LocalAttention, {"block_size": 13, "num_global": 0}),
    "all local tokens global": (LocalAttention, {"block_size": 2, "num_global": 13}),
    "a window past the row": (Longformer, {"window": 26, "num_global": 0}),
    "all tokens global": (Longformer, {"window": 2, "num_global": 13}),
    "one sparse block": (FixedSparseAttention, FIXED | {"block_size": 13, "causal": False}),
    "all columns summaries": (
        FixedSparseAttention,
        {"block_size": 3, "num_first": 1, "num_last": 2, "causal": False},
    ),
    "a stride past the row": (StridedSparseAttention, {"block_size": 13, "causal": False}),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_limit_is_softmax(limit, padded, softmax, hold_against_oracle):
    factory, options = LIMITS[limit]
    hold_against_oracle(build(factory, **options), softmax, 13, padded=padded)


@pytest.mark.parametrize("name", CASES)
def test_a_token_reaches_where_the_pattern_says_and_nowhere_else(name):
    factory, pattern, options = CASES[name]
    attention, inputs = build(factory, **options), torch.randn(3, 1, H, 13, E)
    out = attention(*inputs)
    for j in range(13):
        moved = inputs.clone()
        moved[1:, :, :, j] += 1
        changed = (attention(*moved) - out).abs().amax((0, 1, 3)) > 1e-6
        reached = pattern(torch.arange(13)[:, None], torch.tensor([j]), **options)[:, 0]
        assert torch.equal(changed, reached), f"token {j}"


def test_cls_is_blind_beyond_its_block_unless_it_is_global():
    inputs = torch.randn(3, 1, H, 13, E)
    moved = inputs.clone()
    moved[1:, :, :, BLOCK:] += 1
    for num_global in (0, 1):
        attention = build(LocalAttention, block_size=BLOCK, num_global=num_global)
        change = (attention(*moved) - attention(*inputs))[:, :, 0].abs().max()
        assert (change > 1e-3) == bool(num_global)


def test_the_oracle_tells_strided_groups_from_blocks(masked, hold_against_oracle):
    """A group of every so many-th token, as by reshaping to (block, num_blocks)."""

    def strided(query, key, value, *, key_padding_mask):
        order = torch.arange(12).view(BLOCK, 3).T.flatten()
        rows = [x[:, :, order] for x in (query, key, value)]
        attention = build(LocalAttention, block_size=BLOCK, num_global=0)
        return attention(*rows)[:, :, order.argsort()]

    oracle = masked(local_pattern, block_size=BLOCK)
    hold_against_oracle(
        build(LocalAttention, block_size=BLOCK, num_global=0), oracle, 12, padded=False
    )
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(strided, oracle, 12, padded=False)


def test_the_oracle_tells_rounding_that_counts_as_keys(monkeypatch, masked, hold_against_oracle):
    monkeypatch.setattr(
        local, "present_in_windows", lambda *args, **kwargs: torch.ones(2, 4, 1, BLOCK).bool()
    )
    attention = build(LocalAttention, block_size=BLOCK, num_global=0)
    oracle = masked(local_pattern, block_size=BLOCK)
    hold_against_oracle(attention, oracle, 16, padded=False)
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(attention, oracle, 13, padded=False)


def test_the_oracle_tells_global_tokens_that_count_twice(monkeypatch, masked, hold_against_oracle):
    band_parts = longformer.band_parts

    def with_global_tokens(query, key, *, allowed, **options):
        return band_parts(query, key, allowed=torch.ones_like(allowed), **options)

    monkeypatch.setattr(longformer, "band_parts", with_global_tokens)
    attention = build(Longformer, window=6, num_global=2)
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(
            attention, masked(longformer_pattern, window=6, num_global=2), 13, padded=False
        )


def test_the_oracle_tells_a_causal_encoder(masked, hold_against_oracle):
    oracle = masked(fixed_pattern, **FIXED, causal=False)
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(
            build(FixedSparseAttention, **FIXED, causal=True), oracle, 13, padded=False
        )


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (Longformer, {"window": 1, "num_global": 0}, "got 1"),
        (StridedSparseAttention, {"block_size": 1, "causal": False}, "got 1"),
        (FixedSparseAttention, FIXED | {"num_first": 0, "num_last": 0, "causal": False}, "1 to"),
        (FixedSparseAttention, FIXED | {"num_last": BLOCK, "causal": False}, "num_last 4"),
    ],
)
def test_an_impossible_size_is_refused(factory, options, message):
    with pytest.raises(ValueError, match=message):
        build(factory, **options)


def test_the_causal_form_keeps_float16_finite():
    """The mask's lowest logit must survive the narrowest type."""
    query, key, value = torch.randn(3, 1, H, 9, E, dtype=torch.float16)
    mask = torch.arange(9)[None] >= 6
    attention = build(FixedSparseAttention, **FIXED, causal=True)
    out = attention(query, key, value, key_padding_mask=mask)
    wide = attention(query.double(), key.double(), value.double(), key_padding_mask=mask)
    assert_close(out[:, :, :6].double(), wide[:, :, :6], rtol=0, atol=2e-3)
