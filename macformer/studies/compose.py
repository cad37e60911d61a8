"""Compose a cell of the tables inside a study, once for all points that share it."""

from functools import cache

from omegaconf import DictConfig

from macformer.runs.config import compose


@cache
def compose_cell(*overrides: str, config_dirs: tuple[str, ...]) -> DictConfig:
    """Compose ``configs/train.yaml`` as ``macformer-train`` would."""
    return compose(*overrides, config_dirs=config_dirs)
