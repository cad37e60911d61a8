"""Decide which row of which files goes to which split, before anything is written."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int8, UInt64

from tasks.errors import DataError, check_whole
from tasks.splits import TRAIN, check_fractions, share_out
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


class Shares(NamedTuple):
    """How rows are shared out where nothing else decides; the seed draws them."""

    validation: float
    test: float
    seed: int

    def check(self) -> None:
        """Refuse shares that leave a split without any.

        Raises:
            DataError: With the shares and what is allowed.
        """
        check_fractions(validation_fraction=self.validation, test_fraction=self.test)
        check_whole("task.split_seed", self.seed, least=0)


def plan(
    scans: Mapping[str, tuple[Sequence[Path], Scan]],
    columns: Columns,
    shares: Shares,
) -> list[Part]:
    """Give each row its split.

    Args:
        scans: The files of each split that has its own, with what was seen of them.

    Raises:
        DataError: If a split would be empty, or a value of the group stands in two.
    """
    shares = shares._replace(**{split: 0.0 for split in scans if split != "train"})
    parts = []
    for split, (paths, seen) in scans.items():
        if split == "train":
            places = _share_out(seen, columns, shares)
        else:
            places = np.full(len(seen), SPLITS.index(split), dtype=np.int8)
        parts.append(Part(split, paths, seen, places))
    for split, count in zip(SPLITS, rows_of_splits(parts), strict=True):
        if not count:
            raise DataError(f"the {split} split has no rows; {_remedy(columns)}")
    if columns.group:
        _refuse_shared(parts, columns.group)
    return parts


def _refuse_shared(parts: Sequence[Part], column: str) -> None:
    """Refuse values that stand in two splits, as some do where splits have files of their own."""
    values = {split: _values(parts, place) for place, split in enumerate(SPLITS)}
    for first, second in combinations(SPLITS, 2):
        if shared := values[first] & values[second]:
            raise DataError(
                f"column {column!r} has {len(shared)} values in {first} and in {second}, "
                f"{min(shared)!r} among them; rows of one value must share a split, so put them "
                "into files of one"
            )


def _values(parts: Sequence[Part], place: int) -> set[str]:
    """Return what the column that decides the splits holds in one of them."""
    return {
        part.scan.values[int(value)]
        for part in parts
        for value in np.unique(part.scan.deciders[part.places == place])
    }


def rows_of_splits(parts: Sequence[Part]) -> list[int]:
    """Count the rows of each of SPLITS."""
    places = np.concatenate([part.places for part in parts])
    return np.bincount(places, minlength=len(SPLITS)).tolist()


def drawn_shares(parts: Sequence[Part]) -> dict[str, float]:
    """Return what part of the files of training each split without files of its own has."""
    files = {part.split: part for part in parts}
    return {
        split: float((files["train"].places == place).mean())
        for place, split in enumerate(SPLITS)
        if split not in files
    }


def facts_of(
    parts: Sequence[Part], *, classes: Sequence[str], max_len: int | None
) -> dict[str, Any]:
    """Say what a manifest tells of the rows: what is left out, and how many are cut to max_len."""
    most = np.inf if max_len is None else max_len
    return {
        "classes": list(classes),
        "left_out": dict(left_out(parts)),
        "cut": {
            split: int(sum((p.scan.lengths[p.places == place] > most).sum() for p in parts))
            for place, split in enumerate(SPLITS)
        },
    }


def left_out(parts: Sequence[Part]) -> Counter[str]:
    """Count what is no row, by reason."""
    return sum((part.scan.left_out for part in parts), Counter())


def shared_texts(parts: Sequence[Part]) -> dict[str, int]:
    """Count the rows of validation and test whose text stands in a training row, too."""
    known = np.unique(_contents(parts, TRAIN))
    return {
        split: int(np.isin(_contents(parts, SPLITS.index(split)), known).sum())
        for split in SPLITS[1:]
    }


def _contents(parts: Sequence[Part], place: int) -> UInt64[np.ndarray, "n"]:
    return np.concatenate([part.scan.contents[part.places == place] for part in parts])


def _share_out(seen: Scan, columns: Columns, shares: Shares) -> Int8[np.ndarray, "rows"]:
    fractions = {"validation_fraction": shares.validation, "test_fraction": shares.test}
    if columns.time:
        return share_out(-seen.deciders, strata=None, at_least_one=True, **fractions)
    if columns.group:
        num_splits = 1 + sum(share > 0 for share in fractions.values())
        if len(seen.values) < num_splits:
            raise DataError(
                f"column {columns.group!r} has {len(seen.values)} values, "
                f"which cannot be shared out among {num_splits} splits"
            )
        hashes = [content_hash([value.encode()], seed=shares.seed) for value in seen.values]
        keys = np.array(hashes, dtype=np.uint64)[seen.deciders.astype(np.int64)]
        return share_out(keys, strata=None, at_least_one=True, **fractions)
    if columns.split:
        return _named(seen, columns.split, fractions)
    return share_out(seen.contents, strata=_strata(seen), at_least_one=False, **fractions)


def _named(seen: Scan, column: str, fractions: Mapping[str, float]) -> Int8[np.ndarray, "rows"]:
    """Take splits as a column names them; what it does not name is held out of training."""
    unknown = sorted(value for value in seen.values if value.lower() not in _NAMES)
    if unknown:
        shown = ", ".join(map(repr, unknown[:10]))
        raise DataError(f"column {column!r} names splits {shown}; it may name {', '.join(_NAMES)}")
    named = [SPLITS.index(_NAMES[value.lower()]) for value in seen.values]
    places = np.array(named, dtype=np.int8)[seen.deciders.astype(np.int64)]
    left = places == TRAIN
    fractions = {
        key: share if key.removesuffix("_fraction") not in {SPLITS[i] for i in named} else 0.0
        for key, share in fractions.items()
    }
    places[left] = share_out(
        seen.contents[left], strata=_strata(seen)[left], at_least_one=False, **fractions
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
