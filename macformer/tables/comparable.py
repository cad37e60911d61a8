"""Refuse tables that would average or compare runs of different protocols."""

from pathlib import Path

import pandas as pd

from macformer.tables.runs import IDENTITY, TableError
from macformer.tables.summary import RESULT


def check_comparable(runs: pd.DataFrame, *, allow_mixed: bool) -> None:
    """Check that one table can hold these runs.

    Args:
        allow_mixed: Accepts several recipes and devices, which get rows of their own, and rows of
            different settings. The seeds of one result must agree all the same.

    Raises:
        TableError: If they cannot.
    """
    repeated = runs[runs.duplicated([*IDENTITY, "device"], keep=False)].sort_values(IDENTITY)
    if len(repeated):
        first, second = repeated["folder"].iloc[:2]
        raise TableError(f"the same row and seed appears twice: {first} and {second}")
    for column in ("recipe", "device"):
        if runs[column].nunique() > 1 and not allow_mixed:
            values = ", ".join(sorted(runs[column].unique()))
            raise TableError(
                f"several {column}s in one table: {values}; name folders of one of them, "
                "or pass --allow-mixed"
            )
    _check_settings(runs, within=RESULT, hint="")
    if not allow_mixed:
        _check_settings(runs, within=["task"], hint="; pass --allow-mixed to compare them anyway")


def _check_settings(runs: pd.DataFrame, *, within: list[str], hint: str) -> None:
    """Compare the numbers at the top level of the configurations: what a command line overrides."""
    for _, group in runs.groupby(within):
        seen: dict[str, tuple[int | float, Path]] = {}
        for run in group.to_dict("records"):
            for name, value in _settings(run["config"]).items():
                first, folder = seen.setdefault(name, (value, run["folder"]))
                if value != first:
                    raise TableError(
                        f"{name} is {first} in {folder} and {value} in {run['folder']}{hint}"
                    )


def _settings(config: dict) -> dict[str, int | float]:
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, int | float) and name != "seed"
    }
