"""Sweeps as Hydra composes them, and what a run leaves in its folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import Tensor


@pytest.fixture(scope="session")
def compose_multirun() -> Callable[..., DictConfig]:
    """Compose a sweep of the folder that Hydra has been given."""

    def compose(*overrides: str) -> DictConfig:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        options = [*overrides, "hydra.mode=MULTIRUN"]  # as -m adds it
        config = hydra.compose_config("train", overrides=options, run_mode=RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        return config

    return compose


@pytest.fixture
def last_weights() -> Callable[[Path], dict[str, Tensor]]:
    """Return the function from a run's folder to the weights it ended with."""

    def of(run_dir: Path) -> dict[str, Tensor]:
        path = run_dir / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]

    return of
