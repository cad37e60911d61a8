"""Decide which row of which files goes to which split, before anything is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, UInt64

from tasks.errors import DataError
from tasks.splits import TRAIN, share_out
from tasks.store.manifest import SPLITS
from tasks.table.examples import Columns
from tasks.table.scan import Scan, content_hash

_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


class Part(NamedTuple):
    """Some files of a source.

    Attributes:
        split: The split that they are; "train" is shared out where others have no files.
        places: The split of each row, as its place among SPLITS.
    """

    split: str
    paths: Sequence[Path]
    scan: Scan
    places: Int8[np.ndarray, "rows"]


class Fractions(NamedTuple):
    validation: float
    test: float


def plan(
    scans: Mapping[str, tuple[Sequence[Path], Scan]],
    columns: Columns,
    *,
    fractions: Fractions,
    seed: int,
) -> list[Part]:
    """Give each row its split.

    Args:
        scans: The files of each split that has its own, with what was seen of them.

    Raises:
        DataError: If a split would be empty.
    """
    fractions = Fractions(
        *(0.0 if name in scans else share for name, share in fractions._asdict().items())
    )
    parts = []
    for split, (paths, seen) in scans.items():
        if split == "train":
            places = _share_out(seen, columns, fractions=fractions, seed=seed)
        else:
            places = np.full(len(seen), SPLITS.index(split), dtype=np.int8)
        parts.append(Part(split, paths, seen, places))
    for split, count in zip(SPLITS, rows_of_splits(parts), strict=True):
        if not count:
            raise DataError(f"the {split} split has no rows; {_remedy(columns)}")
    return parts


def rows_of_splits(parts: Sequence[Part]) -> list[int]:
    """Count the rows of each of SPLITS."""
    places = np.concatenate([part.places for part in parts])
    return np.bincount(places, minlength=len(SPLITS)).tolist()


def shared_texts(parts: Sequence[Part]) -> dict[str, int]:
    """Count the rows of validation and test whose text stands in a training row, too."""
    known = np.unique(_contents(parts, TRAIN))
    return {
        split: int(np.isin(_contents(parts, SPLITS.index(split)), known).sum())
        for split in SPLITS[1:]
    }


def _contents(parts: Sequence[Part], place: int) -> UInt64[np.ndarray, "n"]:
    return np.concatenate([part.scan.contents[part.places == place] for part in parts])


def _share_out(
    seen: Scan, columns: Columns, *, fractions: Fractions, seed: int
) -> Int8[np.ndarray, "rows"]:
    shares = {"validation_fraction": fractions.validation, "test_fraction": fractions.test}
    if columns.time:
        return share_out(-seen.deciders, strata=None, at_least_one=True, **shares)
    if columns.group:
        num_splits = 1 + sum(share > 0 for share in fractions)
        if len(seen.values) < num_splits:
            raise DataError(
                f"column {columns.group!r} has {len(seen.values)} values, "
                f"which cannot be shared out among {num_splits} splits"
            )
        hashes = [content_hash([value.encode()], seed=seed) for value in seen.values]
        keys = np.array(hashes, dtype=np.uint64)[seen.deciders.astype(np.int64)]
        return share_out(keys, strata=None, at_least_one=True, **shares)
    if columns.split:
        return _named(seen, columns.split, shares)
    return share_out(seen.contents, strata=_strata(seen), at_least_one=False, **shares)


def _named(seen: Scan, column: str, shares: Mapping[str, float]) -> Int8[np.ndarray, "rows"]:
    """Take splits as a column names them; what it does not name is held out of training."""
    unknown = sorted(value for value in seen.values if value.lower() not in _NAMES)
    if unknown:
        shown = ", ".join(map(repr, unknown[:10]))
        raise DataError(f"column {column!r} names splits {shown}; it may name {', '.join(_NAMES)}")
    named = [SPLITS.index(_NAMES[value.lower()]) for value in seen.values]
    places = np.array(named, dtype=np.int8)[seen.deciders.astype(np.int64)]
    left = places == TRAIN
    shares = {
        key: share if key.removesuffix("_fraction") not in {SPLITS[i] for i in named} else 0.0
        for key, share in shares.items()
    }
    places[left] = share_out(
        seen.contents[left], strata=_strata(seen)[left], at_least_one=False, **shares
    )
    return places


def _strata(seen: Scan) -> np.ndarray:
    """Number the labels by their order, which that of the rows has no part in."""
    rank = {name: place for place, name in enumerate(sorted(seen.names))}
    return np.array([rank[name] for name in seen.names], dtype=np.int64)[seen.labels]


def _remedy(columns: Columns) -> str:
    if columns.decider:
        return f"column {columns.decider!r} leaves none for it"
    return "there are too few rows, or its fraction is too small"
