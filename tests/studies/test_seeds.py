"""Intervals over seeds that are tested on the same rows."""

import math

import pandas as pd
import pytest
from scipy import stats

from macformer.studies.seeds import find_centre, show_interval, with_intervals


def interval(accuracies: list[float], error: float):
    rows = pd.DataFrame({"row": "softmax", "accuracy": accuracies, "error": error})
    (found,) = with_intervals(rows, ["row"]).to_dict("records")
    return found


def test_one_seed_varies_by_its_rows_alone():
    found = interval([0.6], 0.01)
    assert (found["accuracy"], found["count"]) == (pytest.approx(60), 1)
    assert found["half"] == pytest.approx(1.959964)


def test_seeds_that_rows_do_not_vary_have_student_s_interval():
    found = interval([0.5, 0.6, 0.7], 0.0)
    student = 100 * stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert found["half"] == pytest.approx(student, rel=2e-3)


def test_a_row_that_is_always_right_is_not_known_to_the_last_digit():
    assert show_interval(interval([1.0, 1.0], 0.0)) == "100.0"
    assert show_interval(interval([0.6], 0.01)) == "60.0 ± 2.0"


def test_more_seeds_do_not_make_the_rows_more():
    assert interval([0.6] * 9, 0.01)["half"] == pytest.approx(interval([0.6], 0.01)["half"])


def test_the_centre_of_a_study_that_has_begun_is_its_first_point():
    places = pd.DataFrame({"pairs": [4, 2, 4, 4], "length": [16, 16, 12, 24]})
    assert find_centre(places, ["pairs", "length"]) == {"pairs": 4, "length": 16}
    assert find_centre(places[:2], ["pairs", "length"]) == {"pairs": 4, "length": 16}
