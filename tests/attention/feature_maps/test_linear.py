"""Feature maps and linear attention, against the dense matrix of weights in float64."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from macformer.attention import (
    CosFormer,
    EluMap,
    HedgehogMap,
    LinearAttention,
    ReluMap,
)

B, H, E, EV = 2, 3, 5, 7
MAX_SEQ_LEN = 29


def elu_weights(query: Tensor, key: Tensor) -> Tensor:
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (query, key))
    return phi_q @ phi_k.mT


def relu_weights(query: Tensor, key: Tensor) -> Tensor:
    return (query.clamp(min=0) + 1e-3) @ (key.clamp(min=0) + 1e-3).mT


def hedgehog_weights(query: Tensor, key: Tensor) -> Tensor:
    """With the identity for W, as at the start."""
    phi_q, phi_k = (x.exp() / (x.exp() + (-x).exp()).sum(-1, keepdim=True) for x in (query, key))
    neg_q, neg_k = ((-x).exp() / (x.exp() + (-x).exp()).sum(-1, keepdim=True) for x in (query, key))
    return phi_q @ phi_k.mT + neg_q @ neg_k.mT


def cosformer_weights(query: Tensor, key: Tensor) -> Tensor:
    distance = torch.arange(query.shape[2])[:, None] - torch.arange(key.shape[2])
    decay = (math.pi * distance.double() / (2 * MAX_SEQ_LEN)).cos()
    return query.clamp(min=0) @ key.clamp(min=0).mT * decay


ROWS = {
    "linear": (partial(LinearAttention, feature_map=EluMap), elu_weights),
    "performer_relu": (
        partial(LinearAttention, feature_map=partial(ReluMap, shift=1e-3)),
        relu_weights,
    ),
    "hedgehog": (partial(LinearAttention, feature_map=HedgehogMap), hedgehog_weights),
    "cosformer": (partial(CosFormer, max_seq_len=MAX_SEQ_LEN), cosformer_weights),
}


def draw(*lengths: int) -> list[Tensor]:
    query_len, key_len = lengths
    shapes = [(B, H, query_len, E), (B, H, key_len, E), (B, H, key_len, EV)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("lengths", [(1, 1), (11, 13), (29, 29)], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("row", ROWS)
def test_output_and_gradients_are_those_of_the_dense_weights(row, lengths, padded):
    factory, weigh = ROWS[row]
    attention, inputs = factory(num_heads=H, head_dim=E).double(), draw(*lengths)
    query, key, value = inputs
    mask = torch.arange(lengths[1]).expand(B, -1) >= torch.tensor([[lengths[1]], [2]])
    weights = weigh(query, key)
    weights = weights.masked_fill(mask[:, None, None, :], 0) if padded else weights
    expected = weights @ value / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    out = attention(query, key, value, key_padding_mask=mask if padded else None)
    assert_close(out, expected)
    direction = torch.randn_like(out)
    grads = torch.autograd.grad((out * direction).sum(), inputs)
    assert_close(grads, torch.autograd.grad((expected * direction).sum(), inputs))


def test_padded_keys_that_stay_in_the_denominator_would_show():
    """elu(0) + 1 is 1: zeroed before the map alone, each padded key still counts."""
    query, key, value = draw(3, 4)
    mask = torch.tensor([False, True, True, True]).expand(B, 4)
    attention = LinearAttention(num_heads=H, head_dim=E, feature_map=EluMap).double()
    out = attention(query, key, value, key_padding_mask=mask)
    assert_close(out, value[:, :, :1].expand_as(out))
    blanked = [x.masked_fill(mask[:, None, :, None], 0) for x in (key, value)]
    assert not torch.allclose(attention(query, *blanked), out)


def test_a_distant_horizon_leaves_linear_attention_with_relu():
    inputs = draw(11, 13)
    attention = CosFormer(num_heads=H, head_dim=E, max_seq_len=10**9)
    weights = inputs[0].relu() @ inputs[1].relu().mT
    assert_close(
        attention(*inputs), weights @ inputs[2] / weights.sum(-1, keepdim=True).clamp(1e-6)
    )


def test_a_row_beyond_the_horizon_is_refused():
    attention = CosFormer(num_heads=H, head_dim=E, max_seq_len=12)
    with pytest.raises(ValueError, match="got 13 tokens, but max_seq_len is 12"):
        attention(*draw(11, 13))


def test_each_head_and_each_side_learns_a_map_of_its_own():
    attention = LinearAttention(num_heads=H, head_dim=E, feature_map=HedgehogMap).double()
    assert [p.shape for p in attention.parameters()] == [(H, E, E)] * 2
    inputs = draw(11, 13)
    before = attention(*inputs)
    with torch.no_grad():
        attention.map_key.weight[1].mul_(3)
    changed = (attention(*inputs) != before).flatten(2).any(-1)
    assert changed.tolist() == [[False, True, False]] * B


def test_features_are_computed_in_float32_under_autocast():
    inputs = [x.detach().float() for x in draw(11, 13)]
    attention: nn.Module = LinearAttention(num_heads=H, head_dim=E, feature_map=HedgehogMap)
    expected = attention(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(attention(*inputs), expected, rtol=0, atol=0)


class Projected(nn.Module):
    """A map with weights or random directions, and nothing of its own for tiles."""

    def __init__(self, *, num_heads: int, head_dim: int, learnt: bool):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        directions = torch.randn(head_dim, 16)
        if learnt:
            self.directions = nn.Parameter(directions)
        else:
            self.register_buffer("directions", directions)

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.directions).relu() + 0.1


@pytest.mark.parametrize("learnt", [True, False], ids=["parameters", "buffers"])
def test_a_map_of_half_precision_gets_what_its_weights_can_multiply(learnt):
    inputs = [x.detach().bfloat16() for x in draw(11, 13)]
    attention = LinearAttention(
        num_heads=H, head_dim=E, feature_map=partial(Projected, learnt=learnt)
    ).bfloat16()
    out = attention(*inputs)
    assert out.dtype == torch.bfloat16
    expected = attention.double()(*(x.double() for x in inputs))
    assert_close(out.double(), expected, rtol=0.05, atol=0.05)


def test_sums_are_kept_in_float32():
    """A thousand keys of one weight: bfloat16 would stop counting them at 256."""
    token, value = (torch.ones(1, 1, 1000, size, dtype=torch.bfloat16) for size in (E, EV))
    factory = partial(Projected, learnt=True)
    attention = LinearAttention(num_heads=1, head_dim=E, feature_map=factory).bfloat16()
    assert_close(attention(token, token, value), value)
