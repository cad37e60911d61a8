"""Read a split of a prepared data set without loading it."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from tasks.errors import DataError
from tasks.store.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Rows of token ids that point into documents lying end to end.

    Attributes:
        ids: Documents end to end, in the smallest integer type.
        offsets: Document d is ids[offsets[d] : offsets[d + 1]].
        documents: The document of each row, or the two of a pair.
        labels: The label of each row, or those of its questions.
        places: The tokens at which a row is asked; None where it is asked as a whole.
        first_id: Added to each stored id; 1 keeps 0 free for padding.
        eos_id: Appended to each document, if not None.
        zero_is_padding: Whether id 0 inside a document counts as padding, as it does in the code of
            Long Range Arena, where black pixels vanish.
        keeps_end: Whether rows were cut so that they end as they should; batches must not cut more.
        in_file_order: Whether they come as in a file of a user's, which may be sorted, so that the
            first ones stand for themselves alone.
    """

    ids: Integer[Tensor, "tokens"]
    offsets: Int[Tensor, "documents_and_one"]
    documents: Int[Tensor, "rows"] | Int[Tensor, "rows 2"]
    labels: Integer[Tensor, "rows"] | Integer[Tensor, "rows questions"]
    first_id: int
    places: Int[Tensor, "rows questions"] | None = None
    eos_id: int | None = None
    zero_is_padding: bool = False
    keeps_end: bool = False
    in_file_order: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def lengths(self, indices: Int[Tensor, "B"]) -> Int[Tensor, "B"] | Int[Tensor, "B 2"]:
        """Count the tokens of rows, the end-of-sequence token included."""
        documents = self.documents[indices]
        return self.offsets[documents + 1] - self.offsets[documents] + (self.eos_id is not None)

    def to(self, device: torch.device | str) -> "TokenRows":
        """Copy the rows to a device, where a batch is then gathered."""
        return replace(
            self,
            ids=self.ids.to(device),
            offsets=self.offsets.to(device),
            documents=self.documents.to(device),
            labels=self.labels.to(device),
            places=None if self.places is None else self.places.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class SeriesRows:
    """Rows of values of several channels that point into series lying end to end.

    Attributes:
        values: Series end to end, NaN where a value is missing.
        offsets: Series d is values[offsets[d] : offsets[d + 1]].
        documents: The series of each row.
        keeps_end: As in :class:`TokenRows`, like in_file_order.
    """

    values: Float[Tensor, "steps channels"]
    offsets: Int[Tensor, "documents_and_one"]
    documents: Int[Tensor, "rows"]
    labels: Integer[Tensor, "rows"]
    keeps_end: bool = False
    in_file_order: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.values.device

    def lengths(self, indices: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Count the steps of rows."""
        documents = self.documents[indices]
        return self.offsets[documents + 1] - self.offsets[documents]

    def to(self, device: torch.device | str) -> "SeriesRows":
        """Copy the rows to a device, where a batch is then gathered."""
        return replace(
            self,
            values=self.values.to(device),
            offsets=self.offsets.to(device),
            documents=self.documents.to(device),
            labels=self.labels.to(device),
        )


Rows = TokenRows | SeriesRows


def open_split(
    folder: Path,
    split: str,
    *,
    first_id: int,
    vocab_size: int,
    append_eos: bool = False,
    zero_is_padding: bool = False,
) -> TokenRows:
    """Open a split as memory-mapped tensors.

    Args:
        append_eos: Whether the last id of the vocabulary ends each document.

    Raises:
        DataError: If there is no such split, or the vocabulary is too small.
    """
    needed = _facts(folder, split)["largest_id"] + first_id + 1 + append_eos
    if needed > vocab_size:
        raise DataError(f"task.vocab_size is {vocab_size}; the ids in {folder} need {needed}")

    tensor = partial(_open_field, folder, split)
    return TokenRows(
        ids=tensor("ids"),
        offsets=tensor("offsets"),
        documents=tensor("documents"),
        labels=tensor("labels"),
        places=tensor("places") if (folder / f"{split}.places.npy").exists() else None,
        first_id=first_id,
        eos_id=vocab_size - 1 if append_eos else None,
        zero_is_padding=zero_is_padding,
    )


def open_series(folder: Path, split: str, *, num_channels: int) -> SeriesRows:
    """Open a split of series as memory-mapped tensors.

    Raises:
        DataError: If there is no such split, or the series have other channels.
    """
    found = len(_facts(folder, split)["mean"])
    if found != num_channels:
        raise DataError(f"{folder} has series of {found} values a step, not {num_channels}")
    tensor = partial(_open_field, folder, split)
    return SeriesRows(
        values=tensor("values"),
        offsets=tensor("offsets"),
        documents=tensor("documents"),
        labels=tensor("labels"),
    )


def _facts(folder: Path, split: str) -> dict[str, Any]:
    splits = read_manifest(folder)["splits"]
    if split not in splits:
        raise DataError(f"no split {split!r} in {folder}; it has {', '.join(splits)}")
    return splits[split]


def _open_field(folder: Path, split: str, field: str) -> Tensor:
    # Copy-on-write, because torch wants memory that it may write to.
    return torch.from_numpy(np.load(folder / f"{split}.{field}.npy", mmap_mode="c"))
