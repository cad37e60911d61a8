"""Build the tables of a sweep from its runs and their summary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from statistics import fmean

import pandas as pd

from macformer.tables import captions
from macformer.tables.entries import (
    accuracy_entry,
    by_row,
    comparison_texts,
    cost_entry,
    cost_texts,
    detail_texts,
    memory_unit,
    result_key,
    row_labels,
)
from macformer.tables.layout import Entry, Row, Table, percent, task_title
from macformer.tables.pretraining import has_pretraining, pretraining_table
from macformer.tables.published import difference_table, published_beside, published_table
from macformer.tables.scores import has_scores, score_table
from macformer.tables.summary import agreed

NOT_AVERAGED = {"pathx"}  # LRA's average leaves Path-X out
FEWER_MARK = "‡"


def build_tables(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    *,
    against: str,
    published: pd.DataFrame,
    notes: Sequence[str] = (),
) -> tuple[list[Table], list[Table]]:
    """Lay out the tables to read first, and the others.

    One task comes first in detail; several come first as accuracies and costs.

    Args:
        against: The attention that differences are to.
        notes: Further notes of the first table.
    """
    tasks = list(summary["task"].unique())
    details: list[Table] = []
    for task in tasks:
        of_task = summary[summary["task"] == task]
        details.append(detail_table(runs[runs["task"] == task], of_task))
        if has_scores(of_task):
            details.append(score_table(of_task))
        if "low" in summary and of_task["low"].notna().any():
            details.append(comparison_table(of_task, against=against))
        details += cost_tables(runs[runs["task"] == task], of_task)
        if has_pretraining(of_task):
            details.append(pretraining_table(runs[runs["task"] == task], of_task))
    differences = difference_table(published, summary=summary, tasks=tasks)
    quoted = published_table(published, tasks=tasks)
    others = [table for table in (differences, quoted) if table]
    if len(tasks) == 1:
        return [_noted(details[0], notes), *details[1:]], others
    accuracy = _noted(accuracy_table(runs, summary, published=published), notes)
    return [accuracy, efficiency_table(runs, summary)], [*details, *others]


def _noted(table: Table, notes: Sequence[str]) -> Table:
    return replace(table, notes=[*table.notes, *notes])


def detail_table(runs: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Show everything about the rows of one task."""
    scale, unit = memory_unit(summary)
    measures = ("ex./s", "tok./s", "rel.", unit, "rel.")
    columns = [("test acc. %", "best"), ("test acc. %", "last")]
    columns += [(stage, measure) for stage in ("training", "inference") for measure in measures]
    num_seeds = int(summary["num_finished"].max())
    rows = []
    for label, result in zip(row_labels(summary), summary.to_dict("records"), strict=True):
        texts = detail_texts(result, scale=scale, num_seeds=num_seeds)
        rows.append(Row(label, [Entry(text, result_key(result)) for text in texts]))
    floors = {"majority class": agreed(summary["majority_rate"]), **_floors(runs)}
    blanks = [Entry()] * (len(columns) - 2)
    rows += _section(
        [Row(name, [Entry(percent(rate))] * 2 + blanks) for name, rate in floors.items()]
    )
    return Table(
        title=task_title(summary["task"].iloc[0]),
        columns=columns,
        rows=rows,
        caption=captions.join(
            captions.provenance(runs),
            captions.seeds(summary),
            captions.majority(summary),
            captions.detail_legend(unit),
        ),
        notes=[
            *captions.floor_notes(summary),
            *captions.cost_notes(summary),
            *captions.run_notes(runs),
        ],
    )


def comparison_table(summary: pd.DataFrame, *, against: str) -> Table:
    """Show how sure the accuracies of one task are, and how far each row is from the reference."""
    num_seeds = int(summary["num_finished"].max())
    columns = [("test accuracy %", "best"), ("test accuracy %", "95 %")]
    if summary["difference"].notna().any():
        columns += [(f"points over {against}", name) for name in ("difference", "95 %", "p")]
    rows = [
        Row(label, [Entry(text) for text in texts[: len(columns)]])
        for label, texts in zip(
            row_labels(summary),
            (comparison_texts(r, num_seeds=num_seeds) for r in summary.to_dict("records")),
            strict=True,
        )
    ]
    return Table(
        title=f"{task_title(summary['task'].iloc[0])}: differences",
        columns=columns,
        rows=rows,
        caption=captions.join(captions.seeds(summary), captions.comparison(summary)),
        notes=[
            *captions.comparison_notes(summary),
            *captions.reference_notes(summary, against=against),
        ],
    )


def cost_tables(runs: pd.DataFrame, summary: pd.DataFrame) -> list[Table]:
    """Show what the rows of one task cost beside training; columns without any value are left out.

    Without a finished run there is no table.
    """
    if not summary["num_finished"].any():
        return []
    columns = [("parameters", "count"), ("parameters", "rel.")]
    columns += [("forward pass", "FLOPs"), ("forward pass", "rel.")]
    columns += [("state", "numbers"), ("state", "rel.")]
    columns += [("latency, ms", "p50"), ("latency, ms", "p95")]
    columns += [("training, ex./s", name) for name in ("padded", "trimmed", "rel.")]
    texts = [cost_texts(result) for result in summary.to_dict("records")]
    kept = [index for index, column in enumerate(zip(*texts, strict=True)) if any(column)]
    columns = [columns[index] for index in kept]
    keys = map(result_key, summary.to_dict("records"))
    rows = [
        Row(label, [Entry(row[index], key) for index in kept])
        for label, key, row in zip(row_labels(summary), keys, texts, strict=True)
    ]
    return [
        Table(
            title=f"{task_title(summary['task'].iloc[0])}: cost",
            columns=columns,
            rows=rows,
            caption=captions.join(captions.provenance(runs), captions.cost_legend(columns)),
            notes=[*captions.size_notes(summary), *captions.cost_notes(summary)],
        )
    ]


def accuracy_table(runs: pd.DataFrame, summary: pd.DataFrame, *, published: pd.DataFrame) -> Table:
    """Show test accuracy of the best-validation weights, tasks as columns, and the average."""
    tasks = list(summary["task"].unique())
    averaged = [task for task in tasks if task not in NOT_AVERAGED]
    num_seeds = int(summary["num_finished"].max())
    ours, incomplete = [], []
    for label, results in by_row(summary):
        shown = [accuracy_entry(results.get(task), num_seeds=num_seeds) for task in tasks]
        values = {task: result["accuracy.best.test"] for task, result in results.items()}
        ours.append(Row(label, [*shown, _average(label, values, averaged, incomplete)]))
    of_task = {task: summary[summary["task"] == task] for task in tasks}
    rates = {task: agreed(results["majority_rate"]) for task, results in of_task.items()}
    floor = [_value_row("majority class", rates, tasks, averaged, incomplete)]
    shallow = {task: agreed(results["floor"]) for task, results in of_task.items()}
    if not all(map(isnan, shallow.values())):
        floor.append(_value_row("best shallow floor", shallow, tasks, averaged, incomplete))
    beside = published_beside(published, summary=summary, tasks=tasks)
    quoted = [_value_row(label, values, tasks, averaged, incomplete) for label, values in beside]
    return Table(
        title="Accuracy",
        columns=[*(("test accuracy %", task_title(task)) for task in tasks), ("", "Avg")],
        rows=[*ours, *_section(floor), *_section(quoted)],
        caption=captions.join(
            captions.provenance(runs),
            captions.seeds(summary),
            "Weights of the best validation accuracy.",
            captions.average(averaged),
            "Published rows keep their own protocols." if quoted else "",
        ),
        notes=[
            *captions.floor_notes(summary),
            *captions.fewer_tasks(FEWER_MARK, incomplete),
            *captions.run_notes(runs),
        ],
    )


def efficiency_table(runs: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Show training speed and peak memory, tasks as columns."""
    tasks = list(summary["task"].unique())
    scale, unit = memory_unit(summary)
    rows = []
    for label, results in by_row(summary):
        found = [results.get(task) for task in tasks]
        speeds = [cost_entry(result, "train.examples_per_second") for result in found]
        peaks = [cost_entry(result, "train.peak_memory_gib", scale=scale) for result in found]
        rows.append(Row(label, [*speeds, *peaks]))
    related = any("(" in entry.text for row in rows for entry in row.entries)
    headings = ("ex./s", f"peak memory, {unit}")
    return Table(
        title="Training speed and memory",
        columns=[(heading, task_title(task)) for heading in headings for task in tasks],
        rows=rows,
        caption=captions.join(
            captions.provenance(runs),
            captions.seeds(summary, spread=False, each_n=False),
            "ex./s: examples per second"
            + ("; in brackets: relative to softmax without ppSBN." if related else "."),
        ),
        notes=[*captions.cost_notes(summary), *captions.run_notes(runs)],
    )


def _floors(runs: pd.DataFrame) -> dict[str, float]:
    """Return what shallow predictors reach on the task of these runs, if their data are one."""
    known = pd.DataFrame([floors for floors in runs["floors"] if floors])
    return {f"floor: {name}": agreed(known[name]) for name in known.columns}


def _value_row(
    label: str,
    values: Mapping[str, float],
    tasks: Sequence[str],
    averaged: Sequence[str],
    incomplete: list[str],
) -> Row:
    shown = [Entry(percent(values[task])) for task in tasks]
    return Row(label, [*shown, _average(label, values, averaged, incomplete)])


def _average(
    label: str, values: Mapping[str, float], tasks: Sequence[str], incomplete: list[str]
) -> Entry:
    """Average over the tasks that have a value; a row that lacks some is marked and reported."""
    known = [values[task] for task in tasks if not isnan(values.get(task, nan))]
    if not known:
        return Entry()
    lacking = [task_title(task) for task in tasks if isnan(values.get(task, nan))]
    if lacking:
        incomplete.append(f"{label} lacks {', '.join(lacking)}")
    return Entry(percent(fmean(known)) + (FEWER_MARK if lacking else ""))


def _section(rows: Sequence[Row]) -> list[Row]:
    return [Row(row.label, row.entries, opens_section=not index) for index, row in enumerate(rows)]
