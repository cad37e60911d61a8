"""Whether a row pays: as good as the reference, cheaper to serve, and won back in time.

=================  ==========================================================================
does not pay       one of the three is out of the question: its whole interval lies beyond
                   its bound
pays               all three hold over their whole intervals, and the better of both rows is above
                   what needs no attention
not decided        anything else: an interval that reaches over its bound, fewer than three
                   seeds, a quantity that was not measured or a number that was not given
=================  ==========================================================================

Intervals are of 95 %, over the seeds that both rows have and, of accuracies, their test examples.
"""

from dataclasses import dataclass
from math import exp, inf, isnan

import numpy as np

from macformer.tables.comparison import Pair
from macformer.tables.decision.costs import break_even
from macformer.tables.decision.rates import Rates
from macformer.tables.layout import compact
from macformer.tables.uncertainty import MOST_SEEDS, paired_difference, seeds_to_clear

PAYS, DOES_NOT_PAY, NOT_DECIDED = "pays", "does not pay", "not decided"
FEWEST_SEEDS = 3  # that tell how much seeds differ


@dataclass(frozen=True)
class Case:
    """What is known of a row beside its reference.

    Attributes:
        reference: The name of the other row.
        accuracy: Right answers to the same test examples; None where they are unknown.
        no_accuracy: Why they are.
        price: Logarithms of the price of a document, in one column; None where it is unknown.
        no_price: Why it is.
        extra: What training, search and the change itself cost more than the reference; NaN where
            that is unknown.
        saved_of: The price of a document of the reference.
        reached: The accuracy of the better one of both rows.
        floor: That of predictors without attention.
    """

    reference: str
    accuracy: Pair | None
    no_accuracy: str
    price: Pair | None
    no_price: str
    extra: float
    saved_of: float
    reached: float
    floor: float


@dataclass(frozen=True)
class Finding:
    """Whether one condition holds, None where that is open, and a sentence that says why."""

    holds: bool | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    name: str
    reason: str


def judge(case: Case, rates: Rates) -> Verdict:
    """Return the verdict on a row, with what has decided it or keeps it open."""
    findings = [
        _judge_accuracy(case, rates),
        _judge_price(case, rates),
        _judge_volume(case, rates),
        _judge_floor(case),
    ]
    for holds, name in ((False, DOES_NOT_PAY), (None, NOT_DECIDED), (True, PAYS)):
        sentences = [found.sentence for found in findings if found.holds is holds]
        if sentences:
            return Verdict(name, "; ".join(filter(None, sentences)))
    raise AssertionError("a finding holds, does not hold or is open")


def _judge_accuracy(case: Case, rates: Rates) -> Finding:
    pair = case.accuracy
    if pair is None:
        return Finding(None, case.no_accuracy)
    if pair.num_seeds < FEWEST_SEEDS:
        return Finding(None, _too_few(pair.num_seeds))
    found = paired_difference(pair.ours, pair.theirs)
    low, high = 100 * found.low, 100 * found.high
    between = f"accuracy differs by {low:+.1f} to {high:+.1f} points"
    if low >= 0:
        return Finding(True, between)
    if not rates.is_given("loss"):
        return Finding(None, f"{between}, and how many may be lost was not said (loss)")
    bound = f"{rates.loss:g} may be lost"
    if low >= -rates.loss:
        return Finding(True, f"{between}, and {bound}")
    if high < -rates.loss:
        return Finding(False, f"{between}, and no more than {bound}")
    return Finding(None, f"{between}, and {bound}: {_needed(pair, -rates.loss / 100)}")


def _judge_price(case: Case, rates: Rates) -> Finding:
    pair = case.price
    if pair is None:
        return Finding(None, case.no_price)
    if pair.num_seeds < FEWEST_SEEDS:
        return Finding(None, "" if case.accuracy else _too_few(pair.num_seeds))
    low, high = _price_ratio(pair)
    bound = 1 - (rates.saving / 100 if rates.is_given("saving") else 0)
    between = f"serving costs {low:.2f} to {high:.2f} of {case.reference}"
    asked = f", and at most {bound:.2f} was asked for" if bound < 1 else ""
    if high < bound:
        return Finding(True, between + asked)
    if low >= bound:
        return Finding(False, between + asked)
    return Finding(None, f"{between}{asked}: {_needed(pair, float(np.log(bound)))}")


def _judge_volume(case: Case, rates: Rates) -> Finding:
    """Hold the documents after which the row is won back against those that are served."""
    pair = case.price
    if pair is None or pair.num_seeds < FEWEST_SEEDS:
        return Finding(None, "")
    low, high = _price_ratio(pair)
    if low >= 1:
        return Finding(False, "")  # the price has said so
    if isnan(case.extra):
        return Finding(None, "what training and search cost is not known")
    early, late = (break_even(case.extra, case.saved_of * (1 - ratio)) for ratio in (low, high))
    volume = rates.documents * rates.months
    asked = (
        "" if isnan(volume) else f", and {compact(volume)} are served in {rates.months:g} months"
    )
    between = f"it is won back after {compact(early)} to {compact(late)} documents{asked}"
    if late == inf:
        between = f"it is won back after {compact(early)} documents, or never{asked}"
    if late == 0:
        return Finding(True, "it costs no more to begin with")
    if early > volume:
        return Finding(False, between)
    return Finding(True if late < inf and not late > volume else None, between)


def _judge_floor(case: Case) -> Finding:
    if case.reached > case.floor or isnan(case.floor):
        return Finding(True, "")
    return Finding(
        None,
        f"neither row is above {100 * case.floor:.1f} %, which no attention is needed for",
    )


def _price_ratio(pair: Pair) -> tuple[float, float]:
    found = paired_difference(pair.ours, pair.theirs)
    return exp(found.low), exp(found.high)


def _too_few(num_seeds: int) -> str:
    have = f"{num_seeds} seed{'s' * (num_seeds != 1)} in common"
    return f"{have} with the reference; {FEWEST_SEEDS} tell how much seeds differ"


def _needed(pair: Pair, threshold: float) -> str:
    """Say how many seeds would tell, should mean and spread stay as they are."""
    number = seeds_to_clear(pair.ours, pair.theirs, threshold=threshold)
    if number is None:
        return f"not even {MOST_SEEDS} seeds would tell, should it stay so"
    return f"about {number} seeds would tell, should it stay so"
