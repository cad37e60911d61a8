"""Series from .ts files, as the archives of time series classification have them.

Lines that begin with @ say what follows @data: a series a line, its channels between colons, its
values between commas, its label last. What a header says of lengths or gaps may be wrong in files
that go round, so that lengths and gaps are taken from the data.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.columns import Form
from tasks.columns.decode import decoded_lines
from tasks.columns.row import Advance, place
from tasks.errors import DataError
from tasks.series.recorded import Recorded, of_series, parse_value, trimmed

_COMMENTS = ("#", "%")


def read_ts(paths: Sequence[Path], *, form: Form, advance: Advance | None = None) -> Recorded:
    """Read files whose series have a label each.

    Raises:
        DataError: If a file predicts numbers, has time stamps, or a series is not well formed.
    """
    series, labels, names = [], [], []
    done = 0
    for path in paths:
        in_data = False
        with path.open("rb") as file:
            lines = decoded_lines(file, path, encoding=form.encoding)
            for number, line in enumerate(lines, start=1):
                text = line.strip()
                if not text or text.startswith(_COMMENTS):
                    continue
                if not in_data:
                    in_data = _read_header(text, path, number)
                    continue
                values, label = _read_series(text, path, number)
                series.append(values)
                labels.append(label)
                names.append(place(path, number))
        if not in_data:
            raise DataError(f"{path} has no @data")
        done += path.stat().st_size
        if advance is not None:
            advance(done)
    return of_series(series, labels, names=names)


def _read_header(text: str, path: Path, number: int) -> bool:
    """Check a line of the header; say whether the data follow."""
    key, _, value = text.partition(" ")
    key, value = key.lower(), value.strip().lower()
    if not key.startswith("@"):
        raise DataError(f"{place(path, number)} stands before @data and does not begin with @")
    if key == "@targetlabel" and value.startswith("true"):
        raise DataError(f"{path} predicts numbers (@targetLabel); a task has classes")
    if key == "@timestamps" and value == "true":
        raise DataError(
            f"{path} has time stamps, which readers of this format disagree about; write it as a "
            "table with a row for each step"
        )
    return key == "@data"


def _read_series(text: str, path: Path, number: int) -> tuple[np.ndarray, str]:
    *channels, label = text.split(":")
    if not channels or not label.strip():
        raise DataError(f"{place(path, number)} is no series with a label at its end")
    if text.startswith("("):
        raise DataError(f"{place(path, number)} has time stamps; write a table with a row a step")
    columns = [[parse_value(x, path, number) for x in channel.split(",")] for channel in channels]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise DataError(f"{place(path, number)}: channels are of {lengths} steps; one is allowed")
    return trimmed(np.array(columns, dtype=np.float32).T), label.strip()
