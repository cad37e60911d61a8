"""Reduce rows over seeds."""

from collections.abc import Sequence

import pandas as pd


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Give mean, standard deviation and number of one value in each group, in the rows' order."""
    groups = frame.dropna(subset=[value]).groupby(list(by), sort=False, dropna=False)[value]
    return groups.agg(["mean", "std", "count"]).reset_index()


def mean_sd(mean: float, sd: float, *, digits: int = 3) -> str:
    """Show a mean to some significant digits, with its standard deviation where there is one."""
    if pd.isna(mean):
        return ""
    shown = f"{mean:.{digits}g}"
    return shown if pd.isna(sd) else f"{shown} ± {sd:.2g}"
