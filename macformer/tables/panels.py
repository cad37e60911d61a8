"""Panels shared by all plots: one for each task, one look for each row, one legend."""

from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from macformer.tables.entries import row_labels
from macformer.tables.layout import Plot, task_title
from macformer.tables.summary import ROW

# Okabe and Ito's palette, distinct to colour-blind readers; grey for its yellow, pale on white.
COLOURS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
MARKERS = ["o", "s", "D", "^"]
PANEL_SIZE = (5.0, 4.0)  # inches
LEGEND_WIDTH = 2.5

Looks = dict[tuple, tuple[str, str]]  # row -> colour and marker


def lay_out_panels(
    frame: pd.DataFrame, looks: Looks, *, lines: bool, majority: bool
) -> tuple[Figure, dict[str, Axes]]:
    """Lay out a panel for each task, and one legend for all."""
    tasks = list(frame["task"].unique())
    num_columns = min(len(tasks), 3)
    num_rows = -(-len(tasks) // num_columns)
    width, height = PANEL_SIZE
    size = (width * num_columns + LEGEND_WIDTH, height * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = np.ravel(figure.subplots(num_rows, num_columns, squeeze=False))
    for unused in grid[len(tasks) :]:
        unused.set_axis_off()
    axes = dict(zip(tasks, grid, strict=False))
    for task, axis in axes.items():
        axis.set_title(task_title(task), loc="left", fontweight="bold")
        axis.spines[["top", "right"]].set_visible(False)
        if majority:
            rate = 100 * frame.loc[frame["task"] == task, "majority_rate"].mean()
            axis.axhline(rate, color="grey", linestyle=":", linewidth=1)
    handles = _row_handles(frame, looks, lines=lines)
    if majority:
        handles.append(Line2D([], [], color="grey", linestyle=":", label="majority class"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure, axes


def choose_looks(frame: pd.DataFrame) -> Looks:
    """Give each row a colour, and a further marker once the colours are used up."""
    available = [(colour, marker) for marker, colour in product(MARKERS, COLOURS)]
    keys = dict.fromkeys(look_keys(frame))
    return {key: available[index % len(available)] for index, key in enumerate(keys)}


def look_keys(frame: pd.DataFrame) -> list[tuple]:
    """Name what shares a colour: rows but for their ppSBN, which line and fill show."""
    return list(frame[[name for name in ROW if name != "ppsbn"]].itertuples(index=False, name=None))


def save(figure: Figure, title: str, stem: Path, *, caption: str = "") -> Plot:
    """Save as PNG and as SVG of reproducible bytes."""
    plot = Plot(title, stem.with_suffix(".png"), stem.with_suffix(".svg"), caption)
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        figure.savefig(plot.png, dpi=150)
        figure.savefig(plot.svg, metadata={"Date": None})
    return plot


def _row_handles(frame: pd.DataFrame, looks: Looks, *, lines: bool) -> list[Line2D]:
    rows = frame.assign(label=row_labels(frame)).drop_duplicates("label")
    handles = []
    for key, row in zip(look_keys(rows), rows.to_dict("records"), strict=True):
        colour, marker = looks[key]
        without = row["ppsbn"] == "without"
        handle = Line2D([], [], color=colour, label=row["label"])
        handle.set_linestyle("-" if without else "--")
        if not lines:
            handle.set(linestyle="", marker=marker, markerfacecolor=colour if without else "none")
        handles.append(handle)
    return handles
