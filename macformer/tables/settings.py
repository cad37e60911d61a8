"""Name runs by what sets them apart: options in which runs of a sweep differ are part of a row.

A resolved configuration repeats most options: ``attention.num_features`` stands again wherever the
attention is used. Of all places in which the same runs differ in the same way, the simplest name is
shown. What belongs to a row, such as the parameters of its attention, is compared among runs of
that row alone; all else among all runs of a task.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pandas as pd

from macformer.tables.runs import TableError

SHARED, OWN = "options", "own_options"  # columns: of all rows of a task, and of one row
CHOICE = ["attention", "ppsbn"]  # what a row is called by
# what belongs to a row; and what is in its name already, or decides nothing
OF_A_ROW = {"attention", "ppsbn", "rotary", "mixer", "bounds", "model", "module", "choices"}
NO_OPTIONS = ("recipe", "protocol", "nuisance", "hydra")

Options = dict[str, str]


def name_runs(runs: pd.DataFrame, *, best_of: Sequence[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """Add to runs the texts that tell their rows apart, in columns ``options``, ``own_options``.

    Args:
        runs: As :func:`macformer.tables.runs.read_runs` reads them.
        best_of: Options of which each row keeps the setting that was best in validation.

    Returns:
        The runs, and a note on each choice.

    Raises:
        TableError: If no runs differ in an option of that name.
    """
    runs, notes = find_options(runs), []
    if best_of:
        runs, notes = select_best(runs, best_of)
    return label_options(runs), notes


def find_options(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the options in which each run differs from others of its task and recipe.

    Args:
        runs: Columns ``task``, ``attention``, ``ppsbn``, ``recipe`` and ``config``.

    Returns:
        The runs with columns ``options`` and ``own_options``: dictionaries, mostly empty.
    """
    found = {
        column: pd.Series([Options() for _ in runs.index], runs.index, dtype=object)
        for column in (SHARED, OWN)
    }
    flat = runs["config"].map(flatten)
    for _, group in runs.groupby(["task", "recipe"]):
        _collect(found[SHARED], flat[group.index], own=False)
        for _, row in group.groupby(CHOICE):
            _collect(found[OWN], flat[row.index], own=True)
    return runs.assign(**found)


def label_options(runs: pd.DataFrame) -> pd.DataFrame:
    """Turn the dictionaries of options into text, by which rows are told apart."""
    return runs.assign(**{column: runs[column].map(_label) for column in (SHARED, OWN)})


def _label(options: Options) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


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
            f"no runs differ in {', '.join(unknown)}; "
            f"they differ in {', '.join(sorted(known)) or 'nothing'}"
        )
    tuned = [_select({**a, **b}, names) for a, b in zip(runs[SHARED], runs[OWN], strict=True)]
    labels = pd.Series([_label(options) for options in tuned], runs.index)
    rest = runs.copy()
    for column in (SHARED, OWN):
        rest[column] = runs[column].map(partial(_select, names=names, chosen=False))
    kept, notes = [], []
    for row, group in rest.groupby(_row_keys(rest), sort=False):
        means = group["accuracy.best.val"].groupby(labels[group.index]).mean().dropna()
        if not means.empty:
            best = means.idxmax()
            notes.append(f"{row}: {best}, best of {len(means)} by validation")
            group = group[labels[group.index] == best]
        kept.append(group)
    return pd.concat(kept), notes


def _row_keys(runs: pd.DataFrame) -> list[str]:
    names = [*("task", *CHOICE, "recipe", "device"), SHARED, OWN]
    labelled = label_options(runs)[names].astype(str)
    return labelled.apply(lambda run: " ".join(filter(None, run)), axis=1).to_list()


def _select(options: Options, names: Sequence[str], *, chosen: bool = True) -> Options:
    return {name: value for name, value in options.items() if (name in names) is chosen}


def _collect(found: pd.Series, flat: pd.Series, *, own: bool) -> None:
    """Add the options that differ among some runs: those that belong to a row, or all others."""
    known = flat[flat.map(bool)]  # a run without a configuration differs in nothing that is known
    seen: set[tuple[int, ...]] = set()
    for key in sorted({key for options in known for key in options}, key=_simplicity):
        if (key.split(".")[0] in OF_A_ROW) is not own or _is_seed(known, key):
            continue
        pattern = _pattern(known, key)
        if any(pattern) and pattern not in seen:
            seen.add(pattern)
            for options, config in zip(found[known.index], known, strict=True):
                options[key.rpartition(".")[2]] = config.get(key, "")


def _is_seed(known: pd.Series, key: str) -> bool:
    """Say whether a value is that of the seed everywhere, by whatever name."""
    return all(options.get(key) == options.get("seed") for options in known)


def _pattern(known: pd.Series, key: str) -> tuple[int, ...]:
    """Say which runs share a value: for each the first that has it."""
    values = [options.get(key, "") for options in known]
    return tuple(values.index(value) for value in values)


def _simplicity(key: str) -> tuple[int, int, str]:
    return key.count("."), len(key), key


def flatten(config: Mapping[str, Any]) -> Options:
    """Name each value by its dotted key, without what the configuration calls a nuisance."""
    nuisance = [pattern for group in (config.get("nuisance") or {}).values() for pattern in group]
    patterns = [*NO_OPTIONS, *nuisance]
    return {
        key: text
        for key, text in _leaves(config, ())
        if not any(fnmatchcase(key, p) or fnmatchcase(key, f"{p}.*") for p in patterns)
    }


def _leaves(node: Any, path: Sequence[str]) -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, [*path, str(key)])
    else:
        yield ".".join(path), node if isinstance(node, str) else json.dumps(node)
