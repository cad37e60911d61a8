"""Draw rows of a prepared split, always the same ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer
from numpy.random import PCG64, Generator

_SEED = 0


class Sample(NamedTuple):
    """Rows of a split; document d is ids[offsets[d] : offsets[d + 1]]."""

    ids: Integer[np.ndarray, "tokens"]
    offsets: Int[np.ndarray, "documents_and_one"]
    documents: Int[np.ndarray, "rows"] | Int[np.ndarray, "rows 2"]
    labels: Integer[np.ndarray, "rows"]

    def texts(self, documents: Int[np.ndarray, "n"]) -> Iterator[Integer[np.ndarray, "_"]]:
        """Yield the tokens of documents."""
        return (self.ids[self.offsets[d] : self.offsets[d + 1]] for d in documents)


def draw_sample(folder: Path, split: str, *, max_rows: int) -> Sample:
    """Open a split and keep max_rows of its rows, or all if they are fewer."""
    arrays = {
        field: np.load(folder / f"{split}.{field}.npy", mmap_mode="r") for field in Sample._fields
    }
    num_rows = len(arrays["labels"])
    rows = np.arange(num_rows)
    if num_rows > max_rows:
        rows = np.sort(Generator(PCG64(_SEED)).permutation(num_rows)[:max_rows])
    return Sample(
        ids=arrays["ids"],
        offsets=np.asarray(arrays["offsets"]),
        documents=arrays["documents"][rows],
        labels=arrays["labels"][rows].astype(np.int64),
    )
