"""Write files that are the old one or the new one, whole, whatever happens meanwhile.

A file is written beside the one that it is for, and takes its place by being renamed, which every
reader sees at once. So

- a reader, at any moment, finds a whole file: the old one, or the new one;
- a process that is killed, or a disk that is full, leaves the old one, and at most a temporary file
  beside it, which the next writer of that name replaces;
- a power cut leaves one of the two, too, and once the writer has returned the new one: the contents
  are on the disk before the name is, and the name before the writer goes on. ``durable=False``
  gives this up, and waits for no disk.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def whole_file(path: Path, *, writer: str = "", durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the place of another one when the block ends well.

    Args:
        writer: What tells this writer from others of the same file, where there may be several.
        durable: Whether to wait until the file is on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}{writer}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def replaced(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open a file that several processes may make anew at any time: a table, a plot, a page.

    Of a writer that is killed, the temporary file stays: no other one has its name.
    """
    return whole_file(path, writer=f".{uuid4().hex}", durable=False)


def _sync_folder(folder: Path) -> None:
    """Bring a replacement to the disk, where folders can be synchronised."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
