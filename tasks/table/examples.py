"""Rows of a user's files as examples; those without a text or a label are left out and counted."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.columns import Form, read_rows
from tasks.columns.row import Advance
from tasks.errors import DataError, check_texts


class Columns(NamedTuple):
    """Which columns hold what.

    Attributes:
        text: Columns that are joined by line breaks, or the two of a pair.
        group: Column whose rows of one value belong together.
        time: Column by which the last rows are those of the test split.
        split: Column that names the split of a row.
    """

    text: Sequence[str]
    paired: bool
    label: str
    group: str | None = None
    time: str | None = None
    split: str | None = None

    @property
    def decider(self) -> str | None:
        """The column that decides the split, if one does."""
        return self.group or self.time or self.split

    def of_files(self, split: str) -> "Columns":
        """Return those that the files of a split must have: where they are one, none names it.

        They have a group all the same, which tells whether it stands in another split, too.
        """
        return self if split == "train" else self._replace(time=None, split=None)


class Example(NamedTuple):
    """A text, or the two of a pair, its label, and the value of the column that decides the split.

    Attributes:
        place: File and line, for messages.
    """

    texts: tuple[bytes, ...]
    label: str
    decider: str
    place: str


def check_columns(columns: Columns) -> None:
    """Refuse columns that contradict each other.

    Raises:
        DataError: With what is allowed.
    """
    check_texts("task.text", columns.text)
    if not columns.text or (columns.paired and len(columns.text) != 2):
        wanted = "two for a pair" if columns.paired else "at least one"
        raise DataError(f"text names {len(columns.text)} columns; it must name {wanted}")
    deciders = {
        name: column
        for name, column in columns._asdict().items()
        if name in ("group", "time", "split") and column is not None
    }
    if len(deciders) > 1:
        named = ", ".join(f"{name}={column}" for name, column in deciders.items())
        raise DataError(f"only one column can decide the splits, not {named}")
    for role, column in {"the label": columns.label, **deciders}.items():
        if column in columns.text:
            raise DataError(f"column {column!r} is a text and {role} at once")


def read_examples(
    paths: Sequence[Path],
    columns: Columns,
    *,
    form: Form,
    left_out: Counter[str],
    advance: Advance | None = None,
) -> Iterator[Example]:
    """Yield the examples of files in their order.

    Args:
        left_out: Counts the rows that are none, by reason.
    """
    names = [*columns.text, columns.label, *filter(None, [columns.decider])]
    num_texts = len(columns.text)
    for row in read_rows(paths, names, form=form, advance=advance):
        texts = [text or "" for text in row.values[:num_texts]]
        label = row.values[num_texts]
        parts = texts if columns.paired else ["\n".join(texts)]
        if not all(part.strip() for part in parts):
            left_out["no text"] += 1
        elif label is None or not label.strip():
            left_out["no label"] += 1
        else:
            decider = row.values[num_texts + 1] if columns.decider else ""
            if columns.decider and not decider:
                raise DataError(f"{row.place} has no {columns.decider}, which decides its split")
            encoded = tuple(part.encode() for part in parts)
            yield Example(encoded, label, decider or "", row.place)
