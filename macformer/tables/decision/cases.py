"""Set each result beside its reference: what it costs at given rates, and the verdict on it."""

from collections.abc import Mapping
from math import exp, inf, isnan, nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from macformer.tables.comparison import Pair, Tests, on_other_rows, pair_tests, read_tests
from macformer.tables.decision.costs import PADDED, SERVED, break_even, run_costs
from macformer.tables.decision.rates import Rates
from macformer.tables.decision.verdicts import NOT_DECIDED, Case, Verdict, judge
from macformer.tables.entries import row_labels
from macformer.tables.runs import BEFORE
from macformer.tables.summary import RESULT, keys_of, lacks_counterpart, references
from macformer.tables.uncertainty import paired_difference

THOUSAND = 1000
SPEEDS = {  # over the reference, from means over seeds
    "speed.own": SERVED,
    "speed.padded": PADDED,
    "speed.alone": "cost.latency_mean_ms",
    "speed.training": "trimmed.examples_per_second",
}
COMPARED = ["price_ratio", "price_ratio.low", "price_ratio.high"]
COMPARED += ["break_even", "break_even_months", *SPEEDS]
COPIED = ["difference", "difference.low", "difference.high", "exclusive", "num_finished"]
LATENCIES = ["cost.latency_p50_ms", "cost.latency_p95_ms"]


class _Side(NamedTuple):
    """One of the two rows of a comparison."""

    result: Mapping[Any, Any]
    label: str
    costs: pd.DataFrame  # of its finished runs, over their seeds
    search: dict[str, float]
    tests: Tests

    def once(self) -> float:
        """Return the price of one training and of the search."""
        return self.costs["price"].mean(skipna=False) + self.search["price"]


def decide(
    summary: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    read: pd.DataFrame,
    chosen: pd.DataFrame,
    rates: Rates,
    against: str,
) -> pd.DataFrame:
    """Return a line for each result, blank in what is unknown.

    Args:
        summary: With the differences to the reference, if there are any.
        runs: The runs behind the summary.
        read: All runs, those of settings that were not chosen included.
        chosen: As :func:`macformer.tables.settings.select_best` returns it.
        against: The attention of the reference.
    """
    labels, keys = row_labels(summary), keys_of(summary)
    costs, searches = _costs(runs, rates), _searches(read, runs, chosen, rates)
    groups = {key: group.set_index("seed") for key, group in costs.groupby(RESULT)}
    none, no_search = costs.iloc[:0], {"price": 0 * rates.hour, "hours": 0.0}
    tested = read_tests(runs)
    sides: dict[tuple | None, _Side] = {
        key: _Side(
            result,
            label,
            costs=groups.get(key, none),
            search=searches.get(key, no_search),
            tests=tested.get(key, {}),
        )
        for key, label, result in zip(keys, labels, summary.to_dict("records"), strict=True)
    }
    beside = references(summary, against=against)
    lacking = lacks_counterpart(summary, against=against)
    missing = lacking.map(
        {
            False: f"there is no finished {against} without ppSBN in the same setting",
            True: f"no single {against} without ppSBN matches its options",
        }
    )
    lines = [
        _line(sides[key], sides.get(beside[key]), rates, missing=why)
        for key, why in zip(keys, missing, strict=True)
    ]
    return pd.concat([summary[RESULT], pd.DataFrame(lines, index=summary.index)], axis=1)


def _costs(runs: pd.DataFrame, rates: Rates) -> pd.DataFrame:
    """Price the finished runs; those of one task are served at lengths of one kind."""
    finished = runs[runs["status"] == "finished"]
    own = finished[SERVED].notna().groupby(finished["task"]).transform("all")
    speed = finished[SERVED].where(own, finished[PADDED])
    costs = run_costs(finished, rates, documents_per_second=speed)
    return finished[[*RESULT, "seed"]].join(costs.assign(own_lengths=own))


def _searches(
    read: pd.DataFrame, runs: pd.DataFrame, chosen: pd.DataFrame, rates: Rates
) -> dict[tuple, dict[str, float]]:
    """Return what all runs of the settings that were not chosen cost, for each row that has some.

    A run that comes before several of a row is paid for once, by the chosen setting if that begins
    with it, too. Unknown where one of them, that failed, say, left no record of its time.
    """
    if chosen.empty:
        return {}
    kept = runs.groupby(RESULT).groups
    found = {}
    for key, given_up in zip(keys_of(chosen), chosen["given_up"], strict=True):
        begun = read.loc[[*kept[key], *given_up], f"{BEFORE}.identity"]
        tried = read.loc[given_up]
        paid = begun.duplicated().loc[given_up]
        tried.loc[paid, [name for name in tried if name.startswith(f"{BEFORE}.")]] = nan
        costs = run_costs(tried, rates, documents_per_second=tried[PADDED])
        found[key] = costs[["price", "hours"]].sum(skipna=False).to_dict()
    return found


def _line(ours: _Side, theirs: _Side | None, rates: Rates, *, missing: str) -> dict[str, Any]:
    """Describe a row beside its reference.

    Args:
        missing: Why there is no reference, if there is none.
    """
    line = {name: ours.result.get(name, nan) for name in COPIED} | _own_costs(ours)
    line |= dict.fromkeys(COMPARED, nan)
    if ours is theirs:
        return line | {"verdict": "", "reason": "", "num_paired": nan}
    if ours.costs.empty or theirs is None or theirs.costs.empty:
        reason = "there is no finished run" if ours.costs.empty else missing
        verdict, paired = Verdict(NOT_DECIDED, reason), 0
    else:
        line |= {name: _speed(ours, theirs, column) for name, column in SPEEDS.items()}
        case, paired = _case(ours, theirs, rates)
        line |= _won_back(case, rates)
        verdict = judge(case, rates)
    return line | {"verdict": verdict.name, "reason": verdict.reason, "num_paired": paired}


def _own_costs(side: _Side) -> dict[str, Any]:
    means = side.costs.drop(columns=["source", *RESULT], errors="ignore").mean(skipna=False)
    alone = bool(side.result["exclusive"])
    return {
        "train_hours": means["hours"],
        "train_watt_hours": means["watt_hours"],
        "train_price": means["price"],
        "search_hours": side.search["hours"],
        "search_price": side.search["price"],
        "price_per_1000": THOUSAND * means["document_price"],
        "watt_hours_per_1000": THOUSAND * means["document_watt_hours"],
        **{name: side.result[name] if alone else nan for name in LATENCIES},
        "target_hours": means["target_hours"],
        "target_watt_hours": means["target_watt_hours"],
        "num_reached": side.costs["num_reached"].sum(skipna=False),
        "energy_source": ", ".join(sorted(side.costs["source"].dropna().unique())),
        "own_lengths": bool(side.costs["own_lengths"].all()),
    }


def _speed(ours: _Side, theirs: _Side, column: str) -> float:
    """Return how many times as fast a row is; blank where one of both shared its device."""
    if not (ours.result["exclusive"] and theirs.result["exclusive"]):
        return nan
    speed = ours.result[column] / theirs.result[column]
    return 1 / speed if column.endswith("_ms") else speed


def _case(ours: _Side, theirs: _Side, rates: Rates) -> tuple[Case, int]:
    """Gather what a verdict rests on, and count the seeds that both rows have."""
    seeds = sorted(set(ours.costs.index) & set(theirs.costs.index))
    prices = [side.costs.loc[seeds, ["document_price"]].to_numpy() for side in (ours, theirs)]
    known = bool(seeds) and all((values > 0).all() for values in prices)
    extra = ours.once() - theirs.once() + (rates.once if rates.is_given("once") else 0.0)
    accuracies = [side.result["accuracy.best.test"] for side in (ours, theirs)]
    floors = [theirs.result[name] for name in ("floor", "majority_rate")]
    tests = pair_tests(ours.tests, theirs.tests)
    case = Case(
        reference=theirs.label,
        accuracy=tests,
        no_accuracy=_why_no_accuracy(ours, theirs),
        price=Pair(*map(np.log, prices)) if known else None,
        no_price=_why_no_price(ours, theirs, rates),
        extra=extra,
        saved_of=theirs.costs["document_price"].mean(skipna=False),
        reached=np.nanmax([*accuracies, -inf]),
        floor=max((floor for floor in floors if not isnan(floor)), default=nan),
    )
    return case, len(seeds)


def _why_no_accuracy(ours: _Side, theirs: _Side) -> str:
    if not (ours.tests and theirs.tests):
        return f"there are no answers to the test examples of {theirs.label}"
    if on_other_rows(ours.tests, theirs.tests):
        return f"it and {theirs.label} were tested on different rows"
    return f"it has no seed in common with {theirs.label}"


def _why_no_price(ours: _Side, theirs: _Side, rates: Rates) -> str:
    if not rates.is_given("hour"):
        return "the price of an hour was not given (hour)"
    if not (ours.result["exclusive"] and theirs.result["exclusive"]):
        return "its times, or those of the reference, were taken while others used the device"
    if not set(ours.costs.index) & set(theirs.costs.index):
        return f"it has no seed in common with {theirs.label}"
    if pd.concat([ours.costs, theirs.costs])["document_seconds"].isna().any():
        return "how fast its answers come was not measured"
    if rates.is_given("kwh") and pd.concat([ours.costs, theirs.costs])["source"].isna().any():
        return "its energy has a price and was not counted (watts states it)"
    return "at these rates a document costs nothing"


def _won_back(case: Case, rates: Rates) -> dict[str, float]:
    """Return the ratio of prices with its interval, and after how many documents a row has paid."""
    if case.price is None:
        return {}
    ratio = exp(float((case.price.ours - case.price.theirs).mean()))
    found = {"price_ratio": ratio}
    if case.price.num_seeds > 1:
        estimate = paired_difference(case.price.ours, case.price.theirs)
        found |= {"price_ratio.low": exp(estimate.low), "price_ratio.high": exp(estimate.high)}
    volume = break_even(case.extra, case.saved_of * (1 - ratio))
    return found | {"break_even": volume, "break_even_months": volume / rates.documents}
