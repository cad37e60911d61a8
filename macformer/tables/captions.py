"""What stands around a table: where its numbers come from, and what is missing from it."""

from collections.abc import Sequence

import pandas as pd

from macformer.tables.comparison import SIGNIFICANT
from macformer.tables.entries import (
    DIFFERENT_MARK,
    FLOOR_MARK,
    LARGEST_MODEL,
    OVERSIZED_MARK,
    SHARED_MARK,
    row_labels,
)
from macformer.tables.layout import percent, row_label, task_title
from macformer.tables.settings import SHARED
from macformer.tables.summary import (
    REFERENCE,
    RESULT,
    SETTING,
    agreed,
    lacks_counterpart,
    ranked,
)


def join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def provenance(runs: pd.DataFrame) -> str:
    """Name recipe, device and commit."""
    commits = sorted(runs["commit"].dropna().unique())
    named = {
        "Recipe": sorted(runs["recipe"].unique()),
        "device": sorted(runs["device"].unique()),
        "commit": commits or ["unknown"],
    }
    return "; ".join(f"{name} {', '.join(values)}" for name, values in named.items()) + "."


def seeds(summary: pd.DataFrame, *, spread: bool = True, each_n: bool = True) -> str:
    """State n: how many finished runs stand behind the means.

    Args:
        spread: Whether the table shows standard deviations.
        each_n: Whether it shows an n that is smaller than the largest.
    """
    counts = summary.loc[summary["num_finished"] > 0, "num_finished"]
    if counts.empty:
        return "No run has finished."
    if counts.max() == 1:
        return "One seed (n = 1)."
    mean = "Mean ± standard deviation" if spread else "Mean"
    if counts.nunique() == 1:
        return f"{mean} over n = {counts.max()} seeds."
    if each_n:
        return f"{mean} over n = {counts.max()} seeds; a smaller n stands in brackets."
    return f"{mean} over n = {counts.min()} to {counts.max()} seeds."


def majority(summary: pd.DataFrame) -> str:
    """State the accuracy of always answering the most frequent class."""
    rates = summary.groupby("task", sort=False)["majority_rate"].agg(agreed).dropna()
    shares = [f"{task_title(str(task))} {percent(rate)} %" for task, rate in rates.items()]
    return f"Majority class: {', '.join(shares)}." if shares else ""


def detail_legend(unit: str) -> str:
    return (
        "Best, last: weights of the best validation accuracy and of the last step. "
        f"ex./s: examples per second; tok./s: real tokens, without padding; {unit}: peak memory; "
        "rel.: relative to softmax without ppSBN (ex./s, memory)."
    )


_COSTS = {  # what the headings mean
    "FLOPs": "multiplications and additions of the matrix products for one example at full length",
    "state": "numbers kept of a sequence of full length to answer queries",
    "latency": "of single test examples without padding",
    "trimmed": "training on rows of like length without needless padding",
    "rel.": "relative to softmax without ppSBN",
}


def cost_legend(columns: Sequence[tuple[str, str]]) -> str:
    """Explain those columns of a table of costs that it has."""
    headings = {heading.partition(",")[0] for column in columns for heading in column}
    meanings = [f"{name}: {what}" for name, what in _COSTS.items() if name in headings]
    return f"{'; '.join(meanings)}." if meanings else ""


def size_notes(summary: pd.DataFrame) -> list[str]:
    """Say which models are larger than Long Range Arena lets a method's be."""
    if not (summary["num_parameters.relative"] > LARGEST_MODEL).any():
        return []
    share = 100 * (LARGEST_MODEL - 1)
    return [f"{OVERSIZED_MARK} over {share:.0f} % more parameters than softmax's model."]


def average(tasks: Sequence[str]) -> str:
    if len(tasks) == 1:
        return f"Avg: {task_title(tasks[0])} alone."
    return (
        f"Avg: mean of the {len(tasks)} tasks {', '.join(map(task_title, tasks))}; "
        "blanks are left out."
    )


def fewer_tasks(mark: str, incomplete: Sequence[str]) -> list[str]:
    """Name the rows whose average misses tasks."""
    if not incomplete:
        return []
    return [f"{mark} mean of fewer tasks, not comparable: {'; '.join(incomplete)}."]


def run_notes(runs: pd.DataFrame) -> list[str]:
    """List the runs without a result, those of one row and reason together."""
    unfinished = ranked(runs[runs["status"] != "finished"])
    notes = []
    for key, group in unfinished.groupby([*RESULT, "status", "reason"], sort=False):
        task, *name, _, _, status, reason = map(str, key)
        numbers = (
            f"seed{'s' if len(group) > 1 else ''} {', '.join(map(str, sorted(group['seed'])))}"
        )
        what = f"{task_title(task)}, {row_label(*name)}, {numbers}"
        notes.append(f"{status}: {what}" + (f": {reason}" if reason else ""))
    return notes


def floor_notes(summary: pd.DataFrame) -> list[str]:
    """Say which rows a shallow predictor reaches, too."""
    if summary["floor"].isna().all():
        return []
    note = "Floors: predictors without any attention, fitted when the data were prepared."
    if (summary["accuracy.best.test"] <= summary["floor"]).any():
        note += f" {FLOOR_MARK} at or below the best of them."
    known = summary.dropna(subset="floor")
    if known.groupby("task")["floor"].agg(agreed).isna().any():
        note += " Where the data of rows differ, so do these, and no line shows one for all."
    return [note]


def comparison(summary: pd.DataFrame) -> str:
    """Name the method of the intervals."""
    one_seed = summary["num_finished"].max() == 1
    return (
        "Intervals of 95 %: "
        + (
            "Wilson's for an accuracy; for a difference, McNemar's test of the same test examples; "
            "Student's for both where an example is asked several times."
            if one_seed
            else "seeds and test examples both taken as random, by generalised p values."
        )
        + (
            " Differences are to the row without ppSBN, in the same setting."
            if summary["difference"].notna().any()
            else ""
        )
    )


def comparison_notes(summary: pd.DataFrame) -> list[str]:
    """Say which differences are real, and how small one could have been and still been found."""
    notes = _test_notes(summary)
    one_of_several = summary["num_finished"].eq(1) & (summary["num_finished"].max() > 1)
    if (summary["low"].isna() & one_of_several).any() or (
        summary["p"].count() < summary["difference"].count()
    ):
        notes.append(
            "One seed among several tells nothing of how seeds differ: it has neither interval nor "
            "test."
        )
    if (summary["num_paired"] < summary["num_finished"]).any():
        notes.append("Differences are over the seeds in common, in brackets where they are fewer.")
    apart = summary["other_rows"].eq(1)
    if apart.any():
        notes.append(f"Tested on different rows, so not compared: {_named(summary, apart)}.")
    return notes


def _test_notes(summary: pd.DataFrame) -> list[str]:
    """Say what p is, and which differences of the rows that were not found would have been."""
    found = summary["p"] < SIGNIFICANT
    if summary["p"].isna().all():
        return []
    what = f"{DIFFERENT_MARK} p < {SIGNIFICANT}," if found.any() else "p is"
    adjusted = f"{what} adjusted for the number of rows (Benjamini and Hochberg)."
    least = 100 * summary.loc[~found, "detectable"].dropna()
    if least.empty:
        return [adjusted]
    sizes = dict.fromkeys([f"{least.min():.1f}", f"{least.max():.1f}"])
    where = f"In rows without {DIFFERENT_MARK}, a" if found.any() else "A"
    by_row = ", by row," if len(sizes) > 1 else ""
    return [
        f"{adjusted} {where} difference of {' to '.join(sizes)} points{by_row} would have been "
        "found four times out of five."
    ]


def reference_notes(summary: pd.DataFrame, *, against: str) -> list[str]:
    """Name the rows whose options no reference has, or more than one."""
    lacking = lacks_counterpart(summary, against=against) & (summary["num_finished"] > 0)
    if not lacking.any():
        return []
    return [f"No single {against} without ppSBN matches the options of {_named(summary, lacking)}."]


def _named(summary: pd.DataFrame, chosen: pd.Series) -> str:
    labels = pd.Series(row_labels(summary), summary.index)[chosen]
    return "; ".join(dict.fromkeys(labels))


def cost_notes(summary: pd.DataFrame) -> list[str]:
    """Say which speeds and memories are not comparable, and which lack a reference."""
    finished = summary[summary["num_finished"] > 0]
    notes = []
    if not finished["exclusive"].all():
        notes.append(
            f"{SHARED_MARK} measured while the device was shared: speed and memory are not "
            "comparable, and their ratios are withheld."
        )
    ratios = finished.groupby(SETTING, sort=False)["num_parameters.relative"].transform("count")
    mixed = [key for key in ("recipe", "device", SHARED) if finished[key].nunique() > 1]
    without = [
        ", ".join([task_title(setting["task"]), *filter(None, (setting[key] for key in mixed))])
        for setting in finished[ratios == 0].to_dict("records")
    ]
    if without:
        settings = "; ".join(dict.fromkeys(without))
        notes.append(f"No finished softmax without ppSBN to relate to: {settings}.")
    return notes + reference_notes(summary, against=REFERENCE)
