"""Imports run one way between rooms, and objects are built from configuration in one file."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import macformer
import tasks

PACKAGES = {"macformer": Path(macformer.__path__[0]), "tasks": Path(tasks.__path__[0])}

# What each room may import of its package, beside itself and the leaves.
LEAVES = {
    "macformer": {
        "heartbeat",
        "record",
        "provenance",
        "plotting",
        "measuring",
        "partials",
        "whole_file",
    },
    "tasks": {"errors", "parallel"},
}
METHOD = {"ops", "attention", "models"}
RUN = METHOD | {"training", "callbacks", "tables", "watch"}
TOOLS = RUN | {"runs"}
DATA = {"store", "sources", "splits", "tokenizers", "floors"}
OWN = DATA | {"columns"}  # of files that a user brings
ROOMS = {
    "macformer": {
        "ops": set(),
        "attention": {"ops"},
        "models": {"ops", "attention"},
        "training": METHOD,
        "callbacks": set(),
        "watch": set(),
        "tables": {"watch"},
        "runs": RUN,
        "benchmark": TOOLS,
        "features": TOOLS,
        "check": TOOLS,
        "dropin": TOOLS,
        "studies": TOOLS | {"benchmark", "features"},
    },
    "tasks": {
        "store": set(),
        "sources": {"store"},
        "tokenizers": {"store"},
        "columns": {"sources", "store"},
        "splits": set(),
        "feeding": {"store"},
        "floors": {"store"},
        **{task: DATA for task in ("listops", "text", "retrieval", "image", "recall")},
        "pathfinder": DATA | {"image"},  # its rows are pixels, too
        "table": OWN,
        "series": OWN | {"table"},  # its rows are planned as those of a table
        "describe": OWN | {"table", "series"},
    },
}
COMMANDS = {"macformer": {"train", "evaluate", "tune", "prepare"}, "tasks": set()}
EVERY_ROOM = [(package, room) for package, rooms in ROOMS.items() for room in rooms]


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def room_of(path: Path, package: str) -> str:
    """Name the folder, or the file, directly below the package."""
    return path.relative_to(PACKAGES[package]).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path, package: str) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {parts[1] for parts in names if parts[0] == package and len(parts) > 1}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_room(package):
    rooms = {room_of(path, package) for path in modules(package)} - {"__init__"}
    assert rooms == ROOMS[package].keys() | LEAVES[package] | COMMANDS[package]


@pytest.mark.parametrize(("package", "room"), EVERY_ROOM)
def test_imports_run_one_way(package, room):
    known = ROOMS[package].keys() | LEAVES[package] | COMMANDS[package]
    allowed = ROOMS[package][room] | LEAVES[package] | {room}
    for path in modules(package):
        if room_of(path, package) == room:
            beyond = (imported_rooms(path, package) & known) - allowed
            assert not beyond, f"{path} imports {beyond}"


@pytest.mark.parametrize("package", PACKAGES)
def test_leaves_import_leaves_alone(package):
    known = ROOMS[package].keys() | COMMANDS[package]
    for path in modules(package):
        if room_of(path, package) in LEAVES[package]:
            assert not imported_rooms(path, package) & known, path


@pytest.mark.parametrize(("package", "other"), [("macformer", "tasks"), ("tasks", "macformer")])
def test_the_packages_do_not_know_each_other(package, other):
    for path in modules(package):
        assert not [name for name in imported(path) if name.split(".")[0] == other], path


def test_macformer_instantiates_in_one_file():
    users = [
        str(path.relative_to(PACKAGES["macformer"]))
        for path in modules("macformer")
        if any(name.startswith("hydra.utils") for name in imported(path))
    ]
    assert users == ["runs/build.py"]


def test_jaxtyping_checks_every_room_but_the_one_that_pytest_rewrites():
    options = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    options = options["tool"]["pytest"]["ini_options"]["addopts"]
    (option,) = [x for x in options if x.startswith("--jaxtyping-packages=")]
    *packages, _ = option.partition("=")[2].split(",")
    rooms = {f"macformer.{room}" for room in ROOMS["macformer"]} - {"macformer.check"}
    assert set(packages) == {*rooms, "tasks"}


HYDRA_INTERNALS = ("hydra._internal", "hydra.core", "hydra.experimental")


def test_what_leans_on_the_internals_of_hydra_stands_in_one_file():
    users = [
        str(path.relative_to(PACKAGES["macformer"]))
        for path in modules("macformer")
        if any(name.startswith(HYDRA_INTERNALS) for name in imported(path))
    ]
    assert users == ["runs/hydra_bridge.py"]


# What takes a second or more to import, and is for tables, for plots, for preparing data or for
# those who log to Weights & Biases.
NOT_IN_A_CELL = {"datasets", "matplotlib", "optuna", "pandas", "scipy", "sklearn", "wandb"}


def imported_at_once(path: Path) -> Iterator[str]:
    """Yield what importing a module imports: not what stands in functions or is for types alone."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reached_from(*roots: str) -> tuple[set[Path], set[str]]:
    """Follow imports within our packages; return their files, and the other packages' names."""
    seen: set[Path] = set()
    others: set[str] = set()
    todo = list(roots)
    while todo:
        parts = todo.pop().split(".")
        if parts[0] not in PACKAGES:
            others.add(parts[0])
            continue
        root = PACKAGES[parts[0]]
        for depth in range(1, len(parts) + 1):  # a module comes with the packages above it
            base = root.joinpath(*parts[1:depth])
            file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            if file.exists() and file not in seen:
                seen.add(file)
                todo += imported_at_once(file)
    return seen, others


def test_the_process_of_a_cell_imports_only_what_it_uses():
    """Each cell of a sweep pays for it."""
    files, others = reached_from("macformer.runs.cell", "macformer.models", "tasks")
    assert {"torch", "hydra", "pytorch_lightning"} <= others
    assert PACKAGES["macformer"] / "training" / "step.py" in files
    assert not others & NOT_IN_A_CELL
    assert not [path for path in files if PACKAGES["macformer"] / "tables" in path.parents]


def test_a_command_line_is_read_before_torch_is_imported():
    for command in ("train", "prepare", "tune", "evaluate"):
        _, others = reached_from(f"macformer.{command}")
        assert "torch" not in others, command
