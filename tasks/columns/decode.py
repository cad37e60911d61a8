"""Decode files of text strictly, and say where one cannot be decoded."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tasks.errors import DataError

_BLOCK = 2**20
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decoded_lines(file: BinaryIO, path: Path, *, encoding: str) -> Iterator[str]:
    """Yield the lines of a file with their ends, which are any of LF, CR LF and CR.

    Raises:
        DataError: If the encoding is unknown, or the bytes are none of it; with the first such.
    """
    try:
        with _opened(file, encoding=encoding) as text:
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise DataError(
                        f"{path}, line {number} has a NUL byte; if the file is UTF-16, say "
                        "so (--encoding utf-16), else take it out (tr -d '\\000')"
                    )
                yield line
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding=encoding) from error
    except UnicodeError as error:  # of UTF-16 without its mark, for one
        raise DataError(f"{path} is not {encoding}: {error}") from error


def _opened(file: BinaryIO, *, encoding: str) -> io.TextIOWrapper:
    try:
        with_mark = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        return io.TextIOWrapper(file, encoding=with_mark, errors="strict", newline="")
    except (LookupError, ValueError) as error:  # of rot13, which is none of texts, too
        raise DataError(
            f"encoding is {encoding!r}; it must be one that Python knows, as utf-8 or cp932"
        ) from error


def _undecodable(path: Path, *, encoding: str) -> DataError:
    # The error of a stream counts from the beginning of its buffer.
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    with path.open("rb") as file:
        mark = file.read(2)
        file.seek(0)
        while block := file.read(_BLOCK):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                done += error.start - pending
                break
            done += len(block)
    hint = "if Excel wrote it in Japanese, --encoding cp932; in western Europe, --encoding cp1252"
    if mark in _UTF16_MARKS:
        hint = "it begins as UTF-16 does: --encoding utf-16"
    return DataError(f"{path} is not {encoding} at byte {done}; {hint}")
