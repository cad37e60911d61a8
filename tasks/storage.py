"""Write a prepared data set once, whole or not at all.

    data/text/hub-1f2e3d4c/
        train.ids.npy          the documents of the split end to end
        train.offsets.npy      document d is ids[offsets[d] : offsets[d + 1]]
        train.documents.npy    the document of each row, or the two of a pair
        train.labels.npy
        ...                    the same for validation and test
        manifest.json          parameters, vocabulary, statistics and checksums

A folder is filled under the name <folder>.partial and renamed when complete, so whatever has its
final name is complete. The next call goes on after the last finished part of a partial folder.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from jaxtyping import Int, Integer
from numpy.typing import DTypeLike
from rich.console import Console
from rich.progress import Progress

from tasks.arrays import GrowingArray
from tasks.errors import DataError

SPLITS = ("train", "validation", "test")
MANIFEST = "manifest.json"

_FORMAT = 1
_PROGRESS = "progress.json"
_QUANTILES = {"min": 0, "5%": 5, "median": 50, "95%": 95, "max": 100}


class Chunk(NamedTuple):
    """Some rows of a split.

    Attributes:
        ids: New documents end to end.
        lengths: Their lengths.
        labels: One for each row.
        documents: The documents of each row, counted from the first of the split; None where each
            new document is a row of its own.
    """

    ids: Integer[np.ndarray, "tokens"]
    lengths: Int[np.ndarray, "documents"]
    labels: Integer[np.ndarray, "rows"]
    documents: Int[np.ndarray, "rows 2"] | None = None


class Split(NamedTuple):
    """A split as the parts that make it up; each can be made without the others."""

    name: str
    num_rows: int
    parts: Sequence[Callable[[], Iterable[Chunk]]]


def prepare_once(
    root: Path,
    *,
    source: str,
    parameters: Mapping[str, Any],
    splits: Callable[[], Iterable[Split]],
    num_classes: int,
    paired: bool = False,
    dtype: DTypeLike = np.uint8,
    vocabulary: Sequence[str] = (),
    num_bytes: int,
) -> Path:
    """Return the folder of a data set below root; write it first if it is not there.

    Args:
        parameters: All that decides the bytes; a hash of them is part of the folder's name.
        splits: Called only if something is to be written.
        num_bytes: Upper estimate of the space needed.

    Raises:
        DataError: If the folder is there but damaged, a row is not valid, or space is short.
    """
    folder = root / f"{source}-{fingerprint(parameters)}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not folder.exists():
                partial = folder.with_name(f"{folder.name}.partial")
                partial.mkdir(exist_ok=True)
                _check_free_space(partial, num_bytes)
                written = {
                    split.name: _write_split(
                        partial, split, num_classes=num_classes, paired=paired, dtype=dtype
                    )
                    for split in splits()
                }
                manifest = {
                    "format": _FORMAT,
                    "parameters": dict(parameters),
                    "vocabulary": list(vocabulary),
                    "splits": written,
                }
                _write_json(partial / MANIFEST, manifest)
                (partial / _PROGRESS).unlink()
                partial.rename(folder)
    verify(folder)
    return folder


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """Name a set of parameters by eight hexadecimal digits."""
    text = json.dumps({"format": _FORMAT, **parameters}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a prepared folder says of itself."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["splits"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / MANIFEST} cannot be read; delete {folder}") from error
    return manifest


def verify(folder: Path) -> None:
    """Compare every file of a prepared folder with its checksum.

    Raises:
        DataError: If a file is missing or has other bytes.
    """
    for split in read_manifest(folder)["splits"].values():
        for name, expected in split["sha256"].items():
            path = folder / name
            if not path.is_file() or _sha256(path) != expected:
                raise DataError(f"{path} is missing or damaged; delete {folder}, prepare it again")


def _write_split(
    folder: Path, split: Split, *, num_classes: int, paired: bool, dtype: DTypeLike
) -> dict[str, Any]:
    done = _read_progress(folder)
    state = done.get(split.name, {"parts": 0, "items": {}})
    arrays = {
        field: GrowingArray(
            folder / f"{split.name}.{field}.npy",
            dtype=field_dtype,
            shape=shape,
            num_items=state["items"].get(field, 0),
        )
        for field, field_dtype, shape in (
            ("ids", dtype, ()),
            ("offsets", np.int64, ()),
            ("documents", np.int32, (2,) if paired else ()),
            ("labels", np.uint8, ()),
        )
    }
    if not state["parts"]:
        arrays["offsets"].append(np.zeros(1, np.int64))
    with _progress_bar() as progress:
        bar = progress.add_task(split.name, total=split.num_rows)
        progress.advance(bar, arrays["labels"].num_items)
        for number, part in enumerate(split.parts[state["parts"] :], start=state["parts"] + 1):
            for chunk in part():
                _append(arrays, chunk, num_classes=num_classes)
                progress.advance(bar, len(chunk.labels))
            for array in arrays.values():
                array.flush()
            items = {field: array.num_items for field, array in arrays.items()}
            _write_json(folder / _PROGRESS, done | {split.name: {"parts": number, "items": items}})
    for array in arrays.values():
        array.close()
    if not arrays["labels"].num_items:
        raise DataError(f"the {split.name} split is empty")
    return _describe(folder, split.name, num_classes=num_classes)


def _append(arrays: Mapping[str, GrowingArray], chunk: Chunk, *, num_classes: int) -> None:
    labels = np.asarray(chunk.labels)
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(
            f"labels {labels.min()}..{labels.max()} are not all in 0..{num_classes - 1}"
        )
    first = arrays["offsets"].num_items - 1
    start = arrays["ids"].num_items
    documents = chunk.documents
    if documents is None:
        documents = first + np.arange(len(labels))
    arrays["ids"].append(chunk.ids)
    arrays["offsets"].append(start + np.cumsum(chunk.lengths, dtype=np.int64))
    arrays["documents"].append(documents.astype(np.int32))
    arrays["labels"].append(labels.astype(np.uint8))


def _describe(folder: Path, split: str, *, num_classes: int) -> dict[str, Any]:
    paths = sorted(folder.glob(f"{split}.*.npy"))
    arrays = {path.name.split(".")[1]: np.load(path, mmap_mode="r") for path in paths}
    lengths = np.diff(arrays["offsets"])[arrays["documents"]]
    quantiles = np.percentile(lengths, list(_QUANTILES.values()), method="nearest")
    return {
        "rows": len(arrays["labels"]),
        "tokens": int(lengths.sum()),
        "largest_id": int(arrays["ids"].max()),
        "lengths": dict(zip(_QUANTILES, quantiles.tolist(), strict=True)),
        "class_counts": np.bincount(arrays["labels"], minlength=num_classes).tolist(),
        "sha256": {path.name: _sha256(path) for path in paths},
    }


def _progress_bar() -> Progress:
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _check_free_space(folder: Path, num_bytes: int) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if free + there < num_bytes:
        raise DataError(
            f"{folder} needs about {num_bytes / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free"
        )


def _read_progress(folder: Path) -> dict[str, Any]:
    path = folder / _PROGRESS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
