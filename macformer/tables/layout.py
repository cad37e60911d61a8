"""A table as it is shown: text, a caption and notes, for every format alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from macformer.record import add_ppsbn, printable

TIMES = "\N{MULTIPLICATION SIGN}"
SMALL = 0.095  # of a ratio, which then has two significant digits
TASK_TITLES = {
    "listops": "ListOps",
    "text": "Text",
    "retrieval": "Retrieval",
    "image": "Image",
    "pathfinder": "Pathfinder",
    "pathx": "Path-X",
}


@dataclass(frozen=True)
class Entry:
    """What one place of a table shows, and the result that it comes from, if any."""

    text: str = ""
    source: str = ""


@dataclass(frozen=True)
class Row:
    label: str
    entries: Sequence[Entry]
    opens_section: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under columns, each a heading that neighbours may share and a name of its own.

    Args:
        num_text_columns: How many of the last columns hold words rather than numbers.
    """

    title: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    caption: str
    notes: Sequence[str] = ()
    num_text_columns: int = 0


@dataclass(frozen=True)
class Plot:
    title: str
    png: Path
    svg: Path
    caption: str = ""


def task_title(task: str) -> str:
    return TASK_TITLES.get(task, task)


def row_label(attention: str, ppsbn: str, *options: str) -> str:
    """Name a row by its attention, its ppSBN and the options that set it apart."""
    label = add_ppsbn(attention, ppsbn)
    settings = ", ".join(filter(None, options))
    return printable(f"{label} ({settings})" if settings else label)


def percent(share: float, sd: float = float("nan")) -> str:
    """Show a share in %, with its standard deviation where several seeds give one."""
    if isnan(share):
        return ""
    return f"{100 * share:.2f}" + ("" if isnan(sd) else f" ± {100 * sd:.2f}")


def compact(value: float) -> str:
    """Show three significant digits, with K, M or G for thousands."""
    if isnan(value):
        return ""
    for unit in ("", "K", "M"):
        if abs(value) < 999.5:
            return _three_digits(value) + unit
        value /= 1000
    return _three_digits(value) + "G"


def ratio(value: float) -> str:
    """Show a ratio to a hundredth, a small one to two significant digits."""
    if isnan(value):
        return ""
    return (f"{value:.2f}" if value >= SMALL else f"{value:.2g}") + TIMES


def _three_digits(value: float) -> str:
    text = f"{value:#.3g}" if abs(value) < 999.5 else f"{value:.0f}"
    return text.rstrip(".")
