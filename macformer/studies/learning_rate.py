"""Accuracy over the learning rate, for each row: did every method have its chance?

Each point is a cell as ``macformer-train`` runs it, in a folder of its own, which goes on where it
was stopped. What is finished is read and not trained again, under ``overwrite=true`` either.

The rate of a row is the one with the best mean validation accuracy over seeds; the test has no say
in it. A cell that failed, by a loss that is no longer finite, say, has a reason and no accuracy. A
rate at which fewer seeds finished than at another one does not compete: the mean of those that got
through is no promise for the next one.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from macformer.plotting import COLOURS, MARKERS, draw_legend, draw_panels
from macformer.record import read_metrics, write_config
from macformer.runs.data_now import DataNow
from macformer.runs.process import run_in_process
from macformer.studies.compose import compose_cell
from macformer.studies.runner import StudyError
from macformer.studies.seeds import mean_sd
from macformer.tables.layout import row_label, task_title
from macformer.tables.uncertainty import half_width, wilson_interval

ROW = ["task", "attention", "ppsbn"]
SPREAD = 1.04  # between the marks of neighbouring rows at one rate
RING = 11  # points across


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List each row at each rate; seeds are outermost, so that what is done are whole seeds.

    The sweep that holds their cells belongs to the points: another one is another study.
    """
    shared = {"sweep": cfg.study.sweep, "task": cfg.study.settings.options.task}
    return [
        {**shared, "attention": row.attention, "ppsbn": row.ppsbn, "learning_rate": rate}
        | {"max_steps": cfg.grid.max_steps, "seed": seed}
        for seed, row, rate in product(cfg.seeds, cfg.grid.rows, cfg.grid.learning_rate)
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Run the cell of a point, unless it has been run.

    Raises:
        StudyError: If it was stopped, another process runs it, or it was run on other data.
    """
    cell = _compose(point, cfg)
    run_dir = Path(cell.paths.run_dir)
    if change := DataNow().change(cell, run_dir):
        raise StudyError(f"{run_dir.name}: {change}; study.sweep=<name> begins another study")
    write_config(run_dir, cell)
    finished = run_in_process(run_dir, overwrite=False)
    metrics = read_metrics(run_dir) or {}
    if not finished and metrics.get("status") != "failed":
        raise StudyError(f"{run_dir} is not finished; the same command goes on with it")
    accuracy = metrics["accuracy"]["best"] if finished else {"val": None, "test": None}
    yield {
        "recipe_rate": cell.protocol.learning_rate,
        "validation": accuracy["val"],
        "accuracy": accuracy["test"],
        "num_examples": metrics["num_examples"]["test"] if finished else None,
        "majority_rate": metrics.get("majority_rate"),
        "reason": metrics["reason"],
    }


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show test accuracy at each rate, and what the choice by validation brings."""
    rates = sorted(frame["learning_rate"].unique())
    rows = []
    for (task, attention, ppsbn), group in frame.groupby(ROW, sort=False):
        row: dict[str, str | float] = {
            "task": task_title(str(task)),
            "row": row_label(str(attention), str(ppsbn)),
        }
        at = {rate: seeds for rate, seeds in group.groupby("learning_rate")}
        for rate in rates:
            row[f"accuracy % at {rate:g}"] = _accuracy(at[rate]) if rate in at else ""
        best, own = choose_rate(group), group["recipe_rate"].iloc[0]
        row["chosen by validation"] = "" if best is None else f"{best:g}" + _edge(best, rates)
        if best is not None and own in at:
            row[f"gain over {own:g}"] = _gain(at[best]["accuracy"], at[own]["accuracy"])
        row["failed"] = f"{int(group['accuracy'].isna().sum())} of {len(group)}"
        rows.append(row)
    return pd.DataFrame(rows)


def plot(frame: pd.DataFrame) -> Figure:
    """Draw test accuracy over the rate, a panel for each task.

    A ring is the choice; the mean of fewer seeds than finished at another rate is hollow.
    """
    tasks = list(frame["task"].unique())
    labels = list(dict.fromkeys(_label(row) for row in frame.to_dict("records")))
    figure, axes = draw_panels([task_title(task) for task in tasks], legend=True)
    for axis, task in zip(axes, tasks, strict=True):
        of_task = frame[frame["task"] == task]
        for _, group in of_task.dropna(subset=["accuracy"]).groupby(ROW, sort=False):
            _draw_row(axis, group, labels)
        majority, own = of_task["majority_rate"].mean(), of_task["recipe_rate"].iloc[0]
        axis.axhline(100 * majority, color="grey", linestyle=":", label="majority class")
        axis.axvline(own, color="grey", linewidth=0.5, label="the recipe's rate")
        axis.set_xscale("log")
        rates = sorted(of_task["learning_rate"].unique())
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        axis.set(xlabel="learning rate", ylabel="test accuracy (%)")
    draw_legend(figure, axes)
    return figure


def _draw_row(axis: Axes, group: pd.DataFrame, labels: list[str]) -> None:
    label, best = _label(group.iloc[0]), choose_rate(group)
    index = labels.index(label)
    colour = COLOURS[index % len(COLOURS)]
    found = [
        (rate, *interval(seeds), seeds["accuracy"].count())
        for rate, seeds in group.groupby("learning_rate")
    ]
    points = pd.DataFrame(found, columns=["rate", "mean", "low", "high", "count"])
    place = points["rate"] * SPREAD ** (index - (len(labels) - 1) / 2)  # bars side by side
    mean, low, high = (100 * points[name] for name in ("mean", "low", "high"))
    marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
    axis.errorbar(
        place,
        mean,
        yerr=(mean - low, high - mean),
        marker=marker,
        markersize=4,
        capsize=2,
        label=label,
        color=colour,
    )
    short = points["count"] < points["count"].max()
    hollow = {"markersize": 4, "markerfacecolor": "white", "linestyle": "", "zorder": 3}
    axis.plot(place[short], mean[short], marker, color=colour, **hollow)
    chosen = points["rate"] == best
    axis.plot(place[chosen], mean[chosen], "o", markersize=RING, fillstyle="none", color=colour)


def choose_rate(group: pd.DataFrame) -> float | None:
    """Return the rate of the best mean validation accuracy; None where nothing finished.

    Rates of fewer finished seeds than another one do not compete, as in the tables.
    """
    scores = group.groupby("learning_rate")["validation"].agg(["mean", "count"])
    full = scores[scores["count"] == max(scores["count"].max(), 1)]
    return None if full.empty else float(full.index[int(full["mean"].argmax())])


def interval(group: pd.DataFrame) -> tuple[float, float, float]:
    """Return the mean accuracy of a row at one rate, and its bounds.

    One seed has Wilson's interval over the test examples; several vary by seed and by example, and
    all are tested on the same examples. Seeds that do not differ tell no more than one of them.
    """
    accuracy = group["accuracy"].dropna()
    mean, count = float(accuracy.mean()), int(group["num_examples"].dropna().iloc[0])
    if accuracy.nunique() == 1:
        return mean, *wilson_interval(round(mean * count), count)
    half = half_width(
        of_seeds=float(accuracy.var()) / len(accuracy),
        num_seeds=len(accuracy),
        of_examples=mean * (1 - mean) / count,
    )
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def _label(row: Any) -> str:
    return row_label(row["attention"], row["ppsbn"])


def _accuracy(group: pd.DataFrame) -> str:
    """Show a mean over seeds, and of how many, where some failed."""
    accuracy = 100 * group["accuracy"]
    finished = accuracy.count()
    if not finished:
        return "failed"
    text = mean_sd(accuracy.mean(), accuracy.std())
    return text if finished == len(group) else f"{text} ({finished} of {len(group)} seeds)"


def _gain(best: pd.Series, own: pd.Series) -> float:
    """Return the points won by the choice; NaN where one of both means lacks failed seeds."""
    if best.count() != own.count():
        return float("nan")
    return round(100 * (best.mean() - own.mean()), 1)


def _edge(rate: float, rates: list[float]) -> str:
    """Say that the best rate is at an end of those tried, so that a better one may lie beyond."""
    ends = {rates[0]: " (lowest tried)", rates[-1]: " (highest tried)"}
    return ends.get(rate, "") if len(rates) > 1 else ""


def _compose(point: dict[str, Any], cfg: DictConfig) -> DictConfig:
    """Compose the cell of a point; what its tables show is the best of its rates."""
    options: Any = OmegaConf.to_container(cfg.study.settings.options, resolve=True)
    options |= {**point, "sweep": cfg.study.sweep, "best_of": ["learning_rate"]}
    options |= {f"paths.{name}": cfg.paths[name] for name in ("data_dir", "output_dir")}
    options |= {"trainer.accelerator": cfg.device, "num_threads": cfg.threads}
    return compose_cell(cfg, options, "~callbacks.progress")  # the study has a bar of its own
