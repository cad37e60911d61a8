"""Look once at all rows and keep a few numbers of each, whatever the texts' sizes."""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, UInt64

from tasks.columns import Form
from tasks.columns.row import Advance, number_of
from tasks.errors import DataError
from tasks.table.examples import Columns, Example, read_examples

MOST_CLASSES = 100
LEAST_ROWS_OF_A_CLASS = 5  # on average


class Scan(NamedTuple):
    """The examples of some files, in their order.

    Attributes:
        contents: A hash of each one's texts and the seed: equal texts have equal ones.
        labels: Places in names.
        names: The labels, in the order in which they are met.
        deciders: Of the column that decides the split: places in its values, or times.
        values: What that column holds, where it is no time.
        lengths: Tokens of the texts, of a pair those of the longer one.
        left_out: Rows that are no examples, by reason.
    """

    contents: UInt64[np.ndarray, "rows"]
    labels: Int32[np.ndarray, "rows"]
    names: Sequence[str]
    deciders: Float64[np.ndarray, "rows"]
    values: Sequence[str]
    lengths: Int32[np.ndarray, "rows"]
    left_out: Counter[str]

    def __len__(self) -> int:
        return len(self.labels)


def scan(
    paths: Sequence[Path],
    columns: Columns,
    *,
    form: Form,
    seed: int,
    count_tokens: Callable[[bytes], int],
    advance: Advance | None = None,
    watch: Callable[[Example], None] | None = None,
) -> Scan:
    """Read all rows once.

    Args:
        watch: Called with each example.
    """
    contents, labels, deciders, lengths = array("Q"), array("i"), array("d"), array("i")
    names: dict[str, int] = {}
    values: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    for example in read_examples(paths, columns, form=form, left_out=left_out, advance=advance):
        contents.append(content_hash(example.texts, seed=seed))
        labels.append(names.setdefault(example.label, len(names)))
        if len(names) > MOST_CLASSES:  # before a large file is read to its end
            raise too_many_classes(names, len(labels))
        if columns.time:
            deciders.append(parse_time(example))
        else:
            deciders.append(values.setdefault(example.decider, len(values)))
        lengths.append(max(map(count_tokens, example.texts)))
        if watch is not None:
            watch(example)
    return Scan(
        contents=np.frombuffer(contents, dtype=np.uint64),
        labels=np.frombuffer(labels, dtype=np.int32),
        names=list(names),
        deciders=np.frombuffer(deciders, dtype=np.float64),
        values=list(values),
        lengths=np.frombuffer(lengths, dtype=np.int32),
        left_out=left_out,
    )


def too_many_classes(names: Collection[str], num_rows: int) -> DataError:
    """Return the error for a label that tells rows apart instead of classes."""
    return DataError(
        f"the label has {len(names)} values in {num_rows} rows, which looks like an id or a number "
        f"to predict; at most {MOST_CLASSES} classes, with at least {LEAST_ROWS_OF_A_CLASS} rows "
        "each on average, can be told apart"
    )


def content_hash(texts: Sequence[bytes], *, seed: int) -> int:
    """Hash texts to 64 bits; another seed gives another order."""
    digest = hashlib.blake2b(b"%d:%d" % (seed, len(texts)), digest_size=8)
    for text in texts:
        digest.update(b"%d:" % len(text))
        digest.update(text)
    return int.from_bytes(digest.digest(), "little")


def parse_time(example: Example) -> float:
    """Return a time as a number: of seconds for a date as in ISO 8601, or the number it is.

    Raises:
        DataError: If it is neither; as 1/9/2024, which texts would put in another order.
    """
    try:
        number = number_of(example.decider)
        if math.isfinite(number):
            return number
    except ValueError:
        with suppress(ValueError):
            moment = datetime.fromisoformat(example.decider.strip())
            # Without a zone all times are of one and the same, which UTC stands for.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    raise DataError(
        f"{example.place}: {example.decider!r} is neither a number nor a time as 2024-01-31 or "
        "2024-01-31T13:05:00"
    )
