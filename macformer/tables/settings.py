"""Name runs by what sets them apart: options in which runs of a sweep differ are part of a row.

A resolved configuration repeats most options: ``attention.num_features`` stands again wherever the
attention is used. Of all places in which the same runs differ in the same way, the simplest name is
shown, as the end of its key that no other option shares. What belongs to a row, such as the
parameters of its attention, is compared among runs of that row alone; all else among all runs of a
task.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any

import pandas as pd

from macformer.tables.runs import TableError

SHARED, OWN = "options", "own_options"  # columns: of all rows of a task, and of one row
CHOICE = ["attention", "ppsbn"]  # what a row is called by
_ROW = ["task", *CHOICE, "recipe", "device", SHARED, OWN]
# what belongs to a row; and what is in its name already, or decides nothing
_PARTS = ("attention", "ppsbn", "rotary", "mixer", "bounds", "model", "module")
OF_A_ROW = {*_PARTS, "choices", "pretrain"}
NO_OPTIONS = ("recipe", "protocol", "nuisance", "hydra", "pretrain.identity")
SIZES = re.compile(r"model\.")  # begins the keys that rows of any attention have

Options = dict[str, str]


def name_runs(
    runs: pd.DataFrame, *, best_of: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add to runs the texts that tell their rows apart, in columns ``options``, ``own_options``.

    Args:
        runs: As :func:`macformer.tables.runs.read_runs` reads them.
        best_of: Options of which each row keeps the setting that was best in validation; those that
            the runs themselves were given as ``best_of`` if None.

    Returns:
        The runs, and the settings chosen, as :func:`select_best` has them.

    Raises:
        TableError: If no runs differ in an option of that name.
    """
    tuned = {name for config in runs["config"] for name in config.get("best_of") or ()}
    names = sorted(tuned) if best_of is None else best_of
    runs = find_options(runs, tuned=names)
    if best_of is None:  # what differs by now
        names = [name for name in names if _options_called(name, _known(runs))]
    runs, chosen = select_best(runs, names) if names else (runs, pd.DataFrame())
    return label_options(runs), chosen


def _known(runs: pd.DataFrame) -> set[str]:
    return {name for column in (SHARED, OWN) for options in runs[column] for name in options}


def _options_called(name: str, known: Iterable[str]) -> list[str]:
    """Return the options of a name: that one, or those that are an end of it, or it of them."""
    if name in known:
        return [name]
    pairs = [(option, f".{option}", f".{name}") for option in sorted(known)]
    return [option for option, ours, given in pairs if given.endswith(ours) or ours.endswith(given)]


def find_options(runs: pd.DataFrame, *, tuned: Sequence[str] = ()) -> pd.DataFrame:
    """Add the options in which runs differ from others of their task and recipe.

    What differs in one task is named in all of them, so that a row has one name throughout.

    Args:
        runs: Columns ``task``, ``attention``, ``ppsbn``, ``recipe`` and ``config``.
        tuned: Names of options that no other stands for, though both vary alike.

    Returns:
        The runs with columns ``options`` and ``own_options``: dictionaries, mostly empty.
    """
    shared, own = (
        pd.Series([Options() for _ in runs.index], runs.index, dtype=object) for _ in range(2)
    )
    flat = runs["config"].map(flatten)
    for _, of_recipe in runs.groupby("recipe"):
        keys = [
            _differing(flat[of_task.index], own=False, tuned=tuned)
            for _, of_task in of_recipe.groupby("task")
        ]
        _add(shared[of_recipe.index], flat, set().union(*keys))
        for _, of_row in of_recipe.groupby(CHOICE):
            keys = [
                _differing(flat[cells.index], own=True, tuned=tuned, shown=shared[cells.index])
                for _, cells in of_row.groupby("task")
            ]
            _add(own[of_row.index], flat, set().union(*keys))
        # another row may have one of the sizes in which the runs of a row differ
        sizes = {key for options in own[of_recipe.index] for key in options if SIZES.match(key)}
        searched = _searched(flat[of_recipe.index], tuned)
        _add(own[of_recipe.index], flat, sizes | searched, where_known=True)
    names = short_names({key for column in (shared, own) for options in column for key in options})
    rename = partial(_rename, names=names)
    return runs.assign(**{SHARED: shared.map(rename), OWN: own.map(rename)})


def _add(
    found: pd.Series, flat: pd.Series, keys: Iterable[str], *, where_known: bool = False
) -> None:
    """Add options to runs that have a configuration, in an order that is the same in all of them.

    Args:
        where_known: Leave those out that a configuration does not have.
    """
    ordered = sorted(keys, key=_simplicity)
    for options, config in zip(found, flat[found.index], strict=True):
        if config:
            options |= {k: config.get(k, "") for k in ordered if k in config or not where_known}


def _rename(options: Options, names: Mapping[str, str]) -> Options:
    return {names[key]: value for key, value in options.items()}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Name each dotted key by its shortest end that no other key has, or in full."""
    ends = {key: [key.split(".", n)[-1] for n in range(key.count("."), -1, -1)] for key in keys}
    counts = Counter(end for found in ends.values() for end in found)
    return {key: next((e for e in found if counts[e] == 1), key) for key, found in ends.items()}


def label_options(runs: pd.DataFrame) -> pd.DataFrame:
    """Turn the dictionaries of options into text, by which rows are told apart."""
    return runs.assign(**{column: runs[column].map(_label) for column in (SHARED, OWN)})


def _label(options: Options) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def read_label(text: str) -> Options:
    """Return the options that a text of them names."""
    parts = (part.partition("=") for part in re.split(r", (?=[^\s,=]+=)", text) if part)
    return {name: value for name, _, value in parts}


def select_best(runs: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep of each row the setting of some options that was best in validation, over its seeds.

    Settings of fewer finished seeds than another one of the row has do not compete. A row without
    a finished run keeps the first one of each seed.

    Returns:
        The runs kept, without these options in their names, and the settings chosen: what a row is
        called by, with columns ``chosen`` (the options), ``tried`` (for each the values, in their
        order), ``num_settings``, ``num_short`` of seeds, ``validation`` and ``given_up``, the index
        of the runs of the other settings.

    Raises:
        TableError: If no run differs in an option of that name.
    """
    known = _known(runs)
    called = {name: _options_called(name, known) for name in names}
    unknown = [name for name, options in called.items() if not options]
    if unknown:
        raise TableError(
            f"no runs differ in {', '.join(unknown)}; "
            f"they differ in {', '.join(sorted(known)) or 'nothing'}"
        )
    names = [option for options in called.values() for option in options]
    tuned = [_select({**a, **b}, names) for a, b in zip(runs[SHARED], runs[OWN], strict=True)]
    labels = pd.Series([_label(options) for options in tuned], runs.index)
    settings = dict(zip(labels, tuned, strict=True))
    rest = runs.copy()
    for column in (SHARED, OWN):
        rest[column] = runs[column].map(partial(_select, names=names, chosen=False))
    texts = label_options(rest)
    kept, chosen = [], []
    for row, group in texts.groupby(_ROW, sort=False):
        finished = group["accuracy.best.val"].where(group["status"] == "finished")
        scores = finished.groupby(labels[group.index]).agg(["mean", "count"])
        full = scores[scores["count"] == max(scores["count"].max(), 1)]
        if not full.empty:
            best = str(full["mean"].idxmax())
            of_best = labels[group.index] == best
            tried = [settings[label] for label in labels[group.index].unique()]
            chosen.append(
                {
                    **dict(zip(_ROW, row, strict=True)),
                    "chosen": settings[best],
                    "tried": {n: _in_order(o[n] for o in tried if n in o) for n in settings[best]},
                    "num_settings": len(full),
                    "num_short": len(tried) - len(full),
                    "validation": full.loc[best, "mean"],
                    "given_up": list(group.index[~of_best]),
                }
            )
            group = group[of_best]
        else:  # nothing to choose by: what became of one setting stands for all
            group = group[~group["seed"].duplicated()]
        kept.append(rest.loc[group.index])
    return pd.concat(kept), pd.DataFrame(chosen)


def given_up(read: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the settings that were not chosen, named by all their options.

    Args:
        read: All runs, as :func:`macformer.tables.runs.read_runs` reads them.
        kept: Those that :func:`name_runs` keeps of them.
    """
    if len(kept) == len(read):
        return kept.iloc[:0]
    named, _ = name_runs(read, best_of=[])
    return named[~named.index.isin(kept.index)]


def _in_order(values: Iterable[str]) -> list[str]:
    """Order values as numbers if all are, and as text otherwise."""
    found = set(values)
    try:
        return sorted(found, key=float)
    except ValueError:
        return sorted(found)


def _select(options: Options, names: Sequence[str], *, chosen: bool = True) -> Options:
    return {name: value for name, value in options.items() if (name in names) is chosen}


def _differing(
    flat: pd.Series, *, own: bool, tuned: Sequence[str], shown: pd.Series | None = None
) -> list[str]:
    """Return the options that differ among some runs: those that belong to a row, or all others.

    Args:
        tuned: Names of options that are returned even where another varies alike.
        shown: The options by which the runs are told apart already.
    """
    known = flat[flat.map(bool)]  # a run without a configuration differs in nothing that is known
    before = [] if shown is None else list(shown[known.index])
    seen = {_pattern(before, name) for options in before for name in options}
    keys = sorted({key for options in known for key in options}, key=_simplicity)
    named = _called(tuned, keys)
    found = []
    for key in sorted(keys, key=lambda key: key not in named):
        if (key.split(".")[0] in OF_A_ROW) is not own or _is_seed(known, key):
            continue
        pattern = _pattern(list(known), key)
        if any(pattern) and (pattern not in seen or key in named):
            seen.add(pattern)
            found.append(key)
    return found


def _searched(flat: pd.Series, tuned: Sequence[str]) -> set[str]:
    """Return the tuned options of rows in which runs differ, though no row may have tried two."""
    found = set()
    for key in filter(None, _called(tuned, {key for options in flat for key in options})):
        values = {options[key] for options in flat if key in options}
        if key.split(".")[0] in OF_A_ROW and len(values) > 1:
            found.add(key)
    return found


def _called(names: Sequence[str], keys: Iterable[str]) -> list[str | None]:
    """Return for each name the simplest key that ends with it."""
    ordered = sorted(keys, key=_simplicity)
    return [next((k for k in ordered if f".{k}".endswith(f".{name}")), None) for name in names]


def _is_seed(known: pd.Series, key: str) -> bool:
    """Say whether a value is that of the seed everywhere, by whatever name."""
    return all(options.get(key) == options.get("seed") for options in known)


def _pattern(known: Sequence[Options], key: str) -> tuple[int, ...]:
    """Say which runs share a value: for each the first that has it."""
    values = [options.get(key, "") for options in known]
    return tuple(values.index(value) for value in values)


def _simplicity(key: str) -> tuple[int, int, str]:
    return key.count("."), len(key), key


def flatten(config: Mapping[str, Any]) -> Options:
    """Name each value by its dotted key, without what the configuration calls a nuisance."""
    nuisance = [pattern for group in (config.get("nuisance") or {}).values() for pattern in group]
    is_option = _options_beside((*NO_OPTIONS, *nuisance))
    return {key: text for key, text in _leaves(config, ()) if is_option(key)}


@cache
def _options_beside(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return what says of a key whether it matches none of the patterns, once for each key."""
    every = [*patterns, *(f"{pattern}.*" for pattern in patterns)]
    return cache(lambda key: not any(fnmatchcase(key, pattern) for pattern in every))


def _leaves(node: Any, path: Sequence[str]) -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, [*path, str(key)])
    else:
        yield ".".join(path), node if isinstance(node, str) else json.dumps(node)
