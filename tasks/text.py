"""Text: is an IMDb film review positive? Read byte by byte (Maas et al., 2011; Tay et al., 2021).

b"A wonderful film, ..."   ->   1
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, one_of
from tasks.hub import load_from_hub
from tasks.storage import Chunk, Split, prepare_once
from tasks.token_rows import TokenRows, open_split

NUM_CLASSES = 2

# Larger than IMDb; an upper estimate is only there to refuse a disk that is nearly full.
_NUM_BYTES = 100 * 2**20
_ROWS_PER_CHUNK = 1000
_FOLDERS = ("neg", "pos")

Review = tuple[bytes, int]


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    hub_name: str,
    validation: str,
    validation_fraction: float,
    seed: int,
) -> Path:
    """Fetch the reviews and split them.

    Which reviews make up the validation split, and the order of all, follow from their texts and
    the seed alone: every source gives the same bytes.

    Args:
        source: "hub", or "local" for a folder that holds aclImdb/ or is it.
        validation: "holdout" for a stratified part of the training reviews, or "test" to select on
            the test split, as Long Range Arena and its followers do.
    """
    one_of("task.source", source, ("hub", "local"))
    one_of("task.validation", validation, ("holdout", "test"))
    read: Callable[[str], list[Review]] = (
        partial(_read_folder, Path(source_dir or data_dir))
        if source == "local"
        else partial(_read_hub, hub_name)
    )
    options = {"validation": validation, "validation_fraction": validation_fraction, "seed": seed}
    return prepare_once(
        Path(data_dir) / "text",
        source=source,
        parameters={**options, "from": source_dir if source == "local" else hub_name},
        splits=lambda: _splits(read, **options),
        num_classes=NUM_CLASSES,
        num_bytes=_NUM_BYTES,
    )


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the token id of a byte is its value plus 1."""
    return open_split(folder, split, first_id=1, vocab_size=vocab_size, append_eos=append_eos)


def _splits(
    read: Callable[[str], list[Review]], *, validation: str, validation_fraction: float, seed: int
) -> Iterator[Split]:
    train, test = (_shuffled(read(split), seed=seed) for split in ("train", "test"))
    held_out = test
    if validation == "holdout":
        train, held_out = _hold_out(train, fraction=validation_fraction)
    for name, reviews in (("train", train), ("validation", held_out), ("test", test)):
        yield Split(name, num_rows=len(reviews), parts=[partial(_encode, reviews)])


def _shuffled(reviews: list[Review], *, seed: int) -> list[Review]:
    """Order reviews by a hash of their text, which does not depend on where they come from."""

    def key(review: Review) -> tuple[bytes, int]:
        text, label = review
        return hashlib.sha256(b"%d:" % seed + text).digest(), label

    return sorted(reviews, key=key)


def _hold_out(reviews: list[Review], *, fraction: float) -> tuple[list[Review], list[Review]]:
    kept: list[Review] = []
    held_out: list[Review] = []
    quota = [round(fraction * sum(label == c for _, label in reviews)) for c in range(NUM_CLASSES)]
    for review in reviews:
        label = review[1]
        (held_out if quota[label] > 0 else kept).append(review)
        quota[label] -= 1
    return kept, held_out


def _encode(reviews: list[Review]) -> Iterator[Chunk]:
    for start in range(0, len(reviews), _ROWS_PER_CHUNK):
        texts, labels = zip(*reviews[start : start + _ROWS_PER_CHUNK], strict=True)
        yield Chunk(
            np.frombuffer(b"".join(texts), dtype=np.uint8),
            np.array([len(text) for text in texts]),
            np.array(labels),
        )


def _read_hub(name: str, split: str) -> list[Review]:
    hint = "put the folder aclImdb/ somewhere and give task.source=local task.source_dir=<it>"
    rows: Any = load_from_hub(name, hint=hint)[split]
    return [(row["text"].encode(), row["label"]) for row in rows]


def _read_folder(folder: Path, split: str) -> list[Review]:
    root = folder / "aclImdb" if (folder / "aclImdb").is_dir() else folder
    reviews = []
    for label, name in enumerate(_FOLDERS):
        paths = sorted((root / split / name).glob("*.txt"))
        if not paths:
            raise DataError(
                f"no reviews in {root / split / name}; task.source_dir must name a folder aclImdb/"
            )
        reviews.extend((_read_review(path), label) for path in paths)
    return reviews


def _read_review(path: Path) -> bytes:
    text = path.read_bytes()
    if not text:
        raise DataError(f"{path} is empty")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}") from error
    return text
