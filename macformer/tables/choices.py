"""Show which setting each row stands at in a table of tuned rows, and of how many."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from macformer.tables.entries import by_row
from macformer.tables.layout import Entry, Row, Table, percent, task_title
from macformer.tables.summary import ranked

HIGHEST, LOWEST = "↑", "↓"
NO_CHOICE = (Entry(), Entry(), Entry())


def choices_table(chosen: pd.DataFrame) -> Table:
    """Show the chosen options of each row, tasks as columns.

    Args:
        chosen: As :func:`macformer.tables.settings.select_best` returns it.
    """
    chosen = ranked(chosen)
    tasks = list(chosen["task"].unique())
    rows = [
        Row(label, [entry for task in tasks for entry in _entries(found.get(task))])
        for label, found in by_row(chosen)
    ]
    names = ("chosen", "of settings", "validation acc. %")
    texts = "".join(entry.text for row in rows for entry in row.entries)
    ends = f"{HIGHEST}, {LOWEST}: the highest, the lowest value tried; a better one may lie beyond."
    return Table(
        title="Settings chosen",
        columns=[(task_title(task), name) for task in tasks for name in names],
        rows=rows,
        caption="Each row stands at the setting of its best mean validation accuracy over seeds; "
        "the test has no say in it." + (f" {ends}" if HIGHEST in texts or LOWEST in texts else ""),
        notes=_short_notes(chosen),
    )


def choice_note(chosen: pd.DataFrame) -> str:
    """Say under the first table how its rows were tuned."""
    options = ", ".join(dict.fromkeys(name for found in chosen["chosen"] for name in found))
    counts = chosen["num_settings"]
    number = str(counts.min()) if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"
    return (
        f"Tuned rows: {options} chosen by mean validation accuracy, of {number} settings each "
        "(Settings chosen)."
    )


def _entries(found: Mapping[Any, Any] | None) -> Sequence[Entry]:
    if found is None:
        return NO_CHOICE
    texts = [
        (f"{name}=" if len(found["chosen"]) > 1 else "") + value + _end(value, found["tried"][name])
        for name, value in found["chosen"].items()
    ]
    return (
        Entry(", ".join(texts)),
        Entry(str(found["num_settings"])),
        Entry(percent(found["validation"])),
    )


def _end(value: str, tried: Sequence[str]) -> str:
    """Mark a number at an end of those tried, where all of them are numbers."""
    if len(tried) < 2 or not all(map(_is_number, tried)):
        return ""
    return {tried[0]: LOWEST, tried[-1]: HIGHEST}.get(value, "")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _short_notes(chosen: pd.DataFrame) -> list[str]:
    return [
        f"{label}, {task_title(task)}: {found['num_short']} further "
        f"setting{'s' * (found['num_short'] > 1)} with fewer finished seeds did not compete."
        for label, tasks in by_row(chosen)
        for task, found in tasks.items()
        if found["num_short"]
    ]
