"""The look of every plot: one palette, panels side by side, one legend, reproducible files."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from macformer.whole_file import replaced

# Okabe and Ito's palette, distinct to colour-blind readers; grey for its yellow, pale on white.
COLOURS = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"]
MARKERS = ["o", "s", "D", "^", "v", "X"]
STYLES = ["-", "--", ":", "-."]
PANEL_SIZE = (5.0, 4.0)  # inches
LEGEND_WIDTH = 2.5
LEGEND_LINE = 0.23  # inches of height that a name takes
NEAR, LEADER = 10, {"arrowstyle": "-", "linewidth": 0.5, "color": "grey", "shrinkA": 0}
MARK_RADIUS = 5.0  # points of a mark and the air around it
# Where the name of a point may stand, in points from it: on eight sides, the near ones first.
LABEL_PLACES = [
    (distance * x, distance * y)
    for distance in (7, 14, 22, 32, 44)
    for x, y in sorted(product((1, -1, 0), repeat=2), key=lambda side: -abs(side[0]))
    if (x, y) != (0, 0)
]


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
    place_legend(figure, list(lines.values()), list(lines))


def place_legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Put a legend beside all panels, in as many columns as its names take."""
    width, height = figure.get_size_inches()
    num_columns = max(1, math.ceil(len(names) * LEGEND_LINE / height))
    figure.set_size_inches(width + (num_columns - 1) * LEGEND_WIDTH, height)
    figure.legend(handles, names, loc="outside right upper", ncols=num_columns, frameon=False)


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


def name_points(
    figure: Figure,
    axis: Axes,
    points: Float[np.ndarray, "named 2"],
    names: Sequence[str],
    *,
    colours: Sequence[str],
    others: Float[np.ndarray, "others 2"],
) -> None:
    """Write a name beside each point where it hides no other name and no point.

    Each takes the nearest of some places around its point that is free, or the one that hides
    least. The figure must have been laid out before, since places are those on the page.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()  # measures words
    radius = MARK_RADIUS * figure.dpi / 72
    marks = [
        Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius)
        for x, y in axis.transData.transform(np.concatenate([points, others]))
    ]
    frame, taken = axis.get_window_extent(), list(marks)
    for point, name, colour in zip(points, names, colours, strict=True):
        hidden = []
        for place in LABEL_PLACES:
            text, box = _write(axis, name, point, place, colour=colour, renderer=renderer)
            text.remove()
            outside = box.width * box.height - _area(Bbox.intersection(box, frame))
            hidden.append(outside + sum(_area(Bbox.intersection(box, other)) for other in taken))
        best = LABEL_PLACES[int(np.argmin(hidden))]
        _, box = _write(axis, name, point, best, colour=colour, renderer=renderer)
        taken.append(box)


def _write(
    axis: Axes,
    name: str,
    point: np.ndarray,
    place: tuple[float, float],
    *,
    colour: str,
    renderer: RendererAgg,
) -> tuple[Text, Bbox]:
    """Write a name at an offset from its point, which a line leads to unless it is near."""
    x, y = place
    text = axis.annotate(
        name,
        (float(point[0]), float(point[1])),
        place,
        textcoords="offset points",
        horizontalalignment="center" if x == 0 else "left" if x > 0 else "right",
        verticalalignment="center" if y == 0 else "bottom" if y > 0 else "top",
        fontsize=8,
        color=colour,
        arrowprops=LEADER if max(abs(x), abs(y)) > NEAR else None,
    )
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    text.set_in_layout(False)
    text.update_positions(renderer)
    return text, Text.get_window_extent(text, renderer)  # of the words, without the line


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Save as PNG and as SVG of reproducible bytes; return both files."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        with replaced(png) as file:
            figure.savefig(file, format="png", dpi=150)
        with replaced(svg) as file:
            figure.savefig(file, format="svg", metadata={"Date": None})
    return png, svg
