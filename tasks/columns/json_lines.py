"""Read one JSON object a line; a column may be a key within an object, as body.message."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.columns.decode import decoded_lines
from tasks.columns.row import Advance, Form, Row, lacks_column, place
from tasks.errors import DataError

_ROWS_BETWEEN_REPORTS = 1000
_ABSENT = object()


def keys_of(path: Path, *, form: Form) -> list[str]:
    """Return the keys of the first object of a file, those of objects within it joined by dots."""
    return list(_flat_keys(next(_objects(path, form=form, advance=lambda _: None))[1]))


def read_json_lines(
    path: Path, columns: Sequence[str], *, form: Form, advance: Advance
) -> Iterator[Row]:
    """Yield the values of some keys; what an object lacks, or has as null, is None.

    Numbers keep the digits that stand in the file.
    """
    never_met = set(columns)
    first: dict[str, Any] = {}
    for number, record in _objects(path, form=form, advance=advance):
        first = first or record
        values = []
        for column in columns:
            value = _look_up(record, column)
            if value is not _ABSENT:
                never_met.discard(column)
            values.append(_as_text(value, column, path=path, number=number))
        yield Row(path, number, values)
    if never_met:
        raise lacks_column(path, min(never_met), list(_flat_keys(first)))


def _objects(path: Path, *, form: Form, advance: Advance) -> Iterator[tuple[int, dict[str, Any]]]:
    there_is_one = False
    with path.open("rb") as file:
        for number, line in enumerate(decoded_lines(file, path, encoding=form.encoding), start=1):
            if line.isspace():
                continue
            yield number, _parse(line, path=path, number=number)
            there_is_one = True
            if number % _ROWS_BETWEEN_REPORTS == 0:
                advance(file.tell())
    if not there_is_one:
        raise DataError(f"{path} is empty; each line must be an object")


def _parse(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
    except (json.JSONDecodeError, RecursionError) as error:
        if number == 1 and line.lstrip().startswith(("[", "{")):
            hint = "; a file of one array or object is made one of lines by jq -c '.[]'"
        else:
            hint = ""
        raise DataError(f"{place(path, number)} is no JSON object: {error}{hint}") from error
    if not isinstance(record, dict):
        hint = " (jq -c '.[]' makes lines of an array)" if isinstance(record, list) else ""
        raise DataError(f"{place(path, number)} is no JSON object{hint}")
    return record


def _look_up(record: dict[str, Any], column: str) -> Any:
    if column in record:
        return record[column]
    value: Any = record
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _as_text(value: Any, column: str, *, path: Path, number: int) -> str | None:
    if value is None or value is _ABSENT:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _whole(value, column, path=path, number=number)
    if isinstance(value, dict):
        keys = ", ".join(f"{column}.{key}" for key in value)
        at = place(path, number)
        raise DataError(f"{at}: {column} is an object; name a key in it, as {keys}")
    raise DataError(f"{place(path, number)}: {column} is a list; a value must be a text or number")


def _whole(text: str, column: str, *, path: Path, number: int) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place(path, number)}: {column} has half a character "
            f"(\\u{ord(text[error.start]):04x}), which no UTF-8 text can hold"
        ) from error
    return text


def _flat_keys(record: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
