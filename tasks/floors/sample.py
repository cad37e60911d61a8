"""Draw rows of a prepared split, always the same ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Integer
from numpy.random import PCG64, Generator

_SEED = 0


class Sample(NamedTuple):
    """Rows of a split; document d is items[offsets[d] : offsets[d + 1]].

    Attributes:
        items: Ids of tokens, or the values of channels at each step.
    """

    items: Integer[np.ndarray, "tokens"] | Float32[np.ndarray, "steps channels"]
    offsets: Int[np.ndarray, "documents_and_one"]
    documents: Int[np.ndarray, "rows"] | Int[np.ndarray, "rows 2"]
    labels: Integer[np.ndarray, "rows"]

    def texts(self, documents: Int[np.ndarray, "n"]) -> Iterator[Integer[np.ndarray, "_"]]:
        """Yield the tokens of documents."""
        return (self.items[self.offsets[d] : self.offsets[d + 1]] for d in documents)


def draw_sample(folder: Path, split: str, *, max_rows: int) -> Sample:
    """Open a split and keep max_rows of its rows, or all if they are fewer."""
    content = "ids" if (folder / f"{split}.ids.npy").exists() else "values"
    fields = (content, "offsets", "documents", "labels")
    arrays = {field: np.load(folder / f"{split}.{field}.npy", mmap_mode="r") for field in fields}
    num_rows = len(arrays["labels"])
    rows = np.arange(num_rows)
    if num_rows > max_rows:
        rows = np.sort(Generator(PCG64(_SEED)).permutation(num_rows)[:max_rows])
    return Sample(
        items=arrays[content],
        offsets=np.asarray(arrays["offsets"]),
        documents=arrays["documents"][rows],
        labels=arrays["labels"][rows].astype(np.int64),
    )
