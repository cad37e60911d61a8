"""What the predictions of the test examples say of each result: its interval, and its difference.

Runs of one task on the same data are tested on the same examples, so that rows are compared example
by example, and seed by seed.
"""

from typing import Any

import numpy as np
import pandas as pd

from macformer.record import DamagedRecord, read_predictions
from macformer.tables.runs import TableError
from macformer.tables.summary import RESULT, SETTING
from macformer.tables.uncertainty import (
    Estimate,
    accuracy_interval,
    adjust_p_values,
    detectable_difference,
    paired_difference,
)

COLUMNS = ["low", "high", "difference", "difference.low", "difference.high", "p", "detectable"]
SIGNIFICANT = 0.05  # of adjusted p values


def add_comparison(summary: pd.DataFrame, runs: pd.DataFrame, *, against: str) -> pd.DataFrame:
    """Add to each result the interval of its accuracy and its difference to a reference row.

    Accuracies are those of the best weights in validation. Columns, all of them blank where a run
    kept no predictions: ``low`` and ``high``; ``difference`` to the reference without ppSBN, its
    bounds, its p value adjusted for all differences of the task, and the smallest difference that
    would have been found four times out of five.

    Args:
        against: The attention of the reference.

    Raises:
        TableError: If no run has this attention.
    """
    if against not in set(runs["attention"]):
        known = ", ".join(sorted(set(runs["attention"])))
        raise TableError(f"there is no row {against} to compare with; there are {known}")
    tested = _read_tests(runs)
    found: dict[Any, dict[str, float]] = {}
    for _, group in summary.groupby(SETTING, sort=False):
        is_reference = group["attention"].eq(against) & group["ppsbn"].eq("without")
        reference = next(iter(_keys(group[is_reference])), None)
        beside = None if reference is None else tested.get(reference)
        for key in _keys(group):
            found[key] = _compare(tested.get(key), beside, same=key == reference)
    frame = pd.DataFrame([found[key] for key in _keys(summary)], index=summary.index)
    frame = frame.reindex(columns=COLUMNS).astype(float)
    for _, rows in summary.groupby("task"):
        frame.loc[rows.index, "p"] = adjust_p_values(frame.loc[rows.index, "p"].to_numpy())
    return pd.concat([summary, frame], axis=1)


def _compare(
    tests: dict[int, np.ndarray] | None, reference: dict[int, np.ndarray] | None, *, same: bool
) -> dict[str, float]:
    if not tests:
        return {}
    interval = accuracy_interval(np.stack([*tests.values()]))
    found = {"low": interval.low, "high": interval.high}
    seeds = sorted(set(tests) & set(reference or {}))
    if same or not seeds or reference is None:
        return found
    ours, theirs = (np.stack([rows[seed] for seed in seeds]) for rows in (tests, reference))
    if ours.shape != theirs.shape:
        return found
    difference: Estimate = paired_difference(ours, theirs)
    return found | {
        "difference": difference.mean,
        "difference.low": difference.low,
        "difference.high": difference.high,
        "p": difference.p_value if difference.p_value is not None else np.nan,
        "detectable": detectable_difference(difference),
    }


def _read_tests(runs: pd.DataFrame) -> dict[tuple, dict[int, np.ndarray]]:
    """Read for each result and seed which test examples its best weights had right."""
    tested: dict[tuple, dict[int, np.ndarray]] = {}
    for run in runs[runs["status"] == "finished"].to_dict("records"):
        try:
            predictions = read_predictions(run["folder"])
        except DamagedRecord as error:
            raise TableError(str(error)) from error
        if predictions is None:
            continue
        order = np.argsort(predictions["row"])
        correct = predictions["best_prediction"] == predictions["label"]
        if correct.ndim > 1:  # answers about one row depend on each other: the row counts
            correct = correct.mean(axis=1)
        tested.setdefault(tuple(run[name] for name in RESULT), {})[run["seed"]] = correct[order]
    lengths = {key: {len(rows) for rows in seeds.values()} for key, seeds in tested.items()}
    return {key: seeds for key, seeds in tested.items() if len(lengths[key]) == 1}


def _keys(frame: pd.DataFrame) -> list[tuple]:
    return list(frame[RESULT].itertuples(index=False, name=None))
