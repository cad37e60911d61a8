"""Cut series into rows: whole, or windows of a length, each with one label."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from tasks.errors import DataError
from tasks.series.recorded import Recorded
from tasks.table.examples import Columns
from tasks.table.plan import Part
from tasks.table.scan import Scan, content_hash

WINDOW_LABELS = ("last", "majority")


class Windows(NamedTuple):
    """How series are cut.

    Attributes:
        length: Steps of a window; None takes each series as one row.
        stride: Steps from one window to the next.
        label: That of the last step, or of most steps.
    """

    length: int | None
    stride: int | None
    label: str


class Tokens(NamedTuple):
    """How steps become tokens, and how many of them are kept.

    Attributes:
        patch: Steps of a token; what is left over at an end is dropped.
        max_len: Tokens of a row; None keeps all.
        keep: Which end of a longer row is kept.
    """

    patch: int
    max_len: int | None
    keep: str


class Cut(NamedTuple):
    """Rows of series.

    Attributes:
        series: The series of each row.
        first: Its first step among all steps.
        last: The step after its last one.
        labels: Places in the names of labels.
    """

    series: Int[np.ndarray, "rows"]
    first: Int[np.ndarray, "rows"]
    last: Int[np.ndarray, "rows"]
    labels: Int[np.ndarray, "rows"]


def cut(recorded: Recorded, windows: Windows, *, patch: int) -> tuple[Cut, Counter[str]]:
    """Cut series into rows; return them, and what is left out by reason.

    Raises:
        DataError: If a series that is one row has several labels.
    """
    rows: list[tuple[int, int, int, int]] = []
    left_out: Counter[str] = Counter()
    least = windows.length or patch
    for series, (start, end) in enumerate(
        zip(recorded.offsets[:-1].tolist(), recorded.offsets[1:].tolist(), strict=True)
    ):
        if end - start < least:
            left_out[f"under {least} steps"] += 1
        elif windows.length is None:
            rows.append((series, start, end, _only_label(recorded, series, start, end)))
        else:
            for first in range(start, end - windows.length + 1, windows.stride or windows.length):
                last = first + windows.length
                steps = recorded.labels[first:last]
                label = steps[-1] if windows.label == "last" else np.bincount(steps).argmax()
                rows.append((series, first, last, int(label)))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Cut(*(np.ascontiguousarray(column) for column in table.T)), left_out


def _only_label(recorded: Recorded, series: int, start: int, end: int) -> int:
    labels = np.unique(recorded.labels[start:end])
    if len(labels) > 1:
        shown = ", ".join(recorded.label_names[int(label)] for label in labels[:5])
        raise DataError(
            f"series {recorded.names[series]!r} has several labels ({shown}); cut it into windows "
            "(window, stride)"
        )
    return int(labels[0])


def as_scan(
    recorded: Recorded, rows: Cut, columns: Columns, *, tokens: Tokens, seed: int, left_out: Counter
) -> Scan:
    """Show rows as those of a table are shown, to be planned alike: a series is one text."""
    keys = np.array(
        [content_hash([known], seed=seed) for known in recorded.identities], dtype=np.uint64
    )
    values = {value: place for place, value in enumerate(dict.fromkeys(recorded.groups))}
    deciders = recorded.starts if columns.time else [values[group] for group in recorded.groups]
    return Scan(
        contents=keys[rows.series],
        labels=rows.labels.astype(np.int32),
        names=recorded.label_names,
        deciders=np.array(deciders, dtype=np.float64)[rows.series],
        values=list(values),
        lengths=((rows.last - rows.first) // tokens.patch).astype(np.int32),
        left_out=left_out,
    )


def values_of(
    recorded: Recorded, rows: Cut, row: int, tokens: Tokens
) -> Float32[np.ndarray, "tokens patch_channels"]:
    """Return the tokens of a row: the values of a patch of steps, step by step."""
    values = recorded.values[rows.first[row] : rows.last[row]]
    num_tokens = len(values) // tokens.patch
    if tokens.max_len is not None:
        num_tokens = min(num_tokens, tokens.max_len)
    steps = num_tokens * tokens.patch
    kept = values[len(values) - steps :] if tokens.keep == "tail" else values[:steps]
    return kept.reshape(-1, tokens.patch * values.shape[1])


def training_steps(recorded: Recorded, rows: Cut, part: Part) -> Float32[np.ndarray, "steps c"]:
    """Return each step that a training row has, once."""
    marks = np.zeros(len(recorded.values) + 1, dtype=np.int32)
    chosen = part.places == 0
    np.add.at(marks, rows.first[chosen], 1)
    np.add.at(marks, rows.last[chosen], -1)
    return recorded.values[np.cumsum(marks[:-1]) > 0]
