"""Floors of ListOps: what the root of an expression gives away, without any nested argument."""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Int64, UInt8

from tasks.floors import Floor
from tasks.floors.models import look_up
from tasks.floors.sample import Sample
from tasks.listops.generate import VOCABULARY

_CLOSE = VOCABULARY.index("]")
_FIRST_DIGIT = VOCABULARY.index("0")
_NUM_DIGITS = 10
_NOTHING = _NUM_DIGITS  # the value of no digits at all
# Nested arguments, from which on their number says no more: of all, and of those of one operator.
_MOST_NESTED = 3
_MOST_OF_ONE = 2

Text = UInt8[np.ndarray, "_"]
_APPLY = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda digits: int(np.median(digits)),
    "[SM": lambda digits: sum(digits) % _NUM_DIGITS,
}


def floors_of_listops(*, brackets: bool, max_rows: int) -> dict[str, Floor]:
    """Name the floors of expressions.

    Args:
        brackets: Whether rows have closing ones. Without them nobody knows where an argument ends.
        max_rows: The most that a predictor is fitted to.
    """
    predictors = {
        "first_token": (
            "the most frequent training label of the first token, which is the operator of the "
            "root",
            _operator,
        )
    }
    if brackets:
        predictors |= {
            "first_token_and_arguments": (
                "the most frequent training label of the root's operator and number of arguments",
                _operator_and_arguments,
            ),
            "root_over_digits": (
                "the most frequent training label of the root's operator, its value over the "
                "digits directly below it, and the number of nested arguments up to 3",
                _operator_and_value,
            ),
            "root_over_digits_and_operators": (
                "the most frequent training label of the root's operator, its value over the "
                "digits directly below it, and the numbers of arguments nested under each "
                "operator, up to 2 of one",
                _operator_value_and_nested,
            ),
        }
    return {
        name: Floor(recipe, partial(_predict, key=key), max_rows=max_rows)
        for name, (recipe, key) in predictors.items()
    }


def _predict(
    train: Sample, test: Sample, *, key: Callable[[Text], int]
) -> Int64[np.ndarray, "rows"]:
    """Look the label up by what is seen of a row."""
    keys = [
        np.array([key(text) for text in sample.texts(sample.documents)], dtype=np.int64)
        for sample in (train, test)
    ]
    return look_up(keys[0], train.labels, keys[1])


def _operator(text: Text) -> int:
    return int(text[0])


def _operator_and_arguments(text: Text) -> int:
    digits, nested = below_root(text)
    return (len(digits) + len(nested)) * len(VOCABULARY) + int(text[0])


def _operator_and_value(text: Text) -> int:
    digits, nested = below_root(text)
    seen = _value(text, digits) * (_MOST_NESTED + 1) + min(len(nested), _MOST_NESTED)
    return seen * len(VOCABULARY) + int(text[0])


def _operator_value_and_nested(text: Text) -> int:
    digits, nested = below_root(text)
    seen = _value(text, digits)
    for operator in _APPLY:
        seen = seen * (_MOST_OF_ONE + 1) + min(nested.count(operator), _MOST_OF_ONE)
    return seen * len(VOCABULARY) + int(text[0])


def _value(text: Text, digits: list[int]) -> int:
    operator = VOCABULARY[text[0]]
    return _APPLY[operator](digits) if digits and operator in _APPLY else _NOTHING


def below_root(text: Text) -> tuple[list[int], list[str]]:
    """Return the digits directly below the root, and the operators of its nested arguments."""
    opens = (text > 0) & (text < _CLOSE)
    depth = np.cumsum(opens.astype(np.int64) - (text == _CLOSE))
    digits = text[(depth == 1) & (text >= _FIRST_DIGIT)].astype(np.int64) - _FIRST_DIGIT
    return digits.tolist(), [VOCABULARY[token] for token in text[(depth == 2) & opens]]
