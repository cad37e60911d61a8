"""Refuse tables that would average or compare runs of different protocols."""

from typing import Any

import pandas as pd

from macformer.tables.runs import IDENTITY, TableError
from macformer.tables.settings import OWN, SHARED, flatten


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
    _check_data(runs)
    for column in ("recipe", "device"):
        if runs[column].nunique() > 1 and not allow_mixed:
            values = ", ".join(sorted(runs[column].unique()))
            raise TableError(
                f"several {column}s in one table: {values}; name folders of one of them, "
                "or pass --allow-mixed"
            )


def _check_data(runs: pd.DataFrame) -> None:
    """Refuse runs that prepared their data alike and were trained on different ones."""
    known = runs[runs["data_digest"].notna()]
    for _, group in known.groupby(["task", known["config"].map(_preparation)]):
        first, *others = group.drop_duplicates("data_digest").itertuples()
        if others:
            raise TableError(
                f"{first.folder} and {others[0].folder} were trained on different data "
                f"(digests {first.data_digest} and {others[0].data_digest}); "
                "overwrite=true trains one of them again, on the data that are there"
            )


def _preparation(config: dict[str, Any]) -> str:
    options = flatten(config).items()
    return str(sorted((key, value) for key, value in options if key.startswith("data.prepare.")))
