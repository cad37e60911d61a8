"""Retrieval: does one paper of the ACL Anthology cite the other? (Radev et al., 2013)

    b"Parsing the ...", b"We show that ..."   ->   1

A paper takes part in many pairs and is stored once.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.errors import DataError, Unavailable, check_rows, check_wholes, one_of
from tasks.floors import Floor, add_floors
from tasks.floors.sequences import floor_of_pairs, predict_by_overlap_threshold
from tasks.sources.content import content_of
from tasks.sources.local import RELEASE_FOLDERS, check_source, locate
from tasks.store.manifest import SPLITS
from tasks.store.once import prepare_once
from tasks.store.rows import TokenRows, open_split
from tasks.store.write import Chunk, Contents, Split
from tasks.tokenizers import TOKENS, Encoder, fit_tokenizer

NUM_CLASSES = 2

_FILES = {
    "train": "tsv_data/new_aan_pairs.train.tsv",
    "validation": "tsv_data/new_aan_pairs.eval.tsv",
    "test": "tsv_data/new_aan_pairs.test.tsv",
}
_LABELS = {b"0.0": 0, b"1.0": 1}
_ROWS_PER_CHUNK = 1000
_NUM_BYTES = 2 * 10**9  # above those of the release, whose papers take part in many pairs each

_FLOORS = {
    "overlap_threshold": Floor(
        "one threshold on the cosine between the sets of 5-grams of the first 4,000 tokens, "
        "hashed to 2^16 buckets",
        predict_by_overlap_threshold,
        max_rows=20_000,
    ),
    "overlap": floor_of_pairs(max_rows=20_000),
}

Pair = tuple[bytes, bytes, int]


def prepare(
    data_dir: Path,
    *,
    source: str,
    source_dir: str | None,
    num_examples: Mapping[str, int],
    tokens: str,
    min_frequency: int,
    max_document_len: int,
) -> Path:
    """Read the pairs of Long Range Arena's release, or others in the same form.

    Args:
        source: "lra_release", a folder that holds tsv_data/ or is it.
        num_examples: Pairs expected of each file, to notice an incomplete one.
        max_document_len: Tokens kept of each paper.
    """
    check_source(source, ("lra_release",))
    one_of("task.tokens", tokens, TOKENS)
    check_wholes(min_frequency=min_frequency, max_document_len=max_document_len)
    check_rows("task.num_examples", num_examples, splits=SPLITS)
    files = {"data_dir": data_dir, "marker": _FILES["train"], "parents": RELEASE_FOLDERS}
    parameters = {
        "source": content_of(source_dir, **files, patterns=list(_FILES.values())),
        "num_examples": dict(num_examples),
        "tokens": tokens,
        "min_frequency": min_frequency,
        "max_document_len": max_document_len,
    }

    def contents() -> Contents:
        root = locate(source_dir, **files)
        paths = {split: root / file for split, file in _FILES.items()}
        tokenizer = fit_tokenizer(
            tokens, partial(_distinct_texts, paths["train"]), min_frequency=min_frequency
        )
        splits = [
            Split(
                split,
                num_rows=num_examples[split],
                parts=[partial(_encode, path, tokenizer.encode, max_len=max_document_len)],
            )
            for split, path in paths.items()
        ]
        return Contents(splits, vocabulary=tokenizer.vocabulary, dtype=tokenizer.dtype)

    folder = prepare_once(
        data_dir / "retrieval",
        variant=f"{source}-{tokens}",
        parameters=parameters,
        contents=contents,
        num_classes=NUM_CLASSES,
        paired=True,
        num_bytes=min(_NUM_BYTES, 2 * sum(num_examples.values()) * max_document_len),
    )
    return add_floors(folder, _FLOORS)


def load(folder: Path, split: str, *, vocab_size: int, append_eos: bool) -> TokenRows:
    """Open a split; the id of a byte, or of a character's place, is that number plus 1."""
    return open_split(folder, split, first_id=1, vocab_size=vocab_size, append_eos=append_eos)


def _encode(path: Path, encode: Encoder, *, max_len: int) -> Iterator[Chunk]:
    places: dict[bytes, int] = {}
    pairs = _read_pairs(path)
    while rows := list(islice(pairs, _ROWS_PER_CHUNK)):
        documents = []
        new = []
        for *texts, _ in rows:
            for text in texts:
                digest = hashlib.blake2b(text, digest_size=16).digest()
                if digest not in places:
                    places[digest] = len(places)
                    new.append(encode(text)[:max_len])
                documents.append(places[digest])
        yield Chunk(
            np.concatenate(new) if new else encode(b""),
            np.array([len(document) for document in new], dtype=np.int64),
            np.array([label for *_, label in rows]),
            np.array(documents).reshape(-1, 2),
        )


def _distinct_texts(path: Path) -> Iterable[bytes]:
    seen = set()
    for *texts, _ in _read_pairs(path):
        for text in texts:
            digest = hashlib.blake2b(text, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield text


def _read_pairs(path: Path) -> Iterator[Pair]:
    """Yield the pairs of a file of lines label, id1, id2, text1, text2, separated by tabs."""
    if not path.is_file():
        raise Unavailable(f"{path} is missing")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            columns = line.rstrip(b"\r\n").split(b"\t")
            if len(columns) != 5:
                raise DataError(f"{where} has {len(columns)} columns, not 5")
            label, _, _, first, second = columns
            if label not in _LABELS:
                raise DataError(f"{where} has the label {label!r}, not 0.0 or 1.0")
            if not first or not second:
                raise DataError(f"{where} has an empty text")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{where} is not UTF-8 at byte {error.start}") from error
            yield first, second, _LABELS[label]
