r"""What each run cost, and what answers of its model cost, at given rates.

.. math:: \text{price} = h\, T + k\, E / 1000, \qquad T = \text{devices} \cdot \text{seconds} / 3600

with the price h of a device's hour, the price k of a kilowatt-hour and the energy E in watt-hours.
An answer takes devices / (documents per second), at the mean power of the run.
"""

from math import inf, isnan, nan

import pandas as pd

from macformer.record import CURVE_NAME
from macformer.tables.decision.rates import Rates
from macformer.tables.plots import read_curve

SHORTEST = 60.0  # seconds of a run whose energy means something: counters move in steps
STATED = "stated"  # where watts were given, for want of a counter
PADDED, SERVED = "inference.examples_per_second", "served.examples_per_second"
SECONDS_PER_HOUR = 3600.0


def run_costs(runs: pd.DataFrame, rates: Rates, *, documents_per_second: pd.Series) -> pd.DataFrame:
    """Return for each run what it and its model cost; NaN wherever a part of it is unknown.

    Times of a run that shared its device are those of others, too, and left out.

    Returns:
        Columns ``hours`` of devices, pretraining included, ``watt_hours`` and ``price`` of training
        and testing; ``document_seconds``, ``document_watt_hours`` and ``document_price`` of one
        document served; ``target_hours`` and ``target_watt_hours`` until validation first reached
        the target, and ``num_reached``, 1 if it did and 0 if not; ``source`` of the energy.
    """
    alone = runs["exclusive"]
    seconds = (runs["use.seconds"] * runs["use.num_devices"]).where(alone)
    watts, source = _power(runs, rates)
    joules = watts * seconds
    before = (runs["pretraining.seconds"] * runs["pretraining.num_devices"]).fillna(0)
    before = before.mask(runs["pretraining.exclusive"].eq(False))
    watts_before, _ = _power(runs, rates, stage="pretraining")
    all_joules = joules + (watts_before * before).mask(before == 0, 0)
    found = pd.DataFrame(
        {
            "hours": (seconds + before) / SECONDS_PER_HOUR,
            "watt_hours": all_joules / SECONDS_PER_HOUR,
            "document_seconds": (runs["use.num_devices"] / documents_per_second).where(alone),
            "source": source.where(joules.notna()),
        },
        index=runs.index,
    )
    found["document_watt_hours"] = watts * found["document_seconds"] / SECONDS_PER_HOUR
    found["price"] = _price(found["hours"], found["watt_hours"], rates)
    document_hours = found["document_seconds"] / SECONDS_PER_HOUR
    found["document_price"] = _price(document_hours, found["document_watt_hours"], rates)
    steps = _steps_to_target(runs, rates)
    share = steps.where(steps < inf) / runs["train.steps"]
    rest = 1 - share  # of the run itself; what came before it is needed in any case
    found["target_hours"] = found["hours"] - rest * seconds / SECONDS_PER_HOUR
    found["target_watt_hours"] = found["watt_hours"] - rest * joules / SECONDS_PER_HOUR
    found["num_reached"] = (steps < inf).astype(float).where(steps.notna())
    return found


def break_even(extra: float, saved: float) -> float:
    """Return after how many documents savings pay for what a row cost more; infinite if never.

    .. math:: N = (C_{new} - C_{base}) / (c_{base} - c_{new})

    Args:
        extra: What the row costs once, above the reference.
        saved: What each document costs less.
    """
    if saved <= 0:
        return inf
    return nan if isnan(extra) else max(extra, 0.0) / saved


def _power(runs: pd.DataFrame, rates: Rates, *, stage: str = "use") -> tuple[pd.Series, pd.Series]:
    """Return the mean watts of a device, measured or else stated, and where they are from."""
    seconds = runs[f"{stage}.seconds"]
    measured = (runs[f"{stage}.joules"] / seconds).where(seconds >= SHORTEST)
    source = runs["use.energy_source"].fillna("counter").where(measured.notna())
    if rates.is_given("watts"):
        source = source.fillna(STATED)
    return measured.fillna(rates.watts), source


def _price(hours: pd.Series, watt_hours: pd.Series, rates: Rates) -> pd.Series:
    """Add up time and energy; energy that has a price and is unknown leaves the sum unknown."""
    price = rates.hour * hours
    return price + rates.kwh * watt_hours / 1000 if rates.is_given("kwh") else price


def _steps_to_target(runs: pd.DataFrame, rates: Rates) -> pd.Series:
    """Return after how many steps validation first reached the target.

    Infinite if it never did, NaN where no curve was logged.
    """
    if not rates.is_given("target"):
        return pd.Series(nan, runs.index)
    curves = [read_curve(folder / CURVE_NAME, "val/accuracy") for folder in runs["folder"]]
    steps = [
        nan if curve.empty else min(curve.index[curve >= rates.target / 100], default=inf)
        for curve in curves
    ]
    return pd.Series(steps, runs.index, dtype=float)
