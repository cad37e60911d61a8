"""Name the content of a user's files, so that other files of the same names are other data."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.sources.leftovers import without_leftovers
from tasks.sources.local import folders_with, not_found, source_path
from tasks.sources.memory import checksum_of, last_checksum, memory_of
from tasks.store.manifest import file_sha256

_logger = logging.getLogger(__name__)


def list_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files of a folder that match one of the patterns, without leftovers, sorted."""
    paths = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return sorted(set(without_leftovers(paths, root=folder)))


def content_of(
    source_dir: str | None,
    *,
    data_dir: Path,
    marker: str,
    parents: Sequence[str],
    patterns: Sequence[str],
) -> str | None:
    """Hash names and bytes of the files that a task reads, or of the archive that holds them.

    What was hashed is remembered below data_dir with sizes and times, so that a later call only
    looks at these; a source_dir whose files are no longer there has the content that it had.

    Args:
        patterns: Of the files, below the folder in which marker exists.

    Returns:
        The hash; None if there is no source_dir and data_dir holds no such files either.

    Raises:
        DataError: If source_dir does not hold them.
    """
    root = source_path(source_dir, data_dir=data_dir)
    memory = memory_of(root.name or "root", f"{root.absolute()}\n{marker}", data_dir=data_dir)
    if root.is_file():
        folder, files = root.parent, [root]
    elif folders := folders_with(marker, root=root, parents=parents):
        folder = folders[-1]
        files = list_files(folder, patterns)
    else:
        folder, files = None, []
    if not files:
        if source_dir is None:
            return None
        if known := last_checksum(memory):
            _logger.info("the files of %s are gone; what was prepared from them is used", root)
            return known
    if folder is None:
        raise not_found(marker, root)
    signature = _hash_lines(
        f"{path.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}"
        for path, stat in ((path, path.stat()) for path in files)
    )
    contents = (f"{path.relative_to(folder).as_posix()} {file_sha256(path)}" for path in files)
    return checksum_of(memory, signature, lambda: _hash_lines(contents))


def _hash_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
