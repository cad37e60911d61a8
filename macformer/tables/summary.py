r"""Summarise runs: one row for each result of the sweep, over its seeds.

.. math:: \text{relative} = \frac{\text{mean over seeds}}{\text{mean of softmax without ppSBN}}

with softmax taken from the same task, recipe, device and setting.
"""

import re

import pandas as pd

from macformer.record import STATUSES
from macformer.tables.runs import ACCURACIES, COSTS, COUNTS, NUMBERS, scores_of
from macformer.tables.settings import OWN, SHARED

SETTING = ["task", "recipe", "device", SHARED]
NAME = ["attention", "ppsbn", SHARED, OWN]  # what a row is called by
ROW = [*NAME, "recipe", "device"]
RESULT = ["task", *ROW]
TASKS = ["listops", "text", "retrieval", "image", "pathfinder", "pathx"]  # LRA's order
REFERENCE, CONTROL = "softmax", "uniform"
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
    is_reference = summary["attention"].eq(REFERENCE) & summary["ppsbn"].eq("without")
    first = summary[is_reference].drop_duplicates(SETTING)  # softmax itself may have settings
    reference = first.set_index(SETTING)[[*COSTS, "exclusive"]]
    beside = reference.reindex(pd.MultiIndex.from_frame(summary[SETTING])).set_axis(summary.index)
    ratios = summary[COSTS] / beside[COSTS]
    comparable = summary["exclusive"] & beside["exclusive"].eq(True)
    shared = [cost for cost in COSTS if cost not in COUNTS]
    ratios[shared] = ratios[shared].where(comparable)
    return ratios.add_suffix(".relative")


def agreed(rates: pd.Series) -> float:
    """Return the number that rows of the same data share; NaN if their data differ or have none."""
    known = rates.dropna().round(9)
    return float(known.iloc[0]) if known.nunique() == 1 else float("nan")
