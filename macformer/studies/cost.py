"""What the cells of a sweep cost, and what their accuracy costs, next to softmax.

A run's device time is that of training, validating and testing once, its pretraining's included,
as if it were the only one to begin with that. Its price is that time at the
rate that the configuration states for its kind of device; the energy is known where the driver of a
GPU counts it. A point of accuracy is a percentage point above the majority class.

Rows are those of the tables: runs that differ in more than their seed are none of one row.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from macformer.plotting import draw_legend, draw_panels
from macformer.provenance import is_cpu
from macformer.record import read_metrics
from macformer.runs.allowed import number
from macformer.runs.identity import digest
from macformer.studies.runner import StudyError
from macformer.studies.seeds import mean_sd
from macformer.tables.comparable import check_comparable
from macformer.tables.entries import row_labels
from macformer.tables.layout import task_title
from macformer.tables.panels import choose_looks, look_keys
from macformer.tables.runs import TableError, read_runs
from macformer.tables.settings import OWN, SHARED, name_runs
from macformer.tables.summary import REFERENCE, RESULT, keys_of, ranked, references

ALLOWED = {
    "study.settings.rate.cpu": number(lambda value: value >= 0, "of at least 0"),
    "study.settings.rate.gpu": number(lambda value: value >= 0, "of at least 0"),
}
NAMES = ["recipe", SHARED, OWN]  # what sets a row apart, beside attention and ppSBN
VALUES = ["device_hours", "price", "accuracy", "points", "watt_hours"]


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List the finished runs of a sweep, with what sets their rows apart there.

    Raises:
        StudyError: If there is none, or they cannot be told apart.
    """
    sweep = Path(cfg.study.sweep)
    try:
        runs, _ = name_runs(read_runs([sweep]), best_of=[])
        check_comparable(runs, allow_mixed=True)
    except TableError as error:
        raise StudyError(f"study.sweep={sweep}: {error}") from error
    finished = runs[runs["status"] == "finished"]
    if finished.empty:
        raise StudyError(f"no finished run in {sweep}; name another by study.sweep=outputs/...")
    return [
        {
            "folder": str(run["folder"]),
            "record": digest(read_metrics(Path(str(run["folder"])))),  # it may be trained again
            "seed": run["seed"],
            **{name: run[name] for name in NAMES},
        }
        for run in finished.to_dict("records")
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Read what one run used and reached.

    Raises:
        StudyError: If the run does not say how long it held its device.
    """
    metrics = read_metrics(Path(point["folder"])) or {}
    if metrics.get("use", {}).get("seconds") is None:
        raise StudyError(f"{point['folder']} does not record its device time; train it again")
    use, accuracy = metrics["use"], metrics["accuracy"]["best"]["test"]
    kind = "cpu" if is_cpu(metrics["device"]) else "gpu"
    before, majority = metrics.get("pretraining"), metrics.get("majority_rate")
    uses = [use, *filter(None, [before])]
    hours = sum(run["num_devices"] * run["seconds"] for run in uses) / 3600
    known = all(run["joules"] is not None for run in uses)
    yield {
        **{key: metrics[key] for key in ("task", "attention", "ppsbn", "device", "commit")},
        "torch": metrics["versions"]["torch"],
        "exclusive": metrics["exclusive"] and (before or {}).get("exclusive") is not False,
        "device_hours": hours,
        "watt_hours": sum(run["num_devices"] * run["joules"] for run in uses) / 3600
        if known
        else None,
        "rate": cfg.study.settings.rate[kind],
        "price": hours * cfg.study.settings.rate[kind],
        "accuracy": 100 * accuracy,
        "points": None if majority is None else 100 * (accuracy - majority),
    }


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show hours, energy and price per run, and price per point, next to softmax without ppSBN.

    Softmax is that of the same task, recipe, device and setting. Where other work shared a device,
    its hours enter no ratio.
    """
    frame = _runs(frame)
    groups: dict[Any, pd.DataFrame] = dict(iter(frame.groupby(RESULT, sort=False)))
    results = frame.drop_duplicates(RESULT)
    beside = references(results, against=REFERENCE)
    rows = []
    for label, key in zip(row_labels(results), keys_of(results), strict=True):
        group, base = groups[key], groups.get(beside[key], frame.iloc[:0])
        alone = group["exclusive"].all() and base["exclusive"].all()
        mean, softmax = group[VALUES].mean(), base[VALUES].mean()
        per_point = mean["price"] / mean["points"] if mean["points"] > 0 else float("nan")
        rows.append(
            {
                "task": task_title(group["task"].iloc[0]),
                "row": label,
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
    frame = _runs(frame)
    results = frame.drop_duplicates(RESULT)
    looks, labels = (
        choose_looks(results),
        dict(zip(keys_of(results), row_labels(results), strict=True)),
    )
    tasks = list(frame["task"].unique())
    figure, panels = draw_panels([task_title(task) for task in tasks], legend=True)
    axes = dict(zip(tasks, panels, strict=True))
    for key, group in frame.groupby(RESULT, sort=False):
        colour, marker = looks[look_keys(group)[0]]
        axes[group["task"].iloc[0]].errorbar(
            group["price"].mean(),
            group["accuracy"].mean(),
            xerr=group["price"].std() if len(group) > 1 else 0,
            yerr=group["accuracy"].std() if len(group) > 1 else 0,
            marker=marker,
            color=colour,
            markerfacecolor=colour if group["ppsbn"].iloc[0] == "without" else "white",
            linestyle="",
            label=labels[key],
        )
    for axis in panels:
        axis.margins(0.15)
        axis.set(xlabel="price of a run", ylabel="test accuracy (%)")
        axis.set_xlim(left=0)
    draw_legend(figure, panels)
    return figure


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each run once, by its name in the sweep as it was read last."""
    runs = frame.drop_duplicates("folder", keep="last")
    return ranked(runs.assign(**{name: runs[name].astype(object).fillna("") for name in NAMES}))
