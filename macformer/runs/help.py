"""What ``--help`` says of commands, of those that compose a file of ``configs/`` by that file."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

CONFIG_DIR = "a folder of your own configurations"
FLAGS = {
    "-m": "a sweep: values separated by commas, or 'glob(PATTERN)'",
    "--config-dir DIR": CONFIG_DIR,
    "--cfg job": "print the configuration in place of running it; it has every option",
    "--version": "print the version",
}
MOST = 100  # columns


NAMED_IN_RECIPE = ("optimizer", "scheduler")


class Line(NamedTuple):
    """An option in a YAML file: its name, its value, and the comment behind it."""

    name: str
    value: str
    comment: str


def make_parser(command: str, text: str, *, epilog: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of a command that has no main function of Hydra's, but takes its folders.

    Args:
        text: What it does, in lines of their own; the docstring of its module.
    """
    parser = argparse.ArgumentParser(
        prog=command,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help=CONFIG_DIR)
    return parser


def describe_command(command: str, text: str, *, name: str) -> str:
    """Describe a command in lines as wide as the terminal.

    Args:
        text: What it does; the docstring of its module.
        name: Its file in ``configs/``.
    """
    source = files("configs").joinpath(f"{name}.yaml").read_text()
    return "\n".join(
        [
            f"usage: {command} [-m] [--config-dir DIR] [group=file ...] [option=value ...]",
            "",
            text.strip(),
            "",
            "flags:",
            *_entries(FLAGS.items()),
            "",
            "groups (group=file, and a file may bring options of its own):",
            *_entries((line.name, _of_group(line)) for line in groups_of(source)),
            "",
            describe_options(name),
        ]
    )


def describe_options(name: str) -> str:
    """List the options of a file in ``configs/``, with their defaults."""
    source = files("configs").joinpath(f"{name}.yaml").read_text()
    entries = _entries((line.name, _of_option(line)) for line in options_of(source))
    return "\n".join(["options (option=value):", *entries])


def groups_of(source: str) -> list[Line]:
    """Read the groups that the defaults list of a file chooses from."""
    return [Line(*found) for found in _read(r"^  - (\w+): (\S+)(?: +# (.*))?$", source)]


def options_of(source: str) -> list[Line]:
    """Read the options at the top level of a file that have a value of one line there.

    What is computed of others is no option, nor is a part that only a recipe names.
    """
    found = _read(r"^(\w+): *([^\s#].*?)?(?: +# (.*))?$", source)
    computed = ("", "${identity:}")
    return [
        Line(*line)
        for line in found
        if line[1] not in computed and line[1].count("${") < 2 and line[0] not in NAMED_IN_RECIPE
    ]


def _read(pattern: str, source: str) -> list[tuple[str, str, str]]:
    return re.findall(pattern, source, re.MULTILINE)


def _of_group(line: Line) -> str:
    folder = files("configs").joinpath(line.name)
    names = [path.name[:-5] for path in folder.iterdir() if path.name.endswith(".yaml")]
    known = " ".join(sorted(name for name in names if name[0] != "_"))
    what = f"{line.comment}; " if line.comment else ""
    default = "" if line.value in ("???", "null") else f" (default: {line.value})"
    return f"{what}{known}{default}"


def _of_option(line: Line) -> str:
    value = "by the recipe" if "protocol." in line.value else line.value
    default = "required" if value == "???" else f"default: {value}"
    return f"{line.comment} ({default})" if line.comment else f"({default})"


def _entries(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    width = min(shutil.get_terminal_size().columns, MOST)
    for name, text in pairs:
        lines = textwrap.wrap(text, width - 21, break_on_hyphens=False)
        first = f"  {name:<17} " if len(name) < 18 else f"  {name}\n{'':20}"
        yield first + f"\n{'':20}".join(lines)
