"""Series as they were recorded, whatever kind of file they come from."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from tasks.columns.row import number_of, place
from tasks.errors import DataError

_LARGEST = float(np.finfo(np.float32).max)
# What stands for a value that is not there.
_MISSING = frozenset({"", "?", "na", "nan", "n/a", "null", "none"})


class Recorded(NamedTuple):
    """Series lying end to end.

    Attributes:
        values: Of each channel at each step, NaN where it is missing.
        offsets: Series s is values[offsets[s] : offsets[s + 1]].
        names: Of the series, for messages.
        identities: What tells series apart: their names in the data, or else their values.
        labels: Of each step, as places in label_names.
        groups: What a column that decides the split holds for each series.
        starts: The time of each series' first step, 0 where there are no times.
    """

    values: Float32[np.ndarray, "steps channels"]
    offsets: Int[np.ndarray, "series_and_one"]
    names: Sequence[str]
    identities: Sequence[bytes]
    labels: Int32[np.ndarray, "steps"]
    label_names: Sequence[str]
    groups: Sequence[str]
    starts: Sequence[float]

    def __len__(self) -> int:
        return len(self.names)


def of_series(
    series: Sequence[Float32[np.ndarray, "_ channels"]],
    labels: Sequence[str],
    *,
    names: Sequence[str],
    groups: Sequence[str] | None = None,
) -> Recorded:
    """Put series of one label each end to end.

    Raises:
        DataError: If there is none, or they differ in their channels.
    """
    if not series:
        raise DataError("the files have no series")
    for values, name in zip(series, names, strict=True):
        if values.shape[1] != series[0].shape[1]:
            raise DataError(
                f"{name} has {values.shape[1]} channels, {names[0]} has {series[0].shape[1]}; "
                "all must have the same"
            )
    known = {name: place for place, name in enumerate(dict.fromkeys(labels))}
    lengths = np.array([len(values) for values in series], dtype=np.int64)
    return Recorded(
        values=np.concatenate(series),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        names=names,
        identities=[
            hashlib.blake2b(values.tobytes(), digest_size=16).digest() for values in series
        ],
        labels=np.repeat(np.array([known[label] for label in labels], dtype=np.int32), lengths),
        label_names=list(known),
        groups=[""] * len(names) if groups is None else groups,
        starts=[0.0] * len(names),
    )


def parse_value(text: str | None, path: Path, number: int) -> float:
    """Return a number, or NaN for what stands for none.

    Raises:
        DataError: If it is neither, or not finite; with its place.
    """
    if text is None or text.strip().lower() in _MISSING:
        return math.nan
    try:
        value = number_of(text)
    except ValueError as error:
        raise DataError(f"{place(path, number)}: {text!r} is no number") from error
    if not abs(value) <= _LARGEST:
        raise DataError(f"{place(path, number)}: {text!r} is not finite in 32 bits")
    return value


def trimmed(values: Float32[np.ndarray, "n channels"]) -> Float32[np.ndarray, "m channels"]:
    """Cut off the last steps at which no channel has a value: they make up a rectangle."""
    is_there = ~np.isnan(values).all(axis=1)
    return values[: int(np.flatnonzero(is_there)[-1]) + 1 if is_there.any() else 0]
