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
    found = files.read(partial(_read, columns=columns, files=files), KINDS)
    widths = {recorded.values.shape[1] for recorded in found.values()}
    if len(widths) > 1:
        raise DataError(f"the files of the splits have {sorted(widths)} channels")
    rows, scans = [], {}
    for split, recorded in found.items():
        if missing == "refuse":
            _refuse_gaps(split, recorded)
        kept, left_out = cut(recorded, windows, patch=tokens.patch)
        seen = as_scan(recorded, kept, decide, tokens=tokens, seed=shares.seed, left_out=left_out)
        rows.append(kept)
        scans[split] = ([], seen)
    check_labels(scans["train"][1])
    parts = plan(scans, decide, shares)
    return [Planned(*each) for each in zip(found.values(), rows, parts, strict=True)]


def _read(
    split: str, paths: Sequence[Path], advance: Advance, *, columns: SeriesColumns, files: Files
) -> Recorded:
    kinds = {path.suffix.lower() for path in paths}
    if kinds == {".npz"}:
        decider = "group" if columns.group else "split" if columns.split else None
        return read_arrays(paths, decider=decider)
    if kinds == {".ts"}:
        return read_ts(paths, form=files.form, advance=advance)
    if kinds & {".npz", ".ts"}:
        mixed = ", ".join(sorted(kinds))
        raise DataError(f"{files.patterns[split]} mixes kinds of files: {mixed}")
    read = read_long if columns.series else read_wide
    return read(paths, columns, form=files.form, advance=advance)


def _refuse_gaps(split: str, recorded: Recorded) -> None:
    gaps = np.isnan(recorded.values).sum(axis=0)
    if gaps.any():
        shown = ", ".join(f"{count:,} in channel {i}" for i, count in enumerate(gaps) if count)
        raise DataError(
            f"values are missing among those of {split}: {shown} of {len(recorded.values):,} "
            "steps; fill them, or leave them to the model (task.missing=indicator)"
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
