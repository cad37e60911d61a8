"""Say what a prepared folder holds, and check that it still holds it.

data/text/bytes-1f2e3d4c/
    train.ids.npy          the documents of the split end to end; train.values.npy for series
    train.offsets.npy      document d is ids[offsets[d] : offsets[d + 1]]
    train.documents.npy    the document of each row, or the two of a pair
    train.labels.npy
    train.places.npy       where a row is asked for each of its labels, if it has several
    ...                    the same for validation and test
    manifest.json          parameters, vocabulary, statistics, checksums, digest and floors
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from tasks.errors import DataError

SPLITS = ("train", "validation", "test")
MANIFEST = "manifest.json"
FORMAT = 1

_STEPS_AT_ONCE = 2**16
_QUANTILES = {"min": 0, "5%": 5, "median": 50, "95%": 95, "max": 100}


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """Name a set of parameters by eight hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **parameters}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a prepared folder says of itself.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not manifest["splits"].keys() >= set(SPLITS):
            raise KeyError("format")
        # What was written before a digest was part of it has the same one.
        manifest.setdefault("digest", data_digest(manifest))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder / MANIFEST} is missing or damaged; delete {folder} and prepare it again"
        ) from error
    return manifest


def verify(folder: Path) -> None:
    """Compare every file of a prepared folder with its checksum.

    Raises:
        DataError: If a file is missing or has other bytes.
    """
    for split in read_manifest(folder)["splits"].values():
        for name, expected in split["sha256"].items():
            path = folder / name
            if not path.is_file() or file_sha256(path) != expected:
                raise DataError(
                    f"{path} is missing or damaged; delete {folder} and prepare it again"
                )


def describe_split(
    folder: Path, split: str, *, num_classes: int, num_left_out: int
) -> dict[str, Any]:
    """Count and hash the files of a split."""
    paths = sorted(folder.glob(f"{split}.*.npy"))
    arrays = {path.name.split(".")[1]: np.load(path, mmap_mode="r") for path in paths}
    lengths = np.diff(arrays["offsets"])[arrays["documents"]]
    quantiles = np.percentile(lengths, list(_QUANTILES.values()), method="nearest")
    return {
        "rows": len(arrays["labels"]),
        "left_out": num_left_out,
        "tokens": int(lengths.sum()),
        **_describe_content(arrays),
        "lengths": dict(zip(_QUANTILES, quantiles.tolist(), strict=True)),
        "class_counts": np.bincount(arrays["labels"].ravel(), minlength=num_classes).tolist(),
        "sha256": {path.name: file_sha256(path) for path in paths},
    }


def _describe_content(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "ids" in arrays:
        return {"largest_id": int(arrays["ids"].max())}
    mean, deviation = channel_statistics(arrays["values"])
    return {"mean": mean.tolist(), "std": deviation.tolist()}


def channel_statistics(
    values: Float32[np.ndarray, "steps channels"],
) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Return the mean and the standard deviation of each channel, of what is not NaN.

    They are summed block by block: the values of a memory-mapped file need not fit into memory.
    """
    blocks = [values[i : i + _STEPS_AT_ONCE] for i in range(0, len(values), _STEPS_AT_ONCE)]
    count = np.sum([np.isfinite(block).sum(axis=0) for block in blocks], axis=0)
    count = np.maximum(count, 1)
    sums = [np.nansum(block, axis=0, dtype=np.float64) for block in blocks]
    mean = np.sum(sums, axis=0) / count
    squares = [np.nansum((block - mean) ** 2, axis=0, dtype=np.float64) for block in blocks]
    return mean, np.sqrt(np.sum(squares, axis=0) / count)


def combined_sha256(split: Mapping[str, Any]) -> str:
    """Return one checksum for all files of a split, from its part of the manifest."""
    text = "".join(checksum for _, checksum in sorted(split["sha256"].items()))
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(manifest: Mapping[str, Any]) -> str:
    """Return one checksum for what a model can see of a data set: all splits, the vocabulary.

    How and from where the data were had is no part of it.
    """
    splits = {name: combined_sha256(split) for name, split in manifest["splits"].items()}
    text = json.dumps([manifest["vocabulary"], splits], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a file that is either the old one or the new one, even after a power cut."""
    # Of this process alone: another may be writing the same file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
