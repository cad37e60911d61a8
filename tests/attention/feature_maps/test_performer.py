"""Performer: its directions, its estimate of the softmax kernel, and what cancels."""

import math

import pytest
import torch
from torch.testing import assert_close

from macformer.attention import Performer, directions
from macformer.ops.exponential import exponential_features

H, L, S, E, EV, F = 3, 11, 13, 7, 5, 19
LAWS = [directions.independent, directions.orthogonal]


def performer(**changes) -> Performer:
    options = {
        "num_features": F,
        "directions": directions.orthogonal,
        "logit_scale": None,
        "input_norm": 1.0,
        "guard": 0.5,
        "pool_size": 1,
        "redraw": False,
    }
    return Performer(**({"num_heads": H, "head_dim": E} | options | changes)).double()


def draw_inputs(norm=1.0):
    q, k, v = (torch.randn(2, H, *s, dtype=torch.float64) for s in ((L, E), (S, E), (S, EV)))
    return norm * q / q.norm(dim=-1, keepdim=True), norm * k / k.norm(dim=-1, keepdim=True), v


@pytest.mark.parametrize("law", LAWS)
def test_kernel_estimate_is_unbiased(law):
    """The mean over 2,000 draws is within 5 standard errors of exp(q k), for every pair."""
    torch.manual_seed(0)
    query, key = (0.4 * torch.randn(1, 1, 5, E, dtype=torch.float64) for _ in range(2))
    draws = torch.stack([law(num_features=F, head_dim=E) for _ in range(2000)]).double()
    query, key = (x.expand(-1, len(draws), -1, -1) for x in (query, key))
    estimates = (exponential_features(query, draws) @ exponential_features(key, draws).mT)[0]
    exact = (query @ key.mT).exp()[0, 0]
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - exact).abs() <= 5 * error).all()


def test_orthogonal_directions_are_less_noisy():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 8, E, dtype=torch.float64)
    x /= x.norm(dim=-1, keepdim=True)
    variances = []
    for law in LAWS:
        draws = torch.stack([law(num_features=4 * E, head_dim=E) for _ in range(1000)]).double()
        phi = exponential_features(x.expand(-1, len(draws), -1, -1), draws)[0]
        variances.append(float((phi @ phi.mT).var(0).mean()))
    independent, orthogonal = variances
    assert orthogonal < 0.9 * independent


def test_blocks_of_directions_are_orthogonal_with_norms_of_their_own():
    omega = directions.orthogonal(num_features=2 * E + 3, head_dim=E)
    assert omega.shape == (E, 2 * E + 3)
    for block in omega.split(E, dim=1):
        gram = block.T @ block
        assert_close(gram, gram.diagonal().diag(), rtol=0, atol=1e-5)
    assert len(omega.norm(dim=0).unique()) == 2 * E + 3


def without_signs(*, num_features, head_dim):
    """Draw as the published code does."""
    return torch.linalg.qr(torch.randn(head_dim, head_dim)).Q[:, :num_features]


def bias_in_standard_errors(law) -> float:
    """A uniform rotation's first entry is as often negative as positive."""
    torch.manual_seed(0)
    firsts = torch.stack([law(num_features=1, head_dim=E)[0, 0] for _ in range(400)])
    return float(firsts.sign().mean().abs() * math.sqrt(len(firsts)))


def test_directions_are_uniform_over_rotations():
    assert bias_in_standard_errors(directions.orthogonal) <= 4
    assert bias_in_standard_errors(without_signs) > 4


def test_norms_are_those_of_normal_vectors():
    """Squares of norms have mean E and variance 2 E."""
    torch.manual_seed(0)
    squares = directions.orthogonal(num_features=4000, head_dim=E).square().sum(0).double()
    assert abs(float(squares.mean()) - E) <= 5 * math.sqrt(2 * E / len(squares))
    assert abs(float(squares.var()) - 2 * E) <= 0.2 * 2 * E


@pytest.mark.parametrize("logit_scale", [None, 1 / E])
def test_equals_normalised_attention_over_the_same_features(logit_scale):
    query, key, value = draw_inputs()
    mask = torch.arange(S) >= torch.tensor([[S - 4], [S]])
    attention = performer(logit_scale=logit_scale)
    scale = E**-0.5 if logit_scale is None else logit_scale
    phi_q, phi_k = (
        exponential_features(x * math.sqrt(scale), attention.pool[:1]) for x in (query, key)
    )
    weights = (phi_q @ phi_k.mT).masked_fill(mask[:, None, None, :], 0)
    expected = weights @ value / weights.sum(-1, keepdim=True)
    assert_close(attention(query, key, value, key_padding_mask=mask), expected)


def test_many_features_approach_softmax():
    query, key, value = draw_inputs()
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.manual_seed(0)
    errors = []
    for num_features in (64, 4096):
        outs = [performer(num_features=num_features)(query, key, value) for _ in range(4)]
        errors.append(sum(float((out - exact).norm()) for out in outs))
    assert errors[1] < errors[0] / 4  # 64 times the features: an eighth


def test_norms_that_nothing_bounds_are_clipped():
    query, key, value = draw_inputs(norm=50.0)
    bounded = performer(input_norm=None)
    limit = bounded.guard.max_norm
    clipped = bounded(query, key, value)
    assert_close(clipped, bounded(query * limit / 50, key * limit / 50, value))
    assert performer().guard is None and performer(input_norm=None, guard=None).guard is None


def test_redrawing_walks_through_the_pool_in_training_only():
    inputs = draw_inputs()
    attention = performer(pool_size=3, redraw=True)
    outs = [attention(*inputs) for _ in range(4)]
    assert not torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[3])
    first = attention.eval()(*inputs)
    assert torch.equal(first, attention(*inputs)) and torch.equal(first, outs[2])
    assert "pool" in attention.state_dict()


def test_no_features_are_refused():
    with pytest.raises(ValueError, match="num_features is 0"):
        performer(num_features=0)
