"""ListOps: evaluate a nested list expression to a digit (Nangia & Bowman, 2018; Tay et al., 2021).

[MAX 2 9 [MIN 4 7 ] 0 ]   ->   9
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import one_of
from tasks.generate_listops import VOCABULARY, generate_listops
from tasks.storage import Chunk, Split, prepare_once
from tasks.token_rows import TokenRows, open_split

NUM_CLASSES = 10

_CLOSE = VOCABULARY.index("]")


def prepare(
    data_dir: Path,
    *,
    source: str,
    brackets: str,
    num_examples: dict[str, int],
    seed: int,
    min_len: int,
    max_len: int,
    max_depth: int,
    max_args: int,
    num_workers: int,
) -> Path:
    """Generate the three splits as consecutive stretches of one stream without duplicates.

    Args:
        brackets: "keep", or "drop" to lose the closing brackets and with them the tree, as in the
            data of Skyformer.
    """
    one_of("task.source", source, ("generate",))
    one_of("task.brackets", brackets, ("keep", "drop"))
    generate = {
        "seed": seed,
        "min_len": min_len,
        "max_len": max_len,
        "max_depth": max_depth,
        "max_args": max_args,
    }
    return prepare_once(
        Path(data_dir) / "listops",
        source=source,
        parameters={"brackets": brackets, "num_examples": dict(num_examples), **generate},
        splits=lambda: _generated_splits(
            num_examples, brackets=brackets, num_workers=num_workers, **generate
        ),
        num_classes=NUM_CLASSES,
        vocabulary=VOCABULARY,
        num_bytes=sum(num_examples.values()) * max_len,
    )


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the stored numbers are the token ids."""
    return open_split(folder, split, first_id=0, vocab_size=vocab_size, append_eos=append_eos)


def _generated_splits(
    num_examples: dict[str, int], *, brackets: str, **options: Any
) -> Iterator[Split]:
    start = 0
    # The shorter splits first: whoever makes the last one alone has little to skip.
    for name in ("test", "validation", "train"):
        stop = start + num_examples[name]
        part = partial(_generate_stretch, start, stop, brackets=brackets, **options)
        yield Split(name, num_rows=stop - start, parts=[part])
        start = stop


def _generate_stretch(start: int, stop: int, *, brackets: str, **options: Any) -> Iterator[Chunk]:
    position = 0
    for ids, lengths, labels in generate_listops(stop, **options):
        skipped = min(max(start - position, 0), len(lengths))
        position += len(lengths)
        ids, lengths = ids[lengths[:skipped].sum() :], lengths[skipped:]
        yield (
            _without_brackets(ids, lengths, labels[skipped:])
            if brackets == "drop"
            else Chunk(ids, lengths, labels[skipped:])
        )


def _without_brackets(ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> Chunk:
    kept = ids != _CLOSE
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    return Chunk(ids[kept], np.diff(kept_before[np.concatenate([[0], np.cumsum(lengths)])]), labels)
