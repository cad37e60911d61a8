r"""Dot-product kernels, by their Maclaurin coefficients and in closed form.

.. math:: K(t) = \sum_n a_n t^n, \qquad t = q \cdot k / \sqrt{E}

All :math:`a_n \ge 0` makes a kernel positive definite on the unit ball of every dimension
(Schoenberg 1942; Kar & Karnick 2012, Theorem 1) and gives it random Maclaurin features. YAML names
a function that returns a :class:`Kernel`; any importable one serves as well as these.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

Coefficients = Callable[[int], float]

_TOLERANCE = 1e-7  # of a series in float32, relative to its sum
_MAX_DEGREE = 512


class Kernel(NamedTuple):
    """A dot-product kernel.

    Attributes:
        name: How tables and messages call it.
        coefficients: From degree n to :math:`a_n`.
        closed_form: K, elementwise; None where there is none, and the series is summed instead.
        radius: The :math:`|t|` from which on the series diverges.
    """

    name: str
    coefficients: Coefficients
    closed_form: Callable[[Tensor], Tensor] | None
    radius: float


def exp() -> Kernel:
    r""":math:`e^t`, for all t."""
    return Kernel("exp", _exp, torch.exp, math.inf)


def inv() -> Kernel:
    r""":math:`1 / (1 - t)`, for :math:`|t| < 1`."""
    return Kernel("inv", lambda n: 1.0, lambda t: 1 / (1 - t), 1.0)


def log() -> Kernel:
    r""":math:`1 - \log(1 - t)`, for :math:`|t| < 1`."""
    return Kernel("log", lambda n: 1 / max(n, 1), lambda t: 1 - torch.log1p(-t), 1.0)


def trigh() -> Kernel:
    r""":math:`\sinh t + \cosh t = e^t`: the papers' fifth row is ``exp`` with another seed.

    As :math:`e^t`, since the two terms cancel for t below zero.
    """
    return exp()._replace(name="trigh")


def sqrt() -> Kernel:
    r""":math:`2 - \sqrt{1 - t}`, for :math:`|t| < 1`."""
    return Kernel("sqrt", _sqrt, lambda t: 2 - torch.sqrt(1 - t), 1.0)


def truncated(kernel: Kernel, *, max_degree: int) -> Kernel:
    """Cut a kernel's series: a polynomial, with a bias towards it and fewer features to compute."""

    def coefficients(degree: int) -> float:
        return kernel.coefficients(degree) if degree <= max_degree else 0.0

    closed_form = partial(polynomial, coefficients=coefficients, degree=max_degree)
    return Kernel(f"{kernel.name} to degree {max_degree}", coefficients, closed_form, math.inf)


def check_bound(kernel: Kernel, *, dot_bound: float) -> None:
    """Refuse dot products for which a kernel is not defined.

    Raises:
        ValueError: If the bound on them does not lie below the radius.
    """
    if dot_bound >= kernel.radius:
        raise ValueError(
            f"kernel {kernel.name} has the radius {kernel.radius:g}, and dot products are bounded "
            f"by {dot_bound:.3g}; lower guard or, in RMFA without one, assumed_dot"
        )


def in_closed_form(kernel: Kernel, *, dot_bound: float) -> Kernel:
    """Give a kernel that comes without a closed form the sum of its series, for bounded t.

    Raises:
        ValueError: If the series does not converge at ``dot_bound``, or nothing bounds t.
    """
    if kernel.closed_form is not None:
        return kernel
    if math.isinf(dot_bound):
        raise ValueError(
            f"kernel {kernel.name} has no closed form, and its series can be summed for bounded "
            "dot products only: give a guard or an input_norm"
        )
    degree = truncation_degree(kernel.coefficients, dot_bound=dot_bound)
    series = partial(polynomial, coefficients=kernel.coefficients, degree=degree)
    return kernel._replace(closed_form=series)


def polynomial(t: Tensor, *, coefficients: Coefficients, degree: int) -> Tensor:
    """Sum a series up to a degree, by Horner's rule."""
    total = torch.full_like(t, checked_coefficient(coefficients, degree))
    for n in reversed(range(degree)):
        total = total * t + checked_coefficient(coefficients, n)
    return total


@cache
def _exp(degree: int) -> float:
    return 1 / math.factorial(degree)


@cache
def _sqrt(degree: int) -> float:
    if degree == 0:
        return 1.0
    return math.comb(2 * degree, degree) / (4**degree * (2 * degree - 1))


def truncation_degree(coefficients: Coefficients, *, dot_bound: float) -> int:
    r"""Find the degree above which a series no longer matters in float32.

    The smallest n, at least 1, with :math:`\sum_{k > n} a_k T^k < 10^{-7} K(T)`, where the series
    of K is cut behind degree 512.

    Args:
        dot_bound: T, the largest :math:`|t|` that can occur.

    Raises:
        ValueError: If a coefficient is negative or not finite, if all of them beyond degree 0
            vanish, or if the series does not converge at ``dot_bound``.
    """
    terms = [_term(coefficients, n, dot_bound) for n in range(_MAX_DEGREE + 1)]
    total = math.fsum(terms)
    if not sum(terms[1:]) > 0:
        raise ValueError(
            "every Maclaurin coefficient beyond degree 0 is zero: the kernel is a constant"
        )
    if not max(terms[-8:]) < _TOLERANCE * total:  # several: some degrees may be missing
        raise ValueError(
            f"the Maclaurin series does not converge at |t| = {dot_bound:.3g}, "
            "beyond its radius; lower guard or, in RMFA without one, assumed_dot"
        )
    tail = 0.0
    for degree in range(_MAX_DEGREE, 0, -1):
        tail += terms[degree]
        if tail >= _TOLERANCE * total:
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
