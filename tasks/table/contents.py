"""Write the rows of a plan as tokens: read the files again, and keep of each text what fits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from tasks.columns import Form
from tasks.errors import DataError
from tasks.store.manifest import SPLITS
from tasks.store.write import Chunk, Contents, Split
from tasks.table.examples import Columns, Example, read_examples
from tasks.table.plan import Part, facts_of, rows_of_splits, shared_texts
from tasks.tokenizers import Tokenizer, fit_tokenizer

KEEP = ("head", "tail", "both")

_ROWS_PER_CHUNK = 1000


class Tokens(NamedTuple):
    """How texts become tokens, and how many of them are kept.

    Attributes:
        kind: "bytes", or "characters" that are met min_frequency times in training.
        keep: Which tokens of a longer text: "head", "tail", or "both", half of each.
    """

    kind: str
    min_frequency: int
    max_len: int
    keep: str


def table_contents(
    parts: Sequence[Part],
    columns: Columns,
    *,
    form: Form,
    tokens: Tokens,
    stored: Tokenizer | None,
    classes: Sequence[str],
) -> Contents:
    """Describe what is to be written; nothing is read before it is.

    Args:
        stored: The tokenizer; None for the one that ``tokens`` asks for.
    """

    def read(place: int) -> Iterator[Example]:
        for part in parts:
            if (part.places == place).any():
                asked = columns.of_files(part.split)
                examples = read_examples(part.paths, asked, form=form, left_out=Counter())
                yield from compress(examples, part.places == place)

    def training_texts() -> Iterator[bytes]:
        return (text for example in read(0) for text in example.texts)

    tokenizer = stored or fit_tokenizer(
        tokens.kind, training_texts, min_frequency=tokens.min_frequency
    )
    label_ids = {name: place for place, name in enumerate(classes)}

    def encode(place: int) -> Iterator[Chunk]:
        return _encode(read(place), tokenizer, label_ids, tokens=tokens, paired=columns.paired)

    splits = [
        Split(name, num_rows=num_rows, parts=[partial(encode, place)])
        for place, (name, num_rows) in enumerate(zip(SPLITS, rows_of_splits(parts), strict=True))
    ]
    return Contents(
        splits,
        vocabulary=tokenizer.vocabulary,
        dtype=tokenizer.dtype,
        facts={
            **facts_of(parts, classes=classes, max_len=tokens.max_len),
            "shared_texts": shared_texts(parts),
        },
    )


def _encode(
    examples: Iterator[Example],
    tokenizer: Tokenizer,
    label_ids: Mapping[str, int],
    *,
    tokens: Tokens,
    paired: bool,
) -> Iterator[Chunk]:
    num_documents = 0
    documents: list[Any] = []
    labels: list[int] = []

    def chunk() -> Chunk:
        pairs = num_documents + np.arange(len(documents)).reshape(-1, 2) if paired else None
        lengths = np.array([len(document) for document in documents])
        return Chunk(np.concatenate(documents), lengths, np.array(labels), pairs)

    for example in examples:
        documents += [_cut(tokenizer, text, tokens) for text in example.texts]
        if example.label not in label_ids:
            raise DataError(f"{example.place} had another label when it was first read")
        labels.append(label_ids[example.label])
        if len(labels) == _ROWS_PER_CHUNK:
            yield chunk()
            num_documents += len(documents)
            documents, labels = [], []
    if labels:
        yield chunk()


def _cut(tokenizer: Tokenizer, text: bytes, tokens: Tokens) -> Integer[np.ndarray, "_"]:
    """Keep of a text what fits between the special tokens."""
    front, back = tokenizer.front, tokenizer.back
    room = max(tokens.max_len - len(front) - len(back), 1)
    kept = _kept(tokenizer.encode(text), room, tokens.keep)
    return np.concatenate([front, kept, back], dtype=kept.dtype, casting="unsafe")


def _kept(ids: Integer[np.ndarray, "_"], most: int, keep: str) -> Integer[np.ndarray, "_"]:
    if len(ids) <= most or keep == "head":
        return ids[:most]
    if keep == "tail":
        return ids[-most:]
    return np.concatenate([ids[: most - most // 2], ids[len(ids) - most // 2 :]])
