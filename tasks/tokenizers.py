"""Turn text into numbers: one per byte, per frequent character, or per token of a stored tokenizer.

The number stored for a token is its id minus 1, because id 0 is padding.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from numpy.typing import DTypeLike

from tasks.errors import DataError, Unavailable

UNKNOWN = "<unk>"
TOKENS = ("bytes", "characters")

_NUM_CODE_POINTS = 0x110000

Encoder = Callable[[bytes], Integer[np.ndarray, "_"]]


class Tokenizer(NamedTuple):
    """How UTF-8 text becomes numbers of a type; the vocabulary of bytes needs no list.

    Attributes:
        front: The numbers of special tokens that stand before what is kept of each text.
        back: Those behind it.
        num_ids: How many numbers there are, where a file says it.
    """

    encode: Encoder
    dtype: DTypeLike
    vocabulary: tuple[str, ...] = ()
    front: tuple[int, ...] = ()
    back: tuple[int, ...] = ()
    num_ids: int | None = None


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


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a ``tokenizer.json``, as it lies in the folder of a trained model.

    A limit on the length and a padding, which such a file may hold, are those of its author's use.

    Raises:
        DataError: If the file is none, or the package that reads it is not there.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            f'{path} needs the package tokenizers: pip install "macformer[hf]"'
        ) from error
    if not path.is_file():
        raise no_tokenizer(path)
    try:
        reader: Any = tokenizers.Tokenizer  # pyright takes this very file for the package
        stored = reader.from_file(str(path))
    except Exception as error:  # the reader has no error of its own
        raise DataError(f"{path} cannot be read as a tokenizer: {error}") from error
    stored.no_truncation()
    stored.no_padding()

    def encode(text: bytes) -> Integer[np.ndarray, "_"]:
        return np.array(stored.encode(text.decode(), add_special_tokens=False).ids, dtype=np.int32)

    front, back = _special_tokens(stored.encode("a").ids, encode(b"a").tolist())
    return Tokenizer(
        encode, np.int32, front=front, back=back, num_ids=1 + max(stored.get_vocab().values())
    )


def no_tokenizer(path: Path) -> Unavailable:
    """Return the error for a tokenizer that is not there."""
    return Unavailable(f"task.tokenizer is {path}, which is no file; give a tokenizer.json")


def _special_tokens(whole: list[int], plain: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what a tokenizer puts before and behind the tokens of a text."""
    for start in range(len(whole) - len(plain) + 1):
        end = start + len(plain)
        if plain and whole[start:end] == plain:  # no tokens would stand anywhere
            return tuple(whole[:start]), tuple(whole[end:])
    raise DataError(f"a tokenizer that makes {plain} of a text makes {whole} with special tokens")


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
