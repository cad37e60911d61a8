"""Name runs by what sets them apart: options in which runs of a sweep differ are part of a row.

A resolved configuration repeats most options: ``attention.num_features`` stands again wherever the
attention is used. Of all places in which the same runs differ in the same way, the simplest name is
shown. What belongs to a row, such as the parameters of its attention, is compared among runs of
that row alone; all else among all runs of a task.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from macformer.tables.runs import TableError

SHARED, OWN = "options", "own_options"  # columns: of all rows of a task, and of one row
CHOICE = ["attention", "ppsbn"]  # what a row is called by
OF_A_ROW = {"attention", "ppsbn", "rotary", "mixer", "bounds", "model", "module", "choices"}
NOT_OPTIONS = {  # names and places, what is always in a row's name, and what differs by seed
    *("seed", "identity", "cell", "paths", "logger", "callbacks", "hydra", "sweep", "experiment"),
    *("overwrite", "retry", "exclusive", "recipe", "protocol", "identity_without"),
}

Options = dict[str, str]


def find_options(runs: pd.DataFrame) -> pd.DataFrame:
    """Find for each run the options in which it differs from others of its task and recipe.

    Args:
        runs: Columns ``task``, ``attention``, ``ppsbn``, ``recipe`` and ``config``.

    Returns:
        Columns ``options`` and ``own_options``: dictionaries from name to value, mostly empty.
    """
    found = {column: pd.Series([{} for _ in runs.index], runs.index) for column in (SHARED, OWN)}
    flat = runs["config"].map(_flatten)
    for _, group in runs.groupby(["task", "recipe"]):
        _collect(found[SHARED], flat[group.index], own=False)
        for _, row in group.groupby(CHOICE):
            _collect(found[OWN], flat[row.index], own=True)
    return pd.DataFrame(found)


def label_options(*options: Options) -> str:
    return ", ".join(f"{name}={value}" for part in options for name, value in part.items())


def select_best(runs: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Keep of each row the setting of some options that was best in validation, over its seeds.

    Returns:
        The runs kept, without these options in their names, and a note for each row: how many
        settings it had, and which was chosen.

    Raises:
        TableError: If no run differs in an option of that name.
    """
    known = {name for column in (SHARED, OWN) for options in runs[column] for name in options}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TableError(
            f"no runs differ in {', '.join(unknown)}; they differ in {', '.join(sorted(known))}"
        )
    tuned = runs[SHARED].combine(runs[OWN], lambda a, b: _only({**a, **b}, names))
    rest = runs.assign(
        **{column: runs[column].map(lambda options: _without(options, names)) for column in (SHARED, OWN)}
    )
    key = rest.apply(lambda run: (*run[["task", *CHOICE, "recipe", "device"]], label_options(run[SHARED], run[OWN])), axis=1)
    kept, notes = [], []
    for row, group in rest.groupby(key, sort=False):
        labels = tuned[group.index].map(label_options)
        means = group["accuracy.best.val"].groupby(labels).mean().dropna()
        if means.empty:
            kept.append(group)
            continue
        best = means.idxmax()
        kept.append(group[labels == best])
        notes.append(f"{row[0]}, {row[1]}: {best}, best of {len(means)} by validation")
    return pd.concat(kept), notes


def _only(options: Options, names: Sequence[str]) -> Options:
    return {name: value for name, value in options.items() if name in names}


def _without(options: Options, names: Sequence[str]) -> Options:
    return {name: value for name, value in options.items() if name not in names}


def _collect(found: pd.Series, flat: pd.Series, *, own: bool) -> None:
    """Add the options that differ among some runs: those that belong to a row, or all others."""
    known = flat[flat.map(bool)]  # a run without a configuration differs in nothing that is known
    seen: set[tuple[int, ...]] = set()
    for key in sorted({key for options in known for key in options}, key=_simplicity):
        if (key.split(".")[0] in OF_A_ROW) is not own:
            continue
        values = [options.get(key, "") for options in known]
        pattern = tuple(values.index(value) for value in values)
        if any(pattern) and pattern not in seen:
            seen.add(pattern)
            for options, value in zip(found[known.index], values, strict=True):
                options[key.rpartition(".")[2]] = value


def _simplicity(key: str) -> tuple[int, int, str]:
    return key.count("."), len(key), key


def _flatten(config: Mapping[str, Any]) -> Options:
    leaves = dict(_leaves(config, ()))
    return {key: text for key, text in leaves.items() if key.split(".")[0] not in NOT_OPTIONS}


def _leaves(node: Any, path: Sequence[str]) -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, [*path, str(key)])
    else:
        yield ".".join(path), node if isinstance(node, str) else json.dumps(node)
