"""What the predictions of the test examples say of each result: its interval, and its difference.

Runs of one task on the same data are tested on the same examples, so that rows are compared example
by example, and seed by seed.
"""

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
    tested = read_tests(runs)
    beside = references(summary, against=against)
    found = [
        _compare(tested.get(key), None if ref is None else tested.get(ref), same=key == ref)
        for key, ref in beside.items()
    ]
    frame = pd.DataFrame(found, index=summary.index)
    frame = frame.reindex(columns=COLUMNS).astype(float)
    for _, rows in summary.groupby("task"):
        frame.loc[rows.index, "p"] = adjust_p_values(frame.loc[rows.index, "p"].to_numpy())
    return pd.concat([summary, frame], axis=1)


def references(summary: pd.DataFrame, *, against: str) -> dict[tuple, tuple | None]:
    """Name for each result the one that it is compared with: in the same setting, without ppSBN.

    None where there is none; the reference is beside itself.
    """
    is_reference = summary["attention"].eq(against) & summary["ppsbn"].eq("without")
    first = summary[is_reference].drop_duplicates(SETTING)  # the reference may have settings, too
    known = dict(zip(_settings(first), keys_of(first), strict=True))
    keys, settings = keys_of(summary), _settings(summary)
    return {key: known.get(setting) for key, setting in zip(keys, settings, strict=True)}


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


def read_tests(runs: pd.DataFrame) -> dict[tuple, dict[int, np.ndarray]]:
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


def keys_of(frame: pd.DataFrame) -> list[tuple]:
    return list(frame[RESULT].itertuples(index=False, name=None))


def _settings(frame: pd.DataFrame) -> list[tuple]:
    return list(frame[SETTING].itertuples(index=False, name=None))
