r"""Dot-product kernels by their Maclaurin coefficients.

.. math:: K(t) = \sum_n a_n t^n, \qquad t = q \cdot k / \sqrt{E}

A kernel is a function ``degree -> a_n``. All :math:`a_n \ge 0` makes it positive definite on the
unit ball of every dimension (Schoenberg 1942; Kar & Karnick 2012, Theorem 1) and gives it random
Maclaurin features. Any importable function of that form serves as well as these.
"""

import math
from collections.abc import Callable

Coefficients = Callable[[int], float]


def exp(degree: int) -> float:
    r""":math:`e^t`, for all t."""
    return 1 / math.factorial(degree)


def inv(degree: int) -> float:
    r""":math:`1 / (1 - t)`, for :math:`|t| < 1`."""
    return 1.0


def log(degree: int) -> float:
    r""":math:`1 - \log(1 - t)`, for :math:`|t| < 1`."""
    return 1 / max(degree, 1)


def trigh(degree: int) -> float:
    r""":math:`\sinh t + \cosh t = e^t`: the papers' fifth row is ``exp`` with another seed."""
    return exp(degree)


def sqrt(degree: int) -> float:
    r""":math:`2 - \sqrt{1 - t}`, for :math:`|t| < 1`."""
    if degree == 0:
        return 1.0
    return math.comb(2 * degree, degree) / (4**degree * (2 * degree - 1))


def truncated(degree: int, *, coefficients: Coefficients, max_degree: int) -> float:
    """Cut a kernel's series: a polynomial, with a bias towards it and fewer features to compute."""
    return coefficients(degree) if degree <= max_degree else 0.0


def truncation_degree(
    coefficients: Coefficients, *, dot_bound: float, tolerance: float = 1e-7, max_degree: int = 512
) -> int:
    r"""Find the degree above which a series no longer matters in float32.

    The smallest n, at least 1, with :math:`\sum_{k > n} a_k T^k < \mathrm{tolerance} \cdot K(T)`.

    Args:
        dot_bound: T, the largest :math:`|t|` that can occur.
        max_degree: Where the sum for K(T) is cut.

    Raises:
        ValueError: If a coefficient is negative or not finite, if all of them beyond degree 0
            vanish, or if the series does not converge at ``dot_bound``.
    """
    terms = [_term(coefficients, n, dot_bound) for n in range(max_degree + 1)]
    total = math.fsum(terms)
    if not sum(terms[1:]) > 0:
        raise ValueError(
            "every Maclaurin coefficient beyond degree 0 is zero: the kernel is a constant"
        )
    if not max(terms[-8:]) < tolerance * total:  # several: some degrees may be missing
        raise ValueError(
            f"the Maclaurin series does not converge at |t| = {dot_bound:.3g}; guard and "
            "assumed_dot must lie below the kernel's radius of convergence"
        )
    tail = 0.0
    for degree in range(max_degree, 0, -1):
        tail += terms[degree]
        if tail >= tolerance * total:
            return degree
    return 1


def checked_coefficient(coefficients: Coefficients, degree: int) -> float:
    """Evaluate one coefficient.

    Raises:
        ValueError: If it is negative or not finite.
    """
    value = float(coefficients(degree))
    if not 0 <= value < math.inf:
        raise ValueError(
            f"the Maclaurin coefficient of degree {degree} is {value:g}; random Maclaurin features "
            "need finite, non-negative coefficients"
        )
    return value


def _term(coefficients: Coefficients, degree: int, dot: float) -> float:
    value = checked_coefficient(coefficients, degree)
    if value == 0:
        return 0.0
    return math.exp(min(math.log(value) + degree * math.log(dot), 700.0))
