"""Studies composed as the command line composes them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from macformer.runs.identity import register_resolver


@pytest.fixture
def compose_study(tmp_path: Path) -> Callable[..., DictConfig]:
    register_resolver()

    def compose_study(*overrides: str) -> DictConfig:
        paths = [f"paths.data_dir={tmp_path / 'data'}", "paths.run_dir=null"]
        with initialize_config_module("configs", version_base="1.3"):
            return compose("study", [*paths, *overrides])

    return compose_study
