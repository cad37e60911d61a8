"""Samplers of random Maclaurin features, tested as estimators: bias in standard errors, variance.

The kernel that features estimate is summed straight from its definition in float64.
"""

import itertools
import math
from functools import cache, partial

import pytest
import torch
from torch.testing import assert_close

from macformer.attention.maclaurin import kernels as maclaurin
from macformer.attention.maclaurin import samplers
from macformer.attention.maclaurin.kernels import truncation_degree

KERNELS = {
    name: cache(getattr(maclaurin, name)().coefficients)
    for name in ("exp", "inv", "log", "trigh", "sqrt")
}
SAMPLERS = {"iid": samplers.iid, "code": samplers.code, "optimal": samplers.optimal}
NUM_STANDARD_ERRORS = 5


@pytest.fixture(autouse=True)
def cached_truncation(monkeypatch):
    """Draws by the thousand need the truncation degree, which has tests of its own, once."""
    monkeypatch.setattr(samplers, "truncation_degree", cache(truncation_degree))


def cosh(degree):
    return 0.0 if degree % 2 else 1 / math.factorial(degree)


def unit(rows, dim):
    x = torch.randn(rows, dim, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def phi(signs, widths, x):
    """Multiply level by level: all features of degree n take part in the first n."""
    product = torch.ones(*x.shape[:-1], widths[0] if widths else 0, dtype=torch.float64)
    start = 0
    for width in widths:
        product[..., :width] *= x @ signs[:, start : start + width].double()
        start += width
    return product


def estimate(features, q, k, head=0):
    """Evaluate the estimated kernel matrix."""
    signs = features.signs[head]
    weighted = phi(signs, features.widths, q) * features.weights.double()
    random = weighted @ phi(signs, features.widths, k).T
    return features.constant.double() + features.linear * (q @ k.T) + random


def draw(sampler, coefficients, *, num_features, head_dim, num_heads=1, dot_bound=None):
    return SAMPLERS[sampler](
        coefficients,
        num_features=num_features,
        num_heads=num_heads,
        head_dim=head_dim,
        dot_bound=dot_bound or 1 / math.sqrt(head_dim),
    )


def series(coefficients, degree, t):
    return sum(coefficients(n) * t**n for n in range(degree + 1))


def assert_unbiased(draws, exact):
    """Accept the mean of independent draws within 5 standard errors of the exact value."""
    error = draws.std(0) / math.sqrt(len(draws))
    # weights are float32
    assert ((draws.mean(0) - exact).abs() <= NUM_STANDARD_ERRORS * error + 1e-6).all()


def degree_counts(features):
    """Return how many features there are of each degree."""
    return {
        n + 1: width - narrower
        for n, (width, narrower) in enumerate(itertools.pairwise([*features.widths, 0]))
    }


@pytest.mark.parametrize("head_dim", [8, 6])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_unbiased_for_the_series_that_is_stated(kernel, sampler, head_dim):
    """200 draws of 17 features: no room for an exact degree 1."""
    coefficients = KERNELS[kernel]
    q, k = unit(3, head_dim), unit(4, head_dim)
    draws = torch.stack(
        [
            estimate(draw(sampler, coefficients, num_features=17, head_dim=head_dim), q, k)
            for _ in range(200)
        ]
    )
    degree = {
        "iid": 60,  # the whole series, in float64
        "code": 20,
        "optimal": truncation_degree(coefficients, dot_bound=1 / math.sqrt(head_dim)),
    }[sampler]
    assert_unbiased(draws, series(coefficients, degree, q @ k.T / math.sqrt(head_dim)))


@pytest.mark.parametrize("num_features", [1, 2, 5, 8, 24])
def test_any_number_of_features_is_unbiased(num_features):
    coefficients = KERNELS["inv"]
    q, k = unit(2, 8), unit(2, 8)
    sample = partial(draw, "optimal", coefficients, num_features=num_features, head_dim=8)
    draws = torch.stack([estimate(sample(), q, k) for _ in range(400)])
    assert_unbiased(draws, series(coefficients, 60, q @ k.T / math.sqrt(8)))
    used = draw("optimal", coefficients, num_features=num_features, head_dim=8)
    assert len(used.weights) + (8 if used.linear else 0) == num_features


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_kernel_with_gaps_is_unbiased(sampler):
    """cosh has no odd degree, so that an exact degree 1 costs nothing either."""
    q, k = unit(3, 8), unit(3, 8)
    sample = partial(draw, sampler, cosh, num_features=32, head_dim=8)
    draws = torch.stack([estimate(sample(), q, k) for _ in range(500)])
    assert_unbiased(draws, torch.cosh(q @ k.T / math.sqrt(8)))
    features = sample()
    assert features.linear == 0
    assert all(n % 2 == 0 for n, count in degree_counts(features).items() if count)
    if sampler == "optimal":
        assert len(features.weights) == 32


@pytest.mark.parametrize("sampler", ["code", "optimal"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_degree_zero_is_exact(kernel, sampler):
    features = draw(sampler, KERNELS[kernel], num_features=13, head_dim=8)
    assert estimate(features, torch.zeros(1, 8).double(), unit(1, 8)).item() == 1


def test_degree_one_is_exact_where_features_suffice():
    coefficients = KERNELS["log"]
    features = draw("optimal", coefficients, num_features=24, head_dim=8)
    assert features.linear == pytest.approx(coefficients(1) / math.sqrt(8))
    assert degree_counts(features)[1] == 0 and len(features.weights) == 16
    assert draw("optimal", coefficients, num_features=23, head_dim=8).linear == 0


@pytest.mark.parametrize(("head_dim", "block"), [(8, 8), (6, 8), (16, 16)])
def test_a_whole_hadamard_block_makes_degree_one_exact(head_dim, block):
    features = draw("optimal", lambda n: [0.5, 2.0, 0.0][min(n, 2)], num_features=block,
                    head_dim=head_dim)  # fmt: skip
    assert features.linear == 0 and features.widths == (block,)
    q, k = unit(5, head_dim), unit(5, head_dim)
    assert_close(estimate(features, q, k), 0.5 + 2 * q @ k.T / math.sqrt(head_dim))


def test_a_linear_kernel_needs_no_random_feature():
    features = draw("optimal", lambda n: float(n < 2), num_features=64, head_dim=16)
    q, k = unit(5, 16), unit(5, 16)
    assert features.widths == () and features.signs.shape == (1, 16, 0)
    assert_close(estimate(features, q, k), 1 + q @ k.T / 4)


def feature_degrees(features):
    """Return each feature's degree: as many levels as reach it."""
    return sum((torch.arange(len(features.weights)) < width).int() for width in features.widths)


# Kar & Karnick with p = 2: 2^-(n+1) for all n; the authors' code: that, given that 1 <= n <= 20.
LAWS = {"iid": lambda n: 0.5 ** (n + 1), "code": lambda n: 0.5**n / (1 - 0.5**20)}


@pytest.mark.parametrize(("sampler", "num_random"), [("iid", 29), ("code", 28)])
def test_weights_are_coefficients_over_expected_counts(sampler, num_random):
    """And features of each degree are as frequent as the law says, in 200 draws of 29."""
    counts = torch.zeros(21)
    for _ in range(200):
        features = draw(sampler, KERNELS["log"], num_features=29, head_dim=16)
        degrees = feature_degrees(features)
        levels = phi(features.signs[0], features.widths, torch.eye(16).double()).abs()[0]
        for n, weight, level in zip(degrees.tolist(), features.weights, levels, strict=True):
            expected = KERNELS["log"](n) * 16 ** (-n / 2) / (num_random * LAWS[sampler](n))
            assert (level**2 * weight).item() == pytest.approx(expected, rel=1e-6)
        counts += torch.bincount(degrees, minlength=21)[:21]
    total = 200 * num_random
    for n in range(1, 6):
        share = LAWS[sampler](n)
        deviation = math.sqrt(total * share * (1 - share))
        assert abs(counts[n] - total * share) <= NUM_STANDARD_ERRORS * deviation


def test_no_degree_is_left_out():
    """Each degree's count times weight is its coefficient, on average over draws.

    The shares of degrees 3 to 6 are worth 0.9 to 0.03 of the 11 features: rounding would lose them.
    """
    coefficients = (1.0, 1.0, 0.6, 0.5, 0.4, 0.3, 0.2).__getitem__
    truncated = lambda n: coefficients(n) if n < 7 else 0.0  # noqa: E731
    num_draws, head_dim = 1000, 8
    sums = torch.zeros(num_draws, 7, dtype=torch.float64)
    unit_vectors = torch.eye(head_dim, dtype=torch.float64)  # their products are the signs' scale
    for i in range(num_draws):
        features = draw("optimal", truncated, num_features=11, head_dim=head_dim, dot_bound=0.3)
        assert len(features.weights) == 11
        levels = phi(features.signs[0], features.widths, unit_vectors).abs()[0]
        sums[i].index_add_(0, feature_degrees(features), levels**2 * features.weights)
    expected = torch.tensor([truncated(n) * head_dim ** (-n / 2) for n in range(7)]).double()
    assert (sums[:, 1:].max(0).values > 0).all()
    assert_unbiased(sums[:, 1:] / expected[1:], torch.ones(6).double())


@pytest.mark.parametrize("num_features", [84, 96, 128, 133, 200, 256])
def test_the_largest_group_is_whole_tiles(num_features):
    """Where |t| <= 0.1, degree 2 would take 90 % of what the exact degree 1 leaves."""
    features = draw(
        "optimal", KERNELS["inv"], num_features=num_features, head_dim=16, dot_bound=0.1
    )
    counts = degree_counts(features)
    assert len(features.weights) == sum(counts.values()) == num_features - 16
    assert counts[2] % 16 == 0
    assert abs(counts[2] - 0.9 * (num_features - 16)) <= 16


def test_signs_and_weights_stay_in_range_for_high_degrees():
    """Degrees beyond 100 occur at |t| = 0.95; neither a product nor a weight leaves float32."""
    for head_dim in (16, 32, 64, 128):
        features = draw("optimal", KERNELS["inv"], num_features=256, head_dim=head_dim,
                        dot_bound=0.95)  # fmt: skip
        assert len(features.widths) > 60
        assert (features.weights > 1e-20).all() and (features.weights < 1e20).all()
        mantissas, _ = torch.frexp(features.signs)
        assert (mantissas.abs() == 0.5).all()  # powers of two, exact in every dtype
        x = math.sqrt(0.95 * math.sqrt(head_dim)) * unit(50, head_dim)
        assert phi(features.signs[0], features.widths, x).abs().max() < 1e20


def test_iid_variance_falls_like_one_over_features():
    q, k = unit(1, 8), unit(1, 8)
    variances = []
    for num_features in (16, 128):
        sample = partial(draw, "iid", KERNELS["exp"], num_features=num_features, head_dim=8)
        draws = torch.stack([estimate(sample(), q, k).squeeze() for _ in range(1500)])
        variances.append(draws.var())
        kurtosis = ((draws - draws.mean()) / draws.std()).pow(4).mean()
        variances.append(variances[-1] * ((kurtosis - 1) / len(draws)).sqrt())  # its error
    few, few_error, many, many_error = variances
    error = (few_error**2 + (8 * many_error) ** 2).sqrt()
    assert (few - 8 * many).abs() <= NUM_STANDARD_ERRORS * error
    assert NUM_STANDARD_ERRORS * error < 0.6 * few  # 1 / sqrt(F) would be told apart


@pytest.mark.parametrize(
    ("kernel", "share"), [("exp", 1 / 8), ("log", 1 / 8), ("sqrt", 1 / 8), ("inv", 1 / 4)]
)
def test_optimal_beats_the_law_of_the_authors(kernel, share):
    """Root mean square error of the kernel matrix at 128 features and width 32, over 12 draws."""
    q, k = unit(64, 32), unit(64, 32)
    exact = series(KERNELS[kernel], 60, q @ k.T / math.sqrt(32))
    errors = {}
    for sampler in ("code", "optimal"):
        sample = partial(draw, sampler, KERNELS[kernel], num_features=128, head_dim=32)
        squares = [(estimate(sample(), q, k) - exact).square().mean() for _ in range(12)]
        errors[sampler] = torch.stack(squares).mean().sqrt()
    assert errors["optimal"] <= share * errors["code"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_heads_have_features_of_their_own(sampler):
    signs = draw(sampler, KERNELS["exp"], num_features=32, head_dim=8, num_heads=3).signs
    assert len(signs) == 3
    for one, other in itertools.combinations(signs, 2):
        assert 0.2 < (one == other).float().mean() < 0.8  # half of independent signs agree


def test_hadamard_rows_are_orthogonal_for_powers_of_two():
    signs = samplers.hadamard(2, 16, 40)
    assert signs.shape == (2, 16, 40) and set(signs.unique().tolist()) == {-1.0, 1.0}
    for head, start in itertools.product(signs, (0, 16)):
        block = head[:, start : start + 16]
        assert_close(block.T @ block, 16 * torch.eye(16))
    assert not torch.equal(signs[0], signs[1])
    assert not torch.equal(signs[0, :, :16], signs[0, :, 16:32])


def test_each_hadamard_row_is_uniform_over_all_signs():
    """4000 rows of width 3 over 8 sign vectors: each count within 5 standard deviations."""
    rows = torch.stack([samplers.hadamard(1, 3, 3)[0, :, 2] for _ in range(4000)])
    counts = torch.bincount(((rows > 0) * torch.tensor([1, 2, 4])).sum(-1), minlength=8)
    deviation = math.sqrt(4000 * 1 / 8 * 7 / 8)
    assert ((counts - 500).abs() <= NUM_STANDARD_ERRORS * deviation).all()


def test_two_levels_of_a_feature_come_from_different_blocks():
    """Levels from one block would estimate (q.k)^2 with a bias that enumeration gives exactly."""
    q = k = torch.tensor([[1.0, 0.5, -0.5, 0.25]], dtype=torch.float64)
    exact = ((q @ k.T) / 2).square()
    matrix = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double()
    same_block = [
        math.prod(float((flips * row) @ q[0]) ** 2 for row in rows) / 4
        for flips in map(torch.tensor, itertools.product([-1.0, 1.0], repeat=4))
        for rows in itertools.permutations(matrix, 2)
    ]
    biased = sum(same_block) / len(same_block)
    square = lambda n: float(n == 2)  # noqa: E731
    sample = partial(draw, "optimal", square, num_features=4, head_dim=4)
    draws = torch.stack([estimate(sample(), q, k) for _ in range(1500)])
    assert_unbiased(draws, exact)
    error = draws.std(0) / math.sqrt(len(draws))
    assert (exact - biased).abs() > 2 * NUM_STANDARD_ERRORS * error  # would be seen
