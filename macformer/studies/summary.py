"""Reduce rows over seeds, and draw them with their spread."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macformer.tables.panels import COLOURS, PANEL_SIZE


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Give mean, standard deviation and number of one value in each group, in the rows' order."""
    groups = frame.dropna(subset=[value]).groupby(list(by), sort=False, dropna=False)[value]
    return groups.agg(["mean", "std", "count"]).reset_index()


def mean_sd(mean: float, sd: float, *, digits: int = 3) -> str:
    """Show a mean to some significant digits, with its standard deviation where there is one."""
    if pd.isna(mean):
        return ""
    shown = f"{mean:.{digits}g}"
    return shown if pd.isna(sd) else f"{shown} ± {sd:.2g}"


def draw_panels(titles: Sequence[str], *, num_columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Lay out one panel for each title, in the look of the tables' plots."""
    num_columns = min(len(titles), num_columns)
    num_rows = -(-len(titles) // num_columns)
    size = (PANEL_SIZE[0] * num_columns, PANEL_SIZE[1] * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, loc="left", fontweight="bold")
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[: len(titles)]


def draw_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Name the lines of all panels once, beside them."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    lines = {label: line for pair in found for line, label in zip(*pair, strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", frameon=False)


def draw_lines(
    axis: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    line: str,
    names: Sequence[str] | None = None,
) -> None:
    """Draw the mean over seeds against x, a line for each value of a column; bars are one sd.

    Args:
        names: The values that all panels of a figure share, whose order gives each its colour.
    """
    order = [str(name) for name in (frame[line].unique() if names is None else names)]
    for name, rows in frame.groupby(line, sort=False):
        index = order.index(str(name))
        points = over_seeds(rows, [x], y).sort_values(x)
        axis.errorbar(
            points[x],
            points["mean"],
            yerr=points["std"].fillna(0),
            label=str(name),
            color=COLOURS[index % len(COLOURS)],
            linestyle=("-", "--", ":")[index // len(COLOURS) % 3],
            marker="o",
            markersize=4,
            capsize=2,
        )
    axis.set_xlabel(x)
    axis.set_ylabel(y)
