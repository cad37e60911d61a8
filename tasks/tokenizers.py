"""Turn text into numbers: one per byte, or one per frequent character.

The number stored for a token is its id minus 1, because id 0 is padding.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from numpy.typing import DTypeLike

UNKNOWN = "<unk>"
TOKENS = ("bytes", "characters")

_NUM_CODE_POINTS = 0x110000

Encoder = Callable[[bytes], Integer[np.ndarray, "_"]]


class Tokenizer(NamedTuple):
    """How UTF-8 text becomes numbers of a type; the vocabulary of bytes needs no list."""

    encode: Encoder
    dtype: DTypeLike
    vocabulary: tuple[str, ...] = ()


def fit_tokenizer(
    tokens: str, training_texts: Callable[[], Iterable[bytes]], *, min_frequency: int
) -> Tokenizer:
    """Return the tokenizer of a name.

    Args:
        tokens: One of TOKENS.
        training_texts: Called only for characters.
        min_frequency: Characters that are rarer in training become one unknown one.
    """
    if tokens == "bytes":
        return Tokenizer(encode_bytes, np.uint8)
    characters = count_characters(training_texts(), min_frequency=min_frequency)
    # Of the integer types torch can index with and gather, these two suffice.
    dtype = np.uint8 if len(characters) < 256 else np.int32
    encode = character_encoder(characters, dtype=dtype)
    return Tokenizer(encode, dtype, (UNKNOWN, *characters))


def encode_bytes(text: bytes) -> UInt8[np.ndarray, "_"]:
    """Return the bytes of a text."""
    return np.frombuffer(text, dtype=np.uint8)


def count_characters(texts: Iterable[bytes], *, min_frequency: int) -> list[str]:
    """Return the characters seen min_frequency times or more, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.decode())
    frequent = (item for item in counts.items() if item[1] >= min_frequency)
    return [character for character, _ in sorted(frequent, key=lambda item: (-item[1], item[0]))]


def character_encoder(characters: Sequence[str], *, dtype: DTypeLike) -> Encoder:
    """Return an encoder that maps each listed character to its place from 1, any other to 0."""
    table = np.zeros(_NUM_CODE_POINTS, dtype=dtype)
    table[[ord(character) for character in characters]] = np.arange(1, len(characters) + 1)

    def encode(text: bytes) -> Integer[np.ndarray, "_"]:
        return table[np.frombuffer(text.decode().encode("utf-32-le"), dtype=np.uint32)]

    return encode
