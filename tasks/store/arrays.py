"""Write NumPy files whose length is not known in advance, and that survive an interruption."""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from tasks.errors import DataError


class GrowingArray:
    """A .npy file that grows along its first axis.

    Args:
        shape: Shape of one item, () for numbers.
        num_items: Items of an earlier, interrupted writing to keep; what lies beyond is cut off.

    Raises:
        DataError: If the file holds fewer items than that.
    """

    def __init__(
        self, path: Path, *, dtype: DTypeLike, shape: tuple[int, ...], num_items: int
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        self.num_items = num_items
        with ExitStack() as on_error:
            self._file = on_error.enter_context(path.open("r+b" if num_items else "w+b"))
            self._write_header()
            item_size = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            end = self._file.tell() + num_items * item_size
            if self._file.seek(0, os.SEEK_END) < end:
                raise DataError(f"{path} is shorter than recorded; prepare again")
            self._file.truncate(end)
            self._file.seek(end)
            on_error.pop_all()

    def __enter__(self) -> "GrowingArray":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, items: np.ndarray) -> None:
        assert items.dtype == self.dtype, f"{items.dtype} items in an array of {self.dtype}"
        assert items.shape[1:] == self.shape, f"{items.shape[1:]} items in one of {self.shape}"
        self._file.write(np.ascontiguousarray(items).data)
        self.num_items += len(items)

    def flush(self) -> None:
        """Bring the file on disk to a state in which NumPy can read it."""
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        # NumPy pads headers so that the first axis can grow in place.
        header = npy.header_data_from_array_1_0(np.empty((0, *self.shape), self.dtype))
        self._file.seek(0)
        npy.write_array_header_1_0(self._file, header | {"shape": (self.num_items, *self.shape)})
