"""Draw a sweep: accuracy against its costs, and learning curves with the spread of their seeds."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from macformer.record import CURVE_NAME
from macformer.tables.entries import result_key
from macformer.tables.fronts import draw_front
from macformer.tables.layout import Plot
from macformer.tables.panels import (
    choose_looks,
    curve_marker,
    lay_out_panels,
    look_keys,
    save_plot,
)
from macformer.tables.summary import RESULT, keys_of, ranked

NUM_MARKERS = 6  # along a curve, where colours alone do not tell all of them apart
SPEED, OPERATIONS = "train.examples_per_second", "cost.flops"


def draw_plots(runs: pd.DataFrame, summary: pd.DataFrame, *, out: Path) -> list[Plot]:
    """Save the plots that the runs have data for."""
    drawn = [
        (
            "Accuracy against speed",
            "front_speed",
            draw_front(
                summary, SPEED, label="training speed (examples/s)", smaller_is_better=False
            ),
        ),
        (
            "Accuracy against operations",
            "front_operations",
            draw_front(
                summary,
                OPERATIONS,
                label="operations of a forward pass (FLOPs per example)",
                smaller_is_better=True,
            ),
        ),
        (
            "Validation accuracy",
            "curves_accuracy",
            learning_curves(runs, "val/accuracy", ylabel="validation accuracy (%)"),
        ),
        (
            "Training loss",
            "curves_loss",
            learning_curves(runs, "train/loss", ylabel="training loss (nats)"),
        ),
    ]
    return [
        save_plot(figure, title, out / stem) for title, stem, figure in drawn if figure is not None
    ]


def learning_curves(runs: pd.DataFrame, column: str, *, ylabel: str) -> Figure | None:
    """Draw one logged quantity over the steps: the mean over seeds in a band from least to most."""
    runs = ranked(runs)
    curves = {key: _curves(seeds, column) for key, seeds in runs.groupby(RESULT)}
    shown = runs[[not curves[key].empty for key in keys_of(runs)]]
    if shown.empty:
        return None
    looks = choose_looks(shown)
    is_accuracy = column.endswith("accuracy")
    figure, axes = lay_out_panels(shown, looks, lines=True, floors=is_accuracy)
    for name, seeds in shown.groupby(RESULT, sort=False):
        values = 100 * curves[name] if is_accuracy else curves[name]
        row = seeds.iloc[0]
        key = look_keys(seeds)[0]
        colour, _ = looks[key]
        axis = axes[row["task"]]
        every = -(-len(values) // NUM_MARKERS)
        start = every * list(looks).index(key) // len(looks)  # each its own: none hides another
        (line,) = axis.plot(
            values.index,
            values.mean(axis=1),
            color=colour,
            linestyle="-" if row["ppsbn"] == "without" else "--",
            marker=curve_marker(looks, key),
            markevery=(start, every),
        )
        line.set_url(f"#{result_key(row.to_dict())}")  # of the page's runs
        lowest, highest = values.min(axis=1), values.max(axis=1)
        axis.fill_between(values.index, lowest, highest, color=colour, alpha=0.1, linewidth=0)
    for axis in axes.values():
        axis.set(xlabel="optimiser step", ylabel=ylabel)
    return figure


def _curves(seeds: pd.DataFrame, column: str) -> pd.DataFrame:
    """Read the curves of a row, one column for each seed, over the steps that all of them have.

    Those of its finished runs; if it has none, what the others reached.
    """
    finished = seeds[seeds["status"] == "finished"]
    folders = (seeds if finished.empty else finished)["folder"]
    curves = [read_curve(folder / CURVE_NAME, column) for folder in folders]
    logged = [curve for curve in curves if not curve.empty]
    return pd.concat(logged, axis=1).dropna().sort_index() if logged else pd.DataFrame()


def read_curve(file: Path, column: str) -> pd.Series:
    """Read one column over the steps where it was logged; empty where it never was."""
    try:
        log = pd.read_csv(file, usecols=["step", column])
    except (OSError, ValueError):  # no log, no such column, or a log cut off with its run
        return pd.Series(dtype=float)
    return log.dropna().groupby("step")[column].last()
