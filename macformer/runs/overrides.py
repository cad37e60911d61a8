"""Options of the command line, from what people type to what Hydra's grammar reads and back."""

import os
import re
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from macformer.runs.hydra_bridge import Override, QuotedString, is_group, parse_overrides

HOME = re.compile(r"(?<=[=,\[(])~(?=/|,|\]|\)|$)")  # at the beginning of a value
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")  # strings that mean themselves
WORDS = re.compile(r"(?i)(null|true|false|nan|inf)$")  # those that mean something else

VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")  # flags of Hydra
EMPTIABLE = ("logger", "callbacks")  # groups of which a run may have no member; Hydra has ~ for it


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Put what people type as ``task=text -m seed=0,1`` in the one order that argparse reads."""
    flags, options, flag = [], [], ""
    for argument in arguments:
        is_option = argument.startswith(("~", "+")) or ("=" in argument and argument[0] != "-")
        (options if is_option and flag not in VALUED else flags).append(argument)
        flag = argument
    return [*flags, *options]


def read_overrides(overrides: Sequence[str]) -> list[str]:
    """Return options as Hydra can read them, ``~`` being the home folder where it begins a value.

    Raises:
        ValueError: If Hydra's grammar refuses one; the message shows it quoted.
    """
    return [_read_override(override) for override in overrides]


def _read_override(override: str) -> str:
    key, equals, value = override.partition("=")
    if value == "null" and key in EMPTIABLE:
        return f"~{key}"
    for candidate in (override, HOME.sub(os.path.expanduser("~"), override)):
        try:
            (parsed,) = parse_overrides([candidate])
        except HydraException:
            continue
        _check_deletion(parsed)
        _check_choice(parsed, value)
        return candidate
    if not equals:
        raise ValueError(f"{override!r} is not of the form key=value")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    raise ValueError(
        f"the value of {key} has characters that must be quoted, for the shell and within: "
        f"'{key}=\"{quoted}\"'"
    )


def _check_deletion(override: Override) -> None:
    """Refuse to leave out what every run has, however much a part may be left out of it."""
    key = override.key_or_group
    if override.is_delete() and key not in EMPTIABLE and re.fullmatch(r"\w+", key):
        other = f"{key}=NAME chooses another" if is_group(key) else f"{key}=... changes it"
        raise ValueError(f"~{key} would leave out what every run has; {other}")


def _check_choice(override: Override, value: str) -> None:
    """Refuse a number, say, where a file of a group is chosen."""
    group = override.key_or_group
    if not (override.is_delete() or override.is_sweep_override()):
        choice = override.value()
        if not isinstance(choice, str | list | QuotedString) and is_group(group):
            raise ValueError(f"{group} is {value}; it must be the name of a file in {group}/")


def write_override(key: str, value: Any) -> str:
    """Write an option so that Hydra reads the same value, its type included."""
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and not WORDS.match(value)):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def leave_to_cells(overrides: Sequence[str]) -> list[str]:
    """Make of options below a group, in a multirun, those of its cells alone.

    The configuration that a multirun begins with has one option of each group, which need not have
    the key that the swept ones have. A choice is not looked for in it, not even one between a value
    and itself: Hydra's ``choice(value)`` refuses null, and takes the quotes of a string away.
    """
    written = []
    for override, parsed in zip(overrides, parse_overrides(overrides), strict=True):
        below = re.search(r"[./]", parsed.key_or_group) and not parsed.key_or_group.startswith(
            ("hydra.", "hydra/", "paths.")
        )
        key, _, value = override.partition("=")
        if below and value and not parsed.is_sweep_override():
            override = f"{key}={value},{value}"
        written.append(override)
    return written
