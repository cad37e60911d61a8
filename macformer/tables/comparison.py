"""What the predictions of the test examples say of each result: its interval, and its difference.

Runs of one task on the same data are tested on the same examples, so that rows are compared example
by example, and seed by seed. Those that were tested on different ones are not compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from macformer.record import DamagedRecord, read_predictions
from macformer.tables.runs import TableError
from macformer.tables.summary import RESULT, keys_of, references
from macformer.tables.uncertainty import (
    accuracy_interval,
    adjust_p_values,
    detectable_difference,
    paired_difference,
)

COLUMNS = ["low", "high", "difference", "difference.low", "difference.high", "p", "detectable"]
COLUMNS += ["num_paired", "other_rows"]
SIGNIFICANT = 0.05  # of adjusted p values


class Answers(NamedTuple):
    """What one seed was tested on, as indices of the test split's rows, and which it has right."""

    rows: np.ndarray
    right: np.ndarray


Tests = dict[int, Answers]  # of each seed


class Pair(NamedTuple):
    """What a row and its reference have shown, in lines of one seed and columns of one example."""

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def num_seeds(self) -> int:
        return len(self.ours)


def add_comparison(summary: pd.DataFrame, runs: pd.DataFrame, *, against: str) -> pd.DataFrame:
    """Add to each result the interval of its accuracy and its difference to a reference row.

    Accuracies are those of the best weights in validation. Columns, all of them blank where a run
    kept no predictions: ``low`` and ``high``; ``difference`` to the reference without ppSBN, its
    bounds, its p value adjusted for all differences of the task, and the smallest difference that
    would have been found four times out of five beside those that were; ``num_paired``, the seeds
    that both have; and ``other_rows``, 1 where a difference is blank because the two were tested on
    different rows. Where other rows of the task have several seeds, one alone has no bounds and no
    p value: it does not tell how much seeds differ.

    Args:
        against: The attention of the reference; without one there are intervals and no differences.
    """
    tested = read_tests(runs)
    beside = references(summary, against=against)
    found: list[pd.DataFrame] = []
    for _, results in summary.groupby("task", sort=False):
        num_seeds = [int(count) for count in results["num_finished"]]
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


def _compare(
    keys: Sequence[tuple],
    tested: Mapping[tuple | None, Tests],
    beside: Mapping[tuple, tuple | None],
    *,
    num_seeds: Sequence[int],
) -> list[dict[str, float]]:
    """Describe the results of one task.

    Args:
        num_seeds: The finished seeds of each. Where one has several, what has fewer than two is not
            tested; an accuracy whose seeds have not all kept their predictions has no interval.
    """
    enough = min(max(num_seeds), 2)
    ours = [tested.get(key, {}) for key in keys]
    theirs = [{} if beside[key] == key else tested.get(beside[key], {}) for key in keys]
    pairs = [*map(pair_tests, ours, theirs)]
    lines: list[dict[str, float]] = []
    for tests, count, reference, pair in zip(ours, num_seeds, theirs, pairs, strict=True):
        line = {}
        if len(tests) == count >= enough and _same_rows(tests.values()):
            interval = accuracy_interval(np.stack([answers.right for answers in tests.values()]))
            line |= {"low": interval.low, "high": interval.high}
        if on_other_rows(tests, reference):
            line["other_rows"] = 1.0
        if pair is not None:
            estimate = paired_difference(*pair)
            line |= {"difference": estimate.mean, "num_paired": float(pair.num_seeds)}
            if pair.num_seeds >= enough and estimate.p_value is not None:
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


def pair_tests(ours: Tests, theirs: Tests) -> Pair | None:
    """Pair the seeds that two results have; None without any, or if they are of different rows."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not _same_rows(tests[seed] for tests in (ours, theirs) for seed in seeds):
        return None
    return Pair(*(np.stack([tests[seed].right for seed in seeds]) for tests in (ours, theirs)))


def on_other_rows(ours: Tests, theirs: Tests) -> bool:
    """Say whether different test rows alone keep the seeds of two results from being paired."""
    return bool(ours.keys() & theirs.keys()) and pair_tests(ours, theirs) is None


def _same_rows(answers: Iterable[Answers]) -> bool:
    """Say whether there are answers, and all of them to the same rows."""
    rows = [found.rows for found in answers]
    return bool(rows) and all(np.array_equal(rows[0], other) for other in rows)


def read_tests(runs: pd.DataFrame) -> dict[tuple | None, Tests]:
    """Read for each result and seed which test examples its best weights have right."""
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
        answers = Answers(predictions["row"][order], correct[order])
        tested.setdefault(tuple(run[name] for name in RESULT), {})[run["seed"]] = answers
    return tested
