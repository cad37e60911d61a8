"""The predictors of floors against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.floors.models import boosted, linear, look_up, threshold


def test_look_up_answers_with_the_most_frequent_label_of_a_key():
    keys = np.array([3, 3, 3, 5, 5, 5, 0])
    labels = np.array([1, 1, 0, 2, 2, 1, 2])
    # Key 4 was never seen: 1 and 2 are equally frequent, and the first of them is taken.
    assert look_up(keys, labels, np.array([3, 5, 0, 4, 9])).tolist() == [1, 2, 2, 1, 1]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=20))
def test_no_threshold_is_better_than_the_one_chosen(pairs):
    values, labels = (np.array(column) for column in zip(*pairs, strict=True))
    answers = threshold(values.astype(float), labels, values)
    best = max(
        np.mean(((values > bound) == upwards).astype(int) == labels)
        for bound in np.arange(-1, 7)
        for upwards in (False, True)
    )
    assert np.mean(answers == labels) == best


@pytest.mark.parametrize("seed", [0, 1])
def test_a_line_and_a_ring_are_told_apart_by_what_can_see_them(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, size=(2, 600, 2))
    beyond_line = (points.sum(axis=2) > 0).astype(int)
    in_ring = (np.hypot(*np.moveaxis(points, 2, 0)) < 0.8).astype(int)

    def accuracy(predict, labels, **options):
        answers = predict(points[0], labels[0], points[1], **options)
        return np.mean(answers == labels[1])

    assert accuracy(linear, beyond_line, strength=1.0) > 0.97
    assert accuracy(linear, in_ring, strength=1.0) < 0.65
    assert accuracy(boosted, in_ring) > 0.9
