"""H-Transformer-1D against the matrix of its levels."""

import subprocess
import sys

import pytest
import torch

from macformer.attention.blocks import HTransformer
from macformer.ops import flash, hierarchy
from macformer.ops import levels as levels_of_op

H, E, BLOCK = 3, 5, 4


def build(block_size=BLOCK) -> HTransformer:
    return HTransformer(num_heads=H, head_dim=E, block_size=block_size)


def levels(length: int, block_size: int) -> torch.Tensor:
    """Return, for each pair, the least level at which its blocks touch."""
    level = torch.full((length, length), -1)
    for i in range(length):
        for j in range(length):
            size = block_size
            while abs(i // size - j // size) > 1:
                size *= 2
            level[i, j] = (size // block_size).bit_length() - 1
    return level


def run_means(x, present, level):
    """Replace each token by the mean over the present ones of its run of 2^level."""
    runs = torch.arange(len(present)) // 2**level
    same = ((runs[:, None] == runs) & present).to(x.dtype)
    return same @ x / same.sum(1, keepdim=True).clamp(min=1)


def oracle_of(block_size):
    def of_head(query, key, value, present):
        length = len(query)
        level = levels(length, block_size)
        logits = torch.zeros(length, length, dtype=query.dtype)
        for n in range(int(level.max()) + 1):
            q, k = run_means(query, present, n), run_means(key, present, n)
            logits = torch.where(level == n, q @ k.T / E**0.5, logits)
        weights = logits.exp() * present
        return weights @ value / weights.sum(1, keepdim=True).clamp(min=1e-30)

    return of_head


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, True),
        (BLOCK - 1, True),
        (BLOCK, True),
        (BLOCK + 1, True),
        (2 * BLOCK, True),
        (2 * BLOCK + 1, True),
        (5 * BLOCK + 3, True),
        (8 * BLOCK, True),
        (8 * BLOCK, False),
    ],
)
def test_the_matrix_of_levels(length, padded, hold_heads_against_oracle):
    hold_heads_against_oracle(build(), oracle_of(BLOCK), length, padded=padded, value_dim=E + 2)


@pytest.mark.parametrize("block_size", [2, 6])
def test_other_block_sizes(block_size, hold_heads_against_oracle):
    hold_heads_against_oracle(build(block_size), oracle_of(block_size), 29, padded=True)


def test_two_blocks_are_softmax(padded, softmax, hold_against_oracle):
    hold_against_oracle(build(8), softmax, 13, padded=padded)


def test_distant_tokens_of_one_run_move_a_query_alike():
    inputs = torch.randn(3, 1, H, 32, E, dtype=torch.float64)
    attention, changes = build(), []
    for j in (16, 17, 18, 20):
        moved = inputs.clone()
        moved[1, :, :, j] += 1
        changes.append((attention(*moved) - attention(*inputs))[:, :, 0])
    # from query 0, runs of two begin at token 8, and runs of four at token 16
    torch.testing.assert_close(changes[0], changes[1])
    torch.testing.assert_close(changes[0], changes[2])
    assert not torch.allclose(changes[0], changes[3])


def test_large_logits_far_away_keep_their_weight():
    """Nothing underflows: each level is weighed by its own normaliser."""
    query = torch.ones(1, H, 32, E)
    key, value = torch.zeros(1, H, 32, E), torch.zeros(1, H, 32, E)
    key[:, :, 16:] = 100.0
    value[:, :, 16:] = 1.0
    out = build()(query, key, value)
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("num_heads", [1, 2, H, 2 * H])
def test_heads_are_worked_on_some_at_a_time(num_heads, monkeypatch, hold_heads_against_oracle):
    monkeypatch.setattr(levels_of_op, "TOKENS", num_heads * 29)
    hold_heads_against_oracle(build(), oracle_of(BLOCK), 29, padded=True)


def test_plain_torch_computes_the_same_as_the_kernel(monkeypatch, hold_heads_against_oracle):
    monkeypatch.setattr(hierarchy, "attend", flash.attend_reference)
    monkeypatch.setattr(hierarchy, "attend_backward", flash.attend_backward_reference)
    hold_heads_against_oracle(build(), oracle_of(BLOCK), 29, padded=True)


@pytest.mark.parametrize("fault", ["a maximum of each level", "runs that count once"])
def test_the_oracle_tells_wrong_weights_of_levels(fault, monkeypatch, hold_heads_against_oracle):
    attend, take_means = hierarchy.attend, hierarchy._take_means

    def attend_below_maximum(*args, **kwargs):
        out, z = attend(*args, **kwargs)
        return out, z - z.amax()

    def take_means_that_count_once(*args, **kwargs):
        rows, shares = take_means(*args, **kwargs)
        logs = rows[:, 2 * rows.shape[1] // 3 - 1]
        logs.clamp_(max=0)
        return rows, shares

    if fault == "a maximum of each level":
        monkeypatch.setattr(hierarchy, "attend", attend_below_maximum)
    else:
        monkeypatch.setattr(hierarchy, "_take_means", take_means_that_count_once)
    with pytest.raises(AssertionError, match="not close"):
        hold_heads_against_oracle(build(), oracle_of(BLOCK), 32, padded=False)


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="got 3"):
        build(3)
    query, key = torch.randn(1, H, 5, E), torch.randn(1, H, 6, E)
    with pytest.raises(ValueError, match="5 and 6"):
        build()(query, key, key)


WHOLE = """
import torch
from macformer.ops.hierarchy import hierarchical_attention

inputs = [torch.randn(2, 2, 20, 4, requires_grad=True) for _ in range(3)]
present = torch.ones(2, 20, dtype=torch.bool)
compiled = torch.compile(hierarchical_attention, backend="eager", fullgraph=True)
out, expected = (f(*inputs, present, block_size=4) for f in (compiled, hierarchical_attention))
torch.testing.assert_close(out, expected)
out, expected = (torch.autograd.grad(x.square().sum(), inputs) for x in (out, expected))
torch.testing.assert_close(out, expected)
"""


@pytest.mark.slow
def test_the_compiler_makes_one_graph_of_it():
    """In a process of its own, where no type checks wrap the class of the layout."""
    subprocess.run([sys.executable, "-c", WHOLE], check=True)
