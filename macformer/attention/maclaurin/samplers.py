r"""Random Maclaurin features: how degrees and signs are drawn.

A random feature of degree n is a product of n Rademacher projections. With weight :math:`w` it
estimates :math:`w \, (q \cdot k)^n` without bias:

.. math::
    \hat K(q, k) = c_0 + c_1 \, q \cdot k
        + \sum_f w_f \prod_{j=1}^{n_f} (s_{fj} \cdot q)(s_{fj} \cdot k)

(Kar & Karnick 2012, Algorithm 1.) Queries and keys are scaled by :math:`E^{-1/4}` each: degree n
carries :math:`E^{-n/2}`, of which signs hold the nearest power of two and weights the rest.

A sampler is a function ``(coefficients, *, num_features, num_heads, head_dim, dot_bound) ->
MaclaurinFeatures``, where ``num_heads`` is 1 for features that all heads share.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.attention.maclaurin.kernels import (
    Coefficients,
    checked_coefficient,
    truncation_degree,
)
from macformer.ops import MaclaurinFeatures

MIN_RANDOM = 16  # random features that must remain beside an exact degree 1
TILE = 16  # rows of one tensor-core tile


class DegreeGroup(NamedTuple):
    """Features of one degree, and the weight of each before the scaling of queries and keys."""

    degree: int
    count: int
    weight: float


Signs = Callable[[int, int, int], Tensor]  # (num_heads, head_dim, count) -> tensor of that shape


def iid(
    coefficients: Coefficients,
    *,
    num_features: int,
    num_heads: int,
    head_dim: int,
    dot_bound: float,
) -> MaclaurinFeatures:
    r"""Draw features as printed by Kar & Karnick (2012, Algorithm 1), with p = 2.

    :math:`P[n] = 2^{-(n+1)}` for n = 0, 1, 2, ..., degree 0 included. Unbiased for the whole
    series.
    """
    degrees = torch.empty(num_features).geometric_(0.5).long() - 1
    counts = torch.bincount(degrees).tolist()
    groups = [
        DegreeGroup(n, count, checked_coefficient(coefficients, n) * 2.0 ** (n + 1) / num_features)
        for n, count in enumerate(counts)
    ]
    constant = groups[0].weight * groups[0].count
    return _draw(
        groups[1:],
        rademacher,
        constant=constant,
        linear=0.0,
        num_heads=num_heads,
        head_dim=head_dim,
    )


def code(
    coefficients: Coefficients,
    *,
    num_features: int,
    num_heads: int,
    head_dim: int,
    dot_bound: float,
) -> MaclaurinFeatures:
    r"""Draw features by the law of the authors' code (SchoenbAt, ``rmfa.py``).

    Degree 0 is exact and counts as one feature; the others have :math:`P[n] \propto 2^{-(n+1)}` for
    n = 1, ..., 20. Unbiased for the series cut at degree 20.
    """
    num_random = max(num_features - 1, 1)
    law = torch.tensor([2.0 ** -(n + 1) for n in range(1, 21)], dtype=torch.float64)
    law /= law.sum()
    degrees = torch.multinomial(law, num_random, replacement=True)
    counts = torch.bincount(degrees, minlength=len(law)).tolist()
    groups = [
        DegreeGroup(n, count, checked_coefficient(coefficients, n) / (float(share) * num_random))
        for n, (count, share) in enumerate(zip(counts, law, strict=True), start=1)
    ]
    constant = checked_coefficient(coefficients, 0)
    return _draw(
        groups, rademacher, constant=constant, linear=0.0, num_heads=num_heads, head_dim=head_dim
    )


def optimal(
    coefficients: Coefficients,
    *,
    num_features: int,
    num_heads: int,
    head_dim: int,
    dot_bound: float,
) -> MaclaurinFeatures:
    r"""Spend the features where the variance is.

    Degree 0 is exact, and so is degree 1, as ``head_dim`` identity features, where ``num_features``
    leaves at least 16 others. The variance of a degree estimated by :math:`c_n` features grows as
    :math:`a_n^2 T^{2n} / c_n`, with T the bound on :math:`|t|`; for a fixed sum of the :math:`c_n`
    the total is least at :math:`c_n \propto a_n T^n`. Low degrees receive their counts rounded to
    whole tiles; all higher ones share a last group whose degrees are drawn by the same law and
    weighted by its inverse. Signs are rows of randomised Hadamard matrices. Unbiased for the series
    cut at :func:`truncation_degree`.
    """
    truncation = truncation_degree(coefficients, dot_bound=dot_bound)
    a = [checked_coefficient(coefficients, n) for n in range(truncation + 1)]
    exact_linear = a[1] > 0 and num_features >= head_dim + MIN_RANDOM
    first, num_random = (2, num_features - head_dim) if exact_linear else (1, num_features)
    linear = a[1] / math.sqrt(head_dim) if exact_linear else 0.0
    shares = [a[n] * dot_bound**n for n in range(first, truncation + 1)]
    groups = []
    for offset, count, weight in _allocate(shares, num_random):
        degree = first + offset
        groups.append(DegreeGroup(degree, count, a[degree] * weight))
    return _draw(
        groups, hadamard, constant=a[0], linear=linear, num_heads=num_heads, head_dim=head_dim
    )


def _allocate(shares: list[float], total: int) -> list[tuple[int, int, float]]:
    """Split ``total`` features over entries by their shares.

    Returns:
        ``(entry, count, weight)`` for each entry that receives features. Over the random draw of
        the last group, the expected count times weight of every entry with a positive share is one.
    """
    tile = TILE if total >= 4 * TILE else 1
    mass = math.fsum(shares)
    allocation = []
    left = total
    for entry, share in enumerate(shares):
        if share == 0:
            continue
        if math.fsum(shares[entry + 1 :]) == 0:
            return [*allocation, (entry, left, 1 / left)]
        spare = (left - 1) // tile * tile  # the last group keeps a feature, or a part of a tile
        count = min(tile * round(total * share / mass / tile), spare)
        if count <= 0:
            return allocation + _systematic(shares, entry, left)
        allocation.append((entry, count, 1 / count))
        left -= count
    return allocation


def _systematic(shares: list[float], first: int, count: int) -> list[tuple[int, int, float]]:
    """Draw ``count`` entries from ``first`` on, with probability by share, by systematic sampling.

    One uniform offset places ``count`` equidistant points under the cumulated law: each entry is
    expected ``count`` times its probability, and never misses that by a whole feature.
    """
    law = torch.tensor(shares[first:], dtype=torch.float64)
    law /= law.sum()
    offset = torch.rand((), dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + offset) / count
    entries = torch.searchsorted(law.cumsum(0), points).clamp(max=len(law) - 1)
    counts = torch.bincount(entries, minlength=len(law)).tolist()
    return [
        (first + n, drawn, 1 / (float(law[n]) * count))
        for n, drawn in enumerate(counts)
        if drawn > 0
    ]


def _draw(
    groups: list[DegreeGroup],
    signs: Signs,
    *,
    constant: float,
    linear: float,
    num_heads: int,
    head_dim: int,
) -> MaclaurinFeatures:
    """Draw every group's signs, a fresh block for each level, and lay them out level by level.

    Powers of two among the signs keep products and weights of every degree in float32's range, and
    are exact in bfloat16.
    """
    groups = sorted((g for g in groups if g.count > 0 and g.weight > 0), key=lambda g: -g.degree)
    max_degree = groups[0].degree if groups else 0
    halvings = [round(n * math.log2(head_dim) / 4) for n in range(max_degree + 1)]
    levels = []
    for n in range(1, max_degree + 1):
        blocks = [signs(num_heads, head_dim, g.count) for g in groups if g.degree >= n]
        levels.append(torch.cat(blocks, dim=-1) * 2.0 ** (halvings[n - 1] - halvings[n]))
    weights = [
        g.weight * 2.0 ** (2 * halvings[g.degree] - g.degree * math.log2(head_dim) / 2)
        for g in groups
        for _ in range(g.count)
    ]
    return MaclaurinFeatures(
        signs=torch.cat(levels, dim=-1) if levels else torch.zeros(num_heads, head_dim, 0),
        weights=torch.tensor(weights, dtype=torch.float32),
        constant=torch.tensor(constant, dtype=torch.float32),
        linear=linear,
        widths=tuple(level.shape[-1] for level in levels),
    )


def rademacher(num_heads: int, head_dim: int, count: int) -> Float[Tensor, "H E F"]:
    """Draw independent signs."""
    return torch.randint(0, 2, (num_heads, head_dim, count)).float() * 2 - 1


def hadamard(num_heads: int, head_dim: int, count: int) -> Float[Tensor, "H E F"]:
    """Draw rows of randomised Hadamard matrices, in random order.

    The rows of one block are orthogonal where ``head_dim`` is a power of two, which takes variance
    out of the sum over features; each row alone is uniform over all sign vectors, which keeps every
    feature unbiased. Other widths use the first columns of the next power of two.
    """
    order = 1 << (head_dim - 1).bit_length()
    matrix = _hadamard_matrix(order)[:, :head_dim]
    heads = []
    for _ in range(num_heads):
        blocks = []
        for _ in range(math.ceil(count / order)):
            flips = rademacher(1, head_dim, 1)[0]  # (E, 1)
            blocks.append(flips * matrix[torch.randperm(order)].T)
        heads.append(torch.cat(blocks, dim=1)[:, :count])
    return torch.stack(heads)


def _hadamard_matrix(order: int) -> Tensor:
    """Build Sylvester's matrix for a power of two."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
