"""Panels of a sweep's plots: one for each task, one look for each row, one legend."""

from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from macformer.plotting import COLOURS, MARKERS, draw_panels, place_legend, save
from macformer.tables.entries import row_labels
from macformer.tables.layout import Plot, task_title
from macformer.tables.summary import ROW, agreed

FLOORS = {
    "majority_rate": ("majority class", ":"),
    "floor": ("best shallow floor", (0, (5, 1, 1, 1))),
}

Looks = dict[tuple, tuple[str, str]]  # row -> colour and marker


def lay_out_panels(
    frame: pd.DataFrame, looks: Looks, *, lines: bool, floors: bool
) -> tuple[Figure, dict[str, Axes]]:
    """Lay out a panel for each task, and one legend for all.

    Args:
        floors: Whether accuracies are drawn, with lines at what no attention is needed for.
    """
    tasks = list(frame["task"].unique())
    figure, panels = draw_panels([task_title(task) for task in tasks], legend=True)
    axes = dict(zip(tasks, panels, strict=True))
    handles = _row_handles(frame, looks, lines=lines)
    for column, (name, style) in FLOORS.items() if floors else ():
        rates = 100 * frame.groupby("task")[column].agg(agreed).dropna()
        line = {"color": "grey", "linestyle": style, "linewidth": 1}
        for task, rate in rates.items():
            axes[str(task)].axhline(rate, **line, zorder=0)
        if len(rates):
            handles.append(Line2D([], [], **line, label=name))
    place_legend(figure, handles, [str(handle.get_label()) for handle in handles])
    return figure, axes


def choose_looks(frame: pd.DataFrame) -> Looks:
    """Give each row a colour, and a further marker once the colours are used up."""
    available = [(colour, marker) for marker, colour in product(MARKERS, COLOURS)]
    keys = dict.fromkeys(look_keys(frame))
    return {key: available[index % len(available)] for index, key in enumerate(keys)}


def curve_marker(looks: Looks, key: tuple) -> str:
    """Return the marker of a row's curve: none where colours alone tell the rows apart."""
    return looks[key][1] if len(looks) > len(COLOURS) else ""


def look_keys(frame: pd.DataFrame) -> list[tuple]:
    """Name what shares a colour: rows but for their ppSBN, which line and fill show."""
    return list(frame[[name for name in ROW if name != "ppsbn"]].itertuples(index=False, name=None))


def save_plot(figure: Figure, title: str, stem: Path, *, caption: str = "") -> Plot:
    return Plot(title, *save(figure, stem), caption)


def _row_handles(frame: pd.DataFrame, looks: Looks, *, lines: bool) -> list[Line2D]:
    rows = frame.assign(label=row_labels(frame)).drop_duplicates("label")
    handles = []
    for key, row in zip(look_keys(rows), rows.to_dict("records"), strict=True):
        colour, marker = looks[key]
        without = row["ppsbn"] == "without"
        handle = Line2D([], [], color=colour, label=row["label"])
        handle.set(linestyle="-" if without else "--", marker=curve_marker(looks, key))
        if not lines:
            handle.set(linestyle="", marker=marker, markerfacecolor=colour if without else "none")
        handles.append(handle)
    return handles
