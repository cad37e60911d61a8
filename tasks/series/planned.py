"""Read series of one's own, cut them into rows, and give each row its split."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tasks.columns import Files
from tasks.columns.files import SUFFIXES
from tasks.columns.row import Advance
from tasks.errors import DataError
from tasks.series.arrays import read_arrays
from tasks.series.recorded import Recorded
from tasks.series.rows import Cut, Tokens, Windows, as_scan, cut, training_steps
from tasks.series.tables import SeriesColumns, read_long, read_wide
from tasks.series.ts_format import read_ts
from tasks.store.manifest import channel_statistics
from tasks.table.classes import check_labels
from tasks.table.examples import Columns
from tasks.table.plan import Part, Shares, plan

KINDS = (*SUFFIXES, ".npz", ".ts")

# What a task without a column of labels may say of it: what its base says, or y.
_NO_COLUMN = ("label", "y")


class Planned(NamedTuple):
    """Series of some files, in their order, and the rows that they are cut into.

    Attributes:
        part: With the split of each row.
    """

    recorded: Recorded
    rows: Cut
    part: Part


def plan_series(
    files: Files,
    columns: SeriesColumns,
    shares: Shares,
    *,
    decide: Columns,
    windows: Windows,
    tokens: Tokens,
    missing: str,
) -> list[Planned]:
    """Read the files of each split that has its own, and give the rows of all series their splits.

    Args:
        decide: What decides the splits; see :func:`deciding`.
        missing: "refuse" values that are not there, or leave them to the model as an "indicator".
    """
    _check_columns(columns)
    _check_windows(windows, tokens)
    found = files.read(partial(_read, columns=columns, files=files), KINDS)
    widths = {recorded.values.shape[1] for recorded in found.values()}
    if len(widths) > 1:
        raise DataError(f"the files of the splits have {sorted(widths)} channels")
    rows, scans = [], {}
    for split, recorded in found.items():
        if missing == "refuse":
            _refuse_gaps(split, recorded, columns.channels or ())
        kept, left_out = cut(recorded, windows, patch=tokens.patch)
        seen = as_scan(recorded, kept, decide, tokens=tokens, seed=shares.seed, left_out=left_out)
        rows.append(kept)
        scans[split] = ([], seen)
    check_labels(scans["train"][1])
    parts = plan(scans, decide, shares)
    return [Planned(*each) for each in zip(found.values(), rows, parts, strict=True)]


def _check_columns(columns: SeriesColumns) -> None:
    channels = columns.channels or ()
    for channel in channels:
        if channels.count(channel) > 1:
            raise DataError(f"channels names {channel!r} {channels.count(channel)} times")
    for role in ("series", "label", "group", "split"):
        if getattr(columns, role) in channels:
            raise DataError(
                f"column {getattr(columns, role)!r} is a channel and the {role} at once"
            )


def _check_windows(windows: Windows, tokens: Tokens) -> None:
    if windows.length is None and windows.stride is not None:
        raise DataError(f"task.stride is {windows.stride}, but there is no window (task.window)")
    if windows.length is not None and windows.length < tokens.patch:
        raise DataError(
            f"task.window is {windows.length}; it must be at least task.patch, which is "
            f"{tokens.patch}"
        )


def _read(
    split: str, paths: Sequence[Path], advance: Advance, *, columns: SeriesColumns, files: Files
) -> Recorded:
    kinds = {path.suffix.lower() for path in paths}
    # Files of a split of their own need not name it.
    decider = columns.group or (columns.split if split == "train" else None)
    if kinds == {".npz"}:
        _refuse_columns(columns, ".npz", but=("group", "split"), label="y")
        return read_arrays(paths, decider=decider)
    if kinds == {".ts"}:
        _refuse_columns(columns, ".ts", label="the last field")
        return read_ts(paths, form=files.form, advance=advance)
    if kinds & {".npz", ".ts"}:
        mixed = ", ".join(sorted(kinds))
        raise DataError(f"{files.patterns[split]} mixes kinds of files: {mixed}")
    read = read_long if columns.series else read_wide
    return read(paths, columns, decider=decider, form=files.form, advance=advance)


def _refuse_columns(
    columns: SeriesColumns, kind: str, *, but: Sequence[str] = (), label: str
) -> None:
    """Refuse columns of a table for files that have none.

    Args:
        but: Roles that something else in the files may have.
        label: What their label is.
    """
    if columns.label not in _NO_COLUMN:
        raise DataError(f"label is {columns.label!r}; in {kind} files it is {label}")
    for name in ("series", "time", "channels", "group", "split"):
        if getattr(columns, name) and name not in but:
            raise DataError(
                f"{name} is {getattr(columns, name)!r}; {kind} files have no such column"
            )


def _refuse_gaps(split: str, recorded: Recorded, channels: Sequence[str]) -> None:
    """Refuse series with gaps; channels that have no names go by their numbers, from 0."""
    gaps = np.isnan(recorded.values).sum(axis=0)
    if gaps.any():
        shown = ", ".join(
            f"{count:,} in channel {channels[i] if channels else i}"
            for i, count in enumerate(gaps)
            if count
        )
        raise DataError(
            f"values are missing among those of {split}: {shown} of {len(recorded.values):,} "
            "steps; fill them, or leave them to the model (task.missing=indicator, which "
            "macformer-describe --missing indicator writes)"
        )


def deciding(columns: SeriesColumns, *, by_time: bool) -> Columns:
    """Say what decides the splits, in the words of a table."""
    if by_time and not columns.time:
        raise DataError("task.split_by_time needs task.time, the column of a step's time")
    if sum(map(bool, (by_time, columns.group, columns.split))) > 1:
        raise DataError("only one of group, split and split_by_time can decide the splits")
    time = columns.time if by_time else None
    return Columns((), False, columns.label, group=columns.group, time=time, split=columns.split)


def training_statistics(
    planned: Sequence[Planned],
) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Return mean and deviation of each channel over the steps of training rows."""
    return channel_statistics(np.concatenate([training_steps(*each) for each in planned]))


def scales(deviation: Float64[np.ndarray, "channels"]) -> list[float]:
    """Return what each channel is divided by; a constant one says nothing, whatever it is."""
    return np.where(deviation > 0, deviation, 1.0).tolist()
