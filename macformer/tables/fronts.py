"""Draw accuracy against what it costs, and which rows no other row beats in both."""

from collections.abc import Sequence
from math import isnan

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from macformer.plotting import name_points
from macformer.tables.entries import Numbers, result_key, row_labels
from macformer.tables.panels import choose_looks, lay_out_panels, look_keys
from macformer.tables.runs import COUNTS

ACCURACY = "accuracy.best.test"
LOGARITHMIC_FROM = 10  # the largest cost over the smallest


def draw_front(
    summary: pd.DataFrame, column: str, *, label: str, smaller_is_better: bool
) -> Figure | None:
    """Draw test accuracy over a column, a panel for each task.

    Bars are intervals of 95 %, or one standard deviation over seeds where no predictions were kept.
    Lines are Pareto fronts, one for each device: the best accuracy at a cost or a better one; their
    rows are named. What was measured on a shared device is on none. Hollow marks have ppSBN, and
    horizontal lines are floors.

    Args:
        label: What the column is, with its unit.
        smaller_is_better: Whether it is a price and not a rate.
    """
    shown = summary.dropna(subset=[column, ACCURACY])
    shown = shown[shown[column] > 0]
    if shown.empty:
        return None
    looks = choose_looks(shown)
    figure, axes = lay_out_panels(shown, looks, lines=False, floors=True)
    fronts = []
    for task, axis in axes.items():
        results = shown[shown["task"] == task]
        _draw_results(axis, results, column, looks)
        axis.set(xlabel=label, ylabel="test accuracy (%)")
        axis.margins(0.15)
        if column not in COUNTS and not results["exclusive"].all():
            note = "some on a shared device"
            axis.set_title(note, loc="right", fontsize="small", color="dimgrey")
        values = results[column].to_numpy()
        if values.max() > LOGARITHMIC_FROM * values.min():
            axis.set_xscale("log")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        accuracy = 100 * results[ACCURACY].to_numpy()
        on_front = np.zeros(len(results), dtype=bool)
        for places in _comparable(results, column):
            gain = -values[places] if smaller_is_better else values[places]
            front = places[pareto_front(gain, accuracy[places])]
            front = front[np.argsort(values[front], kind="stable")]
            on_front[front] = True
            axis.plot(
                values[front],
                accuracy[front],
                drawstyle="steps-post" if smaller_is_better else "steps-pre",
                color="grey",
                linewidth=1,
                zorder=0,
            )
        fronts.append((axis, results, on_front))
    figure.draw_without_rendering()  # puts everything in its place
    for axis, results, on_front in fronts:
        points = np.stack([results[column], 100 * results[ACCURACY]], axis=1)
        name_points(
            figure,
            axis,
            points[on_front],
            [label for label, named in zip(row_labels(results), on_front, strict=True) if named],
            colours=[looks[key][0] for key in look_keys(results[on_front])],
            others=points[~on_front],
        )
    return figure


def pareto_front(
    gain: Float[np.ndarray, " rows"], accuracy: Float[np.ndarray, " rows"]
) -> Bool[np.ndarray, " rows"]:
    """Say which rows no other row beats: as good in both and better in one."""
    no_worse = (gain[:, None] >= gain) & (accuracy[:, None] >= accuracy)
    better = (gain[:, None] > gain) | (accuracy[:, None] > accuracy)
    return ~np.any(no_worse & better, axis=0)


def _comparable(results: pd.DataFrame, column: str) -> list[np.ndarray]:
    """Return the places of results whose costs compare: of one device, without other work on it."""
    if column in COUNTS:
        return [np.arange(len(results))]
    devices, alone = results["device"].to_numpy(), results["exclusive"].to_numpy(dtype=bool)
    return [np.flatnonzero(alone & (devices == device)) for device in np.unique(devices[alone])]


def _draw_results(axis: Axes, results: pd.DataFrame, column: str, looks: dict) -> None:
    for key, result in zip(look_keys(results), results.to_dict("records"), strict=True):
        colour, marker = looks[key]
        mark, *_ = axis.errorbar(
            result[column],
            100 * result[ACCURACY],
            yerr=_bar(result),
            color=colour,
            marker=marker,
            markersize=8,
            markerfacecolor=colour if result["ppsbn"] == "without" else "white",
            markeredgewidth=1.5,
            elinewidth=1,
        )
        mark.set_url(f"#{result_key(result)}")  # of the page's runs


def _bar(result: Numbers) -> Sequence[Sequence[float]] | None:
    """Return how far the bar of an accuracy reaches down and up."""
    accuracy, low, high = (result.get(name, float("nan")) for name in (ACCURACY, "low", "high"))
    if isnan(low):
        low, high = (accuracy + sign * result[f"{ACCURACY}.sd"] for sign in (-1, 1))
    if isnan(low):
        return None
    return [[100 * max(accuracy - low, 0)], [100 * max(high - accuracy, 0)]]
