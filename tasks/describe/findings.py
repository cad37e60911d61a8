"""What looking at all rows of a table finds, in numbers."""

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from tasks.columns import Form, read_rows
from tasks.errors import DataError
from tasks.store.manifest import SPLITS
from tasks.table.examples import Columns, Example
from tasks.table.plan import Part
from tasks.table.scan import content_hash, parse_time

_ROWS_OF_OTHER_COLUMNS = 50_000
_VALUES_LOOKED_AT = 100  # to tell times
_NUMBERS = re.compile(rb"0x[0-9a-fA-F]+|[0-9a-fA-F]{8,}|[0-9]+")


@dataclass
class Watcher:
    """Looks at each example once, and keeps a few numbers.

    Attributes:
        templates: A hash of each example's texts with all numbers taken for one.
        naming: Rows of each label whose text has the label in it.
    """

    rows: Counter[str] = field(default_factory=Counter)
    naming: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    num_characters: int = 0
    templates: array = field(default_factory=lambda: array("Q"))

    def __call__(self, example: Example) -> None:
        label = example.label.strip().lower().encode()
        self.rows[example.label] += 1
        self.naming[example.label] += any(label in text.lower() for text in example.texts)
        self.num_bytes += sum(map(len, example.texts))
        self.num_characters += sum(len(text.decode()) for text in example.texts)
        masked = [_NUMBERS.sub(b"0", text) for text in example.texts]
        self.templates.append(content_hash(masked, seed=0))


class OtherColumn(NamedTuple):
    """A column that is no text and no label, as its first rows show it."""

    name: str
    num_rows: int
    num_values: int
    is_time: bool


class Findings(NamedTuple):
    """What is known of a table and its splits.

    Attributes:
        counts: Rows of each class in each split.
        lengths: Tokens of each row of training, in the order of their number.
        num_repeated: Rows whose text another row has, too.
        num_contradicted: Rows whose text stands with several labels.
        ceiling: The share of rows that the best answer to each text has right.
        known_templates: The share of test rows that are a training row but for numbers.
        drawn: The share of the files' rows that each split has that is drawn from them.
    """

    counts: Mapping[str, Counter[str]]
    lengths: np.ndarray
    left_out: Counter[str]
    num_repeated: int
    num_contradicted: int
    ceiling: float
    known_templates: float
    shared_texts: Mapping[str, int]
    drawn: Mapping[str, float]
    naming: Mapping[str, float]
    bytes_per_character: float
    others: Sequence[OtherColumn]

    @property
    def num_rows(self) -> dict[str, int]:
        return {split: sum(self.counts[split].values()) for split in SPLITS}


def repeated_texts(parts: Sequence[Part]) -> tuple[int, int, float]:
    """Return rows that share their text, those of them that disagree, and what can be right."""
    names = sorted({name for part in parts for name in part.scan.names})
    labels = np.concatenate(
        [np.array([names.index(n) for n in p.scan.names])[p.scan.labels] for p in parts]
    )
    contents = np.concatenate([part.scan.contents for part in parts])
    _, text, counts = np.unique(contents, return_inverse=True, return_counts=True)
    pairs, of_pair = np.unique(text.reshape(-1) * len(names) + labels, return_counts=True)
    best = np.zeros(len(counts), dtype=np.int64)
    np.maximum.at(best, pairs // len(names), of_pair)
    disagree = best < counts
    return (
        int(counts[counts > 1].sum()),
        int(counts[disagree].sum()),
        float(best.sum() / counts.sum()),
    )


def known_share(parts: Sequence[Part], hashes: Sequence[UInt64[np.ndarray, "_"]]) -> float:
    """Return the share of test rows whose hash a training row has, too."""
    train, test = (
        np.concatenate([h[p.places == place] for p, h in zip(parts, hashes, strict=True)])
        for place in (0, 2)
    )
    return float(np.isin(test, np.unique(train)).mean())


def other_columns(
    paths: Sequence[Path], names: Sequence[str], columns: Columns, *, form: Form
) -> list[OtherColumn]:
    """Look at the first rows of what is neither text nor label."""
    rest = [name for name in names if name and name not in (*columns.text, columns.label)]
    rest = [name for name in rest if names.count(name) == 1]
    if not rest:
        return []
    values: list[set[int]] = [set() for _ in rest]  # by their hashes, for they may be long
    first: list[list[str]] = [[] for _ in rest]
    num_rows = 0
    try:
        for row in islice(read_rows(paths[:1], rest, form=form), _ROWS_OF_OTHER_COLUMNS):
            num_rows += 1
            for value, known, shown in zip(row.values, values, first, strict=True):
                if value:
                    known.add(hash(value))
                    if len(shown) < _VALUES_LOOKED_AT:
                        shown.append(value)
    except DataError:  # of a column that nobody asked for
        return []
    return [
        OtherColumn(name, num_rows, len(known), bool(shown) and all(map(_is_time, shown)))
        for name, known, shown in zip(rest, values, first, strict=True)
    ]


def _is_time(value: str) -> bool:
    with suppress(ValueError):
        float(value)  # which may be anything
        return False
    try:
        parse_time(Example((), "", value, ""))
    except DataError:
        return False
    return True
