"""Protocols as tasks get them, and tables of what is expected of them."""

from collections.abc import Callable
from functools import cache

import pytest
from omegaconf import DictConfig

from macformer.runs.config import compose


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "by_recipe(table): call with recipe, task, expected from {recipe: {task: ...}}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("by_recipe"):
        (table,) = mark.args
        cases = [(r, t, expected) for r, tasks in table.items() for t, expected in tasks.items()]
        ids = [f"{recipe}-{task}" for recipe, task, _ in cases]
        metafunc.parametrize(("recipe", "task", "expected"), cases, ids=ids)


@pytest.fixture(scope="session")
def composed() -> Callable[[str, str], DictConfig]:
    """Compose each pair of recipe and task once."""

    @cache
    def of(recipe: str, task: str) -> DictConfig:
        return compose(f"recipe={recipe}", f"task={task}", "attention=softmax")

    return of
