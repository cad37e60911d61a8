"""Prepare series of one's own: read them, cut them into rows, split them by series, write them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tasks.columns import Files
from tasks.errors import (
    DataError,
    check_generator,
    check_name,
    check_numbers,
    check_texts,
    check_wholes,
    one_of,
)
from tasks.floors import Floor, add_floors
from tasks.floors.series import predict_by_statistics
from tasks.series.planned import (
    KINDS,
    Planned,
    deciding,
    plan_series,
    scales,
    training_statistics,
)
from tasks.series.rows import WINDOW_LABELS, Tokens, Windows, values_of
from tasks.series.tables import SeriesColumns
from tasks.store.manifest import SPLITS, read_manifest
from tasks.store.once import prepare_once
from tasks.store.rows import SeriesRows, open_series
from tasks.store.write import Chunk, Contents, Split
from tasks.table.classes import Expected, check_plan, check_prepared
from tasks.table.plan import Shares, facts_of, rows_of_splits

# Raise it, and task.generator_version in YAML, when files give other rows than before: old folders
# are then no longer used, and runs on the new rows are new runs.
GENERATOR = 1

KEEP = ("head", "tail")
MISSING = ("refuse", "indicator")

_ROWS_PER_CHUNK = 256


def prepare(
    data_dir: Path,
    *,
    name: str,
    files: Files,
    columns: SeriesColumns,
    split_by_time: bool,
    windows: Windows,
    tokens: Tokens,
    missing: str,
    expected: Expected,
    channel_mean: Sequence[float],
    channel_std: Sequence[float],
    shares: Shares,
    generator_version: int,
) -> Path:
    """Cut the series of a user's files into rows and store their values.

    All rows of a series share a split. Series are shared out by a hash of their names, or of their
    values where they have none, each class alike where a series has one, unless a column, their
    times or files of their own decide.

    Args:
        files: Tables, .npz archives or .ts files; see the readers of each.
        split_by_time: Whether the series that begin last are held out.
        missing: "refuse" values that are not there, or leave them to the model as an "indicator".
        channel_mean: Of the training steps, by which the model standardises; as channel_std.
        generator_version: Which rows files stand for; the one that there is.
    """
    check_generator(generator_version, there_is=GENERATOR)
    one_of("task.keep", tokens.keep, KEEP)
    one_of("task.missing", missing, MISSING)
    one_of("task.window_label", windows.label, WINDOW_LABELS)
    check_name(name)
    check_wholes(patch=tokens.patch)
    optional = {"window": windows.length, "stride": windows.stride, "max_len": tokens.max_len}
    check_wholes(**{name: number for name, number in optional.items() if number is not None})
    check_numbers("task.channel_mean", channel_mean)
    check_numbers("task.channel_std", channel_std)
    if columns.channels is not None:
        check_texts("task.channels", columns.channels)
    files.form.check()
    decide = deciding(columns, by_time=split_by_time)
    shares.check()
    expected.check()
    source = files.digest(KINDS, data_dir=data_dir)
    parameters = {
        "generator": GENERATOR,
        "source": source,
        "files": list(files.patterns),
        "decides": decide._asdict(),
        **columns._asdict(),
        **files.form._asdict(),
        "windows": windows._asdict(),
        **tokens._asdict(),
        "missing": missing,
        "classes": expected.classes,
        "fractions": [shares.validation, shares.test],
        "seed": shares.seed,
    }

    def contents() -> Contents:
        planned = plan_series(
            files,
            columns,
            shares,
            decide=decide,
            windows=windows,
            tokens=tokens,
            missing=missing,
        )
        check_plan([each.part for each in planned], expected)
        written = _contents(planned, tokens=tokens, classes=expected.classes)
        return written._replace(confirm=partial(files.confirm, source, KINDS, data_dir=data_dir))

    folder = prepare_once(
        data_dir / "series",
        variant=name,
        parameters=parameters,
        contents=contents,
        num_classes=expected.num_classes,
        paired=False,
        num_bytes=0,
    )
    check_prepared(folder, expected)
    _check_statistics(folder, {"channel_mean": channel_mean, "channel_std": channel_std})
    return add_floors(folder, floors(len(channel_mean)))


def load(folder: Path, split: str, *, channel_mean: Sequence[float], patch: int) -> SeriesRows:
    """Open a split; a token is the values of all channels over the steps of a patch."""
    rows = open_series(folder, split, num_channels=len(channel_mean) * patch)
    keeps_end = read_manifest(folder)["parameters"]["keep"] != "head"
    return replace(rows, keeps_end=keeps_end, in_file_order=True)


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


def _contents(planned: Sequence[Planned], *, tokens: Tokens, classes: Sequence[str]) -> Contents:
    ids = {name: place for place, name in enumerate(classes)}

    def encode(place: int) -> Iterator[Chunk]:
        for recorded, rows, part in planned:
            chosen = np.flatnonzero(part.places == place)
            for start in range(0, len(chosen), _ROWS_PER_CHUNK):
                some = chosen[start : start + _ROWS_PER_CHUNK]
                values = [values_of(recorded, rows, row, tokens) for row in some.tolist()]
                labels = [ids[recorded.label_names[int(rows.labels[row])]] for row in some.tolist()]
                lengths = np.array([len(v) for v in values])
                yield Chunk(np.concatenate(values), lengths, np.array(labels))

    parts = [each.part for each in planned]
    splits = [
        Split(name, num_rows=count, parts=[partial(encode, place)])
        for place, (name, count) in enumerate(zip(SPLITS, rows_of_splits(parts), strict=True))
    ]
    mean, deviation = training_statistics(planned)
    width = tokens.patch * planned[0].recorded.values.shape[1]
    longest = np.inf if tokens.max_len is None else tokens.max_len
    num_tokens = sum(float(np.minimum(part.scan.lengths, longest).sum()) for part in parts)
    return Contents(
        splits,
        num_channels=width,
        num_bytes=int(num_tokens * width * np.dtype(np.float32).itemsize),
        facts={
            **facts_of(parts, classes=classes, max_len=tokens.max_len),
            "channel_mean": mean.tolist(),
            "channel_std": scales(deviation),
        },
    )


def _check_statistics(folder: Path, given: Mapping[str, Sequence[float]]) -> None:
    manifest = read_manifest(folder)
    for name, values in given.items():
        found = manifest[name]
        if len(values) != len(found) or not np.allclose(values, found, rtol=1e-3, atol=1e-6):
            shown = ", ".join(f"{value:.7g}" for value in found)
            raise DataError(f"task.{name} is {list(values)}; the training steps have [{shown}]")
