"""Text: is an IMDb film review positive? Read byte by byte (Maas et al., 2011; Tay et al., 2021).

b"A wonderful film, ..."   ->   1
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, check_rows, check_wholes, one_of
from tasks.floors import add_floors
from tasks.floors.sequences import floors_of_texts
from tasks.sources.content import content_of, list_files
from tasks.sources.hub import load_from_hub
from tasks.sources.local import check_source, locate
from tasks.splits import check_fractions
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Chunk, Contents, Split
from tasks.tokenizers import TOKENS, Encoder, fit_tokenizer

NUM_CLASSES = 2

# Larger than IMDb; an upper estimate is only there to refuse a disk that is nearly full.
_NUM_BYTES = 100 * 2**20
_ROWS_PER_CHUNK = 1000
_FOLDERS = ("neg", "pos")
_MARKER = "train/pos"
_PARENTS = ("aclImdb",)

_FLOORS = floors_of_texts(max_rows=25_000)

Review = tuple[bytes, int]


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    hub_name: str,
    source_rows: Mapping[str, int],
    tokens: str,
    min_frequency: int,
    validation: str,
    validation_fraction: float,
    seed: int,
) -> Path:
    """Fetch the reviews and split them.

    Which reviews make up the validation split, and the order of all, follow from their texts and
    the seed alone: the same reviews give the same bytes, wherever they come from.

    Args:
        source: "hub", or "local" for a folder that holds aclImdb/ or is it.
        source_rows: Reviews expected of the source, to notice an incomplete one.
        tokens: "bytes", or "characters" that are met min_frequency times in training.
        validation: "holdout" for a stratified part of the training reviews, or "test" to select on
            the test split, as Long Range Arena and its followers do.
    """
    check_source(source, ("hub", "local"))
    one_of("task.tokens", tokens, TOKENS)
    one_of("task.validation", validation, ("holdout", "test"))
    check_wholes(min_frequency=min_frequency)
    check_wholes(split_seed=seed, least=0)
    check_rows("task.source_rows", source_rows, splits=("train", "test"))
    if validation == "holdout":
        check_fractions(validation_fraction=validation_fraction)
    options = {
        "tokens": tokens,
        "min_frequency": min_frequency,
        "validation": validation,
        "validation_fraction": validation_fraction,
        "seed": seed,
    }

    def read(split: str) -> list[Review]:
        if source == "hub":
            reviews = _read_hub(hub_name, split)
        else:
            reviews = _read_folder(source_dir, data_dir=data_dir, split=split)
        if len(reviews) != source_rows[split]:
            raise DataError(
                f"{len(reviews)} {split} reviews found, task.source_rows.{split} says "
                f"{source_rows[split]}"
            )
        return reviews

    content = hub_name
    if source == "local":
        content = content_of(
            source_dir,
            data_dir=data_dir,
            marker=_MARKER,
            parents=_PARENTS,
            patterns=[f"{split}/{name}/*.txt" for split in source_rows for name in _FOLDERS],
        )
    folder = prepare_once(
        data_dir / "text",
        variant=tokens,
        parameters={"source": content, "source_rows": dict(source_rows), **options},
        contents=partial(_contents, read, **options),
        num_classes=NUM_CLASSES,
        paired=False,
        num_bytes=_NUM_BYTES,
    )
    return add_floors(folder, _FLOORS)


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the id of a byte, or of a character's place, is that number plus 1."""
    return open_split(folder, split, first_id=1, vocab_size=vocab_size, append_eos=append_eos)


def _contents(
    read: Callable[[str], list[Review]],
    *,
    tokens: str,
    min_frequency: int,
    validation: str,
    validation_fraction: float,
    seed: int,
) -> Contents:
    train, test = (_shuffled(read(split), seed=seed) for split in ("train", "test"))
    held_out = test
    if validation == "holdout":
        train, held_out = _hold_out(train, fraction=validation_fraction)
    tokenizer = fit_tokenizer(
        tokens, lambda: (text for text, _ in train), min_frequency=min_frequency
    )
    splits = [
        Split(name, num_rows=len(reviews), parts=[partial(_encode, reviews, tokenizer.encode)])
        for name, reviews in (("train", train), ("validation", held_out), ("test", test))
    ]
    return Contents(splits, vocabulary=tokenizer.vocabulary, dtype=tokenizer.dtype)


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


def _encode(reviews: list[Review], encode: Encoder) -> Iterator[Chunk]:
    for start in range(0, len(reviews), _ROWS_PER_CHUNK):
        texts, labels = zip(*reviews[start : start + _ROWS_PER_CHUNK], strict=True)
        documents = [encode(text) for text in texts]
        yield Chunk(
            np.concatenate(documents),
            np.array([len(document) for document in documents]),
            np.array(labels),
        )


def _read_hub(name: str, split: str) -> list[Review]:
    hint = "put the folder aclImdb/ somewhere and give task.source=local task.source_dir=<it>"
    rows: Any = load_from_hub(name, split, columns=("text", "label"), hint=hint)
    reviews = []
    for number, row in enumerate(rows):
        text, label = row["text"], row["label"]
        if not isinstance(text, str) or not text or label not in range(NUM_CLASSES):
            raise DataError(
                f"{name}, row {number} of {split} is {text!r:.60}, labelled {label!r}; it must be "
                f"a text with a label from 0 to {NUM_CLASSES - 1}"
            )
        reviews.append((text.encode(), int(label)))
    return reviews


def _read_folder(source_dir: str | None, *, data_dir: Path, split: str) -> list[Review]:
    root = locate(source_dir, data_dir=data_dir, marker=_MARKER, parents=_PARENTS)
    return [
        (_read_review(path), label)
        for label, name in enumerate(_FOLDERS)
        for path in list_files(root, [f"{split}/{name}/*.txt"])
    ]


def _read_review(path: Path) -> bytes:
    text = path.read_bytes()
    if not text:
        raise DataError(f"{path} is empty")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}") from error
    return text
