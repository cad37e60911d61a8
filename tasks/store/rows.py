"""Read a split of a prepared data set without loading it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Integer
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
    """

    ids: Integer[Tensor, "tokens"]
    offsets: Int[Tensor, "documents_and_one"]
    documents: Int[Tensor, "rows"] | Int[Tensor, "rows 2"]
    labels: Integer[Tensor, "rows"] | Integer[Tensor, "rows questions"]
    first_id: int
    places: Int[Tensor, "rows questions"] | None = None
    eos_id: int | None = None
    zero_is_padding: bool = False

    def __len__(self) -> int:
        return len(self.labels)

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
    splits = read_manifest(folder)["splits"]
    if split not in splits:
        raise DataError(f"no split {split!r} in {folder}; it has {', '.join(splits)}")
    needed = splits[split]["largest_id"] + first_id + 1 + append_eos
    if needed > vocab_size:
        raise DataError(f"task.vocab_size is {vocab_size}; the ids in {folder} need {needed}")

    def tensor(field: str) -> Tensor:
        # Copy-on-write, because torch wants memory that it may write to.
        return torch.from_numpy(np.load(folder / f"{split}.{field}.npy", mmap_mode="c"))

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
