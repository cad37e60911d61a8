"""Hold an attention of blocks against a dense oracle, outputs and gradients, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

H, E = 3, 5

# oracle(query, key, value, present) -> out, of a batch or of one head of one example
# What stands at padding is zero there.
Oracle = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def draw_mask(length: int) -> Tensor:
    """Return a batch with padding of every kind: none, behind, before, between, everywhere."""
    places = torch.arange(length)
    return torch.stack(
        [
            places < 0,
            places >= length - length // 3,
            places >= length - length // 2,
            places < length // 3,
            places % 3 == 1,
            (places >= length // 3) & (places < length // 2 + 1),
            places >= 0,
        ]
    )


def hold_against_oracle(
    attention: nn.Module,
    oracle: Oracle,
    num_queries: int,
    num_keys: int | None = None,
    *,
    padded: bool,
    value_dim: int = E,
) -> None:
    """Compare at present queries; the attention is shown NaN at padding, the oracle zero."""
    num_keys = num_queries if num_keys is None else num_keys
    shapes = ((num_queries, E), (num_keys, E), (num_keys, value_dim))
    mask = draw_mask(num_keys) if padded else None
    key_mask = torch.zeros(2, num_keys, dtype=torch.bool) if mask is None else mask
    inputs = [torch.randn(len(key_mask), H, *shape, dtype=torch.float64) for shape in shapes]
    is_self = num_queries == num_keys
    query_mask = key_mask if is_self else key_mask.new_zeros(len(key_mask), num_queries)
    masks = [x[:, None, :, None] for x in (query_mask, key_mask, key_mask)]
    zeroed = [x.masked_fill(m, 0).requires_grad_() for x, m in zip(inputs, masks, strict=True)]
    spoilt = [
        x.masked_fill(m, torch.nan).requires_grad_() for x, m in zip(inputs, masks, strict=True)
    ]
    expected = oracle(*zeroed, ~key_mask)
    out = attention(*spoilt, key_padding_mask=mask)
    assert out.shape == (len(key_mask), H, num_queries, value_dim)
    grad = torch.randn_like(out).masked_fill(masks[0], 0)
    assert_close(out.masked_fill(masks[0], 0), expected.masked_fill(masks[0], 0))
    used = [x for x in zeroed if x.requires_grad]
    wanted = torch.autograd.grad(expected, used, grad, allow_unused=True)
    got = torch.autograd.grad(out, spoilt, grad, allow_unused=True)
    for theirs, ours, m, x in zip(wanted, got, masks, zeroed, strict=True):
        theirs = torch.zeros_like(x) if theirs is None else theirs
        ours = torch.zeros_like(x) if ours is None else ours
        assert_close(ours, theirs.masked_fill(m, 0))


@pytest.fixture(name="hold_against_oracle")
def _fixture():
    return hold_against_oracle


def over_heads(of_head: Oracle) -> Oracle:
    """Apply the oracle of one head of one example to each of a batch."""

    def oracle(query: Tensor, key: Tensor, value: Tensor, present: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.stack([of_head(*rows, here) for rows in zip(*example, strict=True)])
                for *example, here in zip(query, key, value, present, strict=True)
            ]
        )

    return oracle


@pytest.fixture
def hold_heads_against_oracle():
    """Return ``hold_against_oracle`` for the oracle of one head of one example."""

    def hold(attention: nn.Module, of_head: Oracle, num_queries: int, **options) -> None:
        hold_against_oracle(attention, over_heads(of_head), num_queries, **options)

    return hold


@pytest.fixture(params=[False, True], ids=["full", "padded"])
def padded(request) -> bool:
    return request.param


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Attend by weights written out; rows without an allowed key give zero."""
    logits = (query @ key.mT / query.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    largest = logits.amax(-1, keepdim=True).clamp(min=-1e9).detach()
    weights = (logits - largest).exp()
    return weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-30)


@pytest.fixture
def dense():
    return softmax_attention


@pytest.fixture
def softmax() -> Oracle:
    """Every query sees every present key."""

    def attend(query: Tensor, key: Tensor, value: Tensor, present: Tensor) -> Tensor:
        return softmax_attention(query, key, value, present[:, None, None])

    return attend
