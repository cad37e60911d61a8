"""Read a batch file of CIFAR-10, which is a pickle, without running what it asks to run.

A pickle may name any function and have it called. This reader knows three names, which NumPy's
arrays need, and gives stand-ins of its own for them; every other name is refused.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from tasks.errors import DataError, Unavailable

_ROW_SIZE = 3 * 32 * 32
_NUM_CLASSES = 10


class _Bytes:
    """Stands in for numpy.dtype and accepts unsigned bytes only."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of bytes")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray and keeps the array that its state describes."""

    array: UInt8[np.ndarray, "..."]

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[int, tuple[int, ...], object, bool, bytes]) -> None:
        _, shape, _, is_fortran, data = state
        order = "F" if is_fortran else "C"
        self.array = np.frombuffer(data, dtype=np.uint8).reshape(shape, order=order)


class _CifarUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy", "ndarray"):
                return _Array
            case ("numpy", "dtype"):
                return _Bytes
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _Array
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-10 has no use for")


def read_cifar_batch(
    path: Path,
) -> tuple[UInt8[np.ndarray, "rows 3072"], Int64[np.ndarray, "rows"]]:
    """Return the pixels (red, green and blue plane of each picture) and the labels of a file.

    Raises:
        DataError: If the file is missing or damaged, or asks for anything but an array of bytes.
    """
    if not path.is_file():
        raise Unavailable(f"{path} is missing")
    try:
        content = _CifarUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels = content[b"data"].array
        labels = np.array(content[b"labels"], dtype=np.int64)
    # A damaged pickle can fail in almost any way: EOFError, KeyError, struct.error, MemoryError...
    except Exception as error:
        raise DataError(f"{path} is not a batch of CIFAR-10: {error}") from error
    if pixels.shape != (len(labels), _ROW_SIZE):
        raise DataError(
            f"{path} has pixels of shape {pixels.shape} and {len(labels)} labels; "
            f"expected ({len(labels)}, {_ROW_SIZE})"
        )
    if not np.isin(labels, np.arange(_NUM_CLASSES)).all():
        raise DataError(f"{path} has labels outside 0..{_NUM_CLASSES - 1}")
    return pixels, labels
