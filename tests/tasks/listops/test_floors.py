"""What the root of an expression gives away, against expressions evaluated by hand."""

import numpy as np
import pytest

from tasks.floors.sample import Sample
from tasks.listops.floors import below_root, floors_of_listops
from tasks.listops.generate import VOCABULARY, generate_listops


def expression(text: str) -> np.ndarray:
    return np.array([VOCABULARY.index(token) for token in text.split()], dtype=np.uint8)


def sample_of(*rows: tuple[str, int]) -> Sample:
    documents = [expression(text) for text, _ in rows]
    return Sample(
        items=np.concatenate(documents),
        offsets=np.cumsum([0, *map(len, documents)]),
        documents=np.arange(len(rows)),
        labels=np.array([label for _, label in rows]),
    )


@pytest.mark.parametrize(
    ("text", "digits", "nested"),
    [
        ("7", [], []),
        ("[MAX 2 9 ]", [2, 9], []),
        ("[MAX 2 [MIN 4 7 1 ] 9 0 ]", [2, 9, 0], ["[MIN"]),
        ("[MED [SM 1 2 ] [MIN [MAX 3 4 ] 5 ] ]", [], ["[SM", "[MIN"]),
    ],
)
def test_what_lies_directly_below_the_root(text, digits, nested):
    assert below_root(expression(text)) == (digits, nested)


def predict(name: str, train: Sample, test: Sample) -> list[int]:
    return floors_of_listops(brackets=True, max_rows=9)[name].predict(train, test).tolist()


def test_arguments_say_more_than_the_operator_and_its_value_more_than_they():
    """A minimum of 2 over digits leaves the nested one the choice among 0, 1 and 2."""
    train = sample_of(
        ("[MAX 1 2 ]", 2), ("[MAX 1 2 3 ]", 3), ("[MIN 4 5 ]", 4), ("[MIN 4 [MAX 1 2 ] ]", 2)
    )
    assert predict("first_token", train, train) == [2, 2, 2, 2]
    assert predict("first_token_and_arguments", train, train) == [2, 3, 2, 2]
    asked = sample_of(
        ("[MAX 2 2 ]", 2), ("[MAX 3 0 0 0 0 ]", 3), ("[MIN 9 4 7 ]", 4), ("[MIN 9 4 [SM 1 1 ] ]", 2)
    )
    assert predict("root_over_digits", train, asked) == [2, 3, 4, 2]


def test_nested_operators_say_more_than_their_number():
    """A nested maximum is larger than a nested minimum, whatever its digits are."""
    train = sample_of(("[MAX 1 [MIN 0 9 ] ]", 1), ("[MAX 1 [MAX 0 9 ] ]", 9))
    asked = sample_of(("[MAX 1 [MIN 2 8 ] ]", 2), ("[MAX 0 1 [MAX 6 8 ] ]", 8))
    assert predict("root_over_digits", train, asked) == [1, 1]
    assert predict("root_over_digits_and_operators", train, asked) == [1, 9]


def test_of_many_arguments_under_one_operator_two_count():
    train = sample_of(("[SM 1 [MIN 0 9 ] ]", 1), ("[SM 1 [MIN 1 9 ] [MIN 1 9 ] ]", 3))
    asked = sample_of(("[SM 0 1 [MIN 9 9 ] [MIN 9 9 ] [MIN 9 9 ] ]", 8))
    assert predict("root_over_digits_and_operators", train, asked) == [3]


@pytest.mark.parametrize(("operator", "value"), [("[MIN", 1), ("[MAX", 8), ("[MED", 4), ("[SM", 8)])
def test_each_operator_has_its_own_value(operator, value):
    """Of 1, 4, 5, 8: the median of an even number is the lower half of the middle ones' sum."""
    pairs = [(f"{operator} {digit} {digit} ]", digit) for digit in range(10)]
    if operator == "[SM":
        pairs = [(f"{operator} {digit} 0 ]", digit) for digit in range(10)]
    train, asked = sample_of(*pairs), sample_of((f"{operator} 1 4 5 8 ]", value))
    assert predict("root_over_digits", train, asked) == [value]


def test_one_look_at_the_root_answers_half():
    """A model below this has not shown that it evaluates anything nested."""
    law = {"min_len": 30, "max_len": 100, "max_depth": 4, "max_args": 10}
    ids, lengths, labels = (
        np.concatenate(part)
        for part in zip(*generate_listops(24_000, seed=0, num_workers=1, **law), strict=True)
    )
    every = Sample(ids, np.cumsum([0, *lengths]), np.arange(24_000), labels.astype(np.int64))
    train = every._replace(documents=np.arange(20_000), labels=every.labels[:20_000])
    test = every._replace(documents=np.arange(20_000, 24_000), labels=every.labels[20_000:])
    right = {
        name: np.mean(floor.predict(train, test) == test.labels)
        for name, floor in floors_of_listops(brackets=True, max_rows=9).items()
    }
    assert 0.42 < right["root_over_digits"] < 0.55
    assert right["root_over_digits"] > right["first_token_and_arguments"] + 0.05
    assert right["root_over_digits_and_operators"] > right["root_over_digits"] + 0.02


def test_without_closing_brackets_the_first_token_is_all():
    assert list(floors_of_listops(brackets=False, max_rows=9)) == ["first_token"]
