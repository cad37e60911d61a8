"""Describe series: read them, cut and split them as their task will, and write the task."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.columns import Form
from tasks.describe.description import Channel, Description
from tasks.describe.quote import quoted, quoted_list
from tasks.describe.remarks import of_counts, of_floors
from tasks.series import prepare
from tasks.series.recorded import Recorded
from tasks.series.rows import Tokens, Windows, as_scan, cut, training_steps
from tasks.series.tables import SeriesColumns
from tasks.series.task import GENERATOR, Source, deciding, files_of, read
from tasks.sources.digest import digest_of
from tasks.store.manifest import SPLITS, channel_statistics, read_manifest
from tasks.table.classes import check_labels, class_counts_of, classes_of
from tasks.table.plan import Fractions, Part, plan, rows_of_splits, shared_texts

_LONG = 4000  # tokens
_FEW = 30
_ENDS = {"train": "", "validation": "_validation", "test": "_test"}


class SeriesOptions(NamedTuple):
    """What the command line says of series; see its help."""

    name: str
    patterns: Mapping[str, str | None]
    columns: SeriesColumns
    form: Form
    split_by_time: bool
    windows: Windows
    tokens: Tokens
    missing: str
    fractions: Fractions
    seed: int


def describe_series(options: SeriesOptions, *, command: str) -> Description:
    """Look at the series of files.

    Raises:
        DataError: If they cannot make a task.
    """
    columns, tokens = options.columns, options.tokens
    decide = deciding(columns, by_time=options.split_by_time)
    found = read(Source(options.patterns, columns, options.form))
    rows = {name: cut(each, options.windows, patch=tokens.patch) for name, each in found.items()}
    scans = {
        name: (
            [],
            as_scan(found[name], kept, decide, tokens=tokens, seed=options.seed, left_out=left_out),
        )
        for name, (kept, left_out) in rows.items()
    }
    seen = scans["train"][1]
    check_labels(seen.names, num_rows=len(seen))
    parts = plan(scans, decide, fractions=options.fractions, seed=options.seed)
    classes = classes_of(parts)
    counts = class_counts_of(parts)
    steps = np.concatenate(
        [
            training_steps(each, kept, part)
            for each, (kept, _), part in zip(found.values(), rows.values(), parts, strict=True)
        ]
    )
    mean, deviation = channel_statistics(steps)
    lengths = np.concatenate([part.scan.lengths[part.places == 0] for part in parts])
    max_len = tokens.max_len or max(int(part.scan.lengths.max()) for part in parts)
    with tempfile.TemporaryDirectory() as folder:
        keys: dict[str, Any] = {
            "sha256": digest_of(files_of(options.patterns), data_dir=Path(folder)),
            "classes": classes,
            "class_counts": [counts["train"][name] for name in classes],
            "num_rows": dict(zip(SPLITS, rows_of_splits(parts), strict=True)),
            "max_len": max_len,
            "channel_mean": mean.tolist(),
            "channel_std": np.where(deviation > 0, deviation, 1.0).tolist(),
        }
        floors = _floors(options, keys, data_dir=Path(folder))
    channels = _channels(found["train"], columns, mean, deviation)
    said = [
        *of_counts(counts, sum((part.scan.left_out for part in parts), seen.left_out.__class__())),
        *_remarks(parts, channels, max_len=max_len, windows=options.windows),
        *of_floors(floors),
    ]
    yaml = _write(options, keys, floors, lengths, command=command)
    return Description(yaml, said, classes, counts, lengths, "tokens", max_len, floors, channels)


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


def _floors(options: SeriesOptions, keys: Mapping[str, Any], *, data_dir: Path) -> dict[str, Any]:
    patterns, windows = options.patterns, options.windows
    folder = prepare(
        data_dir,
        name=options.name,
        path=patterns["train"] or "",
        path_validation=patterns["validation"],
        path_test=patterns["test"],
        split_by_time=options.split_by_time,
        window=windows.length,
        stride=windows.stride,
        window_label=windows.label,
        missing=options.missing,
        patch=options.tokens.patch,
        keep=options.tokens.keep,
        num_classes=len(keys["classes"]),
        validation_fraction=options.fractions.validation,
        test_fraction=options.fractions.test,
        seed=options.seed,
        generator_version=GENERATOR,
        **options.columns._asdict(),
        **options.form._asdict(),
        **keys,
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


def _write(
    options: SeriesOptions,
    keys: Mapping[str, Any],
    floors: Mapping[str, Any],
    lengths: np.ndarray,
    *,
    command: str,
) -> str:
    columns, form, windows = options.columns, options.form, options.windows
    cut_share = 100 * float((lengths > keys["max_len"]).mean())
    lines = [
        f"# macformer-train --config-dir my task={options.name} recipe=smoke logger=curve",
        f"# Written by {command}",
        f"# tokens of a training row: min {lengths.min():,}, median {int(np.median(lengths)):,}, "
        f"max {lengths.max():,}; {cut_share:.1f} % are longer than max_len",
        *(f"# floor of {100 * f['accuracy']:.1f} %, {n}: {f['recipe']}" for n, f in floors.items()),
        "defaults: [_series, _self_]",
        "",
        f"name: {options.name}",
        *(f"path{end}: {_path(options.patterns[split])}" for split, end in _ENDS.items()),
        f"sha256: {keys['sha256']}",
        f"encoding: {quoted(form.encoding)}",
        f"separator: {_or_null(form.separator)}",
        f"quotes: {str(form.quotes).lower()}",
        f"series: {_or_null(columns.series)}",
        f"time: {_or_null(columns.time)}",
        f"channels: {'null' if columns.channels is None else quoted_list(columns.channels)}",
        f"label: {quoted(columns.label)}",
        f"group: {_or_null(columns.group)}",
        f"split: {_or_null(columns.split)}",
        f"split_by_time: {str(options.split_by_time).lower()}",
        f"window: {windows.length or 'null'}",
        f"stride: {windows.stride or 'null'}",
        f"window_label: {windows.label}",
        f"missing: {options.missing}",
        f"patch: {options.tokens.patch}",
        f"keep: {options.tokens.keep}",
        f"classes: {quoted_list(keys['classes'])}",
        f"num_classes: {len(keys['classes'])}",
        f"class_counts: {keys['class_counts']}   # training rows",
        "num_rows: {" + ", ".join(f"{name}: {keys['num_rows'][name]}" for name in SPLITS) + "}",
        f"max_len: {keys['max_len']}",
        f"channel_mean: [{', '.join(f'{value:.9g}' for value in keys['channel_mean'])}]",
        f"channel_std: [{', '.join(f'{value:.9g}' for value in keys['channel_std'])}]",
        f"validation_fraction: {options.fractions.validation}",
        f"test_fraction: {options.fractions.test}",
        f"split_seed: {options.seed}",
    ]
    return "\n".join(lines) + "\n"


def _path(pattern: str | None) -> str:
    return "null" if pattern is None else quoted(str(Path(pattern).expanduser().absolute()))


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)
