"""Set what pretraining costs beside what it brings: rows from both beginnings, with both runs."""

from collections.abc import Sequence

import pandas as pd

from macformer.tables import captions
from macformer.tables.entries import (
    SHARED_MARK,
    Numbers,
    accuracy_entry,
    mark_shared,
    result_key,
    row_labels,
)
from macformer.tables.layout import Entry, Row, Table, compact, task_title
from macformer.tables.runs import BEFORE, ITSELF

_COLUMNS = [
    ("test accuracy %", "best"),
    *((what, run) for what in ("examples", "device hours", "Wh") for run in ("before", "own")),
]


def has_pretraining(summary: pd.DataFrame) -> bool:
    return bool(summary[f"{BEFORE}.seconds"].notna().any())


def pretraining_table(runs: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Show the cost of the run before and of a row's own, for rows that begin either way.

    Columns without any value are left out.
    """
    num_seeds = int(summary["num_finished"].max())
    results = summary.to_dict("records")
    costs = [_cost_texts(result) for result in results]
    kept = [index for index, column in enumerate(zip(*costs, strict=True)) if any(column)]
    rows = [
        Row(label, [accuracy_entry(result, num_seeds=num_seeds), *_entries(result, cost, kept)])
        for label, result, cost in zip(row_labels(summary), results, costs, strict=True)
    ]
    return Table(
        title=f"{task_title(summary['task'].iloc[0])}: pretraining",
        columns=[_COLUMNS[0], *(_COLUMNS[1 + index] for index in kept)],
        rows=rows,
        caption=captions.join(
            captions.provenance(runs),
            captions.seeds(summary),
            "Before: the run on the task's own rows without labels, which all seeds of a row "
            "share, and whose whole cost stands here; own: a mean over seeds.",
        ),
        notes=_notes(summary),
    )


def _notes(summary: pd.DataFrame) -> list[str]:
    """Mark the hours of devices that other work used, too, before or in a row's own run."""
    alone = summary["exclusive"] & ~summary[f"{BEFORE}.exclusive"].lt(1)
    if alone[summary["num_finished"] > 0].all():
        return []
    return [f"{SHARED_MARK} measured while the device was shared: not comparable."]


def _cost_texts(result: Numbers) -> list[str]:
    """Show examples, hours and energy of both runs, in the order of the table's columns."""
    texts = [compact(result[f"{run}.examples"]) for run in (BEFORE, ITSELF)]
    alone = {BEFORE: result[f"{BEFORE}.exclusive"] == 1, ITSELF: result["exclusive"]}
    for quantity in ("seconds", "joules"):
        for run, exclusive in alone.items():
            # Counted for one device: hours, or watt-hours.
            used = result[f"{run}.{quantity}"] * result[f"{run}.num_devices"] / 3600
            texts.append(mark_shared(compact(used), exclusive=exclusive))
    return texts


def _entries(result: Numbers, texts: Sequence[str], kept: Sequence[int]) -> list[Entry]:
    return [Entry(texts[index], result_key(result)) for index in kept]
