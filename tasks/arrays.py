"""Write NumPy files whose length is not known in advance, and that survive an interruption."""

import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike


class GrowingArray:
    """A .npy file that grows along its first axis.

    Args:
        shape: Shape of one item, () for numbers.
        num_items: Items of an earlier, interrupted writing to keep; what lies beyond is cut off.
    """

    def __init__(
        self, path: Path, *, dtype: DTypeLike, shape: tuple[int, ...], num_items: int
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.num_items = num_items
        self._file = path.open("r+b" if num_items else "w+b")
        self._write_header()
        item_size = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._file.seek(num_items * item_size, os.SEEK_CUR)
        self._file.truncate()

    def append(self, items: ArrayLike) -> None:
        items = np.asarray(items)
        if items.dtype != self.dtype:
            raise TypeError(f"items are {items.dtype}, the array holds {self.dtype}")
        if items.shape[1:] != self.shape:
            raise ValueError(f"items have shape {items.shape[1:]}, the array holds {self.shape}")
        self._file.write(np.ascontiguousarray(items).data)
        self.num_items += len(items)

    def flush(self) -> None:
        """Bring the file on disk to a readable state."""
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        # NumPy pads headers so that the first axis can grow in place.
        header = npy.header_data_from_array_1_0(np.empty((0, *self.shape), self.dtype))
        self._file.seek(0)
        npy.write_array_header_1_0(self._file, header | {"shape": (self.num_items, *self.shape)})
