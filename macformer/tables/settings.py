"""Name runs by what sets them apart: options in which runs of one sweep differ are part of a row.

A resolved configuration repeats most options: ``attention.num_features`` stands again wherever the
attention is used. Of all places in which the same runs differ in the same way, the shortest name is
shown. What belongs to a row, such as the parameters of its attention, is compared among runs of that
row alone; all else among the runs of a task.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

CHOICE = ["attention", "ppsbn"]  # what a row is called by
OF_A_ROW = ("attention", "ppsbn", "rotary", "mixer", "bounds", "model", "module", "choices")
NOT_SETTINGS = (  # names and places, and what differs between seeds alone
    *("seed", "identity", "cell", "paths", "logger", "callbacks", "hydra", "sweep", "experiment"),
    *("overwrite", "retry", "exclusive", "recipe", "protocol"),
)


def name_settings(runs: pd.DataFrame) -> pd.Series:
    """Say for each run in which options it differs from others of its task, empty where in none.

    Args:
        runs: Columns ``task``, ``attention``, ``ppsbn``, ``recipe`` and ``config``.
    """
    names = pd.Series("", index=runs.index)
    for _, group in runs.groupby(["task", "recipe"]):
        flat = {index: _flatten(config) for index, config in group["config"].items() if config}
        found: dict[Any, dict[str, str]] = {index: {} for index in flat}
        _add_differences(found, flat, own=False)
        for _, row in group.groupby(CHOICE):
            _add_differences(found, {i: flat[i] for i in row.index if i in flat}, own=True)
        for index, options in found.items():
            names[index] = ", ".join(f"{key}={value}" for key, value in options.items())
    return names


def _add_differences(
    found: dict[Any, dict[str, str]], flat: Mapping[Any, Mapping[str, str]], *, own: bool
) -> None:
    """Add the options that differ among some runs: those that belong to a row, or all others."""
    keys = sorted({key for options in flat.values() for key in options}, key=_simplicity)
    seen: set[tuple[str, ...]] = set()
    for key in keys:
        if (key.split(".")[0] in OF_A_ROW) is not own:
            continue
        values = tuple(options.get(key, "") for options in flat.values())
        pattern = tuple(str(values.index(value)) for value in values)
        if len(set(values)) > 1 and pattern not in seen:
            seen.add(pattern)
            for index, value in zip(flat, values, strict=True):
                found[index][key.rpartition(".")[2]] = value


def _simplicity(key: str) -> tuple[int, int, str]:
    return key.count("."), len(key), key


def _flatten(config: Mapping[str, Any]) -> dict[str, str]:
    options = dict(_leaves(config, ()))
    return {key: text for key, text in options.items() if key.split(".")[0] not in NOT_SETTINGS}


def _leaves(node: Any, path: Sequence[str]) -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, [*path, str(key)])
    else:
        yield ".".join(path), node if isinstance(node, str) else json.dumps(node)
