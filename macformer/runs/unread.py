"""Output that nobody may read any more: of a closed terminal, or a pipe whose other end has gone.

What a run says is a courtesy; that nobody is there to read it is no reason to fail.
"""

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)
_NO_FILE = (AttributeError, OSError, ValueError)


class _Unread(io.FileIO):
    """Drops what its reader is not there for."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


@contextmanager
def readers_may_go() -> Iterator[None]:
    """Let standard output and errors lose their readers without an error."""
    before = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = map(_unread, before)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(*_NO_FILE):
                stream.flush()
        sys.stdout, sys.stderr = before


def _unread(stream: Any) -> Any:
    """Write where a stream writes, unless that is no file, or was closed from the start."""
    try:
        file = io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False))
    except _NO_FILE:
        return stream
    with suppress(OSError):  # of who has gone already
        stream.flush()
    return io.TextIOWrapper(
        file, encoding=stream.encoding, errors=stream.errors, line_buffering=True
    )
