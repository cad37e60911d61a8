"""What the predictions of the test examples say of each result: its interval, and its difference.

Runs of one task on the same data are tested on the same examples, so that rows are compared example
by example, and seed by seed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from macformer.record import DamagedRecord, read_predictions
from macformer.tables.runs import TableError
from macformer.tables.summary import RESULT, SETTING
from macformer.tables.uncertainty import (
    accuracy_interval,
    adjust_p_values,
    detectable_difference,
    paired_difference,
)

COLUMNS = ["low", "high", "difference", "difference.low", "difference.high", "p", "detectable"]
SIGNIFICANT = 0.05  # of adjusted p values

Tests = dict[int, np.ndarray]  # seed -> which examples are right


class _Pair(NamedTuple):
    """What a row and its reference have right, in lines of one seed and columns of one example."""

    ours: np.ndarray
    theirs: np.ndarray


def add_comparison(summary: pd.DataFrame, runs: pd.DataFrame, *, against: str) -> pd.DataFrame:
    """Add to each result the interval of its accuracy and its difference to a reference row.

    Accuracies are those of the best weights in validation. Columns, all of them blank where a run
    kept no predictions: ``low`` and ``high``; ``difference`` to the reference without ppSBN, its
    bounds, its p value adjusted for all differences of the task, and the smallest difference that
    would have been found four times out of five beside those that were. Where other rows of the
    task have several seeds, one alone has no bounds and no p value: it does not tell how much seeds
    differ.

    Args:
        against: The attention of the reference; without one there are intervals and no differences.
    """
    tested = read_tests(runs)
    beside = references(summary, against=against)
    found: list[pd.DataFrame] = []
    for _, results in summary.groupby("task", sort=False):
        num_seeds = int(results["num_finished"].max())
        lines = _compare(keys_of(results), tested, beside, num_seeds=num_seeds)
        frame = pd.DataFrame(lines, index=results.index).reindex(columns=COLUMNS)
        found.append(frame.astype(float))
    return pd.concat([summary, pd.concat(found)], axis=1)


def check_reference(runs: pd.DataFrame, *, against: str) -> None:
    """Refuse a reference that no run is of.

    Raises:
        TableError: If none has this attention without ppSBN.
    """
    known = sorted(set(runs.loc[runs["ppsbn"] == "without", "attention"]))
    if against not in known:
        raise TableError(
            f"there is no row {against} without ppSBN to compare with; "
            f"there are {', '.join(known) or 'none without ppSBN'}"
        )


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
    keys: Sequence[tuple],
    tested: Mapping[tuple | None, Tests],
    beside: Mapping[tuple, tuple | None],
    *,
    num_seeds: int,
) -> list[dict[str, float]]:
    """Describe the results of one task.

    Args:
        num_seeds: The most that a result has; what has fewer than two of several is not tested.
    """
    enough = min(num_seeds, 2)
    pairs = [_pair(tested, key, beside[key]) for key in keys]
    lines: list[dict[str, float]] = []
    for key, pair in zip(keys, pairs, strict=True):
        line, tests = {}, tested.get(key, {})
        if tests and len(tests) >= enough:
            interval = accuracy_interval(np.stack([*tests.values()]))
            line |= {"low": interval.low, "high": interval.high}
        if pair is not None:
            estimate = paired_difference(*pair)
            line["difference"] = estimate.mean
            if len(pair.ours) >= enough and estimate.p_value is not None:
                line |= {"difference.low": estimate.low, "difference.high": estimate.high}
                line["p"] = estimate.p_value
        lines.append(line)
    p_values = adjust_p_values(np.array([line.get("p", np.nan) for line in lines]))
    level = _level_of_another(p_values)
    for line, pair, p_value in zip(lines, pairs, p_values, strict=True):
        if "p" in line and pair is not None:
            line |= {"p": p_value, "detectable": detectable_difference(*pair, level=level)}
    return lines


def _level_of_another(p_values: np.ndarray) -> float:
    """Return below which p value, as it is, one more of these adjusted ones would count as found.

    By Benjamini and Hochberg: of m, the k-th smallest counts up to k / m of the level.
    """
    num_tests, num_found = np.isfinite(p_values).sum(), (p_values < SIGNIFICANT).sum()
    return SIGNIFICANT * min(float((num_found + 1) / max(num_tests, 1)), 1.0)


def _pair(tested: Mapping[tuple | None, Tests], key: tuple, ref: tuple | None) -> _Pair | None:
    """Pair the seeds that a result and its reference have; None where that cannot be done."""
    tests, reference = tested.get(key, {}), tested.get(ref, {})
    seeds = sorted(set(tests) & set(reference))
    if key == ref or not seeds:
        return None
    pair = _Pair(*(np.stack([rows[seed] for seed in seeds]) for rows in (tests, reference)))
    return pair if pair.ours.shape == pair.theirs.shape else None


def read_tests(runs: pd.DataFrame) -> dict[tuple | None, Tests]:
    """Read for each result and seed which test examples its best weights had right."""
    tested: dict[tuple | None, Tests] = {}
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
