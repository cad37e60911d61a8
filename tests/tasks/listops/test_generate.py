"""ListOps: the law of the samples against its generating function, the labels against a parser."""

from functools import cache, partial
from itertools import islice
from statistics import median

import numpy as np
import pytest
from scipy.stats import chisquare

from tasks.errors import DataError
from tasks.listops.generate import VOCABULARY, check_law, generate_listops

MIN_LEN, MAX_LEN, MAX_DEPTH, MAX_ARGS = 500, 2000, 10, 10
NUM_EXAMPLES = 4001
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
# Seeds are fixed, so a correct generator passes for good; a wrong law gives far smaller values.
SMALLEST_P_VALUE = 1e-3

generate_lra = partial(
    generate_listops, min_len=MIN_LEN, max_len=MAX_LEN, max_depth=MAX_DEPTH, max_args=MAX_ARGS
)
generate_short = partial(
    generate_listops, seed=3, min_len=5, max_len=47, max_depth=4, max_args=7, num_workers=1
)


def join(chunks):
    ids, lengths, labels = zip(*chunks, strict=True)
    return np.concatenate(ids), np.concatenate(lengths), np.concatenate(labels)


def to_rows(ids, lengths):
    tokens = np.array(VOCABULARY)[ids]
    return [row.tolist() for row in np.split(tokens, np.cumsum(lengths)[:-1])]


def evaluate(tokens):
    """Evaluate the expression at the head of an iterator of tokens, or return None at a bracket."""
    token = next(tokens)
    if token == "]":
        return None
    if token.isdigit():
        return int(token)
    arguments = list(iter(partial(evaluate, tokens), None))
    assert len(arguments) >= 2
    if token == "[MIN":
        return min(arguments)
    if token == "[MAX":
        return max(arguments)
    if token == "[MED":
        return int(median(arguments))
    assert token == "[SM"
    return sum(arguments) % 10


def count_arguments(tokens):
    """Count the arguments of the outermost operator: what begins at nesting level 1."""
    count = level = 0
    for token in tokens:
        count += level == 1 and token != "]"
        level += (token in OPERATORS) - (token == "]")
    return count


@cache
def subtree_length_law(depth):
    """P(length) of a subtree rooted at a depth, as the coefficients of its generating function.

    L_d(z) = 3/4 z + 1/4 z^2 mean_{k=2..max_args} L_{d+1}(z)^k, and L_{max_depth}(z) = z.
    """
    law = np.zeros(MAX_LEN)
    law[1] = 1
    if depth < MAX_DEPTH:
        law[1] = 0.75
        law[2:] = 0.25 * np.mean(list(argument_laws(depth).values()), axis=0)[:-2]
    return law


@cache
def argument_laws(depth):
    """P(total length of k arguments) of an operator at a depth, for each k."""
    argument = subtree_length_law(depth + 1)
    laws = {1: argument}
    for k in range(2, MAX_ARGS + 1):
        laws[k] = np.convolve(laws[k - 1], argument)[:MAX_LEN]
    del laws[1]
    return laws


@pytest.fixture(scope="module")
def lra_sample():
    return join(generate_lra(NUM_EXAMPLES, seed=1, num_workers=1))


@pytest.fixture(scope="module")
def kept_length_law():
    law = subtree_length_law(1).copy()
    law[: MIN_LEN + 1] = 0
    return law / law.sum()


def test_exact_law_has_the_known_acceptance():
    # 10,000 expressions of google-research/long-range-arena's generator: 8.20 %, of 121,989 trees.
    assert subtree_length_law(1)[MIN_LEN + 1 :].sum() == pytest.approx(
        0.0820, abs=4 * np.sqrt(0.082 * 0.918 / 121_989)
    )


def test_lengths_follow_the_exact_law(lra_sample, kept_length_law):
    _, lengths, _ = lra_sample
    assert lengths.min() > MIN_LEN and lengths.max() < MAX_LEN
    bins = np.arange(MIN_LEN + 1, MAX_LEN, 50)
    observed = np.add.reduceat(np.bincount(lengths, minlength=MAX_LEN), bins)
    expected = np.add.reduceat(kept_length_law, bins) * NUM_EXAMPLES
    assert chisquare(observed, expected).pvalue > SMALLEST_P_VALUE


def test_labels_have_the_measured_shares(lra_sample):
    labels = lra_sample[2]
    # The same 10,000 expressions of the reference generator.
    reference = np.array([0.1677, 0.0915, 0.0726, 0.0796, 0.0905, 0.089, 0.0798, 0.0749, 0.0853])
    reference = np.append(reference, 1 - reference.sum())
    share = np.bincount(labels, minlength=10) / labels.size
    standard_error = np.sqrt(reference * (1 - reference) * (1 / labels.size + 1 / 10_000))
    assert np.all(np.abs(share - reference) < 4 * standard_error)


def test_number_of_arguments_of_the_root_follows_the_exact_law(lra_sample):
    num_arguments = [count_arguments(row) for row in to_rows(*lra_sample[:2])]
    # Uniform over 2..10 before the choice by length, which favours many arguments.
    weights = np.array([law[MIN_LEN - 1 : MAX_LEN - 2].sum() for law in argument_laws(1).values()])
    observed = np.bincount(num_arguments, minlength=MAX_ARGS + 1)
    assert observed[:2].sum() == 0 and observed.size == MAX_ARGS + 1
    expected = weights / weights.sum() * NUM_EXAMPLES
    assert chisquare(observed[2:], expected).pvalue > SMALLEST_P_VALUE


@pytest.mark.parametrize("tokens", [OPERATORS, tuple("0123456789")], ids=["operators", "digits"])
def test_tokens_of_a_kind_are_uniform(lra_sample, tokens):
    counts = np.bincount(lra_sample[0], minlength=len(VOCABULARY))
    observed = [counts[VOCABULARY.index(token)] for token in tokens]
    assert chisquare(observed).pvalue > SMALLEST_P_VALUE


def test_depth_is_at_most_max_depth():
    for row in to_rows(*join(generate_lra(101, seed=5, num_workers=1))[:2]):
        nesting = np.cumsum([(t in OPERATORS) - (t == "]") for t in row])
        # A digit of the last level lies inside max_depth - 1 operators.
        assert nesting.max() == MAX_DEPTH - 1
        assert nesting[-1] == 0


@pytest.mark.parametrize(
    "generate", [partial(generate_lra, seed=2, num_workers=1), generate_short], ids=["lra", "short"]
)
def test_labels_are_the_values_of_the_expressions(generate):
    ids, lengths, labels = join(generate(211))
    rows = to_rows(ids, lengths)
    assert len(rows) == 211
    for row, label in zip(rows, labels, strict=True):
        tokens = iter(row)
        assert evaluate(tokens) == label
        assert list(tokens) == []


def test_expressions_are_distinct():
    ids, lengths, _ = join(generate_short(3001, max_args=3, max_len=13))
    assert len({tuple(row) for row in to_rows(ids, lengths)}) == 3001


def test_every_expression_of_a_small_universe_is_found_once():
    # Ten digits, and 4 operators on 2 digits each.
    ids, lengths, _ = join(generate_short(410, min_len=0, max_len=9, max_depth=2, max_args=2))
    assert len({tuple(row) for row in to_rows(ids, lengths)}) == 410
    assert np.bincount(lengths).tolist() == [0, 10, 0, 0, 400]


@pytest.mark.parametrize("num_workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_worker_count_changes_no_byte(num_workers, lra_sample):
    chunks = join(islice(generate_lra(NUM_EXAMPLES, seed=1, num_workers=num_workers), 3))
    for parallel, serial in zip(chunks, lra_sample, strict=True):
        np.testing.assert_array_equal(parallel, serial[: parallel.size])


def test_shorter_stream_begins_the_longer(lra_sample):
    for short, long in zip(join(generate_lra(7, seed=1, num_workers=1)), lra_sample, strict=True):
        np.testing.assert_array_equal(short, long[: short.size])


def test_seeds_give_other_expressions():
    first, second = (join(generate_lra(3, seed=seed, num_workers=1)) for seed in (1, 2))
    assert first[1].tolist() != second[1].tolist()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"min_len": 46},
            r"task\.min_len is 46 and task\.max_len is 47; a length must lie strictly",
        ),
        ({"max_depth": 0}, r"task\.max_depth is 0; it must be"),
        ({"max_args": 1}, r"task\.max_args is 1; it must be a whole number of at least 2"),
        ({"max_args": 256}, r"task\.max_args is 256; it must be at most 255"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_law_without_expressions_is_refused(option, message):
    with pytest.raises(DataError, match=message):
        check_law(**{"min_len": 5, "max_len": 47, "max_depth": 4, "max_args": 7} | option)
