"""Read columns of Parquet files; pyarrow is imported when the first one is opened."""

import math
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from tasks.columns.row import Advance, Row, find_column
from tasks.errors import DataError

_ROWS_AT_ONCE = 1000


def fields_of(path: Path) -> list[str]:
    """Return the names of a file's columns."""
    return list(_open(path).schema_arrow.names)


def read_parquet(path: Path, columns: Sequence[str], *, advance: Advance) -> Iterator[Row]:
    """Yield the values of some columns; null and NaN are None, times are written as ISO 8601."""
    file = _open(path)
    names = list(file.schema_arrow.names)
    for column in columns:
        find_column(path, column, names)
        _check_type(path, column, file.schema_arrow.field(column).type)
    number, size, total = 1, path.stat().st_size, file.metadata.num_rows
    for values in _batches(file, path, columns):
        for row in zip(*values, strict=True):
            yield Row(path, number, [_as_text(value) for value in row])
            number += 1
        advance(size * (number - 1) // total)


def _batches(file: Any, path: Path, columns: Sequence[str]) -> Iterator[list[list[Any]]]:
    """Yield the values of each column, some rows at a time.

    Raises:
        DataError: If a page is damaged, or a value is none that Python has, as a time after 9999.
    """
    import pyarrow

    try:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns))):
            yield [batch.column(column).to_pylist() for column in columns]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


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
