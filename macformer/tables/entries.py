"""Turn the numbers of one cell of a sweep into what a table shows."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from macformer.tables.layout import Cell, compact, percent, ratio, row_label
from macformer.tables.summary import ROW

GIB_TO_MIB = 1024
SHARED_MARK = "†"  # measured on a device that other runs used too

Numbers = Mapping[Any, Any]


def cell_key(cell: Numbers) -> str:
    """Name a cell of the sweep within a page."""
    return re.sub(r"[^\w.-]+", "_", "-".join(str(cell[key]) for key in ("task", *ROW)))


def row_labels(frame: pd.DataFrame) -> list[str]:
    """Label rows, adding recipe and device where several are mixed."""
    extra = [key for key in ("recipe", "device") if frame[key].nunique() > 1]
    return [
        ", ".join([row_label(cell["attention"], cell["ppsbn"]), *(cell[key] for key in extra)])
        for cell in frame.to_dict("records")
    ]


def by_row(summary: pd.DataFrame) -> list[tuple[str, dict[str, Numbers]]]:
    """Gather the cells of each row of a table that has tasks as columns."""
    rows: dict[tuple, tuple[str, dict[str, Numbers]]] = {}
    for label, cell in zip(row_labels(summary), summary.to_dict("records"), strict=True):
        key = tuple(cell[name] for name in ROW)
        rows.setdefault(key, (label, {}))[1][cell["task"]] = cell
    return list(rows.values())


def memory_unit(summary: pd.DataFrame) -> tuple[int, str]:
    """Choose the unit that keeps the largest peak readable, and its number in a GiB."""
    peaks = summary[["train.peak_memory_gib", "inference.peak_memory_gib"]].to_numpy()
    return (1, "GiB") if (peaks >= 1).any() else (GIB_TO_MIB, "MiB")


def accuracy_text(cell: Numbers, rule: str, *, num_seeds: int) -> str:
    """Show test accuracy under one selection rule, with n where it falls short of `num_seeds`."""
    if not cell["num_finished"]:
        return _status(cell)
    column = f"accuracy.{rule}.test"
    text = percent(cell[column], cell[f"{column}.sd"])
    return f"{text} ({cell['num_finished']})" if text and cell["num_finished"] < num_seeds else text


def accuracy_cell(cell: Numbers | None, *, num_seeds: int) -> Cell:
    """Show the accuracy of the best-validation weights; blank where the sweep has no such cell."""
    if cell is None:
        return Cell()
    return Cell(accuracy_text(cell, "best", num_seeds=num_seeds), cell_key(cell))


def cost_cell(cell: Numbers | None, column: str, *, scale: int = 1) -> Cell:
    """Show a cost with its ratio to softmax in brackets."""
    if cell is None:
        return Cell()
    if not cell["num_finished"]:
        return Cell(_status(cell), cell_key(cell))
    text, relative = cost_text(cell, column, scale=scale), ratio(cell[f"{column}.relative"])
    return Cell(f"{text} ({relative})" if relative else text, cell_key(cell))


def cost_text(cell: Numbers, column: str, *, scale: int = 1) -> str:
    text = compact(scale * cell[column])
    return text + SHARED_MARK if text and not cell["exclusive"] else text


def detail_texts(cell: Numbers, *, scale: int, num_seeds: int) -> list[str]:
    """Show all quantities of one cell, in the order of the detailed table's columns."""
    texts = [accuracy_text(cell, rule, num_seeds=num_seeds) for rule in ("best", "last")]
    for stage in ("train", "inference"):
        speed, memory = f"{stage}.examples_per_second", f"{stage}.peak_memory_gib"
        texts += [
            cost_text(cell, speed),
            cost_text(cell, f"{stage}.tokens_per_second"),
            ratio(cell[f"{speed}.relative"]),
            cost_text(cell, memory, scale=scale),
            ratio(cell[f"{memory}.relative"]),
        ]
    return [*texts, compact(cell["num_parameters"]), ratio(cell["num_parameters.relative"])]


def _status(cell: Numbers) -> str:
    return "failed" if cell["num_failed"] else "running"
