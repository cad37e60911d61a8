"""BigBird against the union of its blocks as a dense mask."""

import pytest
import torch

from macformer.attention.blocks import BigBird, bigbird

H, E, BLOCK = 3, 5, 3


def build(num_random=2, random_within=None, max_seq_len=64) -> BigBird:
    return BigBird(
        num_heads=H,
        head_dim=E,
        max_seq_len=max_seq_len,
        block_size=BLOCK,
        num_random=num_random,
        random_within=random_within,
    ).double()


def pattern_of(attention: BigBird, num_queries: int, length: int) -> torch.Tensor:
    """Return which of ``length`` keys each query of each head sees, by sets."""
    num_blocks = -(-length // BLOCK)
    seen = torch.zeros(H, num_queries, length, dtype=torch.bool)
    within = length if attention.random_within is None else attention.random_within
    for head in range(H):
        for i in range(num_queries):
            row = i // BLOCK
            blocks = {0, num_blocks - 1, row - 1, row, row + 1}
            others = [w for w in range(num_blocks) if w not in blocks and w * BLOCK < within]
            others.sort(key=lambda w: -attention.priorities[head, row, w])
            blocks |= set(others[: attention.num_random])
            if row in (0, num_blocks - 1):
                blocks = set(range(num_blocks))
            for j in range(length):
                seen[head, i, j] = j // BLOCK in blocks
    return seen


@pytest.fixture
def union_of_blocks(dense):
    def of(attention):
        def oracle(query, key, value, present):
            outs = []
            for q, k, v, here in zip(query, key, value, present, strict=True):
                places = here.nonzero()
                length = int(places.max()) + 1 if len(places) else 1
                allowed = torch.zeros(H, q.shape[1], k.shape[1], dtype=torch.bool)
                allowed[..., :length] = pattern_of(attention, q.shape[1], length)
                outs.append(dense(q, k, v, allowed & here))
            return torch.stack(outs)

        return oracle

    return of


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, True),
        (BLOCK - 1, True),
        (BLOCK, True),
        (BLOCK + 1, True),
        (7 * BLOCK, True),
        (10 * BLOCK + 1, True),
        (10 * BLOCK + 1, False),
    ],
)
def test_the_union_of_blocks(length, padded, union_of_blocks, hold_against_oracle):
    attention = build()
    hold_against_oracle(attention, union_of_blocks(attention), length, padded=padded)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(10, 31), (32, 19)])
def test_queries_and_keys_may_differ_in_number(
    num_queries, num_keys, union_of_blocks, hold_against_oracle
):
    attention = build()
    oracle = union_of_blocks(attention)
    hold_against_oracle(attention, oracle, num_queries, num_keys, padded=True, value_dim=E + 2)


@pytest.mark.parametrize("random_within", [None, 4 * BLOCK])
def test_random_blocks_come_from_the_front_if_asked(
    random_within, union_of_blocks, hold_against_oracle
):
    attention = build(random_within=random_within)
    hold_against_oracle(attention, union_of_blocks(attention), 36, padded=True)


def test_few_blocks_are_softmax(padded, softmax, hold_against_oracle):
    """A row beside an end sees four blocks and r random ones."""
    hold_against_oracle(build(num_random=3), softmax, 7 * BLOCK - 1, padded=padded)


def test_without_random_blocks_a_token_reaches_neighbours_and_ends():
    attention, inputs = build(num_random=0), torch.randn(3, 1, H, 27, E, dtype=torch.float64)
    out, moved = attention(*inputs), inputs.clone()
    moved[1:, :, :, 13] += 1
    changed = (attention(*moved) - out).abs().amax((0, 1, 3)) > 1e-9
    blocks = torch.arange(27) // BLOCK
    assert torch.equal(changed, (blocks >= 3) & (blocks <= 5) | (blocks == 0) | (blocks == 8))


def test_heads_draw_blocks_of_their_own():
    patterns = pattern_of(build(), 36, 36)
    assert not torch.equal(patterns[0], patterns[1])


@pytest.mark.parametrize("fault", ["padded last block", "repeated blocks"])
def test_the_oracle_tells_a_published_fault(
    fault, monkeypatch, union_of_blocks, hold_against_oracle
):
    attention = build()
    oracle = union_of_blocks(attention)
    if fault == "padded last block":
        monkeypatch.setattr(
            bigbird, "extent", lambda present: torch.full((len(present),), present.shape[1])
        )
    else:
        choose = attention._choose

        def twice(*args):  # a random slot may hold a block that is there already
            blocks, valid = choose(*args)
            blocks[..., -1] = blocks[..., 0]
            return blocks, valid | (torch.arange(blocks.shape[-1]) == blocks.shape[-1] - 1)

        monkeypatch.setattr(attention, "_choose", twice)
    with pytest.raises(AssertionError, match="not close"):
        hold_against_oracle(attention, oracle, 36, padded=True)


def test_a_longer_row_than_announced_is_refused():
    with pytest.raises(ValueError, match="max_seq_len is 8"):
        build(max_seq_len=8)(*torch.randn(3, 1, H, 9, E, dtype=torch.float64))
