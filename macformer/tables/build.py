"""Build the tables of a sweep from its summary."""

from collections.abc import Sequence

import pandas as pd

from macformer.tables import captions
from macformer.tables.layout import Cell, Row, Table, compact, percent, ratio, row_label, task_title
from macformer.tables.published import accuracies, published_table
from macformer.tables.summary import ROW

NOT_AVERAGED = {"pathx"}  # LRA's average leaves Path-X out
FEWER_MARK = "‡"
GIB_TO_MIB = 1024


def build_tables(
    runs: pd.DataFrame, summary: pd.DataFrame, *, published: pd.DataFrame
) -> list[Table]:
    """Lay out one task in detail; several as accuracies, costs, then each in detail."""
    tasks = list(summary["task"].unique())
    details = [detail_table(_of(runs, task), _of(summary, task)) for task in tasks]
    overview = [
        accuracy_table(runs, summary, published=published),
        efficiency_table(runs, summary),
    ]
    quoted = published_table(published, tasks)
    return [*(overview if len(tasks) > 1 else []), *details, *([quoted] if quoted else [])]


def detail_table(runs: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Show everything about the rows of one task."""
    scale, unit = _memory_unit(summary)
    columns = [
        ("test acc. %", "best"),
        ("test acc. %", "last"),
        *[
            (stage, name)
            for stage in ("training", "inference")
            for name in ("ex./s", "tok./s", "rel.", unit, "rel.")
        ],
        ("params", "count"),
        ("params", "rel."),
    ]
    show_n = _n_varies(summary)
    rows = [
        Row(label, [Cell(text, cell_key(cell)) for text in _detail_cells(cell, scale, show_n)])
        for label, cell in zip(_labels(summary), summary.to_dict("records"), strict=True)
    ]
    rate = percent(summary["majority_rate"].mean())
    blank = [Cell()] * (len(columns) - 2)
    rows.append(Row("majority class", [Cell(rate), Cell(rate), *blank], opens_section=True))
    return Table(
        title=task_title(summary["task"].iloc[0]),
        columns=columns,
        rows=rows,
        caption=_caption(runs, summary, captions.majority(summary), _COST_CAPTION),
        notes=[*captions.cost_notes(summary), *captions.run_notes(runs)],
    )


def accuracy_table(runs: pd.DataFrame, summary: pd.DataFrame, *, published: pd.DataFrame) -> Table:
    """Show test accuracy of the best-validation weights, tasks as columns, and the average."""
    tasks = list(summary["task"].unique())
    averaged = [task for task in tasks if task not in NOT_AVERAGED]
    show_n = _n_varies(summary)
    rows, incomplete = [], []
    for label, cells in _by_row(summary):
        shown = [_accuracy_cell(cells.get(task), show_n) for task in tasks]
        mean, lacking = _average({t: c["accuracy.best.test"] for t, c in cells.items()}, averaged)
        if mean and lacking:
            incomplete.append(f"{label} lacks {', '.join(map(task_title, lacking))}")
        rows.append(Row(label, [*shown, Cell(mean)]))
    rates = summary.groupby("task")["majority_rate"].mean()
    mean, _ = _average(rates.to_dict(), averaged)
    floor = [Cell(percent(rates[task])) for task in tasks]
    rows.append(Row("majority class", [*floor, Cell(mean)], opens_section=True))
    beside = _beside(summary, published, tasks)
    for index, (label, values) in enumerate(beside):
        shown = [Cell(percent(values.get(task, float("nan")))) for task in tasks]
        mean, lacking = _average(values, averaged)
        if mean and lacking:
            incomplete.append(f"{label} lacks {', '.join(map(task_title, lacking))}")
        rows.append(Row(label, [*shown, Cell(mean)], opens_section=index == 0))
    average = (
        f"Avg is the mean of the {len(averaged)} tasks {', '.join(map(task_title, averaged))}; "
        "blank cells are left out."
    )
    notes = [f"{FEWER_MARK} mean of fewer tasks, not comparable: {'; '.join(incomplete)}."]
    return Table(
        title="Accuracy",
        columns=[("test accuracy %", task_title(task)) for task in tasks] + [("", "Avg")],
        rows=rows,
        caption=_caption(
            runs,
            summary,
            "Weights of the best validation accuracy.",
            average,
            "Published rows keep their own protocols." if beside else "",
        ),
        notes=[*(notes if incomplete else []), *captions.run_notes(runs)],
    )


def efficiency_table(runs: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Show training speed and peak memory, tasks as columns."""
    tasks = list(summary["task"].unique())
    scale, unit = _memory_unit(summary)
    rows = []
    for label, cells in _by_row(summary):
        shown = [_cost_cell(cells.get(t), "train.examples_per_second", 1) for t in tasks]
        shown += [_cost_cell(cells.get(t), "train.peak_memory_gib", scale) for t in tasks]
        rows.append(Row(label, shown))
    titles = [task_title(task) for task in tasks]
    return Table(
        title="Training cost",
        columns=[("training ex./s", title) for title in titles]
        + [(f"peak memory, {unit}", title) for title in titles],
        rows=rows,
        caption=_caption(runs, summary, "In brackets: relative to softmax without ppSBN."),
        notes=[*captions.cost_notes(summary), *captions.run_notes(runs)],
    )


def cell_key(cell: dict) -> str:
    """Name a cell of the sweep within a page."""
    return "-".join(str(cell[key]) for key in ("task", *ROW)).replace(" ", "_")


_COST_CAPTION = (
    "best, last: weights of the best validation accuracy and of the last step; ex./s: examples per "
    "second; tok./s: real tokens per second, padding not counted; MiB, GiB: peak memory; rel.: "
    "relative to softmax without ppSBN (ex./s, memory, parameters)."
)


def _detail_cells(cell: dict, scale: float, show_n: bool) -> list[str]:
    mark = "" if cell["exclusive"] else captions.SHARED_MARK
    texts = [_accuracy_text(cell, "best", show_n), _accuracy_text(cell, "last", show_n)]
    for stage in ("train", "inference"):
        speed, memory = f"{stage}.examples_per_second", f"{stage}.peak_memory_gib"
        texts += [
            _marked(compact(cell[speed]), mark),
            _marked(compact(cell[f"{stage}.tokens_per_second"]), mark),
            ratio(cell[f"{speed}.relative"]),
            _marked(compact(scale * cell[memory]), mark),
            ratio(cell[f"{memory}.relative"]),
        ]
    return [*texts, compact(cell["num_parameters"]), ratio(cell["num_parameters.relative"])]


def _accuracy_text(cell: dict, rule: str, show_n: bool) -> str:
    if not cell["num_finished"]:
        return "failed" if cell["num_failed"] else "running"
    column = f"accuracy.{rule}.test"
    text = percent(cell[column], cell[f"{column}.sd"])
    return f"{text} ({cell['num_finished']})" if show_n and text else text


def _accuracy_cell(cell: dict | None, show_n: bool) -> Cell:
    return Cell(_accuracy_text(cell, "best", show_n), cell_key(cell)) if cell else Cell()


def _cost_cell(cell: dict | None, column: str, scale: float) -> Cell:
    if cell is None:
        return Cell()
    mark = "" if cell["exclusive"] else captions.SHARED_MARK
    text, relative = _marked(compact(scale * cell[column]), mark), ratio(cell[f"{column}.relative"])
    return Cell(f"{text} ({relative})" if relative else text, cell_key(cell))


def _marked(text: str, mark: str) -> str:
    return text + mark if text else text


def _average(values: dict[str, float], tasks: Sequence[str]) -> tuple[str, list[str]]:
    """Average over the tasks that have a value; name those that have none."""
    known = pd.Series({task: values.get(task, float("nan")) for task in tasks}, dtype=float)
    lacking = list(known.index[known.isna()])
    return _marked(percent(known.mean()), FEWER_MARK if lacking else ""), lacking


def _memory_unit(summary: pd.DataFrame) -> tuple[float, str]:
    peak = summary[["train.peak_memory_gib", "inference.peak_memory_gib"]].max(axis=None)
    return (1.0, "GiB") if peak >= 1 else (GIB_TO_MIB, "MiB")


def _n_varies(summary: pd.DataFrame) -> bool:
    return summary.loc[summary["num_finished"] > 0, "num_finished"].nunique() > 1


def _labels(summary: pd.DataFrame) -> list[str]:
    """Label rows, adding recipe and device where several are mixed."""
    extra = [key for key in ("recipe", "device") if summary[key].nunique() > 1]
    return [
        ", ".join([row_label(cell["attention"], cell["ppsbn"]), *(cell[key] for key in extra)])
        for cell in summary.to_dict("records")
    ]


def _by_row(summary: pd.DataFrame) -> list[tuple[str, dict[str, dict]]]:
    """Gather the cells of each row of a task-by-task table."""
    rows: dict[tuple, tuple[str, dict[str, dict]]] = {}
    for label, cell in zip(_labels(summary), summary.to_dict("records"), strict=True):
        key = tuple(cell[name] for name in ROW)
        rows.setdefault(key, (label, {}))[1][cell["task"]] = cell
    return list(rows.values())


def _beside(
    summary: pd.DataFrame, published: pd.DataFrame, tasks: list[str]
) -> list[tuple[str, dict[str, float]]]:
    """Pick the published rows that stand beside one of ours."""
    known = accuracies(published, tasks)
    ours = pd.MultiIndex.from_frame(summary[["attention", "ppsbn"]])
    known = known[pd.MultiIndex.from_frame(known[["attention", "ppsbn"]]).isin(ours)]
    return [
        (f"{entry['model']}, {entry['source_document']}", {task: entry[task] for task in tasks})
        for entry in known.to_dict("records")
    ]


def _caption(runs: pd.DataFrame, summary: pd.DataFrame, *sentences: str) -> str:
    parts = [captions.provenance(runs), captions.seeds(summary), *sentences]
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:]


def _of(frame: pd.DataFrame, task: str) -> pd.DataFrame:
    return frame[frame["task"] == task].reset_index(drop=True)
