"""Draw a sweep: accuracy against speed, and learning curves."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from macformer.tables.layout import row_label, task_title

# Okabe and Ito's palette, distinct to colour-blind readers; black is kept for softmax.
COLOURS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
MARKERS = ["o", "s", "D"]
SPEED, MEMORY = "train.examples_per_second", "train.peak_memory_gib"
ACCURACY = "accuracy.best.test"
LARGEST_AREA = 600  # points squared


def bubble_chart(summary: pd.DataFrame) -> Figure:
    """Draw accuracy against training speed, with peak memory as area, for each task.

    The chart of Long Range Arena (Tay et al. 2021, Figure 3), with a line at the majority class.
    """
    summary = summary[summary["num_finished"] > 0].dropna(subset=[SPEED, MEMORY, ACCURACY])
    figure, axes = _panels(summary["task"].unique())
    looks = _looks(summary)
    for task, axis in axes.items():
        cells = summary[summary["task"] == task]
        peak = cells[MEMORY].max()
        for cell in cells.to_dict("records"):
            colour, marker = looks[cell["attention"]]
            axis.scatter(
                cell[SPEED],
                100 * cell[ACCURACY],
                s=LARGEST_AREA * cell[MEMORY] / peak,
                marker=marker,
                facecolor=colour if cell["ppsbn"] == "without" else "none",
                edgecolor=colour,
                linewidth=1.5,
                alpha=0.8,
            )
        axis.axhline(100 * cells["majority_rate"].mean(), color="grey", linestyle=":", linewidth=1)
        axis.set(title=task_title(task), xlabel="training speed (examples/s)")
        axis.margins(0.15)
        axis.text(0.98, 0.02, f"largest area: {peak:.3g} GiB", transform=axis.transAxes, ha="right")
    _finish(figure, axes, summary, looks, ylabel="test accuracy (%)", majority=True)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Save as PNG and SVG."""
    files = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=150, bbox_inches="tight")
    return files


def _panels(tasks: Sequence[str]) -> tuple[Figure, dict[str, Axes]]:
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(5 * columns + 2, 4 * rows), layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for unused in grid[len(tasks) :]:
        unused.set_axis_off()
    return figure, dict(zip(tasks, grid, strict=False))


def _looks(summary: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Give each attention a colour, and a further marker once the colours are used up."""
    names = summary["attention"].unique()
    looks = [(colour, marker) for marker, colour in product(MARKERS, COLOURS)]
    return {name: looks[index % len(looks)] for index, name in enumerate(names)}


def _finish(
    figure: Figure,
    axes: dict[str, Axes],
    summary: pd.DataFrame,
    looks: dict[str, tuple[str, str]],
    *,
    ylabel: str,
    majority: bool,
) -> None:
    handles = []
    for attention, ppsbn in summary[["attention", "ppsbn"]].drop_duplicates().to_numpy():
        colour, marker = looks[attention]
        fill = colour if ppsbn == "without" else "none"
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=marker,
                markerfacecolor=fill,
                linestyle="",
                label=row_label(attention, ppsbn),
            )
        )
    if majority:
        handles.append(Line2D([], [], color="grey", linestyle=":", label="majority class"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    for axis in axes.values():
        axis.set_ylabel(ylabel)
        axis.spines[["top", "right"]].set_visible(False)
