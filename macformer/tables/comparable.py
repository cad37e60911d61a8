"""Refuse tables that would average or compare runs of different protocols."""

import pandas as pd

from macformer.tables.runs import IDENTITY, TableError
from macformer.tables.settings import OWN, SHARED


def check_comparable(runs: pd.DataFrame, *, allow_mixed: bool) -> None:
    """Check that one table can hold these runs.

    Runs that differ in any option are rows of their own, named by it.

    Args:
        allow_mixed: Accepts several recipes and devices, which get rows of their own.

    Raises:
        TableError: If they cannot.
    """
    composed = runs[runs["identity"].notna()]  # the others ask for values that no run can have
    repeated = composed[composed.duplicated([*IDENTITY, "device", SHARED, OWN], keep=False)]
    if len(repeated):
        first, second = repeated.sort_values(IDENTITY)["folder"].iloc[:2]
        raise TableError(f"the same row and seed appears twice: {first} and {second}")
    for column in ("recipe", "device"):
        if runs[column].nunique() > 1 and not allow_mixed:
            values = ", ".join(sorted(runs[column].unique()))
            raise TableError(
                f"several {column}s in one table: {values}; name folders of one of them, "
                "or pass --allow-mixed"
            )
