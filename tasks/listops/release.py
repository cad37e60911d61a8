"""Read ListOps as Long Range Arena released it.

Source <tab> Target
( ( ( [MAX 2 ) 9 ) ] ) <tab> 9
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.errors import DataError, Unavailable
from tasks.listops.generate import VOCABULARY
from tasks.store.write import Chunk

_HEADER = b"Source\tTarget"
_ROWS_PER_CHUNK = 1000

_OPERATORS = VOCABULARY[1:5]
# One byte for each token: an operator becomes one that is not ASCII, a foreign byte becomes 0.
_BYTE_OF_OPERATOR = {name.encode(): bytes([128 + i]) for i, name in enumerate(_OPERATORS)}
_ID_OF_BYTE = bytearray(256)
for _id, _token in enumerate(VOCABULARY[1:], start=1):
    _ID_OF_BYTE[ord(_BYTE_OF_OPERATOR.get(_token.encode(), _token.encode()))] = _id


def read_listops_tsv(path: Path) -> Iterator[Chunk]:
    """Yield the rows of a file without their parentheses, which follow from the brackets.

    Raises:
        DataError: Naming the first line that is not as it should be.
    """
    if not path.is_file():
        raise Unavailable(f"{path} is missing")
    with path.open("rb") as file:
        if file.readline().rstrip(b"\r\n") != _HEADER:
            raise DataError(f"{path} does not begin with the columns Source and Target")
        numbered = enumerate(file, start=2)
        while lines := list(islice(numbered, _ROWS_PER_CHUNK)):
            rows = [_parse(line, f"{path}, line {number}") for number, line in lines]
            ids = [_ids for _ids, _ in rows]
            yield Chunk(
                np.frombuffer(b"".join(ids), dtype=np.uint8),
                np.array([len(_ids) for _ids in ids]),
                np.array([label for _, label in rows]),
            )


def _parse(line: bytes, where: str) -> tuple[bytes, int]:
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) != 2:
        raise DataError(f"{where} has {len(columns)} columns, not 2")
    expression, label = columns
    if len(label) != 1 or not label.isdigit():
        raise DataError(f"{where} has the label {label!r}, not a digit")
    is_ascii = expression.isascii()
    num_tokens = len(expression.split())
    for operator, byte in _BYTE_OF_OPERATOR.items():
        expression = expression.replace(operator, byte)
    ids = expression.translate(_ID_OF_BYTE, b"() ")
    num_parentheses = expression.count(b"(") + expression.count(b")")
    if not is_ascii or not ids or 0 in ids or len(ids) + num_parentheses != num_tokens:
        raise DataError(f"{where} holds something that is not a token of ListOps")
    return ids, int(label)
