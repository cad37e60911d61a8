"""What a user of this package can get wrong."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class DataError(ValueError):
    """Data that cannot be had or are not what they should be; one line says what would help."""

    def __init__(self, message: str) -> None:
        # Messages of other libraries, which ours may quote, have line breaks.
        super().__init__(" ".join(message.split()))


class Unavailable(DataError):
    """A source that cannot be had now, which says nothing against what was read of it before."""


class NoSpace(DataError):
    """A disk with too little room, which says nothing against what has been written to it."""


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        DataError: With the value and what is allowed.
    """
    if value not in list(allowed):
        raise DataError(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}")


def check_whole(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is no whole number, or too small a one.

    Raises:
        DataError: With the value and what is allowed.
    """
    if type(value) is not int or value < least:
        raise DataError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def check_wholes(*, least: int = 1, **values: Any) -> None:
    """Refuse options of a task that are no whole numbers, or too small ones.

    Raises:
        DataError: With the first of them and what is allowed.
    """
    for name, value in values.items():
        check_whole(f"task.{name}", value, least=least)


def check_rows(name: str, value: Any, *, splits: Iterable[str]) -> None:
    """Refuse what does not give a number of rows for each split.

    Raises:
        DataError: With the value and what is allowed.
    """
    splits = list(splits)
    if not isinstance(value, Mapping) or sorted(map(str, value)) != sorted(splits):
        raise DataError(f"{name} is {value!r}; it must have a number for each of {splits}")
    for split in splits:
        check_whole(f"{name}.{split}", value[split])


def check_numbers(name: str, value: Any) -> None:
    """Refuse what is no list of finite numbers.

    Raises:
        DataError: With the value and what is allowed.
    """
    if not isinstance(value, Sequence) or not all(map(is_number, value)):
        raise DataError(f"{name} is {value!r}; it must be a list of numbers")


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number; true is none."""
    return type(value) in (int, float) and math.isfinite(value)


def check_name(name: Any) -> None:
    """Refuse a task's name that cannot begin the name of a folder.

    Raises:
        DataError: With the name and what is allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w. -]*", name):
        raise DataError(
            f"task.name is {name!r}; it must be a text of letters, digits, blanks and _.-"
        )


def check_texts(name: str, value: Any) -> None:
    """Refuse what is no list of texts; a single text would be taken for that of its letters.

    Raises:
        DataError: With the value and what is allowed.
    """
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name} is {value!r}; it must be a list of texts, as [one, two]")


def check_text(text: str) -> None:
    """Refuse a text that no configuration can hold, however it is quoted.

    Raises:
        DataError: With what it would be taken for.
    """
    taken_for = "a value that is missing" if text == "???" else "a reference"
    if text == "???" or "${" in text:
        raise DataError(f"{text!r} is {taken_for} to a configuration; rename it")


def check_generator(version: int, *, there_is: int) -> None:
    """Refuse to make data by another code than a configuration means.

    Raises:
        DataError: With both versions.
    """
    if version != there_is:
        raise DataError(
            f"task.generator_version is {version}, but this code makes other data, by version "
            f"{there_is}; a run on the older data goes on only with the code that made them"
        )
