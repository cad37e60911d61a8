"""Skyformer against its formula on given landmarks, and how the landmarks are drawn."""

import math

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import GaussianAttention, Skyformer
from macformer.attention.landmarks import skyformer
from macformer.attention.landmarks.skyformer import landmark_ranks

SHAPES = {"num_heads": 2, "head_dim": 5}


def build(**changes) -> Skyformer:
    options = {"num_landmarks": 6, "ridge": 0.1, "num_steps": 6, "pool_size": 5, "redraw": True}
    return Skyformer(**SHAPES, **(options | changes)).double()


def kernel(x, y):
    return torch.exp(-torch.cdist(x, y).square() / (2 * math.sqrt(5)))


def approach_inverse(a, num_steps):
    """Third-order iteration, started for each head by itself."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    rows, columns = a.abs().sum(-1).amax(-1), a.abs().sum(-2).amax(-1)
    z = a.mT / (rows * columns)[:, None, None]
    for _ in range(num_steps):
        az = a @ z
        z = z @ (13 * eye - 15 * az + 7 * az @ az - az @ az @ az) / 4
    return z


def formula(attention: Skyformer):
    """Return the definition for the landmarks that evaluation draws."""

    def attend(query, key, value, positions):
        drawn = [
            x[:, landmark_ranks(fractions, torch.tensor([x.shape[1]]))[0]]
            for x, fractions in zip((query, key), attention.pool[0], strict=True)
        ]
        x = torch.cat(drawn, dim=1)
        matrix = kernel(x, x) + attention.ridge * torch.eye(x.shape[1], dtype=x.dtype)
        root = torch.diag_embed(matrix.sum(-1).rsqrt())
        inverse = root @ approach_inverse(root @ matrix @ root, attention.num_steps) @ root
        return kernel(query, x) @ inverse @ kernel(x, key) @ value

    return attend


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 13])
def test_output_is_that_of_the_formula(agree, padding, length):
    attention = build().eval()
    agree(attention, formula(attention), padding(length), **SHAPES, length=length)


def test_queries_may_be_others_than_keys(agree, padding):
    attention = build().eval()
    agree(attention, formula(attention), padding(13), **SHAPES, length=13, num_queries=11)


def test_all_tokens_as_landmarks_without_a_ridge_give_gaussian_attention():
    inputs = torch.randn(3, 2, 2, 12, 5, dtype=torch.float64)
    exact = GaussianAttention(**SHAPES, dropout=0.0)(*inputs)
    outs = [
        build(num_landmarks=24, ridge=ridge, num_steps=40)(*inputs) for ridge in (1e-9, 1e-2, 0.1)
    ]
    errors = [((out - exact).norm() / exact.norm()).item() for out in outs]
    assert errors[0] < 1e-7 < errors[1] < errors[2] < 0.1


def test_more_landmarks_come_closer():
    inputs = torch.randn(3, 4, 2, 64, 5, dtype=torch.float64)
    exact = GaussianAttention(**SHAPES, dropout=0.0)(*inputs)
    outs = [build(num_landmarks=m, ridge=1e-3, num_steps=20)(*inputs) for m in (8, 32, 128)]
    errors = [(out - exact).norm() for out in outs]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def assert_landmarks_differ(draw):
    """Hold as soon as there are enough tokens; with fewer, each is drawn."""
    for count in (1, 5, 7, 8, 9, 20, 1000):
        for fractions in (torch.rand(8), torch.zeros(8), torch.full((8,), 1 - 2**-24)):
            ranks = draw(fractions.sort().values, torch.tensor([count]))[0].tolist()
            assert all(0 <= rank < count for rank in ranks)
            assert len(set(ranks)) == min(count, 8)


def test_landmarks_differ():
    assert_landmarks_differ(landmark_ranks)
    assert landmark_ranks(torch.rand(8), torch.tensor([0])).eq(0).all()


def test_every_token_is_drawn_about_as_often():
    """In 600 draws; the ends are drawn in 13.2 % of them, a little more often than the others."""
    fractions = torch.rand(600, 8).sort(-1).values
    ranks = torch.cat([landmark_ranks(draw, torch.tensor([64]))[0] for draw in fractions])
    shares = torch.bincount(ranks, minlength=64) / 600
    assert_close(shares.sum().item(), 8.0)
    assert ((shares - 0.125).abs() < 0.007 + 5 * math.sqrt(0.125 * 0.875 / 600)).all()


@pytest.mark.parametrize("length", [1, 2, 3, 13])
def test_a_landmark_that_recurs_is_kept_once(length):
    attention = build().eval()
    ranks = landmark_ranks(attention.pool[0, 0], torch.tensor([length]))
    size = attention.state_size(seq_len=length, head_dim=5, value_dim=7)
    assert size == 2 * len(ranks.unique()) * (5 + 7)


def assert_evaluation_repeats(attention):
    inputs = torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    assert torch.equal(attention.eval()(*inputs), attention(*inputs))


def test_training_walks_through_the_pool_and_evaluation_stays():
    attention, inputs = build().eval(), torch.randn(3, 2, 2, 13, 5, dtype=torch.float64)
    still = attention(*inputs)
    assert_evaluation_repeats(attention)
    attention.train()
    walk = [attention(*inputs) for _ in range(10)]
    assert all(torch.equal(a, b) for a, b in zip(walk[:5], walk[5:], strict=True))
    assert torch.equal(walk[4], still)
    assert len({out.sum().item() for out in walk}) == 5
    fixed = build(redraw=False).train()
    assert torch.equal(fixed(*inputs), fixed(*inputs))


def test_an_odd_number_of_landmarks_is_refused():
    with pytest.raises(ValueError, match="num_landmarks 7 is odd"):
        build(num_landmarks=7)


def first_positions(present, ranks):
    """As if padding stood behind all tokens."""
    return ranks.clamp(max=present.shape[1] - 1)


def start_of_the_batch(matrix, value, *, num_steps):
    z = matrix.mT / matrix.sum(-2).max()
    for _ in range(num_steps):
        az = matrix @ z
        eye = torch.eye(az.shape[-1], dtype=az.dtype)
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z @ value


def all_queries(query, key, key_padding_mask):
    return None


def with_replacement(fractions, count):
    return (fractions * count[:, None]).long()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("locate", first_positions),
        ("iterated_solve", start_of_the_batch),
        ("query_padding", all_queries),
    ],
)
def test_the_formula_tells_a_published_fault(agree, padding_between, monkeypatch, name, fault):
    """Two steps of the inverse, so that its start counts."""
    attention, mask = build(num_steps=2).eval(), padding_between(13)
    agree(attention, formula(attention), mask, **SHAPES, length=13)
    monkeypatch.setattr(skyformer, name, fault)
    with pytest.raises(AssertionError, match="not close"):
        agree(attention, formula(attention), mask, **SHAPES, length=13)


class ScaledForOneWidth(Skyformer):
    """By 32^(-1/4), whatever head_dim is."""

    def forward(self, query, key, value, *, key_padding_mask=None):
        q, k = ((5 / 32) ** 0.25 * x for x in (query, key))
        return super().forward(q, k, value, key_padding_mask=key_padding_mask)


class RedrawnAtEvaluation(Skyformer):
    def forward(self, *args, **kwargs):
        self.pool.copy_(torch.rand_like(self.pool).sort(-1).values)
        return super().forward(*args, **kwargs)


def test_a_scale_for_another_width_is_told(agree):
    attention = build().eval()
    attention.__class__ = ScaledForOneWidth
    with pytest.raises(AssertionError, match="not close"):
        agree(attention, formula(attention), None, **SHAPES, length=13)


def test_draws_at_evaluation_are_told():
    attention = build()
    attention.__class__ = RedrawnAtEvaluation
    with pytest.raises(AssertionError):
        assert_evaluation_repeats(attention)


def test_draws_with_replacement_are_told():
    with pytest.raises(AssertionError):
        assert_landmarks_differ(with_replacement)
