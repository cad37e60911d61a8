"""Long-short attention against its pooled keys and windows written out."""

import pytest
import torch
from torch.nn.functional import layer_norm
from torch.testing import assert_close

from macformer.attention.blocks import LongShortAttention

H, E, WINDOW = 3, 5, 4


def build(**options) -> LongShortAttention:
    defaults = {"window": WINDOW, "num_pooled": 2}
    attention = LongShortAttention(num_heads=H, head_dim=E, **(defaults | options)).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return attention


def over_heads(x, norm=None):
    """Normalise one example, (H, N, E), over heads and channels of each token."""
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    return layer_norm(x.transpose(0, 1), (H, x.shape[-1]), weight, bias).transpose(0, 1)


def oracle_of(attention: LongShortAttention):
    window = attention.window
    margin = max(window // 2, 1)

    def of_example(query, key, value, present):
        if not present.any():
            return query.new_zeros(*query.shape[:2], value.shape[-1])
        places = present.nonzero()[:, 0]
        raw, k = key[:, places], over_heads(key[:, places], attention.key_norm)
        v = over_heads(value[:, places])
        shares = (raw @ attention.pool.mT).softmax(1)
        pooled_k = over_heads(shares.mT @ k, attention.pooled_key_norm)
        pooled_v = over_heads(shares.mT @ v)
        out = []
        for i in range(query.shape[1]):
            first = i // window * window
            near = (places >= first - margin) & (places < first + window + margin)
            keys = torch.cat([pooled_k, k[:, near]], 1)
            values = torch.cat([pooled_v, v[:, near]], 1)
            weights = (query[:, i : i + 1] @ keys.mT / E**0.5).softmax(-1)
            out.append(weights @ values)
        return torch.cat(out, 1)

    return lambda *batch: torch.stack([of_example(*rows) for rows in zip(*batch, strict=True)])


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (1, True),
        (WINDOW - 1, True),
        (WINDOW, True),
        (WINDOW + 1, True),
        (2 * WINDOW, True),
        (3 * WINDOW + 1, True),
        (3 * WINDOW + 1, False),
    ],
)
def test_windows_and_pooled_keys(length, padded, hold_against_oracle):
    attention = build()
    hold_against_oracle(attention, oracle_of(attention), length, padded=padded)


def test_a_window_of_one_token(hold_against_oracle):
    attention = build(window=1)
    hold_against_oracle(attention, oracle_of(attention), 5, padded=True)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(5, 13), (14, 7)])
def test_queries_and_keys_may_differ_in_number(num_queries, num_keys, hold_against_oracle):
    attention = build()
    oracle = oracle_of(attention)
    hold_against_oracle(attention, oracle, num_queries, num_keys, padded=True, value_dim=E + 2)


def test_the_pooled_keys_reach_past_the_window():
    attention, inputs = build(), torch.randn(3, 1, H, 13, E, dtype=torch.float64)
    moved = inputs.clone()
    moved[1:, :, :, 12] += torch.randn(H, E)
    assert ((attention(*moved) - attention(*inputs))[:, :, 0].abs() > 1e-6).all()


def test_what_is_pooled_learns():
    attention = build()
    attention(*torch.randn(3, 2, H, 13, E, dtype=torch.float64)).square().sum().backward()
    assert all((p.grad.abs() > 0).all() for p in attention.parameters())


def test_inputs_may_be_wider_than_the_weights():
    attention = build().float()
    inputs = torch.randn(3, 1, H, 7, E, dtype=torch.float64)
    out = attention(*inputs)
    assert out.dtype == torch.float64
    assert torch.equal(out, attention.double()(*inputs))


def test_a_fresh_module_has_unit_gains():
    attention = LongShortAttention(num_heads=H, head_dim=E, window=WINDOW, num_pooled=2)
    for norm in (attention.key_norm, attention.pooled_key_norm):
        assert_close(norm.weight, torch.ones(H, E))
        assert_close(norm.bias, torch.zeros(H, E))
