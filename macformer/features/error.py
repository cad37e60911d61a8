r"""The error of random Maclaurin features: measured, predicted, and bounded.

With :math:`t = q \cdot k / \sqrt{E}`, features of random degrees n with probabilities :math:`P(n)`
and Rademacher signs have, one by one, the second moment

.. math::
    \mathrm{E}[Z^2] = \sum_n \frac{a_n^2}{P(n)} m^n, \qquad
    m = \frac{|q|^2 |k|^2 + 2 \left((q \cdot k)^2 - \sum_i q_i^2 k_i^2\right)}{E}

since the product of one projection of q and of k has the second moment m, and levels are
independent.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.attention import UniformAttention
from macformer.attention.maclaurin.kernels import Coefficients, truncation_degree
from macformer.attention.maclaurin.samplers import MIN_RANDOM
from macformer.ops import MaclaurinFeatures

NUM_TERMS = 60  # of series that have no end
TAIL = 1e-6  # share of the sum in its last term from which it has not converged


def estimate_kernel(
    features: MaclaurinFeatures, query: Float[Tensor, "L E"], key: Float[Tensor, "S E"]
) -> Float[Tensor, "L S"]:
    """Evaluate the kernel matrix that the features of the first head stand for."""
    random = (_products(features, query) * features.weights) @ _products(features, key).T
    return features.constant + features.linear * (query @ key.T) + random


def _products(features: MaclaurinFeatures, x: Tensor) -> Tensor:
    """Multiply the projections of all levels that reach each feature."""
    product = x.new_ones(len(x), len(features.weights))
    levels = features.signs[0].to(x.dtype).split(features.widths, dim=1)
    for width, signs in zip(features.widths, levels, strict=True):
        product[:, :width] *= x @ signs
    return product


def error_over_signal(
    out: Float[Tensor, "B H L Ev"],
    exact: Float[Tensor, "B H L Ev"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Tensor | None = None,
) -> float:
    r"""Return :math:`\|\mathrm{out} - \mathrm{exact}\| / \|\mathrm{exact} - \bar v\|`.

    The signal is what attention adds to the mean of the values: at an error of 1 or more, averaging
    the values is the better approximation. With a mask, queries are taken to be padded as keys are.
    """
    uniform = UniformAttention(num_heads=out.shape[1], head_dim=out.shape[3])
    mean = uniform(out, value, value, key_padding_mask=key_padding_mask)
    error, signal = out - exact, exact - mean
    if key_padding_mask is not None:
        absent = key_padding_mask[:, None, :, None]
        error, signal = error.masked_fill(absent, 0), signal.masked_fill(absent, 0)
    return float(error.norm() / signal.norm())


def predicted_deviation(
    coefficients: Coefficients,
    query: Float[Tensor, "L E"],
    key: Float[Tensor, "S E"],
    *,
    sampler: str,
    num_features: int,
    dot_bound: float,
) -> Float[Tensor, "L S"]:
    """Return the standard deviation of the estimate by the law of the second moment.

    For ``optimal`` as if its degrees and signs were drawn one by one: fixed counts and Hadamard
    rows do better. Infinite for ``iid`` where the series of the second moment diverges.
    """
    head_dim = query.shape[1]
    t, m = _moments(query, key)
    law, num_random = _degree_law(coefficients, sampler, num_features, head_dim, dot_bound)
    second, mean = torch.zeros_like(t), torch.zeros_like(t)
    term = second
    for degree, probability in law.items():
        term = coefficients(degree) ** 2 / probability * m**degree
        second = second + term
        mean = mean + coefficients(degree) * t**degree
    deviation = ((second - mean**2).clamp(min=0) / num_random).sqrt()
    diverges = (term > TAIL * second) & (sampler == "iid")  # the others are cut at some degree
    return deviation.masked_fill(diverges, math.inf)


def _moments(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and second moment of the product of one projection of q and one of k."""
    dot, squares = query @ key.T, query.square() @ key.square().T
    norms = query.square().sum(1, keepdim=True) * key.square().sum(1)
    head_dim = query.shape[1]
    return dot / math.sqrt(head_dim), (norms + 2 * (dot.square() - squares)) / head_dim


def _degree_law(
    coefficients: Coefficients, sampler: str, num_features: int, head_dim: int, dot_bound: float
) -> tuple[dict[int, float], int]:
    """Return each random degree's probability, and the number of random features."""
    if sampler == "iid":
        return {n: 2.0 ** -(n + 1) for n in range(NUM_TERMS)}, num_features
    if sampler == "code":
        return {n: 2.0**-n / (1 - 2.0**-20) for n in range(1, 21)}, num_features - 1
    first, num_random = 1, num_features
    if num_features >= head_dim + MIN_RANDOM:
        first, num_random = 2, num_features - head_dim
    last = truncation_degree(coefficients, dot_bound=dot_bound)
    shares = {n: coefficients(n) * dot_bound**n for n in range(first, last + 1)}
    return {n: share / math.fsum(shares.values()) for n, share in shares.items()}, num_random


def concentration_bound(
    coefficients: Coefficients,
    query: Float[Tensor, "L E"],
    key: Float[Tensor, "S E"],
    *,
    num_features: int,
    probability: float = 0.95,
) -> float:
    r"""Return the error that Kar & Karnick (2012, Lemma 4 and Hoeffding) leave at a probability.

    .. math:: P\left[|\hat K - K| > \epsilon\right] \le 2 e^{-F \epsilon^2 / (8 C^2)},
        \qquad C = p f(p R^2)

    for p = 2 and inputs, scaled by :math:`E^{-1/4}`, of 1-norm at most R. Infinite where the series
    diverges at :math:`p R^2`: the bound says nothing there.
    """
    largest = max(float(x.abs().sum(1).max()) for x in (query, key))
    argument = 2 * largest**2 / math.sqrt(query.shape[1])
    terms = [coefficients(n) * argument**n for n in range(NUM_TERMS)]
    if terms[-1] > TAIL * math.fsum(terms):
        return math.inf
    factor = 8 * math.log(2 / (1 - probability)) / num_features
    return 2 * math.fsum(terms) * math.sqrt(factor)
