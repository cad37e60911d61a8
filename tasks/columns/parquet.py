"""Read columns of Parquet files; a column may be a field within a structure, as body.message.

pyarrow is imported when the first file is opened.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, cast

from tasks.columns.row import Advance, Row, find_column
from tasks.errors import DataError

_ROWS_AT_ONCE = 1000


def fields_of(path: Path) -> list[str]:
    """Return the names of a file's columns, those of fields within one joined by dots."""
    return [".".join(place) for place, _ in _fields(_open(path).schema_arrow)]


def read_parquet(path: Path, columns: Sequence[str], *, advance: Advance) -> Iterator[Row]:
    """Yield the values of some columns; null and NaN are None, times are written as ISO 8601."""
    file = _open(path)
    fields = list(_fields(file.schema_arrow))
    names = [".".join(place) for place, _ in fields]
    places = []
    for column in columns:
        place, kind = fields[find_column(path, column, names)]
        _check_type(path, column, kind)
        places.append(place)
    number, size, total = 1, path.stat().st_size, file.metadata.num_rows
    for values in _batches(file, path, places):
        for row in zip(*values, strict=True):
            yield Row(path, number, [_as_text(value) for value in row])
            number += 1
        advance(size * (number - 1) // total)


def _fields(parents: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield where each column without columns of its own lies, and its type."""
    from pyarrow import types

    for field in parents:
        place = (*above, field.name)
        if types.is_struct(field.type) and field.type.num_fields:
            yield from _fields(field.type, place)
        else:
            yield place, field.type


def _batches(file: Any, path: Path, places: Sequence[tuple[str, ...]]) -> Iterator[list[list[Any]]]:
    """Yield the values of each column, some rows at a time.

    Raises:
        DataError: If a page is damaged, or a value is none that Python has, as a time after 9999.
    """
    import pyarrow

    read = list(dict.fromkeys(column for column, *_ in places))
    try:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=read):
            yield [_values(batch, *place) for place in places]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _values(batch: Any, column: str, *within: str) -> list[Any]:
    from pyarrow import compute

    array, functions = batch.column(column), cast(Any, compute)  # made when it is imported
    return (functions.struct_field(array, within) if within else array).to_pylist()


def _open(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no whole Parquet file: {error}") from error


def _check_type(path: Path, column: str, kind: Any) -> None:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind  # a categorical of pandas
    allowed = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_temporal,
        types.is_null,
    )
    if not any(is_kind(value) for is_kind in allowed):
        raise DataError(
            f"{path}: column {column!r} is of type {kind}; it must hold texts, numbers or times"
        )


def _as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, (date, time)) else str(value)
