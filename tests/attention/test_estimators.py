"""Random Maclaurin features as estimators: bias in standard errors, variance, exact degrees."""

import math
from functools import partial

import pytest
import torch

from macformer.attention import kernelized, maclaurin, samplers
from macformer.attention.maclaurin import truncation_degree

KERNELS = ("exp", "inv", "log", "trigh", "sqrt")
SAMPLERS = ("iid", "code", "optimal")


def estimate(features, q, k):
    """Evaluate the estimated kernel in float64, straight from its definition."""
    signs = features.signs[0].double()
    product_q = torch.ones(len(q), len(features.weights), dtype=torch.float64)
    product_k = torch.ones(len(k), len(features.weights), dtype=torch.float64)
    start = 0
    for width in features.widths:
        columns = signs[:, start : start + width]
        product_q[:, :width] *= q @ columns
        product_k[:, :width] *= k @ columns
        start += width
    random = (product_q * features.weights.double()) @ product_k.T
    return features.constant.double() + features.linear * (q @ k.T) + random


def unit(rows, dim, seed):
    x = torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def draw(sampler, kernel, *, num_features, head_dim):
    return getattr(samplers, sampler)(
        getattr(maclaurin, kernel),
        num_features=num_features,
        num_heads=1,
        head_dim=head_dim,
        dot_bound=1 / math.sqrt(head_dim),
    )


@pytest.mark.parametrize("head_dim", [8, 6])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_unbiased_within_five_standard_errors(kernel, sampler, head_dim):
    """150 draws; the series' tails beyond every sampler's truncation are below 1e-6 here."""
    torch.manual_seed(0)
    q, k = unit(3, head_dim, 1), unit(4, head_dim, 2)
    draws = torch.stack(
        [
            estimate(draw(sampler, kernel, num_features=40, head_dim=head_dim), q, k)
            for _ in range(150)
        ]
    )
    exact = getattr(kernelized, kernel)(q @ k.T / math.sqrt(head_dim))
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("num_features", [1, 2, 5, 8, 17])
def test_few_features_stay_unbiased(num_features):
    torch.manual_seed(0)
    q, k = unit(2, 8, 1), unit(2, 8, 2)
    draws = torch.stack(
        [
            estimate(draw("optimal", "inv", num_features=num_features, head_dim=8), q, k)
            for _ in range(300)
        ]
    )
    exact = kernelized.inv(q @ k.T / math.sqrt(8))
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 5 * error).all()


def test_degrees_zero_and_one_are_exact():
    """A kernel without higher degrees is reproduced, and costs no random feature."""
    features = samplers.optimal(
        lambda n: [0.5, 2.0][n] if n < 2 else 0.0,
        num_features=64,
        num_heads=1,
        head_dim=16,
        dot_bound=0.25,
    )
    q, k = unit(5, 16, 1), unit(5, 16, 2)
    torch.testing.assert_close(estimate(features, q, k), 0.5 + 2.0 * (q @ k.T) / 4)
    assert features.widths == ()


def test_a_kernel_with_gaps_is_unbiased():
    """cosh has no odd degrees."""
    torch.manual_seed(0)
    cosh = lambda n: 0.0 if n % 2 else 1 / math.factorial(n)  # noqa: E731  the kernel is one expression
    q, k = unit(3, 8, 1), unit(3, 8, 2)
    sample = partial(
        samplers.optimal, cosh, num_features=24, num_heads=1, head_dim=8, dot_bound=1 / math.sqrt(8)
    )
    draws = torch.stack([estimate(sample(), q, k) for _ in range(200)])
    exact = torch.cosh(q @ k.T / math.sqrt(8))
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-7).all()


def test_iid_variance_falls_like_one_over_features():
    torch.manual_seed(0)
    q, k = unit(4, 8, 1), unit(4, 8, 2)
    variances = []
    for num_features in (16, 64):
        draws = [
            estimate(draw("iid", "exp", num_features=num_features, head_dim=8), q, k)
            for _ in range(300)
        ]
        variances.append(torch.stack(draws).var(0).mean().item())
    assert variances[0] / variances[1] == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize(
    ("kernel", "share"), [("exp", 1 / 8), ("log", 1 / 8), ("sqrt", 1 / 8), ("inv", 1 / 4)]
)
def test_optimal_beats_the_law_of_the_authors(kernel, share):
    """Relative error of the kernel matrix at 128 features and width 32, over 20 draws."""
    torch.manual_seed(0)
    q, k = unit(64, 32, 1), unit(64, 32, 2)
    exact = getattr(kernelized, kernel)(q @ k.T / math.sqrt(32))
    errors = {}
    for sampler in ("code", "optimal"):
        features = [draw(sampler, kernel, num_features=128, head_dim=32) for _ in range(20)]
        squares = [(estimate(f, q, k) - exact).square().mean().item() for f in features]
        errors[sampler] = math.sqrt(sum(squares) / len(squares))
    assert errors["optimal"] <= share * errors["code"]


def test_counts_are_whole_tiles():
    features = draw("optimal", "exp", num_features=128, head_dim=32)
    assert len(features.weights) == 96  # 32 are the exact degree 1
    assert features.widths[0] == features.widths[1] == 96
    assert features.widths[2] % 16 == 0


def test_hadamard_rows_are_orthogonal_signs():
    torch.manual_seed(0)
    signs = samplers.hadamard(2, 16, 24)
    assert signs.shape == (2, 16, 24) and set(signs.unique().tolist()) == {-1.0, 1.0}
    block = signs[0][:, :16]
    torch.testing.assert_close(block.T @ block, 16 * torch.eye(16))
    assert not torch.equal(signs[0], signs[1])
    assert samplers.hadamard(1, 12, 5).shape == (1, 12, 5)


def test_levels_of_a_feature_are_independent():
    """Two levels from one block would estimate (q.k)^2 with a bias of the size of the value."""
    torch.manual_seed(0)
    square = lambda n: float(n == 2)  # noqa: E731
    q, k = unit(2, 4, 1), unit(2, 4, 2)
    sample = partial(
        samplers.optimal, square, num_features=4, num_heads=1, head_dim=4, dot_bound=0.5
    )
    draws = torch.stack([estimate(sample(), q, k) for _ in range(400)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - (q @ k.T / 2).square()).abs() <= 5 * error).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_coefficients_sum_to_the_closed_form(kernel):
    t = torch.tensor([-0.7, -0.2, 0.0, 0.3, 0.6], dtype=torch.float64)
    powers = sum(getattr(maclaurin, kernel)(n) * t**n for n in range(120))
    torch.testing.assert_close(powers, getattr(kernelized, kernel)(t))
    series = kernelized.series(t, coefficients=getattr(maclaurin, kernel), dot_bound=0.7)
    torch.testing.assert_close(series, powers, rtol=1e-6, atol=1e-6)


def test_truncation_leaves_less_than_its_tolerance():
    for bound in (0.1, 1 / math.sqrt(32), 0.5):
        degree = truncation_degree(maclaurin.inv, dot_bound=bound)
        tail = [bound ** (n + 1) / (1 - bound) for n in (degree, degree - 1)]  # geometric, by hand
        assert tail[0] < 1e-7 / (1 - bound) <= tail[1]


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        (lambda n: -1.0 if n == 3 else 1 / math.factorial(n), "degree 3 is -1"),
        (lambda n: float(n == 0), "constant"),
        (lambda n: math.nan, "degree 0 is nan"),
    ],
)
def test_bad_kernels_are_named(coefficients, message):
    with pytest.raises(ValueError, match=message):
        truncation_degree(coefficients, dot_bound=0.2)


def test_divergence_asks_for_the_radius():
    with pytest.raises(ValueError, match="radius"):
        truncation_degree(maclaurin.inv, dot_bound=4.0)
