"""Studies composed as the command line composes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from macformer.runs.config import compose


@pytest.fixture
def compose_study(tmp_path: Path) -> Callable[..., DictConfig]:
    def compose_study(*overrides: str) -> DictConfig:
        paths = [f"paths.data_dir={tmp_path / 'data'}"]
        return compose(*paths, *overrides, name="study")

    return compose_study
