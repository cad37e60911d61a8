"""How far a task needs to look: accuracy as attention is held to a window around each token.

A window of one token leaves each with itself, and what it is worth to look further shows as the
window grows to the whole sequence. ``none`` and ``uniform`` stand beside it: no exchange between
tokens but in the pooling, and an exchange that cannot choose.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from macformer.plotting import COLOURS, draw_legend, draw_lines, draw_panels
from macformer.runs.allowed import COUNT, TEXT, either, list_of, one_of
from macformer.studies.runner import StudyError
from macformer.studies.seeds import show_interval, with_intervals
from macformer.studies.toy_cells import train_cell
from macformer.studies.toy_training import count_diverged

WHOLE = "all"
ALLOWED = {
    "grid.attention": list_of(TEXT),
    "grid.window": list_of(either(COUNT, one_of(WHOLE))),
    "grid.num_steps": COUNT,
}
ENDS = {"none": "1", "uniform": WHOLE}  # a control, and the window that it stands for


def points(cfg: DictConfig) -> list[dict[str, Any]]:
    """List each attention at each window, and the controls at the ends.

    Raises:
        StudyError: If the settings have no such task.
    """
    grid: Any = OmegaConf.to_container(cfg.grid, resolve=True)
    windows = [str(window) for window in grid["window"]]
    known = cfg.study.settings.tasks
    if unknown := [task for task in grid["task"] if task not in known]:
        raise StudyError(
            f"task {', '.join(unknown)} is none of study.settings.tasks: {', '.join(known)}"
        )
    rows = [*product(grid["attention"], windows), *ENDS.items()]
    return [
        {"task": task, "attention": attention, "window": window, "seed": seed}
        | {"num_steps": grid["num_steps"]}
        for seed, task, (attention, window) in product(list(cfg.seeds), grid["task"], rows)
    ]


def measure(point: dict[str, Any], cfg: DictConfig) -> Iterable[dict[str, Any]]:
    """Train one model."""
    torch.manual_seed(point["seed"])
    task: Any = OmegaConf.to_container(cfg.study.settings.tasks[point["task"]], resolve=True)
    options = {**task, "attention": point["attention"], "seed": point["seed"]}
    if point["attention"] not in ENDS and point["window"] != WHOLE:
        options |= held_to(int(point["window"]), attention=point["attention"])
    outcome, _ = train_cell(options, cfg, num_steps=point["num_steps"])
    yield vars(outcome)


def held_to(window: int, *, attention: str) -> dict[str, Any]:
    """Return the options of an attention within a window, by the cheapest way to compute it."""
    if attention == "softmax" and window > 1:
        return {
            "attention": "longformer",
            "attention.window": window,
            "attention.num_global": 0,
        }
    within = {
        "_target_": "macformer.attention.Window",
        "_partial_": True,
        "attention": "${ppsbn}",  # whatever the layer would attend by
        "window": window,
    }
    return {"mixer.attention": within}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Show accuracy with its interval over windows, the controls in rows of their own."""
    frame = frame.assign(window=frame["window"].astype(str))
    shown = with_intervals(frame, ["task", "attention", "window"])
    rows = []
    for (task, attention), group in shown.groupby(["task", "attention"], sort=False):
        row = {"task": task, "attention": attention, "n": group["count"].min()}
        for window in _windows(frame):
            found = group[group["window"] == window]
            if len(found):
                (place,) = found.to_dict("records")
                row[f"window {window}, %"] = show_interval(place)
        of_row = frame[(frame["task"] == task) & (frame["attention"] == attention)]
        rows.append({**row, "diverged": count_diverged(of_row)})
    windows = [f"window {window}, %" for window in _windows(frame)]
    return pd.DataFrame(rows, columns=["task", "attention", "n", *windows, "diverged"])


def plot(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over the window, a panel for each task, the controls as levels."""
    frame = frame.assign(window=frame["window"].astype(str))
    windows, tasks = _windows(frame), list(frame["task"].unique())
    names = [name for name in frame["attention"].unique() if name not in ENDS]
    shown = with_intervals(frame, ["task", "attention", "window"])
    shown["place"] = [windows.index(window) for window in shown["window"]]
    figure, axes = draw_panels(tasks, legend=True)
    for axis, task in zip(axes, tasks, strict=True):
        of_task = shown[shown["task"] == task]
        lines = of_task[of_task["attention"].isin(names)]
        draw_lines(axis, lines, x="place", y="accuracy", line="attention", names=names, bars="half")
        for control, colour in zip(ENDS, (COLOURS[-1], COLOURS[-2]), strict=True):
            for level in of_task.loc[of_task["attention"] == control, "accuracy"]:
                axis.axhline(level, color=colour, linestyle=":", label=control)
        axis.set_xticks(range(len(windows)), windows)
        axis.set(xlabel="window (tokens)", ylabel="test accuracy (%)")
    draw_legend(figure, axes)
    return figure


def _windows(frame: pd.DataFrame) -> list[str]:
    """Name the windows, the narrowest first."""
    widths = set(frame["window"])
    return [*sorted(widths - {WHOLE}, key=int), *(widths & {WHOLE})]
