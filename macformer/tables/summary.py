r"""Summarise runs: one row for each cell of the sweep, over its seeds.

.. math:: \text{relative} = \frac{\text{mean over seeds}}{\text{mean of softmax without ppSBN}}

with softmax taken from the same task, recipe and device.
"""

import pandas as pd

from macformer.tables.runs import ACCURACIES, COSTS, IDENTITY, TableError

SETTING = ["task", "recipe", "device"]
ROW = ["attention", "ppsbn", "recipe", "device"]
CELL = ["task", *ROW]
TASKS = ["listops", "text", "retrieval", "image", "pathfinder", "pathx"]  # LRA's order
REFERENCE = "softmax"
CONTROL = "uniform"


def summarise(runs: pd.DataFrame, *, allow_mixed: bool) -> pd.DataFrame:
    """Reduce runs to cells: mean, standard deviation and ratio to softmax of each quantity.

    Ratios of speed and memory stay blank wherever a run shared its device with another.

    Raises:
        TableError: If recipes or devices are mixed without leave, or a seed appears twice.
    """
    check_comparable(runs, allow_mixed=allow_mixed)
    measured = [*ACCURACIES, *COSTS, "majority_rate"]
    finished = runs["status"].eq("finished")
    values = runs[CELL].join(runs[measured].where(finished)).groupby(CELL)
    counts = runs.groupby(CELL)["status"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=["finished", "failed", "running"], fill_value=0)
    summary = pd.concat(
        [
            counts.add_prefix("num_"),
            runs[finished].groupby(CELL)["exclusive"].all(),
            values.mean(),
            values[ACCURACIES].std().add_suffix(".sd"),
        ],
        axis=1,
    ).reset_index()
    summary["exclusive"] = summary["exclusive"].eq(True)
    return _sorted(summary.join(_relative_costs(summary)))


def check_comparable(runs: pd.DataFrame, *, allow_mixed: bool) -> None:
    """Refuse runs that one table cannot hold."""
    repeated = runs[runs.duplicated([*IDENTITY, "device"], keep=False)]
    if len(repeated):
        first, second = repeated["folder"].iloc[:2]
        raise TableError(f"the same cell and seed appears twice: {first} and {second}")
    for column in ("recipe", "device"):
        values = sorted(runs[column].unique())
        if len(values) > 1 and not allow_mixed:
            raise TableError(
                f"{len(values)} {column}s in one table: {', '.join(values)}; "
                "give folders of one, or pass --allow-mixed"
            )


def is_reference(summary: pd.DataFrame) -> pd.Series:
    return summary["attention"].eq(REFERENCE) & summary["ppsbn"].eq("without")


def _relative_costs(summary: pd.DataFrame) -> pd.DataFrame:
    reference = summary[is_reference(summary)].set_index(SETTING)[[*COSTS, "exclusive"]]
    beside = reference.reindex(pd.MultiIndex.from_frame(summary[SETTING])).set_axis(summary.index)
    ratios = summary[COSTS] / beside[COSTS].astype(float)
    comparable = summary["exclusive"] & beside["exclusive"].eq(True)
    shared = [cost for cost in COSTS if cost != "num_parameters"]
    ratios[shared] = ratios[shared].where(comparable)
    return ratios.add_suffix(".relative")


def _sorted(summary: pd.DataFrame) -> pd.DataFrame:
    """Order tasks as LRA does, softmax and uniform first, and `without` before `with`."""
    ranks = {
        "task": lambda name: (TASKS.index(name) if name in TASKS else len(TASKS), name),
        "attention": lambda name: ([REFERENCE, CONTROL, name].index(name), name),
        "ppsbn": lambda name: (name != "without", name),
    }
    keys = summary[CELL].apply(
        lambda cell: (
            tuple(ranks[key](cell[key]) for key in ranks) + tuple(cell[["recipe", "device"]])
        ),
        axis=1,
    )
    return summary.loc[keys.sort_values().index].reset_index(drop=True)
