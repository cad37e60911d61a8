"""The look of every plot: one palette, panels side by side, one legend, reproducible files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, distinct to colour-blind readers; grey for its yellow, pale on white.
COLOURS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
MARKERS = ["o", "s", "D", "^"]
STYLES = ["-", "--", ":", "-."]
PANEL_SIZE = (5.0, 4.0)  # inches
LEGEND_WIDTH = 2.5


def draw_panels(
    titles: Sequence[str], *, num_columns: int = 3, legend: bool = False
) -> tuple[Figure, list[Axes]]:
    """Lay out one panel for each title, with room for a legend on the right if there is one."""
    num_columns = min(len(titles), num_columns)
    num_rows = -(-len(titles) // num_columns)
    width, height = PANEL_SIZE
    size = (width * num_columns + LEGEND_WIDTH * legend, height * num_rows)
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
    bars: str | None = None,
) -> None:
    """Draw the mean of y against x, a line for each value of a column; bars are one sd.

    Args:
        bars: Column of what the bars show instead, where each point is one row.
        names: The values that all panels of a figure share, whose order gives each its look.
    """
    order = [str(name) for name in (frame[line].unique() if names is None else names)]
    for name, rows in frame.groupby(line, sort=False):
        index = order.index(str(name))
        grouped = rows.dropna(subset=[y]).groupby(x)
        points = grouped[y].agg(["mean", "std"])
        spread = points["std"] if bars is None else grouped[bars].mean()
        axis.errorbar(
            points.index,
            points["mean"],
            yerr=spread.fillna(0),
            label=str(name),
            color=COLOURS[index % len(COLOURS)],
            linestyle=STYLES[index // len(COLOURS) % len(STYLES)],
            marker=MARKERS[index // len(COLOURS) % len(MARKERS)],
            markersize=4,
            capsize=2,
        )
    axis.set(xlabel=x, ylabel=y)


def draw_over_length(frame: pd.DataFrame, values: Mapping[str, str]) -> Figure:
    """Draw what attentions take over the length, all axes logarithmic, a panel for each mode.

    There a power of the length is a straight line, twice as steep for softmax as for linear
    attention.

    Args:
        frame: Columns ``attention``, ``mode`` and ``length``, and those to draw; several rows of
            one point are shown by their mean.
        values: The label of each column to draw, a row of panels each.
    """
    modes, names = list(frame["mode"].unique()), list(frame["attention"].unique())
    panels = [(value, mode) for value in values for mode in modes]
    titles = [mode.replace("_", " + ") for _, mode in panels]
    figure, axes = draw_panels(titles, num_columns=len(modes), legend=True)
    for axis, (value, mode) in zip(axes, panels, strict=True):
        shown = frame[(frame["mode"] == mode) & (frame[value] > 0)]
        draw_lines(axis, shown, x="length", y=value, line="attention", names=names)
        axis.set(xlabel="length (tokens)", ylabel=values[value])
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        lengths = sorted(shown["length"].unique())
        axis.set_xticks(lengths, [f"{length:,}" for length in lengths])
    draw_legend(figure, axes)
    return figure


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Save as PNG and as SVG of reproducible bytes; return both files."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        figure.savefig(png, dpi=150)
        figure.savefig(svg, metadata={"Date": None})
    return png, svg
