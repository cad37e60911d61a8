"""Rotary positions against complex numbers, and what they keep."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.attention import PPSBN, CosFormer, PreSBN, Rotary, SoftmaxAttention

B, H, N, E = 2, 3, 11, 6
VALUE = torch.zeros(B, H, N, N, dtype=torch.float64)  # as wide as scores
softmax = partial(SoftmaxAttention, dropout=0.0)


class Scores(nn.Module):
    """Return the products of queries and keys as they arrive."""

    def __init__(self, *, num_heads, head_dim):
        super().__init__()

    def forward(self, query, key, value, *, key_padding_mask=None):
        return query @ key.mT


def rotary(attention=Scores, head_dim=E, base=100.0) -> Rotary:
    return Rotary(num_heads=H, head_dim=head_dim, max_seq_len=N, attention=attention, base=base)


def draw(length=N):
    return torch.randn(3, B, H, length, E, dtype=torch.float64).unbind()


def test_products_are_those_of_rotated_complex_numbers():
    query, key, _ = draw()
    frequency = 100.0 ** (-torch.arange(E // 2, dtype=torch.float64) / (E // 2))
    angle = torch.arange(N, dtype=torch.float64)[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    q, k = (torch.complex(*x.split(E // 2, dim=-1)) * turn for x in (query, key))
    assert_close(rotary()(query, key, VALUE), (q @ k.mH).real)


def test_products_depend_on_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, E, dtype=torch.float64).expand(2, B, H, N, E)
    scores = rotary()(query, key, VALUE)
    assert_close(scores[:, :, 1:, 1:], scores[:, :, :-1, :-1])
    assert not torch.allclose(scores[0, 0, 0], scores[0, 0, 0, :1])


def test_position_zero_and_norms_stay():
    query, key, value = draw()
    norms = []

    class Norms(Scores):
        def forward(self, query, key, value, *, key_padding_mask=None):
            norms.extend([query, key])
            return value

    rotary(Norms)(query, key, value)
    for rotated, x in zip(norms, (query, key), strict=True):
        assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
        assert torch.equal(rotated[:, :, 0], x[:, :, 0])


def test_distance_survives_inside_ppsbn_and_not_around_it():
    """Centred after a rotation, products depend on where both tokens stand."""
    query, key = torch.randn(2, 1, 1, 1, E, dtype=torch.float64).expand(2, B, H, N, E)
    options = {"num_heads": H, "head_dim": E, "max_seq_len": N}
    stages = {"pre": PreSBN, "post": None}
    inside = PPSBN(**options, **stages, attention=partial(Rotary, attention=Scores, base=100.0))
    around = rotary(partial(PPSBN, **stages, attention=Scores))
    scores = [attention(query, key, VALUE) for attention in (inside, around)]
    shifts = [(x[:, :, 1:, 1:] - x[:, :, :-1, :-1]).abs().max() for x in scores]
    assert shifts[0] < 1e-12 < 1e-3 < shifts[1]


def test_trailing_padding_is_cut_off():
    query, key, value = draw()
    mask = (torch.arange(N) >= 8).expand(B, N)
    out = rotary(softmax)(query, key, value, key_padding_mask=mask)
    cut = rotary(softmax)(*(x[:, :, :8] for x in (query, key, value)))
    assert_close(out[:, :, :8], cut)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="head_dim is 5"):
        rotary(head_dim=5)


def test_an_attention_with_positions_of_its_own_is_refused():
    with pytest.raises(ValueError, match="CosFormer knows the places of keys by itself"):
        rotary(CosFormer)
