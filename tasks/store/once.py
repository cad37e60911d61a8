"""Prepare a data set once, whole or not at all.

A folder is filled under the name <folder>.partial and renamed when complete, so whatever has its
final name is complete.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.errors import DataError, NoSpace, Unavailable
from tasks.store.manifest import (
    FORMAT,
    MANIFEST,
    data_digest,
    fingerprint,
    read_manifest,
    verify,
    write_json,
)
from tasks.store.write import PROGRESS, Contents, write

_only_name: ContextVar[bool] = ContextVar("_only_name", default=False)


class _Named(Exception):
    """Leave a prepare function as soon as its folder is known."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder


def name_folder(prepare: Callable[[Path], Path], data_dir: Path) -> Path:
    """Return the folder that a prepare function would return, and make nothing.

    Raises:
        DataError: If the function refuses its source or its options.
    """
    token = _only_name.set(True)
    try:
        return prepare(data_dir)
    except _Named as named:
        return named.folder
    finally:
        _only_name.reset(token)


def prepare_once(
    root: Path,
    *,
    variant: str,
    parameters: Mapping[str, Any],
    contents: Callable[[], Contents],
    num_classes: int,
    paired: bool,
    num_bytes: int,
) -> Path:
    """Return the folder of a data set below root; write it first if it is not there.

    Args:
        variant: Beginning of the folder's name.
        parameters: All that decides the bytes; a hash of them ends the folder's name. Where
            "source" is None the source is not there, and whatever was prepared from it is taken.
        contents: Called only if something is to be written.
        num_bytes: Upper estimate of the space needed.

    Raises:
        DataError: If the folder is there but damaged, a row is not valid, or space is short.
            Finished parts outlive a want of space or of the source, and no other fault.
    """
    folder = _prepared_before(root, variant, parameters)
    folder = folder or root / f"{variant}-{fingerprint(parameters)}"
    if _only_name.get():
        raise _Named(folder)
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_of(folder)):
            if not folder.exists():
                partial = folder.with_name(f"{folder.name}.partial")
                _check_free_space(partial, num_bytes)
                partial.mkdir(exist_ok=True)
                try:
                    found = contents()
                    _check_free_space(partial, found.num_bytes)
                    written = write(partial, found, num_classes=num_classes, paired=paired)
                except DataError as error:
                    # What was read before the fault came from the same source.
                    is_of_now = isinstance(error, (Unavailable, NoSpace))
                    if not is_of_now or not (partial / PROGRESS).exists():
                        shutil.rmtree(partial)
                    raise
                manifest = {"format": FORMAT, "parameters": dict(parameters), **written}
                write_json(partial / MANIFEST, manifest | {"digest": data_digest(manifest)})
                (partial / PROGRESS).unlink()
                partial.rename(folder)
    verify(folder)
    return folder


def _prepared_before(root: Path, variant: str, parameters: Mapping[str, Any]) -> Path | None:
    """Return the folder that was prepared from a source that is not there, if there is one."""
    if parameters.get("source", "known") is not None:
        return None
    folders = []
    for path in sorted(root.glob(f"{variant}-*/{MANIFEST}")):
        if path.parent.suffix != ".partial":
            prepared = read_manifest(path.parent)["parameters"]
            if prepared | {"source": None} == json.loads(json.dumps(dict(parameters))):
                folders.append(path.parent)
    if len(folders) > 1:
        raise DataError(
            f"{' and '.join(map(str, folders))} were prepared from different files; "
            "say which by task.source_dir"
        )
    return folders[0] if folders else None


def lock_of(folder: Path) -> Path:
    """Return the file that whoever changes a prepared folder locks."""
    return folder.parent / f".{folder.name}.lock"


def _check_free_space(folder: Path, num_bytes: int) -> None:
    already_there = sum(path.stat().st_size for path in folder.glob("*"))
    free = shutil.disk_usage(folder.parent).free
    if free + already_there < num_bytes:
        raise NoSpace(
            f"{folder} needs about {num_bytes / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are free"
        )
