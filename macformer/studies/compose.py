"""Compose a cell of the tables inside a study, once for all points that share it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig

from macformer.runs.config import compose
from macformer.runs.overrides import write_override

_compose = cache(compose)


def compose_cell(cfg: DictConfig, options: Mapping[str, Any], *changes: str) -> DictConfig:
    """Compose ``configs/train.yaml`` as ``macformer-train`` would.

    Args:
        cfg: Of the study, which knows the folders of a user's own rows.
        options: Names and values of the cell's options.
        changes: Further overrides, such as ``~attention.sampler``.
    """
    overrides = (write_override(name, value) for name, value in options.items())
    return _compose(*overrides, *changes, config_dirs=tuple(cfg.paths.config_dirs))
