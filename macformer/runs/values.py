"""Whether the values that the command line gives to parts can be theirs.

:mod:`macformer.runs.options` knows the options of a run. Of all other values a file has an example:
one given in its place must be of its kind. A name that no file has must be one that its part takes.
"""

import difflib
import inspect
import math
import pydoc
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from macformer.runs.allowed import ABSENT, OptionError, written
from macformer.runs.hydra_bridge import (
    calling_folder,
    compose_files,
    given_values,
    user_folders,
)
from macformer.runs.importing import make_importable
from macformer.runs.options import ALLOWED

LANGUAGE = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")  # Hydra's, of every part
ELSEWHERE = ("hydra", "paths")
COMPUTED = ("identity", "cell", "choices", "protocol")


def settle_numbers(cfg: DictConfig) -> None:
    """Make fractions of the whole numbers given for them: dropout=0 and dropout=0.0 are one run."""
    for option in given_values(cfg):
        key = option.get_key_element().lstrip("+")
        if type(option.value()) is int and _is_fraction(key, cfg):
            with read_write(cfg):
                OmegaConf.update(cfg, key, float(OmegaConf.select(cfg, key)))


def _is_fraction(key: str, cfg: DictConfig) -> bool:
    if key in ALLOWED:
        return ALLOWED[key].accepts(0.5)
    if key.split(".")[0] in ELSEWHERE:
        return False
    return type(OmegaConf.select(compose_files(cfg), key)) is float


def check_values(cfg: DictConfig) -> None:
    """Refuse values that the command line gives and no part can have.

    Raises:
        OptionError: With one line for all of them.
    """
    given = [option.get_key_element().lstrip("+") for option in given_values(cfg)]
    keys = [key for key in given if key not in ALLOWED and key.split(".")[0] not in ELSEWHERE]
    files = compose_files(cfg) if keys else cfg
    faults = [
        *_misplaced(cfg),
        *_unread(cfg),
        *(fault for key in keys for fault in _faults(key, cfg, files)),
    ]
    if faults:
        raise OptionError("; ".join(faults))


def _misplaced(cfg: DictConfig) -> Iterator[str]:
    """Find files of a group that a defaults list has put below the group in place of into it."""
    for group, node in cfg.items_ex(resolve=False):
        if OmegaConf.is_dict(node) and group in node and "_target_" not in node:
            yield (
                f"{group} has what it needs one level too low, in {group}.{group}; "
                f"a defaults list has /{group}/NAME@_here_, not /{group}/NAME"
            )


def _unread(cfg: DictConfig) -> Iterator[str]:
    """Find the keys of a task in a user's folders that nothing reads, as one mistyped."""
    if not user_folders():
        return
    text = OmegaConf.to_yaml(cfg)
    unread = [key for key in cfg.task if not re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text)]
    for key in unread:
        near = difflib.get_close_matches(key, set(cfg.task) - set(unread), n=1)
        hint = f"; it has a key {near[0]}" if near else ""
        yield f"nothing reads task.{key}{hint}"


def _faults(key: str, cfg: DictConfig, files: DictConfig) -> Iterator[str]:
    if key.split(".")[0] in COMPUTED:
        yield f"{key} is computed, and no option"
        return
    value = OmegaConf.select(cfg, key, default=ABSENT)
    example = OmegaConf.select(files, key, default=ABSENT)
    if value is ABSENT:  # it was deleted after it was given
        return
    if example is ABSENT:
        yield from _unknown(key, value, cfg)
    elif OmegaConf.is_dict(value) and OmegaConf.is_dict(example):
        for name in value:
            if name not in example or value[name] != example[name]:
                yield from _faults(f"{key}.{name}", cfg, files)
    elif words := _expected(value, example):
        shown = "" if OmegaConf.is_config(example) else f", as {written(example)} in its file"
        yield f"{key} is {written(value)}; it must be {words}{shown}"


def _expected(value: Any, example: Any) -> str | None:
    """Say what a value must be to stand in the place of an example; None if it can."""
    kind = type(example)
    if OmegaConf.is_config(example):
        same = OmegaConf.is_dict(value) == OmegaConf.is_dict(example) and OmegaConf.is_config(value)
        words = "a mapping" if OmegaConf.is_dict(example) else "a list"
        return None if value is None or same else words
    if kind is bool:
        return None if type(value) is bool or value is None else "true or false"
    if kind is int:
        return None if type(value) is int else "a whole number"
    if kind is float:
        number = type(value) in (int, float) and not math.isnan(value)
        return None if number or value is None else "a number"
    return "text" if kind is str and OmegaConf.is_config(value) else None


def _unknown(key: str, value: Any, cfg: DictConfig) -> Iterator[str]:
    """Refuse a name that a part does not take."""
    above, _, name = key.rpartition(".")
    if not above and not OmegaConf.is_config(value):
        if not re.search(rf"\$\{{{name}\b", OmegaConf.to_yaml(cfg)):
            yield f"{key} is {written(value)}; there is no such option, and nothing reads it"
        return
    part: Any = OmegaConf.select(cfg, above) if above else None
    if not OmegaConf.is_dict(part) or "_target_" not in part or name in LANGUAGE:
        return
    make_importable([*user_folders(), str(calling_folder())])
    try:
        target: Any = pydoc.locate(part["_target_"])
        taken = inspect.signature(target).parameters.values()
    except (pydoc.ErrorDuringImport, TypeError, ValueError):  # or written in C, or no function
        return  # building it tells
    if any(p.kind is p.VAR_KEYWORD or p.name == name for p in taken):
        return
    names = ", ".join(p.name for p in taken if p.kind is not p.VAR_POSITIONAL)
    yield f"{key} is {written(value)}; {part['_target_']} has no {name}, but {names}"
