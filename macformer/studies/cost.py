"""What the cells of a sweep cost, and what their accuracy costs, next to softmax.

A run's device time is that of training, validating and testing once, its pretraining's included,
as if it were the only one to begin with that. Its price is that time at the
rate that the configuration states for its kind of device; the energy is known where the driver of a
GPU counts it. A point of accuracy is a percentage point above the majority class.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from macformer.plotting import COLOURS, draw_legend, draw_panels
from macformer.record import read_metrics
from macformer.studies.runner import StudyError
from macformer.studies.seeds import mean_sd
from macformer.tables.layout import row_label, task_title

ROW = ["task", "attention", "ppsbn"]
VALUES = ["device_hours", "price", "accuracy", "points", "watt_hours"]


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the finished runs of a sweep.

    Raises:
        StudyError: If there is none.
    """
    sweep = Path(cfg.study.sweep)
    folders = sorted(file.parent for file in sweep.rglob("metrics.json"))
    records = [(folder, read_metrics(folder) or {}) for folder in folders]
    finished = [
        (folder, record) for folder, record in records if record.get("status") == "finished"
    ]
    if not finished:
        raise StudyError(f"no finished run in {sweep}; name another by study.sweep=outputs/...")
    return [{"folder": str(folder), "seed": record["seed"]} for folder, record in finished]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Read what one run used and reached.

    Raises:
        StudyError: If the run does not say how long it held its device.
    """
    metrics = read_metrics(Path(point["folder"])) or {}
    if metrics.get("use", {}).get("seconds") is None:
        raise StudyError(f"{point['folder']} does not record its device time; train it again")
    use, accuracy = metrics["use"], metrics["accuracy"]["best"]["test"]
    kind = "cpu" if "thread" in metrics["device"] else "gpu"
    uses = [use, *filter(None, [metrics.get("pretraining")])]
    hours = sum(run["num_devices"] * run["seconds"] for run in uses) / 3600
    known = all(run["joules"] is not None for run in uses)
    yield {
        **{key: metrics[key] for key in (*ROW, "device", "commit")},
        "torch": metrics["versions"]["torch"],
        "exclusive": metrics["exclusive"],
        "device_hours": hours,
        "watt_hours": sum(run["num_devices"] * run["joules"] for run in uses) / 3600
        if known
        else None,
        "rate": cfg.study.settings.rate[kind],
        "price": hours * cfg.study.settings.rate[kind],
        "accuracy": 100 * accuracy,
        "points": 100 * (accuracy - metrics["majority_rate"]),
    }


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show hours, energy and price per run, and price per point, next to softmax without ppSBN.

    Where other work shared a device, its hours enter no ratio.
    """
    rows = []
    for (task, attention, ppsbn), group in frame.groupby(ROW, sort=False):
        base = frame[(frame["task"] == task) & (frame["attention"] == "softmax")]
        base = base[base["ppsbn"] == "without"]
        alone = group["exclusive"].all() and base["exclusive"].all()
        mean, softmax = group[VALUES].mean(), base[VALUES].mean()
        per_point = mean["price"] / mean["points"] if mean["points"] > 0 else float("nan")
        rows.append(
            {
                "task": task_title(str(task)),
                "row": row_label(str(attention), str(ppsbn)),
                "n": len(group),
                "device hours": mean_sd(mean["device_hours"], group["device_hours"].std()),
                "Wh": mean["watt_hours"],
                "price": mean["price"],
                "accuracy %": mean_sd(mean["accuracy"], group["accuracy"].std()),
                "price per point": per_point,
                "price / softmax": mean["price"] / softmax["price"] if alone else float("nan"),
                "points over softmax": mean["accuracy"] - softmax["accuracy"],
            }
        )
    return pd.DataFrame(rows)


def plot(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over price, a panel for each task; hollow marks have ppSBN."""
    tasks = list(frame["task"].unique())
    figure, axes = draw_panels([task_title(task) for task in tasks])
    attentions = list(frame["attention"].unique())
    for axis, task in zip(axes, tasks, strict=True):
        for (attention, ppsbn), group in frame[frame["task"] == task].groupby(ROW[1:], sort=False):
            colour = COLOURS[attentions.index(attention) % len(COLOURS)]
            axis.errorbar(
                group["price"].mean(),
                group["accuracy"].mean(),
                xerr=group["price"].std() if len(group) > 1 else 0,
                yerr=group["accuracy"].std() if len(group) > 1 else 0,
                marker="o",
                color=colour,
                markerfacecolor=colour if ppsbn == "without" else "white",
                linestyle="",
                label=row_label(str(attention), str(ppsbn)),
            )
        axis.margins(0.15)
        axis.set(xlabel="price of a run", ylabel="test accuracy (%)")
        axis.set_xlim(left=0)
    draw_legend(figure, axes)
    return figure
