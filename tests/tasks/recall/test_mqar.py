"""Multi-query associative recall: what is asked, and what cannot be known blindly."""

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import stats
from sklearn.linear_model import LogisticRegression

from tasks.errors import DataError
from tasks.recall.mqar import Mqar, draw_distinct

LAW = Mqar(
    max_len=40, num_pairs=5, num_keys=9, num_values=7, distance_power=0.01, random_filler=True
)


def look_up(ids: list[int], places: list[int], *, num_pairs: int) -> list[int]:
    """Answer as someone would who reads the pairs."""
    pairs = dict(zip(ids[0 : 2 * num_pairs : 2], ids[1 : 2 * num_pairs : 2], strict=True))
    return [pairs[ids[place]] for place in places]


def draw(law: Mqar, num_examples: int, *, seed: int = 0):
    """Return token ids, places and labels, a row for each example."""
    chunk = law.draw(default_rng(seed), num_examples)
    return chunk.ids.reshape(num_examples, -1), chunk.places, chunk.labels


def test_the_example_of_the_docstring():
    assert look_up([2, 8, 4, 7, 9, 4, 1, 5, 2, 3], [5, 8], num_pairs=2) == [7, 8]


def test_an_answer_is_the_value_beside_the_key():
    ids, places, labels = draw(LAW, 50)
    for row, asked, answers in zip(ids.tolist(), places.tolist(), labels.tolist(), strict=True):
        values = look_up(row, asked, num_pairs=5)
        assert [value - LAW.num_keys - 1 for value in values] == answers


def test_keys_values_and_places_come_once_and_pairs_come_first():
    ids, places, labels = draw(LAW, 200)
    keys = ids[:, 0:10:2]
    assert ((keys >= 1) & (keys <= LAW.num_keys)).all()
    for once in (keys, labels, places):
        assert (np.diff(np.sort(once), axis=1) > 0).all()
    assert (np.diff(places) > 0).all() and places.min() == 10 and places.max() == 39
    assert ids.min() == 1 and ids.max() == LAW.num_keys + LAW.num_values


def test_filler_can_be_a_token_of_its_own():
    ids, places, _ = draw(LAW._replace(random_filler=False), 50)
    asked = np.zeros_like(ids, dtype=bool)
    np.put_along_axis(asked, places, True, axis=1)
    assert (ids[:, 10:][~asked[:, 10:]] == 17).all() and LAW.largest_id == 16
    assert (ids[:, :10] < 17).all() and (ids[asked] < 10).all()


def test_every_value_is_as_likely_an_answer():
    _, _, labels = draw(LAW, 4000)
    counts = [np.bincount(labels[:, question], minlength=7) for question in range(5)]
    assert min(stats.chisquare(count).pvalue for count in counts) > 1e-4


def test_a_query_stands_at_a_distance_by_the_power_law():
    law = Mqar(
        max_len=8, num_pairs=1, num_keys=3, num_values=3, distance_power=0.01, random_filler=True
    )
    _, places, _ = draw(law, 20_000)
    expected = np.arange(1, 7) ** -0.99
    counts = np.bincount(places[:, 0] - 2, minlength=6)
    assert stats.chisquare(counts, 20_000 * expected / expected.sum()).pvalue > 1e-4


def test_places_say_nothing_of_the_answers():
    """A linear model of the places alone is at chance, and knows not even which pair is meant."""
    ids, places, labels = draw(LAW, 4000)
    # The place alone, for all questions: the answer, and which of the pairs has it.
    at = np.eye(LAW.max_len)[places.ravel()]
    values = ids[:, 1:10:2] - LAW.num_keys - 1
    pair = (values[:, None, :] == labels[:, :, None]).argmax(2)
    for truth, chance in ((labels, 1 / LAW.num_values), (pair, 1 / LAW.num_pairs)):
        model = LogisticRegression(max_iter=50).fit(at[:10_000], truth.ravel()[:10_000])
        error = np.sqrt(chance * (1 - chance) / 10_000)
        found = model.score(at[10_000:], truth.ravel()[10_000:])
        assert found < chance + 4 * error


def test_floors_are_those_of_their_predictors():
    ids, _, labels = draw(LAW, 4000)
    first_value = ids[:, 1] - LAW.num_keys - 1
    floors = LAW.floors()
    for name, answer in (("chance", 3), ("values", first_value[:, None])):
        accuracy = floors[name].accuracy
        error = np.sqrt(accuracy * (1 - accuracy) / 4000)
        assert (labels == answer).mean() == pytest.approx(accuracy, abs=4 * error)
    assert (floors["chance"].accuracy, floors["values"].accuracy) == (1 / 7, 1 / 5)


def test_items_are_drawn_one_after_another_by_weight():
    """Two of three of weights 1, 2, 3: {0, 1} with 1/6 * 2/5 + 2/6 * 1/4, and so on."""
    drawn = draw_distinct(default_rng(0), 30_000, np.array([1.0, 2.0, 3.0]), 2)
    left_out = 3 - drawn.sum(1)
    expected = [3 / 6 * 2 / 3 + 2 / 6 * 3 / 4, 1 / 6 * 3 / 5 + 3 / 6 * 1 / 3, 1 / 15 + 1 / 12]
    assert stats.chisquare(np.bincount(left_out), 30_000 * np.array(expected)).pvalue > 1e-4
    first_is_larger = (drawn[:, 0] > drawn[:, 1]).mean()
    assert first_is_larger == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(30_000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pairs": 8}, r"task\.num_pairs is 8; it must be from 1 to the lesser of"),
        ({"num_pairs": 0}, r"task\.num_pairs is 0"),
        ({"max_len": 14}, r"task\.max_len is 14; 5 pairs and a query for each need 15"),
        ({"distance_power": 0.0}, r"task\.distance_power is 0\.0; it must be positive"),
    ],
)
def test_a_law_without_examples_is_refused(options, message):
    with pytest.raises(DataError, match=message):
        LAW._replace(**options).check()
