"""Series from tables: long, a row for each step, or wide, a row for each series."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.columns import Form, column_names, read_rows
from tasks.columns.files import JSON
from tasks.columns.row import Advance, Row
from tasks.errors import DataError
from tasks.series.recorded import Recorded, of_series, parse_value, trimmed
from tasks.table.examples import Example
from tasks.table.scan import parse_time

_INDEX = ("Unnamed:", "__index_level_")  # of pandas, once read from CSV and in Parquet


class SeriesColumns(NamedTuple):
    """Which columns of a table hold what.

    Attributes:
        series: Names the series of a step; None where each row is a series.
        time: Orders the steps of a series; None: they come in order.
        channels: The values; None takes all columns of a wide table that have no other role.
        group: Series of one value share a split.
        split: Names the split of a series.
    """

    series: str | None
    time: str | None
    channels: Sequence[str] | None
    label: str
    group: str | None = None
    split: str | None = None


def read_long(
    paths: Sequence[Path],
    columns: SeriesColumns,
    *,
    decider: str | None,
    form: Form,
    advance: Advance | None = None,
) -> Recorded:
    """Read a table that has a row for each step.

    Args:
        decider: The column that decides the split of each series.

    Raises:
        DataError: If a row lacks its series or its label, or is out of order; if files share a
            series and no time says how its steps follow each other.
    """
    assert columns.series is not None
    if not columns.channels:
        raise DataError("channels names no column; say which hold the values of a step")
    roles = [columns.series, columns.label, columns.time, decider]
    asked = [*columns.channels, *(role for role in roles if role)]
    num_channels = len(columns.channels)
    values, times, codes, labels = array("f"), array("d"), array("i"), array("i")
    names: dict[str, int] = {}
    label_names: dict[str, int] = {}
    groups: dict[int, str] = {}
    homes: dict[str, Path] = {}
    for row in read_rows(paths, asked, form=form, advance=advance):
        values.extend(parse_value(x, row.path, row.number) for x in row.values[:num_channels])
        rest = iter(row.values[num_channels:])
        name, label = (
            _present(next(rest), columns.series, row),
            _present(next(rest), columns.label, row),
        )
        if not columns.time and homes.setdefault(name, row.path) != row.path:
            raise DataError(
                f"{row.place}: series {name!r} is in {homes[name]}, too, and no column of the time "
                "(time) says how its steps follow each other; give each series a name of its own"
            )
        code = names.setdefault(name, len(names))
        codes.append(code)
        labels.append(label_names.setdefault(label, len(label_names)))
        if columns.time:
            text = _present(next(rest), columns.time, row)
            times.append(parse_time(Example((), "", text, row.place)))
        if decider:
            value = _present(next(rest), decider, row)
            if groups.setdefault(code, value) != value:
                raise DataError(
                    f"{row.place}: series {name!r} has {decider} {value!r} here and "
                    f"{groups[code]!r} before; a series cannot be in two splits"
                )
    return _ordered(
        np.frombuffer(values, np.float32).reshape(-1, num_channels),
        np.frombuffer(codes, np.int32),
        np.frombuffer(times, np.float64) if columns.time else None,
        np.frombuffer(labels, np.int32),
        names=list(names),
        label_names=list(label_names),
        groups=[groups.get(code, "") for code in range(len(names))],
    )


def _present(text: str | None, column: str, row: Row) -> str:
    if text is None or not text.strip():
        raise DataError(f"{row.place} has no {column}")
    return text


def _ordered(
    values: np.ndarray,
    codes: np.ndarray,
    times: np.ndarray | None,
    labels: np.ndarray,
    *,
    names: Sequence[str],
    label_names: Sequence[str],
    groups: Sequence[str],
) -> Recorded:
    """Bring the steps of each series together, in the order of their times."""
    order = np.lexsort((codes,) if times is None else (times, codes))
    codes = codes[order]
    offsets = np.searchsorted(codes, np.arange(len(names) + 1))
    starts = [0.0] * len(names)
    if times is not None:
        times = times[order]
        again = np.flatnonzero((np.diff(times) == 0) & (np.diff(codes) == 0))
        if len(again):
            raise DataError(
                f"series {names[int(codes[again[0]])]!r} has two steps of one time "
                f"({len(again)} such steps in all); is a column of the series left out?"
            )
        starts = times[offsets[:-1]].tolist()
    return Recorded(
        values=values[order],
        offsets=offsets,
        names=names,
        identities=[name.encode() for name in names],
        labels=labels[order],
        label_names=label_names,
        groups=groups,
        starts=starts,
    )


def read_wide(
    paths: Sequence[Path],
    columns: SeriesColumns,
    *,
    decider: str | None,
    form: Form,
    advance: Advance | None = None,
) -> Recorded:
    """Read a table that has a row for each series of one channel; blanks at its end are no steps.

    Args:
        decider: The column that decides the split of each series.

    Raises:
        DataError: If a row lacks its label.
    """
    roles = [role for role in (columns.label, decider) if role]
    steps = list(columns.channels or ())
    if columns.time:
        raise DataError(
            f"time is {columns.time!r}, but without a column of the series each row is one, and "
            "has no times"
        )
    if not steps:
        others = (columns.label, columns.group, columns.split)
        steps = [name for name in _names_of_all(paths, form=form) if name not in others]
    series, labels, names, groups = [], [], [], []
    for row in read_rows(paths, [*steps, *roles], form=form, advance=advance):
        values = [parse_value(text, row.path, row.number) for text in row.values[: len(steps)]]
        series.append(trimmed(np.array(values, dtype=np.float32)[:, None]))
        label, *rest = (
            _present(text, role, row)
            for text, role in zip(row.values[len(steps) :], roles, strict=True)
        )
        labels.append(label)
        groups.append(rest[0] if rest else "")
        names.append(row.place)
    return of_series(series, labels, names=names, groups=groups)


def _names_of_all(paths: Sequence[Path], *, form: Form) -> list[str]:
    """Return the columns that all files have; none may have others, or one that is an index."""
    known = column_names(paths[0], form=form)
    for name in known:
        if not name.strip() or name.startswith(_INDEX):
            raise DataError(
                f"{paths[0]} has a column {name!r}, as an index is written; leave it out, or say "
                "which hold the values (channels)"
            )
    for path in paths:
        if path.suffix.lower() in JSON:
            raise DataError(
                f"{path}: an object may have keys that the first one lacks; say which hold the "
                "values (channels)"
            )
        if set(column_names(path, form=form)) != set(known):
            raise DataError(
                f"{path} has other columns than {paths[0]}; say which hold the values (channels)"
            )
    return known
