"""Intervals and tests against published values, and against simulated tables of equal rows."""

import math

import numpy as np
import pytest
from numpy.random import Generator, default_rng
from scipy import stats

from macformer.tables.uncertainty import (
    MOST_SEEDS,
    accuracy_interval,
    adjust_p_values,
    detectable_difference,
    paired_difference,
    seeds_to_clear,
)


def test_one_seed_has_wilson_s_interval():
    """15 of 148: 0.0624 to 0.1605 (Newcombe 1998, table I, method 3)."""
    found = accuracy_interval(np.arange(148)[None] < 15)
    assert (found.low, found.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_one_seed_is_tested_by_mcnemar():
    """Of 10 disagreements 9 go one way: (1 + 10) / 1024 on each side."""
    ours = np.array([[True] * 9 + [False] + [True] * 40])
    theirs = np.array([[False] * 9 + [True] + [True] * 40])
    found = paired_difference(ours, theirs)
    assert found.p_value == pytest.approx(22 / 1024)
    assert found.mean == pytest.approx(8 / 50)


def test_seeds_without_spread_between_examples_are_a_t_test():
    """Where every example has the seed's own value, what is left is Student's t over seeds."""
    seeds = np.array([[0.1], [0.3], [0.2]])
    correct = (
        np.repeat(seeds, 4000, axis=1) > np.linspace(0, 1, 4000)[default_rng(0).permutation(4000)]
    )
    by_seed = correct.mean(1)
    error = by_seed.std(ddof=1) / math.sqrt(3)
    found = accuracy_interval(correct)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 2) * error, rel=0.02)


@pytest.mark.parametrize("t", [1.0, 9.0, 70.7])
def test_seeds_alone_have_student_s_tails(t):
    """Of three seeds whose examples all answer alike: p from 0.4 to 2e-4."""
    seeds = np.array([-1.0, 0.0, 1.0])[:, None] + t / math.sqrt(3)
    found = paired_difference(np.repeat(seeds, 5, axis=1), np.zeros((3, 5)))
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 2), rel=2e-3)


def test_examples_alone_have_the_normal_law():
    values = np.repeat(default_rng(0).random((1, 900)) < 0.5, 4, axis=0)
    found = accuracy_interval(values)
    error = values[0].std(ddof=1) / 30
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=1e-3)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_equal_answers_may_differ_elsewhere(num_seeds):
    """On none of 500 examples: Wilson's upper bound is 1.96^2 / (n + 1.96^2)."""
    correct = default_rng(0).random((num_seeds, 500)) < 0.4
    found = paired_difference(correct, correct)
    assert (found.mean, found.p_value) == (0.0, 1.0)
    bound = 1.96**2 / (500 + 1.96**2)
    assert (found.low, found.high) == pytest.approx((-bound, bound), abs=1e-5)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_row_that_is_always_right_may_be_wrong_elsewhere(num_seeds):
    """None wrong of 100 examples: Wilson's lower bound is n / (n + 1.96^2), however many seeds."""
    found = accuracy_interval(np.ones((num_seeds, 100), dtype=bool))
    assert (found.low, found.high) == pytest.approx((100 / (100 + 1.96**2), 1.0), abs=1e-4)


def draw_rows(
    rng: Generator, *, num_seeds: int, num_examples: int, seed_sd: float, num_rows: int = 2
) -> np.ndarray:
    """Draw rows of one law: examples of their own difficulty, seeds of their own skill."""
    difficulty = rng.normal(size=num_examples)
    skill = seed_sd * rng.normal(size=(num_rows, num_seeds, 1))
    return rng.normal(size=(num_rows, num_seeds, num_examples)) + skill > difficulty


@pytest.mark.parametrize("num_seeds", [1, 3, 5])
def test_equal_rows_are_called_different_in_one_table_of_twenty_at_most(num_seeds):
    """A single seed cannot know the spread of seeds, so there it is none: examples alone vary."""
    rng, num_tables = default_rng(0), 600
    options = {"num_examples": 200, "seed_sd": 0.1 * (num_seeds > 1)}
    false = sum(
        paired_difference(*draw_rows(rng, num_seeds=num_seeds, **options)).p_value < 0.05
        for _ in range(num_tables)
    )
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_tables)
    assert 0.005 < false / num_tables < limit


@pytest.mark.parametrize(("num_seeds", "seed_sd"), [(1, 0.0), (3, 0.3)])
def test_twenty_equal_rows_differ_in_one_table_of_twenty_at_most(num_seeds, seed_sd):
    """Their p values adjusted; unadjusted, many tables would call some row different."""
    rng, num_tables, num_rows, found, unadjusted = default_rng(3), 80, 20, 0, 0
    options = {"num_examples": 120, "seed_sd": seed_sd}
    for _ in range(num_tables):
        reference, *rows = draw_rows(rng, num_rows=num_rows + 1, num_seeds=num_seeds, **options)
        p_values = np.array([paired_difference(row, reference).p_value for row in rows])
        found += (adjust_p_values(p_values) < 0.05).any()
        unadjusted += (p_values < 0.05).any()
    assert found / num_tables < 0.05 + 3 * math.sqrt(0.05 * 0.95 / num_tables)
    assert unadjusted / num_tables > 0.2


def test_a_bootstrap_over_three_seeds_would_call_more_of_them_different():
    """Why there is none: its interval knows nothing of the spread that three values cannot show."""
    rng, num_tables, false = default_rng(1), 120, 0
    for _ in range(num_tables):
        ours, theirs = draw_rows(rng, num_seeds=3, num_examples=200, seed_sd=0.3)
        difference = ours.astype(float) - theirs
        seeds = rng.integers(3, size=(400, 3))
        examples = rng.integers(200, size=(400, 200))
        means = [difference[s][:, i].mean() for s, i in zip(seeds, examples, strict=True)]
        low, high = np.quantile(means, [0.025, 0.975])
        false += not low <= 0 <= high
    assert false / num_tables > 0.1


def test_p_values_rise_with_their_number():
    """By hand: 4/1 of 0.01, 4/2 of 0.02, 4/3 of 0.03 and 0.5 itself, never falling."""
    adjusted = adjust_p_values(np.array([0.02, np.nan, 0.01, 0.5, 0.03]))
    np.testing.assert_allclose(adjusted, [0.04, np.nan, 0.04, 0.5, 0.04])


@pytest.mark.parametrize("level", [0.05, 0.005])
def test_a_difference_of_the_detectable_size_is_found_four_times_out_of_five(level):
    rng, num_tables, found = default_rng(2), 300, 0
    base = rng.random((1, 4000)) < 0.4
    size = detectable_difference(rng.random((1, 4000)) < 0.4, base, level=level)
    for _ in range(num_tables):
        ours, theirs = rng.random((1, 4000)) < 0.4 + size, rng.random((1, 4000)) < 0.4
        found += paired_difference(ours, theirs).p_value < level
    assert found / num_tables == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize("level", [0.05, 0.005])
def test_three_seeds_find_it_as_often_although_their_spread_is_guessed_anew(level):
    """Differences of the spreads that were seen, seeds by 0.03 and examples by 0.2."""
    rng, num_tables, num_examples = default_rng(3), 300, 100
    seeds = 0.03 * np.array([-1.0, 0.0, 1.0])[:, None]
    examples = stats.zscore(rng.normal(size=num_examples), ddof=1) * 0.2
    size = detectable_difference(seeds + examples, np.zeros((3, num_examples)), level=level)
    found = sum(
        paired_difference(
            size + rng.normal(scale=0.03, size=(3, 1)) + rng.normal(scale=0.2, size=num_examples),
            np.zeros((3, num_examples)),
        ).p_value
        < level
        for _ in range(num_tables)
    )
    assert found / num_tables == pytest.approx(0.8, abs=0.07)


def test_rows_that_never_differ_say_nothing_of_what_would_be_found():
    assert math.isnan(detectable_difference(np.ones((2, 5)), np.ones((2, 5)), level=0.05))


def test_answers_about_one_example_are_not_so_many_examples():
    """Eight answers each, all right or all wrong: as little is known as from one answer each."""
    right = default_rng(0).random((1, 400)) < 0.3
    shares = np.repeat(right[:, :, None], 8, axis=2).mean(2)
    once, shared = accuracy_interval(right), accuracy_interval(shares)
    assert shared.mean == once.mean
    assert shared.high - shared.low == pytest.approx(once.high - once.low, rel=0.02)


def test_shares_of_one_seed_are_paired_by_student():
    rng = default_rng(0)
    ours, theirs = rng.integers(0, 9, size=(2, 1, 50)) / 8
    found = paired_difference(ours, theirs)
    expected = stats.ttest_rel(ours[0], theirs[0])
    bounds = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-3)


@pytest.mark.parametrize("distance", [0.15, 0.1, 0.05])
def test_so_many_seeds_as_are_asked_for_set_student_s_interval_clear(distance):
    """Three differences of 0.2, 0.3 and 0.4, one example each: 0.1 t / sqrt(n) below distance."""
    ours, theirs = np.array([[0.2], [0.3], [0.4]]), np.zeros((3, 1))
    found = seeds_to_clear(ours, theirs, threshold=0.3 + distance)
    counts = np.arange(4, MOST_SEEDS + 1)
    clear = counts[0.1 * stats.t.ppf(0.975, counts - 1) / np.sqrt(counts) < distance]
    assert found == clear[0]


def test_no_number_of_seeds_makes_up_for_too_few_examples():
    correct = np.tile(np.arange(20) < 10, (3, 1))
    assert seeds_to_clear(correct, np.ones_like(correct), threshold=-0.4) is None
    assert seeds_to_clear(correct[:, :1], correct[:, :1], threshold=0.0) is None


def test_what_seeds_get_wrong_by_chance_evens_out_over_more_of_them():
    """As many seeds as are foretold from ten have the width that was asked for, of the same law."""
    rng = default_rng(3)

    def draw(num_seeds: int) -> np.ndarray:
        return rng.random((num_seeds, 400)) < 0.7

    ours, theirs = draw(10), draw(10)
    wide = paired_difference(draw(40), draw(40))
    asked = (wide.high - wide.low) / 2
    middle = paired_difference(ours, theirs).mean
    found = seeds_to_clear(ours, theirs, threshold=middle - asked)
    assert found is not None and 25 < found < 60
