"""Find the files of a source, be it a folder or a tar archive that holds the folder."""

import filecmp
import logging
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from filelock import FileLock

from tasks.errors import DataError, Unavailable, one_of
from tasks.sources.digest import digest_of
from tasks.sources.leftovers import is_leftover, without_leftovers

# Where the archive of Long Range Arena's release puts its data. It holds two of its folders twice,
# below the one and below the other; everyone reads the inner ones.
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


def source_path(source_dir: str | Path | None, *, data_dir: Path) -> Path:
    """Return where the user's files are: the folder or archive of task.source_dir, or data_dir."""
    return Path(source_dir).expanduser() if source_dir else data_dir


def locate(
    source_dir: str | Path | None, *, data_dir: Path, marker: str, parents: Iterable[str]
) -> Path:
    """Return the folder in which marker exists: source_dir or a folder of a usual name in it.

    Where several hold it, the innermost is returned, and a difference between them is logged.

    Args:
        source_dir: A folder, which may be the first one of marker itself, or a tar archive that is
            first unpacked in data_dir; data_dir if None.
        marker: A relative path of a file or folder.
        parents: The usual names, the innermost last.

    Raises:
        DataError: If it is nowhere.
    """
    root = source_path(source_dir, data_dir=data_dir)
    if root.is_file():
        root = unpack(root, data_dir=data_dir)
    folders = folders_with(marker, root=root, parents=parents)
    if not folders:
        raise not_found(marker, root)
    taken = folders[-1] / marker
    for other in (folder / marker for folder in folders[:-1]):
        if difference := _difference(other, taken):
            _logger.warning("%s and %s differ in %s; the second is read", other, taken, difference)
    return folders[-1]


def not_found(marker: str, root: Path) -> Unavailable:
    """Return the error that says what to give instead of root."""
    return Unavailable(
        f"no {marker} in {root}; give the folder that holds it, or a tar archive of that folder, "
        "as task.source_dir"
    )


def folders_with(marker: str, *, root: Path, parents: Iterable[str]) -> list[Path]:
    """Return the folders of usual names in which marker exists, the one to be read last.

    Root may be the first folder of marker itself, too.
    """
    folders = [root, *(root / parent for parent in parents)]
    if root.absolute().name == PurePath(marker).parts[0]:
        folders.insert(0, root.absolute().parent)
    return [folder for folder in folders if (folder / marker).exists()]


def unpack(archive: Path, *, data_dir: Path) -> Path:
    """Unpack a tar archive once, whole or not at all, and return the folder.

    Its content decides how it is read; the name may have any suffix or none.

    Raises:
        DataError: If it is no archive, is damaged, or a member would leave the folder.
    """
    with _readable(archive) as tar:
        # Another archive may have the same name, size and time.
        checksum = digest_of([archive], data_dir=data_dir)
        folder = data_dir / "unpacked" / f"{archive.name}-{checksum[:16]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                return folder
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _logger.info("unpacking %s", archive)
            try:
                tar.extractall(partial, members=_wanted(tar), filter="data")
                # The checksum of the compressed stream stands behind the end of the archive.
                while tar.fileobj and tar.fileobj.read(2**20):
                    pass
            except tarfile.FilterError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise DataError(f"{archive} is refused: {error}") from error
            except _DAMAGE as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise _not_unpacked(archive, error) from error
            partial.rename(folder)
    return folder


def _readable(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive)
    except tarfile.ReadError as error:
        raise DataError(f"{archive} is neither a folder nor a tar archive that is whole") from error
    except _DAMAGE as error:
        raise _not_unpacked(archive, error) from error


def _not_unpacked(archive: Path, error: Exception) -> DataError:
    # An error with a number is of the system, as that of a full disk.
    if isinstance(error, OSError) and error.errno is not None:
        return Unavailable(f"{archive} cannot be unpacked: {error}")
    return DataError(f"{archive} is truncated or damaged: {error}")


def _wanted(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    return (member for member in tar if not is_leftover(member.name))


def _difference(first: Path, second: Path) -> str | None:
    """Name one file in which two copies of a file or folder differ."""
    if second.is_file():
        return None if filecmp.cmp(first, second, shallow=False) else second.name
    ours, theirs = ({path.relative_to(root) for path in _files(root)} for root in (first, second))
    for relative in sorted(ours | theirs):
        in_both = relative in ours and relative in theirs
        if not in_both or not filecmp.cmp(first / relative, second / relative, shallow=False):
            return str(relative)
    return None


def _files(root: Path) -> Iterator[Path]:
    folders = os.walk(root)
    paths = (Path(folder, name) for folder, _, names in folders for name in names)
    return without_leftovers(paths, root=root)
