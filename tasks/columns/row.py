"""What the readers of all kinds of files share: a row, its place, and what a column lacks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.errors import DataError

Advance = Callable[[int], object]  # is given the bytes read so far


class Form(NamedTuple):
    """How a file of text is written.

    Attributes:
        separator: Between the values of a line; None for a comma in .csv and a tab in .tsv.
        quotes: Whether a value may stand in double quotes.
    """

    encoding: str
    separator: str | None
    quotes: bool

    def check(self) -> None:
        """Refuse what YAML takes for a number, as the code page 1252 or the separator 1.

        Raises:
            DataError: With the value and what is allowed.
        """
        if not isinstance(self.encoding, str):
            raise DataError(
                f"task.encoding is {self.encoding!r}; it must be a text, as utf-8 or cp1252"
            )
        if not isinstance(self.separator, str | None):
            raise DataError(f"task.separator is {self.separator!r}; it must be a text, as ';'")


class Row(NamedTuple):
    """The values of some columns in a row, None where the file has no value at all.

    Attributes:
        number: The line in which the row begins, or its number in a file without lines.
    """

    path: Path
    number: int
    values: Sequence[str | None]

    @property
    def place(self) -> str:
        return place(self.path, self.number)


def place(path: Path, number: int) -> str:
    """Name a row in a message."""
    kind = "row" if path.suffix.lower() == ".parquet" else "line"
    return f"{path}, {kind} {number}"


def number_of(text: str) -> float:
    """Return the number that a text is; Python takes 1_000 for one as well, which no file means.

    Raises:
        ValueError: If it is none.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def find_column(path: Path, column: str, names: Sequence[str]) -> int:
    """Return the place of a column among the names of a file.

    Raises:
        DataError: If there is none, or more than one.
    """
    if column not in names:
        raise lacks_column(path, column, names)
    if names.count(column) > 1:
        raise DataError(f"{path} has {names.count(column)} columns {column!r}; rename them")
    return names.index(column)


def lacks_column(path: Path, column: str, names: Sequence[str]) -> DataError:
    """Return the error for a column that a file does not have."""
    hint = ""
    if len(names) == 1 and (found := [mark for mark in ";\t,|" if mark in names[0]]):
        hint = f"; if {found[0]!r} separates them, say so (--separator {found[0]!r})"
    return DataError(f"{path} has no column {column!r}; it has {', '.join(map(repr, names))}{hint}")
