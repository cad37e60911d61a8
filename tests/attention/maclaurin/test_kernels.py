"""Coefficients and truncation against the closed forms, in 50 digits."""

import math

import mpmath
import pytest
import torch

from macformer.attention.maclaurin import kernels as maclaurin
from macformer.attention.maclaurin.kernels import truncation_degree

CLOSED_FORMS = {
    "exp": mpmath.exp,
    "inv": lambda t: 1 / (1 - t),
    "log": lambda t: 1 - mpmath.log(1 - t),
    "trigh": lambda t: mpmath.sinh(t) + mpmath.cosh(t),
    "sqrt": lambda t: 2 - mpmath.sqrt(1 - t),
}
COEFFICIENTS = {name: getattr(maclaurin, name)().coefficients for name in CLOSED_FORMS}


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


@pytest.mark.parametrize("kernel", CLOSED_FORMS)
def test_coefficients_are_those_of_the_closed_form(kernel):
    """Derivatives at 0 by Cauchy's integral, the mean over 128 points of a circle of radius 1/2."""
    points = [mpmath.expjpi(2 * mpmath.mpf(k) / 128) / 2 for k in range(128)]
    values = [CLOSED_FORMS[kernel](t) for t in points]
    for degree in range(21):
        terms = (v / t**degree for v, t in zip(values, points, strict=True))
        expected = float(mpmath.re(mpmath.fsum(terms)) / 128)
        assert COEFFICIENTS[kernel](degree) == pytest.approx(expected, rel=1e-12)


def test_coefficients_by_hand():
    """2 - sqrt(1 - t) = 1 + t/2 + t^2/8 + t^3/16 + 5 t^4/128 + 7 t^5/256 + ..."""
    assert [COEFFICIENTS["sqrt"](n) for n in range(6)] == [
        1,
        1 / 2,
        1 / 8,
        1 / 16,
        5 / 128,
        7 / 256,
    ]
    assert [COEFFICIENTS["exp"](n) for n in range(4)] == [1, 1, 1 / 2, 1 / 6]
    assert [COEFFICIENTS["log"](n) for n in range(4)] == [1, 1, 1 / 2, 1 / 3]
    assert [COEFFICIENTS["inv"](n) for n in range(4)] == [1, 1, 1, 1]


def test_trigh_is_exp():
    assert [COEFFICIENTS["trigh"](n) for n in range(30)] == [
        COEFFICIENTS["exp"](n) for n in range(30)
    ]


def test_high_degrees_do_not_overflow():
    for kernel in CLOSED_FORMS:
        assert 0 <= COEFFICIENTS[kernel](512) <= 1


@pytest.mark.parametrize("bound", [32**-0.5, 7**-0.5, 0.95])
@pytest.mark.parametrize("kernel", CLOSED_FORMS)
def test_truncation_is_the_first_degree_that_suffices(kernel, bound):
    total = CLOSED_FORMS[kernel](mpmath.mpf(bound))
    tail, degree = total, -1
    while degree < 1 or tail >= 1e-7 * total:
        degree += 1
        tail -= mpmath.mpf(COEFFICIENTS[kernel](degree)) * mpmath.mpf(bound) ** degree
    assert truncation_degree(COEFFICIENTS[kernel], dot_bound=bound) == degree


def test_truncation_by_hand():
    """The tail of 1 / (1 - t) beyond n is T^(n+1) of the whole, and 2^-24 < 1e-7 < 2^-23."""
    assert truncation_degree(maclaurin.inv().coefficients, dot_bound=0.5) == 23
    assert truncation_degree(lambda n: float(n in (0, 1, 3)), dot_bound=0.5) == 3


def test_a_negative_coefficient_is_named():
    with pytest.raises(ValueError, match=r"degree 3 is -1; .*non-negative"):
        truncation_degree(lambda n: -1.0 if n == 3 else 1 / math.factorial(n), dot_bound=0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_coefficient_that_is_not_finite_is_named(bad):
    with pytest.raises(ValueError, match=f"degree 2 is {bad}"):
        truncation_degree(lambda n: bad if n == 2 else 0.5**n, dot_bound=0.2)


def test_a_constant_kernel_is_refused():
    with pytest.raises(ValueError, match="constant"):
        truncation_degree(lambda n: float(n == 0), dot_bound=0.2)


@pytest.mark.parametrize("kernel", [lambda n: 1.0, lambda n: float(n % 2), lambda n: float(n % 3)])
@pytest.mark.parametrize("bound", [1.0, 4.0])
def test_divergence_asks_for_the_radius(kernel, bound):
    """Missing degrees hide nothing."""
    with pytest.raises(ValueError, match=rf"\|t\| = {bound:.3g}.*radius"):
        truncation_degree(kernel, dot_bound=bound)


@pytest.mark.parametrize(
    ("kernel", "highest"), [("exp", 1.193), ("inv", 1.215), ("log", 1.195), ("sqrt", 1.093)]
)
def test_weights_of_unit_vectors_are_nearly_constant(kernel, highest):
    """What docs/pages/guide.md says of ppSBN: width 32, independent vectors and equal ones."""
    width, closed_form = 32, getattr(maclaurin, kernel)().closed_form
    q, k = (torch.nn.functional.normalize(torch.randn(100_000, width), dim=-1) for _ in range(2))
    deviations = (closed_form((q * k).sum(-1) / width**0.5) - 1).abs()
    assert deviations.quantile(0.99) < 0.08
    assert closed_form(torch.tensor(width**-0.5)).item() == pytest.approx(highest, abs=5e-4)
