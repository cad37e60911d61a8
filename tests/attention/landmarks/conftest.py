"""Padding of every kind, and the comparison of an attention with an oracle under it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

PADDINGS = ("none", "behind", "in_front", "between", "all_but_one", "all_of_one")
# query, key and value of one example, all present, and the positions that the keys had
Oracle = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def pad(kind: str, batch: int, length: int) -> Tensor | None:
    """Draw a key padding mask; the first example has no padding, for a row of each length."""
    places = torch.arange(length)
    count = torch.randint(1, length + 1, (batch, 1))
    masks = {
        "behind": places >= count,
        "in_front": places < length - count,
        "between": torch.rand(batch, length) < 0.4,
        "all_but_one": places != torch.randint(length, (batch, 1)),
        "all_of_one": (torch.arange(batch) == 1)[:, None].expand(batch, length).clone(),
    }
    if kind == "none":
        return None
    masks[kind][0] = False
    return masks[kind]


def compare(
    attention: nn.Module,
    oracle: Oracle,
    mask: Tensor | None,
    *,
    num_heads: int,
    head_dim: int,
    length: int,
    num_queries: int | None = None,
    scale: float = 1.0,
) -> None:
    """Hold outputs and gradients against an oracle on each example's present tokens.

    NaN stands in all padding. Where queries are as many as keys, the mask is theirs, too.

    Raises:
        AssertionError: If they differ.
    """
    batch = 3 if mask is None else len(mask)
    num_queries = num_queries or length
    sizes = ((num_queries, head_dim), (length, head_dim), (length, head_dim))
    inputs = [scale * torch.randn(batch, num_heads, *size, dtype=torch.float64) for size in sizes]
    absent = torch.zeros(batch, length, dtype=torch.bool) if mask is None else mask
    absent_queries = absent if num_queries == length else absent.new_zeros(batch, num_queries)
    masks = (absent_queries, absent, absent)
    for x, padding in zip(inputs, masks, strict=True):
        x.masked_fill_(padding[:, None, :, None], torch.nan).requires_grad_()
    out = attention(*inputs, key_padding_mask=mask)
    assert out.shape == inputs[0].shape
    weight = torch.randn_like(out)
    kept = ~absent_queries[:, None, :, None] & ~absent.all(1)[:, None, None, None]
    torch.where(kept, out * weight, 0).sum().backward()
    for i in range(batch):
        tokens = [
            x[i, :, ~padding[i]].detach().requires_grad_()
            for x, padding in zip(inputs, masks, strict=True)
        ]
        if tokens[1].numel() == 0:
            assert out[i].isfinite().all()
        else:
            expected = oracle(*tokens, (~absent[i]).nonzero()[:, 0])
            assert_close(out[i, :, ~absent_queries[i]], expected)
            (expected * weight[i, :, ~absent_queries[i]]).sum().backward()
        for x, padding, cut in zip(inputs, masks, tokens, strict=True):
            assert x.grad is not None
            assert (x.grad[i, :, padding[i]] == 0).all()
            expected = torch.zeros_like(cut) if cut.grad is None else cut.grad
            assert_close(x.grad[i, :, ~padding[i]], expected)


@pytest.fixture(params=PADDINGS)
def padding(request) -> Callable[[int], Tensor | None]:
    """Return what draws the mask of three rows of some length, for each kind of padding."""
    return lambda length: pad(request.param, 3, length)


@pytest.fixture
def padding_between() -> Callable[[int], Tensor | None]:
    return lambda length: pad("between", 3, length)


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    return compare
