"""Selective copying: the k-th question asks for the k-th token that is not noise."""

from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tasks.errors import DataError
from tasks.recall.selective_copy import SelectiveCopy, expected_largest_count

LAW = SelectiveCopy(max_len=20, num_marked=4, num_values=5)


def copy(ids: list[int]) -> list[int]:
    """Read off what is neither noise nor a question."""
    return [token for token in ids if token not in (1, 2)]


def draw(law: SelectiveCopy, num_examples: int):
    """Return token ids, places and labels, a row for each example."""
    chunk = law.draw(default_rng(0), num_examples)
    return chunk.ids.reshape(num_examples, -1), chunk.places, chunk.labels


def test_the_example_of_the_docstring():
    assert copy([1, 5, 1, 1, 3, 1, 2, 2]) == [5, 3]


def test_questions_ask_for_the_tokens_in_their_order():
    ids, places, labels = draw(LAW, 100)
    assert [copy(row) for row in ids.tolist()] == (labels + 3).tolist()
    assert (places == np.arange(16, 20)).all()
    assert (np.take_along_axis(ids, places, axis=1) == 2).all() and (ids[:, :16] != 2).all()


def test_tokens_to_copy_stand_anywhere_and_have_any_value():
    ids, _, labels = draw(LAW, 4000)
    assert stats.chisquare((ids[:, :16] > 2).sum(0)).pvalue > 1e-4
    counts = [np.bincount(labels[:, question], minlength=5) for question in range(4)]
    assert min(stats.chisquare(count).pvalue for count in counts) > 1e-4


def test_places_say_nothing_of_the_answers():
    """A linear model of which question it is and of where tokens to copy stand is at chance."""
    ids, _, labels = draw(LAW, 3000)
    question = np.tile(np.eye(4), (3000, 1))
    marked = np.repeat(ids[:, :16] > 2, 4, axis=0)
    features, answers = np.concatenate([question, marked], axis=1), labels.ravel()
    model = LogisticRegression(max_iter=50).fit(features[:8000], answers[:8000])
    error = np.sqrt(0.2 * 0.8 / 4000)
    assert model.score(features[8000:], answers[8000:]) < 0.2 + 4 * error


def test_the_largest_count_is_that_of_all_sequences():
    sequences = product(range(3), repeat=5)
    counts = [max(sequence.count(value) for value in range(3)) for sequence in sequences]
    assert expected_largest_count(5, 3) == pytest.approx(np.mean(counts), rel=1e-12)
    drawn = default_rng(0).multinomial(300, np.full(200, 1 / 200), size=4000).max(1)
    error = drawn.std() / np.sqrt(4000)
    assert expected_largest_count(300, 200) == pytest.approx(drawn.mean(), abs=4 * error)


def test_floors_are_those_of_their_predictors():
    _, _, labels = draw(LAW, 4000)
    most_frequent = np.array([np.bincount(row).argmax() for row in labels])
    floors = LAW.floors()
    assert floors["chance"].accuracy == 1 / 5
    found = (labels == most_frequent[:, None]).mean(1)
    error = found.std() / np.sqrt(4000)
    assert found.mean() == pytest.approx(floors["most_frequent"].accuracy, abs=4 * error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_marked": 11}, r"task\.num_marked is 11; it must be from 1 to half of"),
        ({"num_marked": 0}, r"task\.num_marked is 0"),
        ({"num_values": 1}, r"task\.num_values is 1; it must be a whole number of at least 2"),
    ],
)
def test_a_law_without_examples_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        LAW._replace(**options).check()
