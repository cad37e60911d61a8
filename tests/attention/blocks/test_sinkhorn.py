"""Sinkhorn attention against its sort written out block by block."""

import pytest
import torch
from torch.testing import assert_close

from macformer.attention.blocks import SinkhornAttention, sinkhorn

H, E, BLOCK = 3, 5, 3


def build(**options) -> SinkhornAttention:
    defaults = {
        "max_seq_len": 32,
        "block_size": BLOCK,
        "num_iterations": 8,
        "temperature": 0.75,
    }
    attention = SinkhornAttention(num_heads=H, head_dim=E, **(defaults | options))
    return attention.double().eval()


def oracle_of(attention: SinkhornAttention):
    b = attention.block_size

    def of_head(query, key, value, present):
        blocks = [slice(t, t + b) for t in range(0, len(query), b)]
        exist = [u for u, block in enumerate(blocks) if present[block].any()]
        if not exist:
            return 0 * value
        sums = torch.stack([key[blocks[u]].sum(0) for u in exist])
        matrix = (sums @ attention.sort[:, exist] / attention.temperature).exp()
        for _ in range(attention.num_iterations):
            matrix = matrix / matrix.sum(1, keepdim=True)
            matrix = matrix / matrix.sum(0, keepdim=True)
        out = torch.zeros_like(value)
        for u, block in enumerate(blocks):
            if u not in exist:
                continue
            keys, values = list(key[block][present[block]]), list(value[block][present[block]])
            for t in range(b):
                rows = [
                    (matrix[exist.index(u), n], w * b + t)
                    for n, w in enumerate(exist)
                    if w * b + t < len(key) and present[w * b + t]
                ]
                if rows:
                    keys.append(sum(share * key[j] for share, j in rows))
                    values.append(sum(share * value[j] for share, j in rows))
            weights = (query[block] @ torch.stack(keys).T / E**0.5).softmax(-1)
            out[block] = weights @ torch.stack(values)
        return out

    return of_head


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
def test_the_sort_written_out(length, padded, hold_heads_against_oracle):
    attention = build()
    hold_heads_against_oracle(
        attention, oracle_of(attention), length, padded=padded, value_dim=E + 2
    )


def test_one_block_is_softmax(padded, softmax, hold_against_oracle):
    """Each key stands there twice."""
    hold_against_oracle(build(block_size=13), softmax, 13, padded=padded)


def permuted(attention, monkeypatch, order):
    matrix = torch.eye(len(order), dtype=torch.float64)[order].expand(2, H, -1, -1)
    monkeypatch.setattr(attention, "_normalise", lambda logits, exists: matrix)


def test_a_permutation_pairs_each_block_with_another(monkeypatch, dense, hold_against_oracle):
    attention, order = build(), [2, 0, 3, 1]
    permuted(attention, monkeypatch, order)

    def pairs(query, key, value, present):
        block = torch.arange(12) // BLOCK
        other = torch.tensor(order)[block]
        allowed = (block[:, None] == block) | (other[:, None] == block)
        return dense(query, key, value, allowed)

    hold_against_oracle(attention, pairs, 12, padded=False)


def test_no_permutation_is_local_attention(monkeypatch, dense, hold_against_oracle):
    attention = build()
    permuted(attention, monkeypatch, [0, 1, 2, 3])

    def local(query, key, value, present):
        block = torch.arange(12) // BLOCK
        return dense(query, key, value, block[:, None] == block)

    hold_against_oracle(attention, local, 12, padded=False)


def test_rows_and_columns_sum_to_one_over_the_blocks_that_exist():
    attention = build(num_iterations=200)
    exists = torch.tensor([[[True, True, False, True]]])
    order = attention._normalise(torch.randn(1, H, 4, 4, dtype=torch.float64), exists)
    for dim in (-1, -2):
        assert_close(order.sum(dim), exists.double().expand(1, H, 4))


def test_noise_is_trainings_alone():
    inputs = torch.randn(3, 2, H, 12, E, dtype=torch.float64)
    attention = build()
    assert torch.equal(attention(*inputs), attention(*inputs))
    attention.train()
    assert not torch.equal(attention(*inputs), attention(*inputs))
    attention.temperature = 1e9  # the logits and their noise are divided by it
    assert_close(attention(*inputs), attention.eval()(*inputs))


def test_the_sort_learns():
    attention = build()
    attention(*torch.randn(3, 2, H, 12, E, dtype=torch.float64)).square().sum().backward()
    assert (attention.sort.grad[:, :4].abs() > 0).all()
    assert (attention.sort.grad[:, 4:] == 0).all()


@pytest.mark.parametrize("fault", ["sums apart", "sum of two softmaxes", "keys as values"])
def test_the_oracle_tells_a_published_fault(fault, monkeypatch, hold_heads_against_oracle):
    attention = build()
    if fault == "sums apart":  # an index of the product that only one factor has
        monkeypatch.setattr(
            sinkhorn,
            "_mix",
            lambda order, x: (
                order.sum(-1).transpose(1, 2)[..., None, None] * x.sum(1, keepdim=True)
            ),
        )
    elif fault == "sum of two softmaxes":
        attend = sinkhorn.block_attention

        def twice(query, key, value, *, valid):
            halves = [x.chunk(2, 3) for x in (key, value, valid)]
            return sum(attend(query, k, v, valid=here) for k, v, here in zip(*halves, strict=True))

        monkeypatch.setattr(sinkhorn, "block_attention", twice)
    else:
        mix, mixed = sinkhorn._mix, []

        def keys_as_values(order, x):
            mixed.append(mix(order, x))
            return mixed[0]

        monkeypatch.setattr(sinkhorn, "_mix", keys_as_values)
    with pytest.raises(AssertionError, match="not close"):
        hold_heads_against_oracle(attention, oracle_of(attention), 12, padded=False)


def test_what_cannot_be_sorted_is_refused():
    with pytest.raises(ValueError, match="11 blocks, at most 3"):
        build(max_seq_len=9)(*torch.randn(3, 1, H, 32, E, dtype=torch.float64))
    query, key = torch.randn(1, H, 5, E), torch.randn(1, H, 6, E)
    with pytest.raises(ValueError, match="5 and 6"):
        build()(query, key, key)


def test_the_order_is_not_rounded_under_autocast():
    attention = build().float()
    inputs = [torch.randn(2, H, 24, E).bfloat16() for _ in range(3)]
    expected = attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention(*inputs), expected)
