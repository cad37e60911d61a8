"""Reformer against the count of rounds in which one token sees another."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from macformer.attention.blocks import Reformer, reformer

H, E, CHUNK = 3, 5, 3


def build(**options) -> Reformer:
    defaults = {
        "num_buckets": 4,
        "num_rounds": 2,
        "chunk_size": CHUNK,
        "logit_scale": 1.0,
        "pool_size": 3,
        "redraw": True,
    }
    return Reformer(num_heads=H, head_dim=E, **(defaults | options)).double().eval()


def counts(query, present, rotations, chunk_size):
    """Return in how many rounds each token sees each other one, token by token."""
    length = len(query)
    count = torch.zeros(length, length, dtype=query.dtype)
    places = [i for i in range(length) if present[i]]
    for rotation in rotations:
        projected = query @ rotation
        buckets = torch.cat([projected, -projected], -1).argmax(-1)
        order = sorted(places, key=lambda i: (int(buckets[i]), i))
        chunks = [order[t : t + chunk_size] for t in range(0, len(order), chunk_size)]
        for c, chunk in enumerate(chunks):
            seen = chunk if len(chunks) == 1 else chunk + chunks[c - 1]
            for i in chunk:
                for j in seen:
                    count[i, j] += i != j or len(order) == 1
    return count


def oracle_of(attention: Reformer, chunk_size=CHUNK):
    def oracle(query, key, value, present):
        outs = []
        for q, v, here in zip(query, value, present, strict=True):
            for head in range(H):
                rotations = attention.pool[0, :, head]
                count = counts(q[head].detach(), here, rotations, chunk_size)
                logits = attention.logit_scale * q[head] @ normalize(q[head], dim=-1).T
                weights = count * logits.exp()
                outs.append(weights @ v[head] / weights.sum(-1, keepdim=True).clamp(min=1e-30))
        return torch.stack(outs).view(*value.shape)

    return oracle


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, True),
        (2, True),
        (CHUNK, True),
        (CHUNK + 1, True),
        (2 * CHUNK, True),
        (4 * CHUNK + 1, True),
        (4 * CHUNK + 1, False),
    ],
)
def test_the_weights_are_counts_of_rounds(length, padded, hold_against_oracle):
    attention = build()
    hold_against_oracle(attention, oracle_of(attention), length, padded=padded, value_dim=E + 2)


def test_one_chunk_is_softmax_of_shared_vectors_without_oneself(dense, hold_against_oracle):
    def shared(query, key, value, present):
        allowed = present[:, None, None] & ~torch.eye(query.shape[2], dtype=torch.bool)
        return dense(query, E**0.5 * normalize(query, dim=-1), value, allowed)

    hold_against_oracle(build(chunk_size=13), shared, 13, padded=True)


def test_one_bucket_is_a_window_of_chunks_in_order(dense, hold_against_oracle):
    def near(query, key, value, present):
        chunk = torch.arange(12) // CHUNK
        before = (chunk - 1) % 4
        allowed = (chunk[:, None] == chunk) | (before[:, None] == chunk)
        allowed = allowed & ~torch.eye(12, dtype=torch.bool)
        return dense(query, E**0.5 * normalize(query, dim=-1), value, allowed)

    attention = build()
    attention.pool.zero_()
    hold_against_oracle(attention, near, 12, padded=False)


def test_the_key_is_not_used():
    query, key, value = torch.randn(3, 2, H, 7, E, dtype=torch.float64)
    attention = build()
    assert torch.equal(attention(query, key, value), attention(query, 7 * key, value))


def test_the_scale_sharpens():
    query, value = torch.randn(2, 1, H, 7, E, dtype=torch.float64)
    attention = build(logit_scale=5000.0, chunk_size=7)
    cosine = (query @ normalize(query, dim=-1).mT).masked_fill(torch.eye(7).bool(), -torch.inf)
    nearest = value.take_along_dim(cosine.argmax(-1)[..., None], 2)
    assert_close(attention(query, query, value), nearest, rtol=0, atol=1e-6)


def test_training_walks_through_the_pool_and_evaluation_stays():
    query, key, value = torch.randn(3, 2, H, 13, E, dtype=torch.float64)
    attention = build()
    still = attention(query, key, value)
    attention.train()
    walk = [attention(query, key, value) for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(walk[:3], walk[3:], strict=True))
    assert torch.equal(walk[2], still) and not torch.equal(walk[0], still)
    assert torch.equal(attention.eval()(query, key, value), still)
    staying = build(redraw=False).train()
    assert torch.equal(staying(query, key, value), staying(query, key, value))


@pytest.mark.parametrize("fault", ["reshape without transpose", "wrap to padding", "sees itself"])
def test_the_oracle_tells_a_published_fault(fault, monkeypatch, hold_against_oracle):
    attention = build()
    oracle, faulty = oracle_of(attention), attention
    if fault == "reshape without transpose":

        def faulty(*inputs, **options):
            out = attention(*inputs, **options)
            batch, heads, length, dim = out.shape
            return out.reshape(batch, length, heads, dim).transpose(1, 2)

    elif fault == "wrap to padding":
        monkeypatch.setattr(reformer._ChunksAndBefore, "_before", lambda _, own: own.roll(1, 1))
    else:
        nothing = torch.zeros(CHUNK, CHUNK, dtype=torch.bool)
        monkeypatch.setattr(attention, "_itself", lambda device: nothing)
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(faulty, oracle, 18, padded=True)


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        build(num_buckets=3)
    query, key = torch.randn(1, H, 5, E), torch.randn(1, H, 6, E)
    with pytest.raises(ValueError, match="5 and 6"):
        build()(query, key, key)


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_moves_no_token_to_another_bucket(autocast):
    """Queries are rounded before they come; projections are not, and buckets have sharp edges."""
    attention, present = build().float(), torch.ones(2, 300, dtype=torch.bool)
    query = torch.randn(2, H, 300, E).bfloat16()
    expected = attention._sort(query.float(), present)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert torch.equal(attention._sort(query, present), expected)
