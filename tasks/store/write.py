"""Write the splits of a data set into a folder, part by part.

After an interruption, the next call goes on after the last finished part.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Integer
from numpy.typing import DTypeLike
from rich.console import Console
from rich.progress import Progress

from tasks.errors import DataError
from tasks.store.arrays import GrowingArray
from tasks.store.manifest import SPLITS, describe_split, write_json

PROGRESS = "progress.json"

_logger = logging.getLogger(__name__)

Field = tuple[DTypeLike, tuple[int, ...]]  # type and shape of an item


class Chunk(NamedTuple):
    """Some rows of a split.

    Attributes:
        ids: New documents end to end: ids of tokens, or the values of channels at each step.
        lengths: Their lengths.
        labels: One for each row, or as many as a row has questions.
        documents: The documents of each row, counted from the first of the split; None where each
            new document is a row of its own.
        places: The tokens of its document at which a row is asked for its labels; None where it is
            asked for one, as a whole.
    """

    ids: Integer[np.ndarray, "tokens"] | Float32[np.ndarray, "steps channels"]
    lengths: Int[np.ndarray, "documents"]
    labels: Integer[np.ndarray, "rows"] | Integer[np.ndarray, "rows questions"]
    documents: Int[np.ndarray, "rows 2"] | None = None
    places: Int[np.ndarray, "rows questions"] | None = None


class Split(NamedTuple):
    """A split as the parts that make it up; each can be made without the others.

    Attributes:
        num_left_out: Rows that the source lists and that cannot be used.
    """

    name: str
    num_rows: int
    parts: Sequence[Callable[[], Iterable[Chunk]]]
    num_left_out: int = 0


class Contents(NamedTuple):
    """What a data set is made of.

    Attributes:
        facts: What else the manifest says of it.
        num_questions: How many labels each row has, at places of its own; None for one of the row
            as a whole.
        num_channels: Of the values of a series; None for ids of tokens.
        confirm: Called when all is written; a DataError of it discards that.
        num_bytes: The space that the splits need, where that is known by now.
    """

    splits: Iterable[Split]
    vocabulary: Sequence[str] = ()
    dtype: DTypeLike = np.uint8
    facts: Mapping[str, Any] = MappingProxyType({})
    num_questions: int | None = None
    num_channels: int | None = None
    confirm: Callable[[], None] = lambda: None
    num_bytes: int = 0


def write(folder: Path, contents: Contents, *, num_classes: int, paired: bool) -> dict[str, Any]:
    """Write what earlier calls have not finished; return what the manifest says of all of it.

    Raises:
        DataError: If a row is not valid, a split has not the rows that it says, or one is missing.
    """
    splits = {}
    for split in contents.splits:
        fields = _fields(contents, num_classes=num_classes, paired=paired)
        num_rows = _write_split(folder, split, fields=fields, num_classes=num_classes)
        if num_rows != split.num_rows:
            raise DataError(f"the {split.name} split has {num_rows} rows, not {split.num_rows}")
        if not num_rows:
            raise DataError(f"the {split.name} split has no rows; its share of them is too small")
        splits[split.name] = describe_split(
            folder, split.name, num_classes=num_classes, num_left_out=split.num_left_out
        )
    if missing := [name for name in SPLITS if name not in splits]:
        raise DataError(f"the task has no split {' or '.join(missing)}; it needs one of each")
    contents.confirm()
    return {**contents.facts, "vocabulary": list(contents.vocabulary), "splits": splits}


def _fields(contents: Contents, *, num_classes: int, paired: bool) -> dict[str, Field]:
    """Say what arrays a split has, with the type and the shape of their items."""
    questions = () if contents.num_questions is None else (contents.num_questions,)
    fields: dict[str, Field] = {
        **_content(contents),
        "offsets": (np.int64, ()),
        "documents": (np.int32, (2,) if paired else ()),
        "labels": (_label_dtype(num_classes), questions),
    }
    return fields | ({"places": (np.int32, questions)} if questions else {})


def _content(contents: Contents) -> dict[str, Field]:
    if contents.num_channels is None:
        return {"ids": (contents.dtype, ())}
    return {"values": (np.float32, (contents.num_channels,))}


def _write_split(
    folder: Path, split: Split, *, fields: Mapping[str, Field], num_classes: int
) -> int:
    """Write the parts of a split that an earlier call has not finished; return the rows of all."""
    progress = _read_progress(folder)
    num_parts, num_items = progress.get(split.name, (0, {}))
    with ExitStack() as stack:
        arrays = {
            field: stack.enter_context(
                GrowingArray(
                    folder / f"{split.name}.{field}.npy",
                    dtype=dtype,
                    shape=shape,
                    num_items=num_items.get(field, 0),
                )
            )
            for field, (dtype, shape) in fields.items()
        }
        if not num_parts:
            arrays["offsets"].append(np.zeros(1, np.int64))
        bar = stack.enter_context(progress_bar())
        task = bar.add_task(split.name, total=split.num_rows, completed=arrays["labels"].num_items)
        for part in split.parts[num_parts:]:
            for chunk in part():
                _append(arrays, chunk, num_classes=num_classes)
                bar.advance(task, len(chunk.labels))
            for array in arrays.values():
                array.flush()
            num_parts += 1
            num_items = {field: array.num_items for field, array in arrays.items()}
            write_json(folder / PROGRESS, progress | {split.name: (num_parts, num_items)})
        return arrays["labels"].num_items


def _append(arrays: Mapping[str, GrowingArray], chunk: Chunk, *, num_classes: int) -> None:
    labels = chunk.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(
            f"labels range over {labels.min()}..{labels.max()}, not 0..{num_classes - 1}"
        )
    assert chunk.lengths.sum() == len(chunk.ids), "a chunk whose documents are not of its lengths"
    documents = chunk.documents
    if documents is None:
        documents = arrays["offsets"].num_items - 1 + np.arange(len(chunk.lengths))
    assert len(documents) == len(labels), f"{len(documents)} documents with {len(labels)} labels"
    content = arrays["ids" if "ids" in arrays else "values"]
    ends = content.num_items + np.cumsum(chunk.lengths, dtype=np.int64)
    content.append(chunk.ids)
    arrays["offsets"].append(ends)
    arrays["documents"].append(_narrow(documents, arrays["documents"].dtype))
    arrays["labels"].append(_narrow(labels, arrays["labels"].dtype))
    if chunk.places is not None:
        arrays["places"].append(_narrow(chunk.places, arrays["places"].dtype))


def _label_dtype(num_classes: int) -> DTypeLike:
    # Of the integer types that torch can index with and gather, these two suffice.
    return np.uint8 if num_classes <= 256 else np.int32


def _narrow(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert integers to a type that holds them all."""
    narrow = values.astype(dtype)
    if not np.array_equal(narrow, values):
        raise DataError(f"{values.max()} is more than {dtype} can hold")
    return narrow


def progress_bar() -> Progress:
    """Return a bar that shows in a terminal and leaves nothing behind."""
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _read_progress(folder: Path) -> dict[str, Any]:
    path = folder / PROGRESS
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        _logger.warning("%s is damaged; preparation begins anew", path)
        return {}
