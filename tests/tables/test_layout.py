from math import nan

import pytest

from macformer.tables.layout import TIMES, compact, percent, ratio, row_label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (5.0, "5.00"),
        (999.4, "999"),
        (999.6, "1.00K"),
        (12345.0, "12.3K"),
        (999_600.0, "1.00M"),
        (3.2e9, "3.20G"),
        (2.5e12, "2500G"),
        (nan, ""),
    ],
)
def test_compact_keeps_three_digits(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.00"), (0.434, "0.43"), (0.0949, "0.095"), (0.00412, "0.0041")]
)
def test_a_small_ratio_is_not_rounded_away(value, text):
    assert ratio(value) == text + TIMES


def test_blanks_stay_blank():
    assert percent(nan) == ratio(nan) == ""


def test_percent_shows_a_deviation_only_where_there_is_one():
    assert percent(0.3837) == "38.37"
    assert percent(0.3837, 0.0021) == "38.37 ± 0.21"


@pytest.mark.parametrize(
    ("ppsbn", "label"),
    [("without", "rfa"), ("with", "rfa + ppSBN"), ("batch", "rfa + ppSBN (batch)")],
)
def test_row_label(ppsbn, label):
    assert row_label("rfa", ppsbn) == label
