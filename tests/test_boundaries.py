"""Imports run one way, and objects are built from configuration in one file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import macformer
import tasks

PACKAGES = {"macformer": Path(macformer.__path__[0]), "tasks": Path(tasks.__path__[0])}
# each layer may import from itself and from those before it
LAYERS = ("ops", "attention", "models")


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_modules_are_found():
    assert len(modules("macformer")) > 25 and len(modules("tasks")) > 10


@pytest.mark.parametrize(("package", "other"), [("macformer", "tasks"), ("tasks", "macformer")])
def test_the_packages_do_not_know_each_other(package, other):
    for path in modules(package):
        assert not [name for name in imported(path) if name.split(".")[0] == other], path


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer):
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for path in (PACKAGES["macformer"] / layer).rglob("*.py"):
        for name in imported(path):
            parts = name.split(".")
            assert parts[0] != "macformer" or parts[1] in allowed, f"{path} imports {name}"


def test_macformer_instantiates_in_one_file():
    users = [
        path.name
        for path in modules("macformer")
        if any(name.startswith("hydra.utils") for name in imported(path))
    ]
    assert users == ["build.py"]
