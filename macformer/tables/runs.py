"""Read the runs of a sweep: one row for each `metrics.json`, whether it finished or not.

Columns are the paths inside the file, joined by dots (`accuracy.best.test`,
`train.examples_per_second`); what a run did not reach is NaN.
"""

import re
from collections.abc import Sequence
from math import nan
from pathlib import Path

import pandas as pd

from macformer import record
from macformer.record import METRICS_NAME, walk_runs

IDENTITY = list(record.IDENTITY)
ACCURACIES = ["accuracy.best.test", "accuracy.last.test", "accuracy.best.val", "accuracy.last.val"]
PASSES = ["train", "inference"]
COUNTS = ["num_parameters", "cost.flops", "cost.state_size"]  # whoever used the device, too
COSTS = [
    *(
        f"{stage}.{quantity}"
        for stage in PASSES
        for quantity in (
            "examples_per_second",
            "tokens_per_second",
            "positions_per_second",
            "peak_memory_gib",
        )
    ),
    *(f"trimmed.{quantity}" for quantity in ("examples_per_second", "tokens_per_second")),
    "served.examples_per_second",
    *(f"cost.latency_{quantity}_ms" for quantity in ("mean", "p50", "p95")),
    *COUNTS,
]
BEFORE, ITSELF = "pretraining", "use"  # of a run that came before, and of the run itself
USES = [
    *(
        f"{run}.{name}"
        for run in (BEFORE, ITSELF)
        for name in ("seconds", "joules", "num_devices", "examples")
    ),
    f"{BEFORE}.exclusive",
    "train.steps",
]
TEXTS = ["reason", "commit", "device", "use.energy_source"]
NUMBERS = ["majority_rate", "floor", *ACCURACIES, *COSTS, *USES]
FACTS = ["status", "reason", "identity", "name", "commit", "device", "exclusive", "data_digest"]
FACTS += ["use.energy_source", f"{BEFORE}.identity"]


class TableError(ValueError):
    """A table that cannot be made, or would compare what is not comparable."""


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Collect every run below the folders; a run that two folders share counts once.

    Raises:
        TableError: If a folder is missing, holds no run, or a file is not a run's.
    """
    for folder in folders:
        if not folder.is_dir():
            raise TableError(f"no such folder: {folder}")
    found = (run_dir for run_dir, names in walk_runs(folders) if METRICS_NAME in names)
    files = sorted({run_dir.resolve() / METRICS_NAME for run_dir in found})
    if not files:
        raise TableError(f"no {METRICS_NAME} below {', '.join(map(str, folders))}")
    records = [_read_record(file) for file in files]
    configs = [found.pop("config") for found in records]
    floors = [
        _accuracies(found.pop("floors"), file) for found, file in zip(records, files, strict=True)
    ]
    runs = pd.json_normalize(records)
    numbers = [*NUMBERS, *scores_of(runs)]
    runs = runs.reindex(columns=[*IDENTITY, *FACTS, *numbers])
    runs["floors"] = pd.Series(floors, dtype=object)
    runs["floor"] = [max(found.values(), default=nan) for found in floors]
    runs[numbers] = _numbers(runs[numbers], files)
    runs[TEXTS] = runs[TEXTS].astype(object)  # a column of blanks would count as numbers
    runs["reason"] = runs["reason"].fillna("")
    runs["exclusive"] = runs["exclusive"].eq(True)
    runs["folder"] = pd.Series([file.parent for file in files], dtype=object)
    runs["config"] = pd.Series(configs, dtype=object)
    return _fill_device(runs)


def scores_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns of metrics beside accuracy, which a task may ask for."""
    return [name for name in frame.columns if re.fullmatch(r"scores\.\w+\.\w+\.\w+", name)]


def _read_record(file: Path) -> dict:
    try:
        found = record.read_record(file)
    except record.DamagedRecord as error:
        raise TableError(str(error)) from error
    missing = [key for key in IDENTITY if found.get(key) is None]
    if missing:
        raise TableError(f"{file} lacks {', '.join(missing)}")
    for key in ("config", "floors"):
        found[key] = found.get(key) or {}
        if not isinstance(found[key], dict):
            raise TableError(f"{file} is damaged: {key} is {found[key]}, which names nothing")
    return found


def _numbers(given: pd.DataFrame, files: Sequence[Path]) -> pd.DataFrame:
    """Turn columns into numbers; what is none is named."""
    numbers = given.apply(pd.to_numeric, errors="coerce").astype(float)
    for column in given:
        wrong = numbers[column].isna() & given[column].notna()
        if wrong.any():
            index = int(wrong.to_numpy().argmax())
            value = given[column].iloc[index]
            raise TableError(f"{files[index]} is damaged: {column} is {value}, which is no number")
    return numbers


def _accuracies(floors: dict, file: Path) -> dict[str, float]:
    try:
        return {name: float(floor["accuracy"]) for name, floor in floors.items()}
    except (LookupError, TypeError, ValueError) as error:
        raise TableError(f"{file} is damaged: floors are {floors}") from error


def _fill_device(runs: pd.DataFrame) -> pd.DataFrame:
    """Place runs that stopped before naming their device beside the others."""
    known = runs["device"].dropna().unique()
    runs["device"] = runs["device"].fillna(known[0] if len(known) == 1 else "unknown device")
    return runs
