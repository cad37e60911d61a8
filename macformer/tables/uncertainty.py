r"""Intervals of accuracies, and of differences between rows tested on the same examples.

A result has several seeds, each tested on the same m examples: a table of right and wrong, n seeds
by m examples. Both vary by chance, the seed that was drawn and the examples that the test split
holds, and both are taken as random:

.. math:: d_{si} = \mu + a_s + b_i + e_{si}, \qquad
    \widehat{\mathrm{var}}(\bar d) = \frac{\mathrm{MS}_a}{n} + \frac{\mathrm{MS}_b}{m}

with the variances of the means of seeds and of those of examples; :math:`e` enters twice, which
errs on the side of caution. Three seeds tell their own spread badly, so that its value is drawn,
too, from what their spread allows (the generalised p values of Tsui and Weerahandi 1989):

.. math:: p = \mathrm{E}_{\chi^2} \, 2 \Phi\left(-|\bar d| \Big/
    \sqrt{\frac{n - 1}{\chi^2_{n - 1}} \frac{\mathrm{MS}_a}{n} + \frac{\mathrm{MS}_b}{m}}\right)

which is Student's law where seeds alone vary, and the normal one where examples alone do. One
number of degrees of freedom for both (Satterthwaite 1946), and a bootstrap over seeds and examples
still more so, call equal rows different too often.

An example that is asked several times counts once, by the share of its answers that are right:
what is right of one example is right or wrong together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special, stats

Correct = Bool[np.ndarray, "seeds examples"] | Float[np.ndarray, "seeds examples"]

LEVEL = 0.95  # of every interval
POWER = 0.8  # at which a difference counts as one that would have been seen
NORMAL_WIDTH = float(stats.norm.ppf((1 + LEVEL) / 2))  # in standard errors
MOST_SEEDS = 100  # that anybody would train
NUM_SCALES = 500  # that stand for a law; Student's tails at p = 1e-4 come within a thousandth
NUM_SPREADS = 25  # of seeds, as a test may see them


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        p_value: Of a mean of zero, two-sided; None for an accuracy.
    """

    mean: float
    low: float
    high: float
    p_value: float | None = None


def accuracy_interval(correct: Correct) -> Estimate:
    """Estimate an accuracy: by Wilson's interval for one seed, over seeds and examples for several.

    The shares of one seed have Student's interval. Bounds stay within 0 and 1. Where nothing
    varies, as in a row that is always right, seeds tell no more than one of them: Wilson's again.
    """
    num_seeds, num_examples = correct.shape
    mean = float(correct.mean())
    if (num_seeds == 1 and correct.dtype == bool) or np.ptp(correct.astype(float)) == 0:
        return Estimate(mean, *wilson_interval(round(mean * num_examples), num_examples))
    half = _margin(_law(correct.astype(float)))
    return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0))


def wilson_interval(count: int, num_examples: int) -> tuple[float, float]:
    """Return the bounds of a share of examples (Wilson 1927), at ``LEVEL``."""
    bounds = stats.binomtest(count, num_examples).proportion_ci(LEVEL, "wilson")
    return float(bounds.low), float(bounds.high)


def paired_difference(correct: Correct, reference: Correct) -> Estimate:
    """Estimate how much more accurate a row is than a reference tested on the same examples.

    One seed of each: McNemar's exact test on the examples that one of them alone has right, and the
    normal interval of their difference; for shares, Student's paired test. Several seeds: over
    seeds and examples, pairing equal seeds, whose models start and read their data alike. Where all
    answers are equal, the interval is as wide as the share of other examples on which they may
    still differ: Wilson's of none among those seen.
    """
    difference = correct.astype(float) - reference
    mean, num_examples = float(difference.mean()), difference.shape[1]
    are_answers = correct.dtype == reference.dtype == bool
    if are_answers and not difference.any():
        _, half = wilson_interval(0, num_examples)
        return Estimate(0.0, -half, half, 1.0)
    if are_answers and len(difference) == 1:
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
        half = NORMAL_WIDTH * float(difference.std(ddof=1)) / math.sqrt(num_examples)
    else:
        law = _law(difference)
        half, p_value = _margin(law), _tails(mean, law)
    return Estimate(mean, mean - half, mean + half, float(p_value))


def adjust_p_values(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjust for the number of tests in a table (Benjamini and Hochberg 1995); NaN stays NaN."""
    adjusted = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted


def detectable_difference(correct: Correct, reference: Correct, *, level: float) -> float:
    """Return the true difference that the test of these rows finds four times out of five.

    If their spreads are as they were seen. A test of few seeds sees another spread each time, and
    with it another difference from which on it finds one. NaN where nothing varies.

    Args:
        level: Of the p values that count as found.
    """
    first, *others = _parts(correct.astype(float) - reference)
    error = _mix([first, *others]).error
    if error == 0:
        return math.nan
    shares = (np.arange(NUM_SPREADS) + 0.5) / NUM_SPREADS
    spreads = first.variance * stats.chi2.ppf(shares, first.degrees) / first.degrees
    laws = [_mix([first._replace(variance=float(spread)), *others]) for spread in spreads]
    bounds = np.array([_margin(law, level) for law in laws])

    def lacking(size: float) -> float:
        return float(special.ndtr((size - bounds) / error).mean()) - POWER

    largest = float(bounds.max()) + NORMAL_WIDTH * error  # found 39 times out of 40 or more
    found: Any = optimize.brentq(lacking, 0, largest)
    return float(found)


def seeds_to_clear(correct: Correct, reference: Correct, *, threshold: float) -> int | None:
    """Return how many seeds would set the interval of a difference clear of a threshold.

    If mean and spread stay what several seeds have shown; None where ``MOST_SEEDS`` would not do.
    More seeds take from both variances: from that of examples, what one seed gets wrong of an
    example and another does not.
    """
    difference = correct.astype(float) - reference
    distance = abs(float(difference.mean()) - threshold)
    of_seeds, *of_examples = _parts(difference)
    seeds_apart = _interaction(difference)
    for num_seeds in range(len(difference) + 1, MOST_SEEDS + 1):
        share = len(difference) / num_seeds
        parts = [_Part(of_seeds.variance * share, num_seeds - 1)]
        for part in of_examples:
            common = max(part.variance - seeds_apart, 0.0)
            parts.append(part._replace(variance=common + seeds_apart * share))
        if _margin(_mix(parts)) < distance:
            return num_seeds
    return None


def half_width(*, of_seeds: float, num_seeds: int, of_examples: float) -> float:
    """Return the half-width of the interval of a mean whose two variances are given.

    Args:
        of_seeds: The variance of the mean over seeds, as they show it; of one seed it is unknown.
        of_examples: What the examples add: of so many that it counts as known.
    """
    if num_seeds == 1:
        return NORMAL_WIDTH * math.sqrt(of_examples)
    return _margin(_mix([_Part(of_seeds, num_seeds - 1), _Part(of_examples, num_seeds)]))


def _interaction(values: Float[np.ndarray, "seeds examples"]) -> float:
    """Return what :math:`e` adds to the variance of a mean, on either axis."""
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    degrees = (values.shape[0] - 1) * (values.shape[1] - 1)
    return float((rest**2).sum()) / degrees / values.size if degrees else 0.0


class _Part(NamedTuple):
    """What one axis adds to the variance of a mean, and its degrees of freedom."""

    variance: float
    degrees: int


class _Law(NamedTuple):
    """The law of a mean's error: a mixture of normal ones, and their standard deviation at best."""

    scales: Float[np.ndarray, " scales"]
    weights: Float[np.ndarray, " scales"]
    error: float


def _law(values: Float[np.ndarray, "seeds examples"]) -> _Law:
    """Return what the values tell of the error of their mean over seeds and examples.

    One seed does not tell how much seeds differ: only examples vary then.
    """
    return _mix(_parts(values))


def _parts(values: Float[np.ndarray, "seeds examples"]) -> list[_Part]:
    return [
        _Part(float(values.mean(1 - axis).var(ddof=1)) / size, size - 1)
        for axis, size in enumerate(values.shape)
        if size > 1
    ]


def _mix(parts: Sequence[_Part]) -> _Law:
    (first, degrees), *others = parts
    rest = sum(part.variance for part in others)
    spread, weights = _spread(degrees)
    return _Law(np.sqrt(first * spread + rest), weights, math.sqrt(first + rest))


@lru_cache
def _spread(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values of degrees / chi squared, and their weights; close together where large."""
    root = (np.arange(NUM_SCALES) + 0.5) / NUM_SCALES
    weights = 3 * root**2 / NUM_SCALES
    return degrees / stats.chi2.ppf(root**3, degrees), weights / weights.sum()


def _tails(mean: float, law: _Law) -> float:
    """Return the probability of a mean as far from zero as this one, if the true one is zero."""
    if law.error == 0:
        return float(mean == 0)
    share = law.weights @ (2 * special.ndtr(-abs(mean) / law.scales))
    return min(float(share), 1.0)  # the weights sum to one but for rounding


def _margin(law: _Law, level: float = 1 - LEVEL) -> float:
    """Return how far from its mean a law's tails of a level begin."""
    if law.error == 0:
        return 0.0
    widest = 1.01 * float(-special.ndtri(level / 2) * law.scales.max())
    found: Any = optimize.brentq(lambda x: _tails(x, law) - level, 0, widest)
    return float(found)
