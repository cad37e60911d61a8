"""The classes of a plan: the labels of its training rows."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.errors import DataError, check_numbers, check_rows, check_text, check_texts
from tasks.store.manifest import SPLITS, read_manifest
from tasks.table.plan import Part, rows_of_splits
from tasks.table.scan import LEAST_ROWS_OF_A_CLASS, MOST_CLASSES, Scan, too_many_classes

_WHOLE_NUMBER = re.compile("-?[0-9]{1,100}")


class Expected(NamedTuple):
    """What a task says of its data, so that other ones are noticed.

    Attributes:
        classes: The labels of the training rows, in the order of their ids.
        class_counts: Training rows of each; None takes any.
        num_rows: Rows of each split; None takes any.
    """

    classes: list[str]
    num_classes: int
    class_counts: list[int] | None
    num_rows: dict[str, int] | None

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            DataError: With both.
        """
        check_texts("task.classes", self.classes)
        if self.class_counts is not None:
            check_numbers("task.class_counts", self.class_counts)
        if self.num_rows is not None:
            check_rows("task.num_rows", self.num_rows, splits=SPLITS)
        if len(self.classes) != self.num_classes:
            raise DataError(
                f"task.num_classes is {self.num_classes}; task.classes has {len(self.classes)}"
            )


def classes_of(parts: Sequence[Part]) -> list[str]:
    """Return the labels of the training rows, in order; whole numbers in theirs.

    Raises:
        DataError: If another split has a label that training has not.
    """
    counts = class_counts_of(parts)
    train = counts["train"]
    for split in SPLITS[1:]:
        if new := sorted(counts[split].keys() - train.keys()):
            shown = ", ".join(f"{name!r} ({counts[split][name]} rows)" for name in new[:10])
            raise DataError(
                f"the {split} split has labels that no training row has: {shown}; leave these rows "
                "out, or split otherwise"
            )
    return in_order(train)


def class_counts_of(parts: Sequence[Part]) -> dict[str, Counter[str]]:
    """Count the rows of each label in each split."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for part in parts:
        for place, split in enumerate(SPLITS):
            found = np.bincount(part.scan.labels[part.places == place], minlength=1)
            for name, count in zip(part.scan.names, found.tolist(), strict=False):
                if count:
                    counts[split][name] += count
    return counts


def in_order(names: Iterable[str]) -> list[str]:
    """Sort labels as texts, or by value where all are whole numbers."""
    names = list(names)
    if all(map(_WHOLE_NUMBER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def expected_of(parts: Sequence[Part]) -> Expected:
    """Return what a task for these rows says of them.

    Raises:
        DataError: If another split has a label that training has not.
    """
    classes = classes_of(parts)
    counts = class_counts_of(parts)["train"]
    return Expected(
        classes,
        num_classes=len(classes),
        class_counts=[counts[name] for name in classes],
        num_rows=dict(zip(SPLITS, rows_of_splits(parts), strict=True)),
    )


def check_plan(parts: Sequence[Part], expected: Expected) -> None:
    """Refuse a plan whose classes or rows are not those that a task says.

    Raises:
        DataError: With both.
    """
    found = expected_of(parts)
    if found.classes != expected.classes:
        raise DataError(
            f"the labels of the training rows are {', '.join(map(repr, found.classes[:20]))}, "
            f"task.classes says {', '.join(map(repr, expected.classes))}"
        )
    _check_counts(found.class_counts, found.num_rows, expected)


def check_prepared(folder: Path, expected: Expected) -> None:
    """Refuse what was prepared before if its rows are not those that a task says now.

    Raises:
        DataError: With both.
    """
    splits = read_manifest(folder)["splits"]
    num_rows = {split: splits[split]["rows"] for split in SPLITS}
    _check_counts(splits["train"]["class_counts"], num_rows, expected)


def _check_counts(
    class_counts: list[int] | None, num_rows: dict[str, int] | None, expected: Expected
) -> None:
    if expected.class_counts not in (None, class_counts):
        raise DataError(
            f"the classes have {class_counts} training rows, "
            f"task.class_counts says {expected.class_counts}"
        )
    if expected.num_rows not in (None, num_rows):
        raise DataError(f"the splits have {num_rows} rows, task.num_rows says {expected.num_rows}")


def check_labels(seen: Scan) -> None:
    """Refuse a label that tells rows apart instead of classes, or that is always the same.

    Args:
        seen: The files that training rows are among.

    Raises:
        DataError: With the counts.
    """
    names, num_rows = [seen.names[int(i)] for i in np.unique(seen.labels)], len(seen)
    if not num_rows:
        reasons = ", ".join(f"{number:,} have {reason}" for reason, number in seen.left_out.items())
        raise DataError(f"no row can be used: {reasons or 'there is none'}")
    if len(names) < 2:
        raise DataError(f"the label has one value, {names[0]!r}; there is nothing to learn")
    if len(names) > MOST_CLASSES or num_rows < LEAST_ROWS_OF_A_CLASS * len(names):
        raise too_many_classes(names, num_rows)
    for name in names:
        check_text(name)
