"""Prepare series of one's own: read them, cut them into rows, split them by series, write them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.columns import Form, find_files
from tasks.columns.files import SUFFIXES
from tasks.errors import DataError, check_generator, one_of
from tasks.floors import Floor, add_floors
from tasks.floors.series import predict_by_statistics
from tasks.series.arrays import read_arrays
from tasks.series.recorded import Recorded
from tasks.series.rows import (
    WINDOW_LABELS,
    Cut,
    Tokens,
    Windows,
    as_scan,
    cut,
    training_steps,
    values_of,
)
from tasks.series.tables import SeriesColumns, read_long, read_wide
from tasks.series.ts_format import read_ts
from tasks.sources.digest import checked_digest
from tasks.splits import check_fractions
from tasks.store.manifest import SPLITS, channel_statistics, read_manifest
from tasks.store.rows import SeriesRows, open_series
from tasks.store.write import Chunk, Contents, Split, prepare_once, progress_bar
from tasks.table.classes import check_labels, check_plan
from tasks.table.examples import Columns
from tasks.table.plan import Fractions, Part, plan, rows_of_splits

# Raise it, and task.generator_version in YAML, when files give other rows than before: old folders
# are then no longer used, and runs on the new rows are new runs.
GENERATOR = 1

KEEP = ("head", "tail")
MISSING = ("refuse", "indicator")
KINDS = (*SUFFIXES, ".npz", ".ts")

_ROWS_PER_CHUNK = 256


class Source(NamedTuple):
    """Files, and how they are read."""

    patterns: Mapping[str, str | None]
    columns: SeriesColumns
    form: Form


def prepare(
    data_dir: Path,
    *,
    name: str,
    path: str,
    path_validation: str | None,
    path_test: str | None,
    sha256: str | None,
    encoding: str,
    separator: str | None,
    quotes: bool,
    series: str | None,
    time: str | None,
    channels: Sequence[str] | None,
    label: str,
    group: str | None,
    split: str | None,
    split_by_time: bool,
    window: int | None,
    stride: int | None,
    window_label: str,
    missing: str,
    patch: int,
    max_len: int,
    keep: str,
    classes: Sequence[str],
    num_classes: int,
    class_counts: Sequence[int] | None,
    num_rows: Mapping[str, int] | None,
    channel_mean: Sequence[float],
    channel_std: Sequence[float],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    generator_version: int,
) -> Path:
    """Cut the series of a user's files into rows and store their values.

    All rows of a series share a split. Series are shared out by a hash of their names, or of their
    values where they have none, each class alike where a series has one, unless a column, their
    times or files of their own decide.

    Args:
        path: Tables, .npz archives or .ts files; see the readers of each.
        series: Column that names the series of a step; None: a row of a table is a series.
        time: Column that orders the steps of a series.
        channels: Columns of the values.
        split_by_time: Whether the series that begin last are held out.
        window: Steps of a row; None: a series is a row, and has one label.
        stride: From one window to the next; None: its length.
        window_label: "last" or "majority" of a window's steps.
        missing: "refuse" values that are not there, or leave them to the model as an "indicator".
        patch: Steps of a token.
        channel_mean: Of the training steps, by which the model standardises; as channel_std.
        generator_version: Which rows files stand for; the one that there is.
    """
    check_generator(generator_version, there_is=GENERATOR)
    one_of("task.keep", keep, KEEP)
    one_of("task.missing", missing, MISSING)
    one_of("task.window_label", window_label, WINDOW_LABELS)
    _check_counts(window=window, stride=stride, patch=patch)
    if len(classes) != num_classes:
        raise DataError(f"task.num_classes is {num_classes}; task.classes has {len(classes)}")
    columns = SeriesColumns(series, time, channels and list(channels), label, group, split)
    decide = deciding(columns, by_time=split_by_time)
    form = Form(encoding, separator, quotes)
    patterns = {"train": path, "validation": path_validation, "test": path_test}
    windows, tokens = Windows(window, stride, window_label), Tokens(patch, max_len, keep)
    check_fractions(validation_fraction=validation_fraction, test_fraction=test_fraction)
    fractions = Fractions(validation_fraction, test_fraction)
    source = Source(patterns, columns, form)
    parameters = {
        "generator": GENERATOR,
        "source": checked_digest(files_of, patterns, sha256, data_dir=data_dir),
        "files": [name for name, pattern in patterns.items() if pattern],
        "decides": decide._asdict(),
        **columns._asdict(),
        **form._asdict(),
        "windows": windows._asdict(),
        **tokens._asdict(),
        "missing": missing,
        "classes": list(classes),
        "fractions": list(fractions),
        "seed": seed,
    }

    def contents() -> Contents:
        found = read(source)
        if missing == "refuse":
            _refuse_gaps(found)
        rows = {name: cut(recorded, windows, patch=patch) for name, recorded in found.items()}
        scans = {
            name: (
                [],
                as_scan(found[name], kept, decide, tokens=tokens, seed=seed, left_out=left_out),
            )
            for name, (kept, left_out) in rows.items()
        }
        seen = scans["train"][1]
        check_labels(seen.names, num_rows=len(seen))
        parts = plan(scans, decide, fractions=fractions, seed=seed)
        check_plan(parts, classes=classes, class_counts=class_counts, num_rows=num_rows)
        cuts = [kept for kept, _ in rows.values()]
        return _contents(list(found.values()), cuts, parts, tokens=tokens, classes=classes)

    folder = prepare_once(
        data_dir / "series",
        variant=name,
        parameters=parameters,
        contents=contents,
        num_classes=num_classes,
        paired=False,
        num_bytes=0,
    )
    _check_statistics(folder, {"channel_mean": channel_mean, "channel_std": channel_std})
    return add_floors(folder, floors(len(channel_mean)))


def load(folder: Path, split: str, *, channel_mean: Sequence[float], patch: int) -> SeriesRows:
    """Open a split; a token is the values of all channels over the steps of a patch."""
    return open_series(folder, split, num_channels=len(channel_mean) * patch)


def floors(num_channels: int) -> dict[str, Floor]:
    """Return the predictors without attention that series are measured by."""
    return {
        "statistics": Floor(
            "logistic regression on mean, spread, extremes, median and mean step of each channel, "
            "and the logarithm of the length",
            partial(predict_by_statistics, num_channels=num_channels),
            max_rows=10_000,
        )
    }


def read(source: Source) -> dict[str, Recorded]:
    """Read the files of each split that has its own, with a bar."""
    columns, form = source.columns, source.form
    found = {}
    with progress_bar() as bar:
        for split, pattern in source.patterns.items():
            if pattern is None:
                continue
            paths = find_files(pattern, suffixes=KINDS)
            task = bar.add_task(f"read {split}", total=sum(path.stat().st_size for path in paths))
            advance = partial(_advance, bar, task)
            kinds = {path.suffix.lower() for path in paths}
            if kinds == {".npz"}:
                decider = "group" if columns.group else "split" if columns.split else None
                found[split] = read_arrays(paths, decider=decider)
            elif kinds == {".ts"}:
                found[split] = read_ts(paths, form=form, advance=advance)
            elif kinds & {".npz", ".ts"}:
                raise DataError(f"{pattern} mixes kinds of files: {', '.join(sorted(kinds))}")
            elif columns.series:
                found[split] = read_long(paths, columns, form=form, advance=advance)
            else:
                found[split] = read_wide(paths, columns, form=form, advance=advance)
    widths = {recorded.values.shape[1] for recorded in found.values()}
    if len(widths) > 1:
        raise DataError(f"the files of the splits have {sorted(widths)} channels")
    return found


def _advance(bar: Any, task: Any, done: int) -> None:
    bar.update(task, completed=done)


def files_of(patterns: Mapping[str, str | None]) -> list[Path]:
    """Return the files of all splits."""
    return [
        path
        for pattern in patterns.values()
        if pattern
        for path in find_files(pattern, suffixes=KINDS)
    ]


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise DataError(f"task.{name} is {count}; it must be at least 1")


def deciding(columns: SeriesColumns, *, by_time: bool) -> Columns:
    """Say what decides the splits, in the words of a table."""
    if by_time and not columns.time:
        raise DataError("task.split_by_time needs task.time, the column of a step's time")
    if sum(map(bool, (by_time, columns.group, columns.split))) > 1:
        raise DataError("only one of group, split and split_by_time can decide the splits")
    time = columns.time if by_time else None
    return Columns((), False, columns.label, group=columns.group, time=time, split=columns.split)


def _refuse_gaps(found: Mapping[str, Recorded]) -> None:
    for split, recorded in found.items():
        gaps = np.isnan(recorded.values).sum(axis=0)
        if gaps.any():
            shown = ", ".join(f"{count:,} in channel {i}" for i, count in enumerate(gaps) if count)
            raise DataError(
                f"values are missing among those of {split}: {shown} of {len(recorded.values):,} "
                "steps; fill them, or leave them to the model (task.missing=indicator)"
            )


def _contents(
    found: Sequence[Recorded],
    cuts: Sequence[Cut],
    parts: Sequence[Part],
    *,
    tokens: Tokens,
    classes: Sequence[str],
) -> Contents:
    ids = {name: place for place, name in enumerate(classes)}

    def encode(place: int) -> Iterator[Chunk]:
        for recorded, rows, part in zip(found, cuts, parts, strict=True):
            chosen = np.flatnonzero(part.places == place)
            for start in range(0, len(chosen), _ROWS_PER_CHUNK):
                some = chosen[start : start + _ROWS_PER_CHUNK]
                values = [values_of(recorded, rows, row, tokens) for row in some.tolist()]
                labels = [ids[recorded.label_names[int(rows.labels[row])]] for row in some.tolist()]
                lengths = np.array([len(v) for v in values])
                yield Chunk(np.concatenate(values), lengths, np.array(labels))

    splits = [
        Split(name, num_rows=count, parts=[partial(encode, place)])
        for place, (name, count) in enumerate(zip(SPLITS, rows_of_splits(parts), strict=True))
    ]
    return Contents(
        splits,
        num_channels=tokens.patch * found[0].values.shape[1],
        facts=_facts(found, cuts, parts, classes=classes, tokens=tokens),
    )


def _facts(
    found: Sequence[Recorded],
    cuts: Sequence[Cut],
    parts: Sequence[Part],
    *,
    classes: Sequence[str],
    tokens: Tokens,
) -> dict[str, Any]:
    steps = [training_steps(*each) for each in zip(found, cuts, parts, strict=True)]
    mean, deviation = channel_statistics(np.concatenate(steps))
    left_out = sum((part.scan.left_out for part in parts), type(parts[0].scan.left_out)())
    longest = tokens.max_len or np.inf
    return {
        "classes": list(classes),
        "left_out": dict(left_out),
        "cut": {
            split: int(sum((p.scan.lengths[p.places == i] > longest).sum() for p in parts))
            for i, split in enumerate(SPLITS)
        },
        "channel_mean": mean.tolist(),
        # A constant channel says nothing, whatever it is divided by.
        "channel_std": np.where(deviation > 0, deviation, 1.0).tolist(),
    }


def _check_statistics(folder: Path, given: Mapping[str, Sequence[float]]) -> None:
    manifest = read_manifest(folder)
    for name, values in given.items():
        found = manifest[name]
        if len(values) != len(found) or not np.allclose(values, found, rtol=1e-3, atol=1e-6):
            shown = ", ".join(f"{value:.7g}" for value in found)
            raise DataError(f"task.{name} is {list(values)}; the training steps have [{shown}]")
