"""Kinds of values that options may have, and the one line that refuses all others.

Each command has a table from its options to these kinds, and checks it before any work:
``macformer-train`` that of :mod:`macformer.runs.options`, the others one of their own.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

ABSENT = object()


class OptionError(ValueError):
    """A value that an option cannot have; one line says which it can."""


@dataclass(frozen=True)
class Allowed:
    """What accepts the values that an option may have, and how a message puts them.

    ``instead`` names the option to use in place of one that has a fixed value.
    """

    accepts: Callable[[Any], bool]
    words: str
    instead: str | None = None


def written(value: Any) -> str:
    """Write a value as the command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def whole(least: int, most: int | None = None) -> Allowed:
    """Allow whole numbers; neither 1e3, which is read as a float, nor true is one."""
    words = f"a whole number of at least {least}" + (f" and at most {most}" if most else "")
    top = math.inf if most is None else most
    return Allowed(lambda value: type(value) is int and least <= value <= top, words)


def number(accepts: Callable[[float], bool], words: str) -> Allowed:
    """Allow finite numbers that pass a test."""

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and accepts(value)

    return Allowed(is_number, f"a number {words}")


def one_of(*values: Any, instead: str | None = None) -> Allowed:
    """Allow the values listed; true is not 1."""

    def is_listed(value: Any) -> bool:
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)

    return Allowed(is_listed, " or ".join(map(written, values)), instead)


def list_of(kind: Allowed, *, least: int = 1) -> Allowed:
    """Allow lists of what a kind allows, as long as said or longer."""

    def is_list(value: Any) -> bool:
        return OmegaConf.is_list(value) and len(value) >= least and all(map(kind.accepts, value))

    return Allowed(is_list, f"a list, each of it {kind.words}")


def either(*kinds: Allowed) -> Allowed:
    """Allow what one of several kinds does."""
    words = " or ".join(kind.words for kind in kinds)
    return Allowed(lambda value: any(kind.accepts(value) for kind in kinds), words)


NULL, COUNT = one_of(None), whole(1)
SEED = whole(0, 2**32 - 1)  # numpy's
FLAG = one_of(True, False)
POSITIVE = number(lambda value: value > 0, "above 0")
PART = Allowed(lambda value: OmegaConf.is_dict(value) and "_target_" in value, "a part (_target_)")
NAME = Allowed(
    lambda value: type(value) in (str, int) and bool(str(value).strip("./ ")),
    "the name of a folder",
)
NAMES = Allowed(
    lambda value: OmegaConf.is_list(value) and all(isinstance(name, str) for name in value),
    "a list of options",
)
FOLDER = Allowed(lambda value: type(value) in (str, int) and bool(str(value)), "a folder")
TEXT = Allowed(lambda value: isinstance(value, str) and bool(value.strip()), "a text")
DEVICE = Allowed(
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", value)),
    "a device of torch, as cpu or cuda:0",
)

TIMED = Allowed(
    lambda value: DEVICE.accepts(value) and not value.startswith("mps"),
    "a device that can be timed, as cpu or cuda:0",
)


def check(cfg: DictConfig, kinds: Mapping[str, Allowed]) -> None:
    """Refuse a configuration with values that its options cannot have.

    Raises:
        OptionError: With one line for all of them.
    """
    if found := list(faults(cfg, kinds)):
        raise OptionError("; ".join(found))


def faults(cfg: DictConfig, kinds: Mapping[str, Allowed]) -> Iterator[str]:
    """Yield what is wrong with the options that a configuration has."""
    for key, kind in kinds.items():
        value = OmegaConf.select(cfg, key, default=ABSENT)
        if value is not ABSENT and not kind.accepts(value):
            yield fault(key, value, kind)


def fault(key: str, value: Any, allowed: Allowed) -> str:
    """Say which value an option has, and which it can."""
    words = allowed.words
    if type(value) is float and value.is_integer() and allowed.accepts(int(value)):
        words += f", as {int(value)}"
    hint = f" (use {allowed.instead})" if allowed.instead else ""
    return f"{key} is {written(value)}; it must be {words}{hint}"


def read_settings(path: Path, kinds: Mapping[str, Allowed]) -> DictConfig:
    """Read a YAML file that gives every option of a command, and no other.

    Raises:
        OptionError: If it is no such file, or has a value that an option cannot have.
    """
    try:
        cfg = OmegaConf.load(path)
        if not isinstance(cfg, DictConfig):
            raise OptionError(f"{path} holds no options; it must have {', '.join(kinds)}")
        if missing := [key for key in kinds if key not in cfg]:
            raise OptionError(f"{path} has no {', '.join(missing)}")
        if unread := [str(key) for key in cfg if key not in kinds]:
            known = ", ".join(kinds)
            raise OptionError(f"nothing reads {', '.join(unread)} in {path}; options are {known}")
        check(cfg, kinds)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return cfg
