"""Errors of random Maclaurin features: the laws by hand and by experiment."""

import itertools
import math
from functools import cache

import pytest
import torch
from torch.testing import assert_close

from macformer.attention.maclaurin import kernels as maclaurin
from macformer.attention.maclaurin import samplers
from macformer.features.error import (
    concentration_bound,
    error_over_signal,
    estimate_kernel,
    predicted_deviation,
)
from macformer.ops import MaclaurinFeatures

E = 8

EXP, INV = maclaurin.exp().coefficients, maclaurin.inv().coefficients


@pytest.fixture(autouse=True)
def cached_truncation(monkeypatch):
    """Draws by the hundred need the truncation degree, which has tests of its own, once."""
    monkeypatch.setattr(samplers, "truncation_degree", cache(maclaurin.truncation_degree))


def unit(rows: int) -> torch.Tensor:
    x = torch.randn(rows, E, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_estimate_by_hand():
    """0.5 + 2 q.k + 3 (s1.q)(s1.k) (s2.q)(s2.k) + 1 (s3.q)(s3.k), the signs over axes."""
    signs = torch.tensor([[1.0, 0, 0], [0, 1, 0]])  # level 1 of two features
    signs = torch.cat([signs[:, :1], torch.tensor([[1.0], [1.0]]), signs[:, 1:2]], dim=1)[None]
    features = MaclaurinFeatures(
        signs=signs,
        weights=torch.tensor([3.0, 1.0]),
        constant=torch.tensor(0.5),
        linear=2.0,
        widths=(2, 1),
    )
    query, key = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    # levels of the first feature: q1 k1 = 10, then q2 k2 = 21; the second: 5 * 12
    expected = 0.5 + 2 * 31 + 3 * 10 * 21 + 1 * 5 * 12
    assert estimate_kernel(features, query, key).item() == expected


def test_error_over_signal_by_hand():
    """Values 0 and 4, mean 2: an exact output of 3 has signal 1, an output of 3.5 half of it."""
    value = torch.tensor([0.0, 4.0]).view(1, 1, 2, 1)
    exact, out = torch.full((1, 1, 2, 1), 3.0), torch.full((1, 1, 2, 1), 3.5)
    assert error_over_signal(out, exact, value) == pytest.approx(0.5)
    padded = torch.cat([value, torch.full((1, 1, 3, 1), 100.0)], dim=2)
    mask = torch.tensor([[False, False, True, True, True]])
    out, exact = (torch.cat([x, torch.randn(1, 1, 3, 1)], dim=2) for x in (out, exact))
    assert error_over_signal(out, exact, padded, key_padding_mask=mask) == pytest.approx(0.5)


def test_moment_of_a_projection_by_enumeration():
    """One feature of the kernel t: variance E[(s.q)^2 (s.k)^2] / E - t^2 over all sign vectors."""
    query, key = unit(3), unit(2)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=E)), dtype=torch.float64)
    second = ((query @ signs.T).square() @ (key @ signs.T).square().T) / len(signs) / E
    expected = (second - (query @ key.T).square() / E).sqrt()
    deviation = predicted_deviation(
        lambda n: float(n == 1), query, key, sampler="optimal", num_features=1, dot_bound=0.35
    )
    assert_close(deviation, expected)


@pytest.mark.parametrize("sampler", ["iid", "code", "optimal"])
def test_the_law_is_what_is_measured(sampler):
    """Ratio of variances within 15 % for 300 draws; below for fixed counts and Hadamard rows."""
    query, key = unit(20), unit(20)
    options = {"num_features": 48, "dot_bound": E**-0.5}
    sample = getattr(samplers, sampler)
    draws = [sample(EXP, num_heads=1, head_dim=E, **options) for _ in range(300)]
    measured = torch.stack([estimate_kernel(f, query, key) for f in draws]).var(0).mean()
    law = predicted_deviation(EXP, query, key, sampler=sampler, **options)
    ratio = float(measured / law.square().mean())
    assert ratio < 1.15 and (sampler == "optimal" or ratio > 0.85)


def test_a_series_that_diverges_has_no_finite_law():
    query = torch.ones(1, E, dtype=torch.float64)  # norm sqrt(E): m is 8 and more
    for sampler, finite in (("iid", False), ("code", True)):
        law = predicted_deviation(
            INV,
            query,
            query,
            sampler=sampler,
            num_features=32,
            dot_bound=0.9,
        )
        assert law.isfinite().all() == finite


def test_concentration_bound_by_hand():
    """R^2 = 1 for one-hot vectors of norm E^(1/4): C = 2 e^2, by Hoeffding's inequality."""
    one_hot = E**0.25 * torch.eye(E, dtype=torch.float64)[:2]
    bound = concentration_bound(EXP, one_hot, one_hot, num_features=50)
    assert 2 * math.exp(-50 * bound**2 / (8 * (2 * math.e**2) ** 2)) == pytest.approx(0.05)
    assert concentration_bound(INV, one_hot, one_hot, num_features=50) == math.inf
