"""Read files of separated values, strictly: what is not well formed is named with its line."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.columns.decode import decoded_lines
from tasks.columns.row import Advance, Form, Row, find_column, place
from tasks.errors import DataError

# A longer value is a quote that was never closed, and would take the rest of the file with it.
MOST_CHARACTERS = 2**24
_ROWS_BETWEEN_REPORTS = 1000


def header_of(path: Path, *, form: Form) -> list[str]:
    """Return the names in the first line of a file."""
    return next(_records(path, form=form, advance=lambda _: None))[1]


def read_delimited(
    path: Path, columns: Sequence[str], *, form: Form, advance: Advance
) -> Iterator[Row]:
    """Yield the values of some columns; a line without any character is no row."""
    records = _records(path, form=form, advance=advance)
    _, names = next(records)
    places = [find_column(path, column, names) for column in columns]
    for number, values in records:
        if len(values) != len(names):
            raise DataError(
                f"{place(path, number)} has {len(values)} values under {len(names)} names; is a "
                "separator within a value that is not in quotes?"
            )
        yield Row(path, number, [values[i] for i in places])


def _records(path: Path, *, form: Form, advance: Advance) -> Iterator[tuple[int, list[str]]]:
    """Yield the line in which a record begins and its values, the names first."""
    csv.field_size_limit(MOST_CHARACTERS)  # the module's own is 131,072
    separator = form.separator or ("\t" if path.suffix.lower() == ".tsv" else ",")
    if len(separator) != 1:
        raise DataError(f"separator is {separator!r}; it must be one character")
    quoting = csv.QUOTE_MINIMAL if form.quotes else csv.QUOTE_NONE
    with path.open("rb") as file:
        lines = decoded_lines(file, path, encoding=form.encoding)
        reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
        first, is_empty = 1, True
        try:
            for number, values in enumerate(reader):
                if values:
                    yield first, values
                    is_empty = False
                first = reader.line_num + 1
                if number % _ROWS_BETWEEN_REPORTS == 0:
                    advance(file.tell())
        except csv.Error as error:
            raise DataError(
                f"{place(path, first)} begins a row that is not well formed ({error}); is a quote "
                "not closed, or meant as it stands (--no-quotes; in a task quotes: false)?"
            ) from error
        if is_empty:
            raise DataError(f"{path} is empty; its first line must name the columns")
