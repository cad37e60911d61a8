"""What stands around a table: where its numbers come from, and what is missing from it."""

import pandas as pd

from macformer.tables.layout import percent, row_label, task_title
from macformer.tables.summary import SETTING

SHARED_MARK = "†"


def provenance(runs: pd.DataFrame) -> str:
    """Name recipe, device, commit and number of seeds."""
    commits = sorted(runs["commit"].dropna().unique())
    parts = [
        f"recipe {', '.join(sorted(runs['recipe'].unique()))}",
        ", ".join(sorted(runs["device"].unique())),
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits) or 'unknown'}",
    ]
    return "; ".join(parts) + "."


def seeds(summary: pd.DataFrame) -> str:
    """State n: how many finished runs stand behind the means."""
    counts = summary.loc[summary["num_finished"] > 0, "num_finished"]
    if counts.empty:
        return "No run has finished."
    low, high = counts.min(), counts.max()
    if high == 1:
        return "n = 1 seed."
    spread = f"n = {high} seeds" if low == high else f"n = {low} to {high} seeds (n beside a value)"
    return f"Mean ± standard deviation over {spread}."


def majority(summary: pd.DataFrame) -> str:
    rates = summary.groupby("task", sort=False)["majority_rate"].mean().dropna()
    shares = ", ".join(f"{task_title(task)} {percent(rate)} %" for task, rate in rates.items())
    return f"Always answering the most frequent class gives {shares}." if shares else ""


def run_notes(runs: pd.DataFrame) -> list[str]:
    """List the runs without a result, each with its reason."""
    unfinished = runs[runs["status"] != "finished"]
    return [
        f"{run['status']}: {task_title(run['task'])}, {row_label(run['attention'], run['ppsbn'])}, "
        f"seed {run['seed']}" + (f": {run['reason']}" if isinstance(run["reason"], str) else "")
        for run in unfinished.to_dict("records")
    ]


def cost_notes(summary: pd.DataFrame) -> list[str]:
    """Say which speeds and memories are not comparable, and which lack a reference."""
    finished = summary[summary["num_finished"] > 0]
    notes = []
    if not finished["exclusive"].all():
        notes.append(
            f"{SHARED_MARK} measured while the device was shared: speed and memory are not "
            "comparable, so ratios are withheld."
        )
    without = finished.groupby(SETTING)["num_parameters.relative"].count().eq(0)
    if without.any():
        tasks = dict.fromkeys(task_title(setting[0]) for setting in without[without].index)
        notes.append(f"No finished softmax without ppSBN to relate to: {', '.join(tasks)}.")
    return notes
