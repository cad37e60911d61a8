"""Verdicts on cases whose intervals, ratios and volumes are known by hand."""

from dataclasses import replace
from math import exp, log, nan

import numpy as np
import pytest

from macformer.tables.comparison import Pair
from macformer.tables.decision.rates import read_rates
from macformer.tables.decision.verdicts import (
    DOES_NOT_PAY,
    NOT_DECIDED,
    PAYS,
    Case,
    judge,
)

NUM_EXAMPLES = 100


def answers(*, lost: int, seeds: int = 3) -> Pair:
    """Let a row have so many examples wrong, the same for each seed, that its reference has right.

    For 10 of 100: a difference of -10 points, with a standard error of
    sqrt(0.1 * 0.9 / 99) = 3.02 points and bounds of -15.9 and -4.1.
    """
    theirs = np.ones((seeds, NUM_EXAMPLES), bool)
    ours = theirs.copy()
    ours[:, :lost] = False
    return Pair(ours, theirs)


def prices(*ratios: float) -> Pair:
    """Let documents cost these shares of the reference's, one for each seed."""
    theirs = np.full((len(ratios), 1), log(0.004))
    return Pair(theirs + np.log(np.array(ratios))[:, None], theirs)


# Half the price, none of the accuracy, 60 more at first: 60 / (0.004 - 0.002) = 30,000 documents.
CASE = Case(
    reference="softmax",
    accuracy=answers(lost=0),
    no_accuracy="",
    price=prices(0.5, 0.5, 0.5),
    no_price="",
    extra=60.0,
    saved_of=0.004,
    reached=0.8,
    floor=0.5,
)


def test_a_row_pays_that_is_as_good_and_cheaper():
    verdict = judge(CASE, read_rates("hour=1,loss=4"))
    assert verdict.name == PAYS
    assert "accuracy differs by -3.7 to +3.7 points" in verdict.reason  # Wilson, 0 of 100
    assert "serving costs 0.50 to 0.50 of softmax" in verdict.reason
    assert "won back after 30.0K to 30.0K documents" in verdict.reason


@pytest.mark.parametrize(
    ("loss", "name"), [(1, DOES_NOT_PAY), (10, NOT_DECIDED), (15.8, NOT_DECIDED), (16, PAYS)]
)
def test_accuracy_is_held_against_what_may_be_lost(loss, name):
    verdict = judge(replace(CASE, accuracy=answers(lost=10)), read_rates(f"hour=1,loss={loss}"))
    assert verdict.name == name
    assert "accuracy differs by -15.9 to -4.1 points" in verdict.reason


def test_a_row_that_is_surely_better_needs_no_word_of_what_may_be_lost():
    reverse = Pair(CASE.accuracy.theirs, answers(lost=10).ours)  # pyright: ignore
    assert judge(replace(CASE, accuracy=reverse), read_rates("hour=1")).name == PAYS
    verdict = judge(replace(CASE, accuracy=answers(lost=10)), read_rates("hour=1"))
    assert verdict.name == NOT_DECIDED and "how many may be lost was not said" in verdict.reason


def test_the_spread_of_prices_over_seeds_counts_and_says_how_many_seeds_would_tell():
    """Logarithms -0.2, -0.3, -0.4: Student's bounds are -0.3 ± 4.303 * 0.1 / sqrt(3) = ± 0.248.

    A tenth less is log 0.9 = -0.105, which is 0.195 away; 3.182 * 0.1 / sqrt(4) = 0.159 is less.
    """
    case = replace(CASE, price=prices(exp(-0.2), exp(-0.3), exp(-0.4)))
    assert judge(case, read_rates("hour=1,loss=4")).name == PAYS
    verdict = judge(case, read_rates("hour=1,loss=4,saving=10"))
    assert verdict.name == NOT_DECIDED
    assert "serving costs 0.58 to 0.95 of softmax, and at most 0.90 was asked" in verdict.reason
    assert "about 4 seeds would tell" in verdict.reason


def test_more_seeds_do_not_help_where_test_examples_are_too_few():
    case = replace(CASE, accuracy=answers(lost=10))
    verdict = judge(case, read_rates("hour=1,loss=10"))
    assert "not even 100 seeds would tell" in verdict.reason


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_a_row_that_is_not_cheaper_does_not_pay(ratio):
    case = replace(CASE, price=prices(ratio, ratio, ratio))
    verdict = judge(case, read_rates("hour=1,loss=4,documents=1e9,months=99"))
    assert verdict.name == DOES_NOT_PAY
    assert verdict.reason == f"serving costs {ratio:.2f} to {ratio:.2f} of softmax"


def test_a_price_on_both_sides_of_the_reference_decides_nothing():
    verdict = judge(replace(CASE, price=prices(0.9, 1.0, 1.1)), read_rates("hour=1,loss=4"))
    assert verdict.name == NOT_DECIDED and "documents, or never" in verdict.reason


@pytest.mark.parametrize(
    ("documents", "months", "name"),
    [(10_000, 2, DOES_NOT_PAY), (10_000, 3.1, PAYS), (20_000, 1, DOES_NOT_PAY)],
)
def test_what_is_won_back_too_late_does_not_pay(documents, months, name):
    rates = read_rates(f"hour=1,loss=4,documents={documents},months={months}")
    verdict = judge(CASE, rates)
    assert verdict.name == name
    assert f"are served in {months:g} months" in verdict.reason


def test_a_volume_within_the_interval_of_prices_is_open():
    """Bounds of 0.578 and 0.950: from 35,600 to 300,000 documents."""
    case = replace(CASE, price=prices(exp(-0.2), exp(-0.3), exp(-0.4)))
    for documents, name in ((3e4, DOES_NOT_PAY), (1e5, NOT_DECIDED), (4e5, PAYS)):
        rates = read_rates(f"hour=1,loss=4,documents={documents},months=1")
        verdict = judge(case, rates)
        assert verdict.name == name
        assert "won back after 35.5K to 298K documents" in verdict.reason


def test_a_row_that_costs_no_more_to_begin_with_is_won_back_at_once():
    rates = read_rates("hour=1,loss=4,documents=1,months=1")
    verdict = judge(replace(CASE, extra=-1.0), rates)
    assert verdict.name == PAYS and "it costs no more to begin with" in verdict.reason


UNKNOWN = {
    "no answers": {"accuracy": None, "no_accuracy": "there are no answers"},
    "no clock": {"price": None, "no_price": "there was no clock"},
    "1 seed in common": {"accuracy": answers(lost=0, seeds=1), "price": prices(0.5)},
    "2 seeds in common": {"accuracy": answers(lost=0, seeds=2), "price": prices(0.5, 0.5)},
    "what training and search cost is not known": {"extra": nan},
    "neither row is above 50.0 %": {"reached": 0.5},
}


@pytest.mark.parametrize(("reason", "change"), UNKNOWN.items())
def test_what_is_unknown_leaves_a_good_row_undecided(reason, change):
    verdict = judge(replace(CASE, **change), read_rates("hour=1,loss=4"))
    assert verdict.name == NOT_DECIDED and reason in verdict.reason


def test_what_is_out_of_the_question_decides_whatever_else_is_unknown():
    case = replace(CASE, accuracy=answers(lost=10), price=None, no_price="no clock", extra=nan)
    verdict = judge(case, read_rates("loss=1"))
    assert verdict.name == DOES_NOT_PAY and "no clock" not in verdict.reason
