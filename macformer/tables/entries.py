"""Turn the numbers of one result of a sweep into what a table shows."""

import re
from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd

from macformer.tables.comparison import SIGNIFICANT
from macformer.tables.layout import Entry, compact, percent, ratio, row_label
from macformer.tables.summary import NAME, ROW

GIB_TO_MIB = 1024
LARGEST_MODEL = 1.1  # in parameters of softmax's model, by Long Range Arena's rule
DIFFERENT_MARK = "*"  # from the reference, beyond what chance explains
OVERSIZED_MARK = "¶"  # more parameters than a fair row has
FLOOR_MARK = "§"  # no better than a shallow predictor
SHARED_MARK = "†"  # measured on a device that other runs used too

Numbers = Mapping[Any, Any]


def result_key(result: Numbers) -> str:
    """Name a result of the sweep within a page."""
    return re.sub(r"[^\w.-]+", "_", "-".join(str(result[key]) for key in ("task", *ROW)))


def row_labels(frame: pd.DataFrame) -> list[str]:
    """Label rows, adding recipe and device where several are mixed."""
    extra = [key for key in ("recipe", "device") if frame[key].nunique() > 1]
    return [
        ", ".join([row_label(*(result[key] for key in NAME)), *(result[key] for key in extra)])
        for result in frame.to_dict("records")
    ]


def by_row(summary: pd.DataFrame) -> list[tuple[str, dict[str, Numbers]]]:
    """Gather the results of each row of a table that has tasks as columns."""
    rows: dict[tuple, tuple[str, dict[str, Numbers]]] = {}
    for label, result in zip(row_labels(summary), summary.to_dict("records"), strict=True):
        key = tuple(result[name] for name in ROW)
        rows.setdefault(key, (label, {}))[1][result["task"]] = result
    return list(rows.values())


def memory_unit(summary: pd.DataFrame) -> tuple[int, str]:
    """Choose the unit that keeps the largest peak readable, and its number in a GiB."""
    peaks = summary[["train.peak_memory_gib", "inference.peak_memory_gib"]].to_numpy()
    return (1, "GiB") if (peaks >= 1).any() else (GIB_TO_MIB, "MiB")


def accuracy_text(result: Numbers, rule: str, *, num_seeds: int) -> str:
    """Show test accuracy under one selection rule, with n where it falls short of `num_seeds`."""
    if not result["num_finished"]:
        return _status(result)
    column = f"accuracy.{rule}.test"
    text = percent(result[column], result[f"{column}.sd"])
    if text and result[column] <= result["floor"]:
        text += FLOOR_MARK
    if text and result["num_finished"] < num_seeds:
        text += f" ({result['num_finished']})"
    return text


def accuracy_entry(result: Numbers | None, *, num_seeds: int) -> Entry:
    """Show the accuracy of the best-validation weights; blank where there is none."""
    if result is None:
        return Entry()
    return Entry(accuracy_text(result, "best", num_seeds=num_seeds), result_key(result))


def cost_entry(result: Numbers | None, column: str, *, scale: int = 1) -> Entry:
    """Show a cost with its ratio to softmax in brackets."""
    if result is None:
        return Entry()
    if not result["num_finished"]:
        return Entry(_status(result), result_key(result))
    text, relative = cost_text(result, column, scale=scale), ratio(result[f"{column}.relative"])
    return Entry(f"{text} ({relative})" if relative else text, result_key(result))


def cost_text(result: Numbers, column: str, *, scale: int = 1) -> str:
    return mark_shared(compact(scale * result[column]), exclusive=result["exclusive"])


def mark_shared(text: str, *, exclusive: bool) -> str:
    return text + SHARED_MARK if text and not exclusive else text


def comparison_texts(result: Numbers, *, num_seeds: int) -> list[str]:
    """Show accuracy and difference to the reference, each with its interval, and the p value.

    The seeds in common stand in brackets where they are fewer than those of the row.
    """
    texts = [accuracy_text(result, "best", num_seeds=num_seeds)]
    texts.append(range_text(result["low"], result["high"], "4.1f"))
    if isnan(result["difference"]):
        return [*texts, "", "", ""]
    mark = DIFFERENT_MARK if result["p"] < SIGNIFICANT else ""
    fewer = result["num_paired"] < result["num_finished"]
    seeds = f" ({result['num_paired']:.0f})" if fewer else ""
    interval = range_text(result["difference.low"], result["difference.high"], "+.1f")
    p_value = "" if isnan(result["p"]) else f"{result['p']:.2g}"
    return [*texts, f"{100 * result['difference']:+.1f}{mark}{seeds}", interval, p_value]


def range_text(low: float, high: float, form: str) -> str:
    """Show an interval of shares in points; blank where there is none."""
    return "" if isnan(low) else f"{100 * low:{form}} to {100 * high:{form}}"


def detail_texts(result: Numbers, *, scale: int, num_seeds: int) -> list[str]:
    """Show all quantities of one result, in the order of the detailed table's columns."""
    texts = [accuracy_text(result, rule, num_seeds=num_seeds) for rule in ("best", "last")]
    for stage in ("train", "inference"):
        speed, memory = f"{stage}.examples_per_second", f"{stage}.peak_memory_gib"
        texts += [
            cost_text(result, speed),
            cost_text(result, f"{stage}.tokens_per_second"),
            ratio(result[f"{speed}.relative"]),
            cost_text(result, memory, scale=scale),
            ratio(result[f"{memory}.relative"]),
        ]
    return texts


def cost_texts(result: Numbers) -> list[str]:
    """Show what one result costs beside its training, in the order of the cost table's columns."""
    size = ratio(result["num_parameters.relative"])
    too_large = result["num_parameters.relative"] > LARGEST_MODEL
    texts = [compact(result["num_parameters"]), size + OVERSIZED_MARK if too_large else size]
    for count in ("cost.flops", "cost.state_size"):
        texts += [compact(result[count]), ratio(result[f"{count}.relative"])]
    texts += [cost_text(result, f"cost.latency_{share}_ms") for share in ("p50", "p95")]
    rates = ("train.examples_per_second", "trimmed.examples_per_second")
    texts += [cost_text(result, rate) for rate in rates]
    return [*texts, ratio(result[f"{rates[1]}.relative"])]


def _status(result: Numbers) -> str:
    return next(s for s in ("failed", "interrupted", "running") if result[f"num_{s}"])
