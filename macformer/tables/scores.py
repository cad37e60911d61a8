"""The table of what a task is scored by beside accuracy."""

import pandas as pd

from macformer.tables import captions
from macformer.tables.entries import result_key, row_labels
from macformer.tables.layout import Entry, Row, Table, percent, task_title

_PREFIX, _TEST = "scores.", ".test."
_RULES = ("best", "last")


def has_scores(summary: pd.DataFrame) -> bool:
    """Say whether a row of one task has a metric beside accuracy."""
    return bool(_names(summary))


def score_table(summary: pd.DataFrame) -> Table:
    """Show each metric of one task, of the weights best in validation and of the last ones."""
    names = _names(summary)
    rows = []
    for label, result in zip(row_labels(summary), summary.to_dict("records"), strict=True):
        columns = [_column(name, rule) for name in names for rule in _RULES]
        texts = [percent(result[column], result[f"{column}.sd"]) for column in columns]
        rows.append(Row(label, [Entry(text, result_key(result)) for text in texts]))
    return Table(
        title=f"{task_title(summary['task'].iloc[0])}: scores beside accuracy",
        columns=[(f"test {_written(name)} %", rule) for name in names for rule in _RULES],
        rows=rows,
        caption=captions.seeds(summary, each_n=False),
    )


def _written(name: str) -> str:
    return name.replace("_", " ").replace(" f1", " F1")


def _column(name: str, rule: str) -> str:
    return f"{_PREFIX}{rule}{_TEST}{name}"


def _names(summary: pd.DataFrame) -> list[str]:
    prefix = _column("", "best")
    columns = [str(column) for column in summary if summary[column].notna().any()]
    return [
        column.removeprefix(prefix)
        for column in columns
        if column.startswith(prefix) and not column.endswith(".sd")
    ]
