r"""Intervals of accuracies, and of differences between rows tested on the same examples.

A result has several seeds, each tested on the same m examples: a table of right and wrong, n seeds
by m examples. Both vary by chance, the seed that was drawn and the examples that the test split
holds, and both are taken as random:

.. math:: d_{si} = \mu + a_s + b_i + e_{si}, \qquad
    \widehat{\mathrm{var}}(\bar d) = \frac{\mathrm{MS}_a}{n} + \frac{\mathrm{MS}_b}{m}

with the variances of the means of seeds and of those of examples; :math:`e` enters twice, which
errs on the side of caution. Degrees of freedom follow Satterthwaite (1946). A bootstrap over seeds
and examples has the same two parts, but calls equal rows different far too often when there are
three seeds: it does not know how badly three values tell their own spread.

An example that is asked several times counts once, by the share of its answers that are right:
what is right of one example is right or wrong together.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

Correct = Bool[np.ndarray, "seeds examples"] | Float[np.ndarray, "seeds examples"]

LEVEL = 0.95  # of every interval
POWER = 0.8  # at which a difference counts as one that would have been seen


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; ``nan`` bounds where nothing bounds it.

    Attributes:
        standard_error: Of the mean, 0 where the data show no spread.
        degrees: Of freedom of the standard error; infinite for a normal law.
        p_value: Of a mean of zero, two-sided; None for an accuracy.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    degrees: float
    p_value: float | None = None


def accuracy_interval(correct: Correct) -> Estimate:
    """Estimate an accuracy: by Wilson's interval for one seed, over seeds and examples for several.

    The shares of one seed have Student's interval. Bounds stay within 0 and 1.
    """
    num_seeds, num_examples = correct.shape
    mean = float(correct.mean())
    if num_seeds == 1 and correct.dtype == bool:
        wilson = stats.binomtest(int(correct.sum()), num_examples).proportion_ci(LEVEL, "wilson")
        error = math.sqrt(mean * (1 - mean) / num_examples)
        return Estimate(mean, float(wilson.low), float(wilson.high), error, math.inf)
    error, degrees = _error(correct.astype(float))
    half = _quantile(degrees) * error
    return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0), error, degrees)


def paired_difference(correct: Correct, reference: Correct) -> Estimate:
    """Estimate how much more accurate a row is than a reference tested on the same examples.

    One seed of each: McNemar's exact test on the examples that one of them alone has right, and the
    normal interval of their difference; for shares, Student's paired test. Several seeds: over
    seeds and examples, pairing equal seeds, whose models start and read their data alike.
    """
    difference = correct.astype(float) - reference
    mean, num_examples = float(difference.mean()), difference.shape[1]
    if len(difference) == 1 and correct.dtype == reference.dtype == bool:
        better, worse = int((difference > 0).sum()), int((difference < 0).sum())
        error = float(difference.std(ddof=1)) / math.sqrt(num_examples)
        p_value = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
        degrees = math.inf
    else:
        error, degrees = _error(difference)
        p_value = 2 * stats.t.sf(abs(mean) / error, degrees) if error else float(mean == 0)
    half = _quantile(degrees) * error
    return Estimate(mean, mean - half, mean + half, error, degrees, float(p_value))


def adjust_p_values(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjust for the number of tests in a table (Benjamini and Hochberg 1995); NaN stays NaN."""
    adjusted = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted


def detectable_difference(estimate: Estimate) -> float:
    """Return the true difference that a test like this one finds four times out of five."""
    return (_quantile(estimate.degrees) + _quantile(estimate.degrees, 2 * POWER - 1)) * (
        estimate.standard_error
    )


def _error(values: Float[np.ndarray, "seeds examples"]) -> tuple[float, float]:
    """Return the standard error of the mean over seeds and examples, and its degrees of freedom.

    One seed does not tell how much seeds differ: only examples vary then.
    """
    parts = [
        (values.mean(1 - axis).var(ddof=1) / size, size - 1)
        for axis, size in enumerate(values.shape)
        if size > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0, math.inf
    degrees = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return math.sqrt(variance), degrees


def _quantile(degrees: float, level: float = LEVEL) -> float:
    """Return the half-width of a two-sided interval in standard errors."""
    return float(stats.t.ppf((1 + level) / 2, degrees))
