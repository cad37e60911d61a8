"""Reduce rows over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from macformer.tables.uncertainty import half_width


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Give mean, standard deviation and number of one value in each group, in the rows' order."""
    groups = frame.dropna(subset=[value]).groupby(list(by), sort=False, dropna=False)[value]
    return groups.agg(["mean", "std", "count"]).reset_index()


def with_intervals(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    r"""Give the mean accuracy of each group in percent, with the half-width of its interval.

    .. math:: \mathrm{var} = \frac{\mathrm{var}_{seeds}(a)}{n} + \overline{e^2}

    Seeds are tested on the same rows, so that the error e of one of them is that of their mean.
    The interval is that of :mod:`macformer.tables.uncertainty`; of one seed the rows alone are
    known to vary.
    """
    found = []
    for key, rows in frame.groupby(list(by), sort=False, dropna=False):
        seeds = len(rows)
        between = float(rows["accuracy"].var()) / seeds if seeds > 1 else 0.0
        within = float((rows["error"] ** 2).mean())
        half = half_width(of_seeds=between, num_seeds=seeds, of_examples=within)
        accuracy = 100 * rows["accuracy"].mean()
        found.append([*key, accuracy, 100 * half, seeds])
    return pd.DataFrame(found, columns=[*by, "accuracy", "half", "count"])


def show_interval(place: Mapping[Any, Any]) -> str:
    """Show one of these accuracies with its interval; without, where neither seeds nor rows vary.

    A row that is always right has a spread, too, which is not seen in so few answers.
    """
    return f"{place['accuracy']:.1f}" + (f" ± {place['half']:.1f}" if place["half"] > 0 else "")


def find_centre(frame: pd.DataFrame, factors: Iterable[str]) -> dict[str, Any]:
    """Find the point around which one factor varies at a time: each factor's most frequent value.

    Of several as frequent ones, in a study that has begun, the first: the centre is measured first.
    """
    found = {}
    for factor in factors:
        values = frame[factor]
        found[factor] = values[values.isin(values.mode())].iloc[0]
    return found


def mean_sd(mean: float, sd: float, *, digits: int = 3) -> str:
    """Show a mean to some significant digits, with its standard deviation where there is one."""
    if pd.isna(mean):
        return ""
    shown = f"{mean:.{digits}g}"
    return shown if pd.isna(sd) else f"{shown} ± {sd:.2g}"
