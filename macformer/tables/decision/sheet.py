"""Lay out the sheet that a team decides by: what each row costs, and a verdict with its reason."""

from collections.abc import Callable, Sequence
from math import inf, isnan

import pandas as pd

from macformer.tables import captions
from macformer.tables.decision.costs import SHORTEST
from macformer.tables.decision.rates import MEANINGS, Rates
from macformer.tables.decision.verdicts import FEWEST_SEEDS, NOT_DECIDED
from macformer.tables.entries import Numbers, range_text, result_key, row_labels
from macformer.tables.layout import Entry, Row, Table, compact, ratio, task_title

# What stays blank, or counts as nothing, where a rate was not given.
BLANK = {
    "hour": "all prices, and verdicts that need one",
    "loss": "verdicts on rows that are not surely as accurate",
    "documents": "months",
    "target": "what it takes to reach a target",
    "watts": "energy that no counter measured",
}
NOTHING = {
    "kwh": "energy has no price of its own",
    "once": "the change itself is free",
    "saving": "any saving counts",
    "months": "there is no time limit",
}


def decision_tables(decision: pd.DataFrame, rates: Rates, *, against: str) -> list[Table]:
    """Lay out two tables for each task: prices and verdicts, and what they rest on."""
    tables = []
    for task, lines in decision.groupby("task", sort=False):
        title = task_title(str(task))
        tables += [
            _verdict_table(lines, rates, title=f"{title}: decision", against=against),
            _measured_table(lines, rates, title=f"{title}: what it rests on", against=against),
        ]
    return tables


def _verdict_table(lines: pd.DataFrame, rates: Rates, *, title: str, against: str) -> Table:
    columns = [("once", "training"), ("once", "search")]
    columns += [("per 1,000", name) for name in ("price", "rel.", "Wh")]
    columns += [("won back", name) for name in ("documents", "months")]
    columns += [("points", name) for name in ("mean", "95 %")]
    columns += [("", "verdict")]
    return Table(
        title=title,
        columns=columns,
        rows=_rows(lines, _verdict_texts),
        caption=_caption(lines, rates, against=against),
        notes=[*_reasons(lines), *_not_given(lines, rates), *_shared(lines)],
        num_text_columns=1,
    )


def _measured_table(lines: pd.DataFrame, rates: Rates, *, title: str, against: str) -> Table:
    goal = f"to {rates.target:g} %" if rates.is_given("target") else "to a target"
    columns = [("hours", name) for name in ("training", "search", goal)]
    columns += [("Wh", name) for name in ("training", goal)]
    columns += [("latency", name) for name in ("p50", "p95")]
    columns += [("speed", name) for name in ("own lengths", "padded", "one by one", "training")]
    columns += [("energy", "from")]
    return Table(
        title=title,
        columns=columns,
        rows=_rows(lines, _measured_texts),
        caption=captions.join(
            f"Hours of devices; latency in ms, at batch 1; speed over {against}, on lengths of the "
            "task's own: own lengths: answers to test documents in batches of like length, without "
            "needless padding; one by one: to single ones; training: on batches of like length. "
            "Padded: answers as the test is run.",
            "To a target: until validation first reached it, or how many seeds did. Energy from "
            "nvml is that of a GPU's board, from rapl that of all sockets, and nothing else's; it "
            f"is left out of runs under {SHORTEST:.0f} s.",
        ),
        num_text_columns=1,
    )


def _rows(lines: pd.DataFrame, texts: Callable[[Numbers], Sequence[str]]) -> list[Row]:
    return [
        Row(label, [Entry(text, result_key(line)) for text in texts(line)])
        for label, line in zip(row_labels(lines), lines.to_dict("records"), strict=True)
    ]


def _verdict_texts(line: Numbers) -> Sequence[str]:
    difference, interval = "", ""
    if not isnan(line["difference"]):
        difference = f"{100 * line['difference']:+.1f}"
        interval = range_text(line["difference.low"], line["difference.high"], "+.1f")
    return [
        compact(line["train_price"]),
        compact(line["search_price"]),
        compact(line["price_per_1000"]),
        ratio(line["price_ratio"]),
        compact(line["watt_hours_per_1000"]),
        _volume(line["break_even"]),
        _volume(line["break_even_months"]),
        difference,
        interval,
        verdict_text(line),
    ]


def _measured_texts(line: Numbers) -> Sequence[str]:
    return [
        compact(line["train_hours"]),
        compact(line["search_hours"]),
        _reached(line, "target_hours"),
        compact(line["train_watt_hours"]),
        compact(line["target_watt_hours"]),
        compact(line["cost.latency_p50_ms"]),
        compact(line["cost.latency_p95_ms"]),
        *(ratio(line[f"speed.{name}"]) for name in ("own", "padded", "alone", "training")),
        line["energy_source"],
    ]


def verdict_text(line: Numbers) -> str:
    """Name a verdict, an open one with the seeds that both rows have."""
    if line["verdict"] != NOT_DECIDED:
        return line["verdict"]
    seeds = int(line["num_paired"])
    return f"{NOT_DECIDED} with {seeds} seed{'s' * (seeds != 1)}"


def _volume(value: float) -> str:
    return {inf: "never", 0: "0"}.get(value, compact(value))


def _reached(line: Numbers, name: str) -> str:
    """Show the mean over seeds, or how many of them came so far at all."""
    if not isnan(line[name]) or not line["exclusive"]:
        return compact(line[name])
    if isnan(line["num_reached"]) or not line["num_finished"]:
        return ""
    return f"{line['num_reached']:.0f} of {line['num_finished']}"


def _caption(lines: pd.DataFrame, rates: Rates, *, against: str) -> str:
    given = ", ".join(
        f"{name}={getattr(rates, name):,.10g}" for name in MEANINGS if rates.is_given(name)
    )
    lengths = "of like length" if lines["own_lengths"].all() else "as the test is run"
    return captions.join(
        f"At {given}." if given else "No rate was given.",
        "Once: price of one training, mean over seeds, and of the other settings that were tried. "
        f"Per 1,000 documents answered in the recipe's batches, {lengths}, at the run's mean "
        f"power; rel.: to {against}. Won back: the documents after which what was paid more once "
        f"is saved. Points: of test accuracy over {against}. Verdicts need {FEWEST_SEEDS} seeds, "
        "and intervals of 95 % that lie on one side of their bounds.",
    )


def _reasons(lines: pd.DataFrame) -> list[str]:
    return [
        f"{label}: {verdict_text(line)}: {line['reason']}."
        for label, line in zip(row_labels(lines), lines.to_dict("records"), strict=True)
        if line["verdict"]
    ]


def _not_given(lines: pd.DataFrame, rates: Rates) -> list[str]:
    """Say which rate would fill what is blank, and what those count that are optional."""
    missing = [name for name in BLANK if not rates.is_given(name)]
    if lines["watt_hours_per_1000"].notna().all():
        missing = [name for name in missing if name != "watts"]
    blank = [f"{name} ({MEANINGS[name]}) for {BLANK[name]}" for name in missing]
    nothing = [f"{what} ({name})" for name, what in NOTHING.items() if not rates.is_given(name)]
    notes = [f"Not given, so left blank: {'; '.join(blank)}."] if blank else []
    return notes + ([f"Not given, so {', '.join(nothing)}."] if nothing else [])


def _shared(lines: pd.DataFrame) -> list[str]:
    shared = ~lines["exclusive"].astype(bool) & (lines["num_finished"] > 0)
    if not shared.any():
        return []
    return ["Blank, too: times of runs that shared their device, and all that follows from them."]
