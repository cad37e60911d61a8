"""Compose a cell of the tables inside a study."""

from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


@cache
def compose_cell(*overrides: str, attention_dir: tuple[str, ...] = ()) -> DictConfig:
    """Compose ``configs/train.yaml`` as ``macformer-train`` would, for parts to be built from it.

    Args:
        attention_dir: Folders of further attention files.
    """
    search = [f"file://{Path(folder).resolve().parent}" for folder in attention_dir]
    with initialize_config_module("configs", version_base="1.3"):
        return compose("train", [*overrides, f"hydra.searchpath={search}"])
