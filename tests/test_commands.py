"""Every command that the README, the site and the heads of configurations show can be typed."""

import argparse
import importlib
import re
import shlex
import tomllib
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

import configs
from macformer.benchmark.cli import load_config
from macformer.dropin.cli import CHOSEN
from macformer.runs.config import HELP, MULTIRUN, compose
from macformer.runs.hydra_bridge import is_glob, parse_overrides
from macformer.runs.overrides import read_overrides

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path(configs.__path__[0])
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
OF_HYDRA = {
    "macformer-train": "train",
    "macformer-features": "features",
    "macformer-study": "study",
}
COMMAND = re.compile(r"macformer-[a-z]+")
OF_TRAIN = {  # where they stand
    "macformer-prepare": "options",
    "macformer-tune": "overrides",
    "macformer-inspect": "overrides",
}


class Shown(NamedTuple):
    """A command line, and the file that shows it."""

    file: Path
    line: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}: {self.line}"


def commands_of_page(file: Path) -> list[Shown]:
    """Find the lines of code blocks, and what stands between backticks with arguments."""
    text = file.read_text()
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(line.split()) for line in re.findall(r"`(macformer-[a-z]+ [^`]+)`", text)]
    return [Shown(file, line) for line in lines if COMMAND.match(line)]


def commands_of_configuration(file: Path) -> list[Shown]:
    """Find the commands among the comments that a configuration begins with."""
    head = file.read_text().split("\n\n")[0].splitlines()
    lines = [line.removeprefix("# ") for line in head if line.startswith("# ")]
    return [Shown(file, line) for line in lines if COMMAND.match(line)]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
FILES = sorted(CONFIGS.rglob("*.yaml"))
SHOWN = [
    *chain.from_iterable(map(commands_of_page, PAGES)),
    *chain.from_iterable(map(commands_of_configuration, FILES)),
]


def words(line: str) -> list[str]:
    """Split a line as a shell does; <cell> and [...] stand for what a user fills in or leaves.

    Where the output goes is no part of a command.
    """
    line = re.sub(r" > \S+$", "", line)
    line = re.sub(r"<(\w+)>", r"\1", line).replace(" ...", "")
    return shlex.split(re.sub(r"\[(--[^\]]*)\]", "", line), comments=True)


class Parsed(Exception):
    """Ends a command after its parser has read the line."""


@pytest.fixture
def parse(monkeypatch):
    """Return the function from a command of argparse's and its arguments to what it reads."""
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def stop(self, arguments=None, original=original):
            raise Parsed(original(self, arguments))

        monkeypatch.setattr(argparse.ArgumentParser, name, stop)

    def read(command: str, arguments: Sequence[str]) -> argparse.Namespace:
        module, _, function = SCRIPTS[command].partition(":")
        with pytest.raises(Parsed) as caught:
            getattr(importlib.import_module(module), function)(list(arguments))
        return caught.value.args[0]

    return read


def check_options(options: Sequence[str], *, name: str, ours: bool) -> None:
    """Read options as a command does: each choice is a file of ours, and the first ones compose."""
    first, names_a_key = [], False
    for override in parse_overrides(read_overrides(options)):
        key, group = override.get_key_element(), CONFIGS / override.key_or_group
        swept = override.is_sweep_override() and not is_glob(override)
        values = list(override.sweep_string_iterator()) if swept else []
        values = values or [override.get_value_element_as_str()]
        names_a_key |= not group.is_dir()
        if is_glob(override):
            values = [path.stem for path in sorted(group.glob("[!_]*.yaml"))]
        if group.is_dir() and ours:
            missing = [value for value in values if not (group / f"{value}.yaml").exists()]
            assert not missing, f"{key} has no {', '.join(missing)}"
        first.append(f"{key}={values[0]}")
    if names_a_key and ours:  # of choices alone every one is composed elsewhere
        compose_once(name, *first)


@cache
def compose_once(name: str, *options: str) -> None:
    compose(*options, name=name)


def split_flags(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return a line's options, and whether they are of our configurations alone."""
    options, left = [], iter(arguments)
    ours = True
    for argument in left:
        if argument == "--config-dir":
            next(left, None)
            ours = False
        elif argument not in (*MULTIRUN, *HELP):
            options.append(argument)
    return options, ours


def test_the_commands_are_found():
    files = {shown.file for shown in SHOWN}
    assert {"README.md", "guide.md", "sweeps.md", "train.yaml"} <= {file.name for file in files}
    shown = {COMMAND.match(shown.line).group() for shown in SHOWN}  # pyright: ignore
    assert shown == set(SCRIPTS)


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_command_that_is_shown_can_be_typed(shown, parse):
    command, *arguments = words(shown.line)
    assert command in SCRIPTS, f"{command} is no entry point"
    options, ours = split_flags(arguments)
    try:
        if command in OF_HYDRA:
            check_options(options, name=OF_HYDRA[command], ours=ours)
            return
        read = parse(command, arguments)
        if command in OF_TRAIN:
            chosen = CHOSEN if command == "macformer-inspect" else ()
            given = [*chosen, *getattr(read, OF_TRAIN[command])]
            check_options(given, name="train", ours=not read.config_dir)
        elif command == "macformer-bench":
            load_config(read.options, config_dirs=read.config_dir)
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{shown}: {error}") from error


def test_a_configuration_that_begins_with_commands_is_chosen_by_one():
    """And they are not those of a neighbour that it was copied from."""
    strangers = []
    for file in FILES:
        *group, name = file.relative_to(CONFIGS).with_suffix("").parts
        lines = [shown.line for shown in commands_of_configuration(file)]
        if group and lines and name != "default" and not name.startswith("_"):
            choice = f"{'/'.join(group)}={name}"
            strangers += [] if any(choice in line for line in lines) else [file]
    assert not strangers


def test_the_readme_shows_the_name_that_its_run_has():
    """Whatever becomes part of a run's identity renames it."""
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"^macformer-train (task=listops_short .* logger=curve)$", text, re.M)[
        :1
    ]
    cell = compose(*shlex.split(command)).cell
    assert f"\n{cell}: test accuracy" in text
