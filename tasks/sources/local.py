"""Find the files of a source, be it a folder or a tar archive that holds the folder."""

import logging
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from tasks.errors import DataError, one_of

_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".gz")

# Where the archive of Long Range Arena's release puts its data.
RELEASE_FOLDERS = ("lra_release", "lra_release/lra_release")

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)

_logger = logging.getLogger(__name__)


def check_source(source: str, allowed: Iterable[str]) -> None:
    """Refuse a source that the task does not have.

    Raises:
        DataError: With the value and what is allowed.
    """
    if source == "skyformer_pickle":
        raise DataError(
            "task.source=skyformer_pickle is refused because loading a pickle runs the code in it; "
            f"use {' or '.join(allowed)}"
        )
    one_of("task.source", source, allowed)


def locate(
    source_dir: str | Path | None, *, data_dir: Path, marker: str, parents: Iterable[str]
) -> Path:
    """Return the folder in which marker exists: source_dir or a folder of a usual name in it.

    Args:
        source_dir: A folder, or a tar archive that is first unpacked in data_dir; data_dir if None.
        marker: A relative path of a file or folder.
        parents: The usual names.

    Raises:
        DataError: If it is nowhere.
    """
    root = Path(source_dir).expanduser() if source_dir else data_dir
    if root.is_file():
        root = unpack(root, data_dir=data_dir)
    for folder in (root, *(root / parent for parent in parents)):
        if (folder / marker).exists():
            return folder
    raise DataError(
        f"no {marker} in {root}; give the folder that holds it, or a tar archive of that folder, "
        "as task.source_dir"
    )


def unpack(archive: Path, *, data_dir: Path) -> Path:
    """Unpack a tar archive once, whole or not at all, and return the folder.

    Raises:
        DataError: If the archive is damaged, or a member would leave the folder.
    """
    if not archive.name.endswith(_ARCHIVE_SUFFIXES):
        raise DataError(f"{archive} is neither a folder nor a tar archive")
    folder = data_dir / "unpacked" / f"{archive.name}-{archive.stat().st_size}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return folder
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _logger.info("unpacking %s", archive)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
                # The checksum of the compressed stream stands behind the end of the archive.
                while tar.fileobj and tar.fileobj.read(2**20):
                    pass
        except tarfile.FilterError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"{archive} is refused: {error}") from error
        except _DAMAGE as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"{archive} is truncated or damaged: {error}") from error
        partial.rename(folder)
    return folder
