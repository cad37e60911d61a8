"""Describe series: read them, cut and split them as their task will, and write the task."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.columns import Files
from tasks.describe.description import Channel, Description
from tasks.describe.quote import quoted, quoted_list, quoted_or_null
from tasks.describe.remarks import of_counts, of_floors, of_shares
from tasks.describe.task_file import floor_lines, task_file
from tasks.errors import one_of
from tasks.series import SeriesColumns, Tokens, Windows, prepare
from tasks.series.planned import KINDS, deciding, plan_series, scales, training_statistics
from tasks.series.recorded import Recorded
from tasks.series.task import GENERATOR, KEEP
from tasks.store.manifest import read_manifest
from tasks.table import Expected, Shares
from tasks.table.classes import class_counts_of, expected_of
from tasks.table.plan import Part, drawn_shares, left_out, shared_texts

_LONG = 4000  # tokens
_FEW = 30


class SeriesOptions(NamedTuple):
    """What the command line says of series; see its help."""

    name: str
    files: Files
    columns: SeriesColumns
    split_by_time: bool
    windows: Windows
    tokens: Tokens
    missing: str
    shares: Shares
    floors: bool


def describe_series(options: SeriesOptions, *, command: str) -> Description:
    """Look at the series of files.

    Raises:
        DataError: If they cannot make a task.
    """
    one_of("--keep", options.tokens.keep, KEEP)
    decide = deciding(options.columns, by_time=options.split_by_time)
    planned = plan_series(
        options.files,
        options.columns,
        options.shares,
        decide=decide,
        windows=options.windows,
        tokens=options.tokens,
        missing=options.missing,
    )
    parts = [each.part for each in planned]
    expected = expected_of(parts)
    counts = class_counts_of(parts)
    mean, deviation = training_statistics(planned)
    statistics = {"channel_mean": mean.tolist(), "channel_std": scales(deviation)}
    lengths = np.concatenate([part.scan.lengths[part.places == 0] for part in parts])
    max_len = options.tokens.max_len or max(int(part.scan.lengths.max()) for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        files = options.files._replace(sha256=options.files.digest(KINDS, data_dir=Path(folder)))
        options = options._replace(files=files, tokens=options.tokens._replace(max_len=max_len))
        floors = _floors(options, expected, statistics, data_dir=Path(folder))
    channels = _channels(planned[0].recorded, options.columns, mean, deviation)
    said = [
        *of_counts(counts, left_out(parts)),
        *of_shares(drawn_shares(parts), decide, options.shares),
        *_remarks(parts, channels, max_len=max_len, windows=options.windows),
        *of_floors(floors),
    ]
    yaml = task_file(
        "series",
        options.name,
        files=files,
        expected=expected,
        shares=options.shares,
        options=_lines(options, statistics),
        comments=[_comment(lengths, max_len), *floor_lines(floors)],
        command=command,
    )
    return Description(
        yaml, said, expected.classes, counts, lengths, "tokens", max_len, floors, channels
    )


def _channels(
    recorded: Recorded, columns: SeriesColumns, mean: np.ndarray, deviation: np.ndarray
) -> list[Channel]:
    """Say what the channels of the training files hold."""
    names = columns.channels or ()
    if len(names) != len(mean):  # files without names, or the columns of a wide table
        names = [str(place) for place in range(len(mean))]
    gaps = np.isnan(recorded.values).mean(axis=0)
    numbers = zip(mean.tolist(), deviation.tolist(), gaps.tolist(), strict=True)
    return [Channel(name, *each) for name, each in zip(names, numbers, strict=True)]


def _floors(
    options: SeriesOptions,
    expected: Expected,
    statistics: Mapping[str, Sequence[float]],
    *,
    data_dir: Path,
) -> dict[str, Any]:
    """Prepare the task once, as its first run will, for what only that tells."""
    if not options.floors:
        return {}
    folder = prepare(
        data_dir,
        name=options.name,
        files=options.files,
        columns=options.columns,
        split_by_time=options.split_by_time,
        windows=options.windows,
        tokens=options.tokens,
        missing=options.missing,
        expected=expected,
        shares=options.shares,
        channel_mean=statistics["channel_mean"],
        channel_std=statistics["channel_std"],
        generator_version=GENERATOR,
    )
    return read_manifest(folder).get("floors", {})


def _remarks(
    parts: Sequence[Part], channels: Sequence[Channel], *, max_len: int, windows: Windows
) -> Iterator[str]:
    for name, _, deviation, missing in channels:
        if missing > 0:
            yield f"{100 * missing:.1f} % of the values of channel {name} are missing and marked"
        if deviation == 0:
            yield f"channel {name} is constant in training: it says nothing"
    for split, number in shared_texts(parts).items():
        if number:
            yield f"{number:,} rows of {split} are of a series that training has, too"
    if windows.length is None and max_len > _LONG:
        yield (
            f"the longest series has {max_len:,} tokens: --patch makes tokens of several steps, "
            "--window rows of fewer"
        )
    num_series = len(np.unique(np.concatenate([part.scan.contents for part in parts])))
    if num_series < _FEW:
        yield (
            f"there are {num_series} series, which no split divides: what is measured is how "
            "these few differ"
        )


def _lines(options: SeriesOptions, statistics: Mapping[str, Sequence[float]]) -> Iterator[str]:
    columns, windows, tokens = options.columns, options.windows, options.tokens
    yield f"series: {quoted_or_null(columns.series)}"
    yield f"time: {quoted_or_null(columns.time)}"
    yield f"channels: {'null' if columns.channels is None else quoted_list(columns.channels)}"
    yield f"label: {quoted(columns.label)}"
    yield f"group: {quoted_or_null(columns.group)}"
    yield f"split: {quoted_or_null(columns.split)}"
    yield f"split_by_time: {str(options.split_by_time).lower()}"
    yield f"window: {windows.length or 'null'}"
    yield f"stride: {windows.stride or 'null'}"
    yield f"window_label: {windows.label}"
    yield f"missing: {options.missing}"
    yield f"patch: {tokens.patch}"
    yield f"max_len: {tokens.max_len}"
    yield f"keep: {tokens.keep}"
    for name, values in statistics.items():
        yield f"{name}: [{', '.join(f'{value:.9g}' for value in values)}]"


def _comment(lengths: np.ndarray, max_len: int) -> str:
    cut = 100 * float((lengths > max_len).mean())
    return (
        f"tokens of a training row: min {lengths.min():,}, median {int(np.median(lengths)):,}, "
        f"max {lengths.max():,}; {cut:.1f} % are longer than max_len"
    )
