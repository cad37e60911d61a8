"""One checksum for the bytes of files, which a user can compare with that of sha256sum."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.sources.memory import checksum_of, last_checksum, memory_of
from tasks.store.manifest import file_sha256


def digest_of(files: Sequence[Path], *, data_dir: Path) -> str:
    """Return the SHA-256 of a file; of several, :func:`combined`.

    It is remembered below data_dir with sizes and times, so that a later call only looks at these.
    """
    stats = [file.stat() for file in files]
    signature = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    memory = _memory_of(files, data_dir=data_dir)
    return checksum_of(memory, signature, lambda: combined([file_sha256(f) for f in files]))


def last_digest_of(files: Sequence[Path], *, data_dir: Path) -> str | None:
    """Return the checksum that files had when they were last looked at, if they ever were."""
    return last_checksum(_memory_of(files, data_dir=data_dir))


def combined(checksums: Sequence[str]) -> str:
    """Return the checksum of several, which is that of a lone one, or that of their lines."""
    if len(checksums) == 1:
        return checksums[0]
    return hashlib.sha256("".join(f"{checksum}\n" for checksum in checksums).encode()).hexdigest()


def _memory_of(files: Sequence[Path], *, data_dir: Path) -> Path:
    place = "\n".join(str(file.absolute()) for file in files)
    return memory_of(files[0].name, place, data_dir=data_dir)
