r"""Summarise runs: one row for each result of the sweep, over its seeds.

.. math:: \text{relative} = \frac{\text{mean over seeds}}{\text{mean of softmax without ppSBN}}

with softmax taken from the same task, recipe, device and setting, and of the same size.
"""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from macformer.record import STATUSES
from macformer.tables.runs import ACCURACIES, COSTS, COUNTS, NUMBERS, scores_of
from macformer.tables.settings import OWN, SHARED, read_label

SETTING = ["task", "recipe", "device", SHARED]
NAME = ["attention", "ppsbn", SHARED, OWN]  # what a row is called by
ROW = [*NAME, "recipe", "device"]
RESULT = ["task", *ROW]
TASKS = ["listops", "text", "retrieval", "image", "pathfinder", "pathx"]  # LRA's order
REFERENCE, CONTROL = "softmax", "uniform"
NOWHERE = -1  # in no index of a summary
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Reduce runs to results: mean, standard deviation and ratio to softmax of each quantity.

    Only finished runs enter. Ratios of speed and memory stay blank wherever a run, or the softmax
    run beside it, shared its device.
    """
    finished = runs["status"].eq("finished")
    scores = scores_of(runs)
    numbers = runs[[*NUMBERS, *scores]].where(finished)
    measured = pd.concat([runs[RESULT], numbers], axis=1).groupby(RESULT)
    counts = runs.groupby([*RESULT, "status"]).size().unstack(fill_value=0)
    summary = pd.concat(
        [
            counts.reindex(columns=list(STATUSES), fill_value=0).add_prefix("num_"),
            runs[finished].groupby(RESULT)["exclusive"].all(),
            measured.mean(),
            measured[[*ACCURACIES, *scores]].std().add_suffix(".sd"),
        ],
        axis=1,
    ).reset_index()
    summary["exclusive"] = summary["exclusive"].eq(True)
    return ranked(pd.concat([summary, _relative_costs(summary)], axis=1))


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Order tasks as LRA does, softmax and uniform first, and `without` before `with`."""
    keys = [
        (
            TASKS.index(result["task"]) if result["task"] in TASKS else len(TASKS),
            result["task"],
            [REFERENCE, CONTROL, result["attention"]].index(result["attention"]),
            result["attention"],
            result["ppsbn"] != "without",
            *(_natural(result[key]) for key in ("ppsbn", SHARED, OWN, "recipe", "device")),
        )
        for result in frame.to_dict("records")
    ]
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    return frame.iloc[order].reset_index(drop=True)


def _natural(text: str) -> list[tuple[bool, float, str]]:
    """Order what stands in a text by its numbers: 16 comes before 128, and 1e-4 before 0.001."""
    parts = [part for part in NUMBER.split(text) if part]
    return [
        (False, float(part), "") if NUMBER.fullmatch(part) else (True, 0.0, part) for part in parts
    ]


def _relative_costs(summary: pd.DataFrame) -> pd.DataFrame:
    keys, beside = keys_of(summary), references(summary, against=REFERENCE)
    places: dict[tuple | None, Any] = dict(zip(keys, summary.index, strict=True))
    rows = [places.get(beside[key], NOWHERE) for key in keys]
    reference = summary[[*COSTS, "exclusive"]].reindex(rows).set_axis(summary.index)
    ratios = summary[COSTS] / reference[COSTS]
    comparable = summary["exclusive"] & reference["exclusive"].eq(True)
    shared = [cost for cost in COSTS if cost not in COUNTS]
    ratios[shared] = ratios[shared].where(comparable)
    return ratios.add_suffix(".relative")


def references(summary: pd.DataFrame, *, against: str) -> dict[tuple, tuple | None]:
    """Name for each result the one that it is compared with: in the same setting, without ppSBN.

    Of several it is the one that has the same value of each option that both name, such as the size
    of the model. None where there is none, or more than one; the reference is beside itself.
    """
    known = _by_setting(summary, against)
    return {key: _of_same_options(key, known.get(_setting(key), [])) for key in keys_of(summary)}


def lacks_counterpart(summary: pd.DataFrame, *, against: str) -> pd.Series:
    """Say of each result whether its setting has references, none or more than one of them its."""
    known, beside = _by_setting(summary, against), references(summary, against=against)
    lacking = [beside[key] is None and _setting(key) in known for key in keys_of(summary)]
    return pd.Series(lacking, summary.index)


def _by_setting(summary: pd.DataFrame, against: str) -> dict[tuple, list[tuple]]:
    is_reference = summary["attention"].eq(against) & summary["ppsbn"].eq("without")
    found: dict[tuple, list[tuple]] = {}
    for key in keys_of(summary[is_reference]):
        found.setdefault(_setting(key), []).append(key)
    return found


def _of_same_options(key: tuple, candidates: Sequence[tuple]) -> tuple | None:
    if key in candidates:
        return key
    ours, alike = _own_options(key), []
    for candidate in candidates:
        theirs = _own_options(candidate)
        if all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys()):
            alike.append(candidate)
    return alike[0] if len(alike) == 1 else None


def keys_of(frame: pd.DataFrame) -> list[tuple]:
    return list(frame[RESULT].itertuples(index=False, name=None))


def _setting(key: tuple) -> tuple:
    return tuple(key[RESULT.index(name)] for name in SETTING)


def _own_options(key: tuple) -> dict[str, str]:
    return read_label(key[RESULT.index(OWN)])


def agreed(rates: pd.Series) -> float:
    """Return the number that rows of the same data share; NaN if their data differ or have none."""
    known = rates.dropna().round(9)
    return float(known.iloc[0]) if known.nunique() == 1 else float("nan")
