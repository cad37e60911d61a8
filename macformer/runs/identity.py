"""What makes two runs the same run.

A hash over the resolved configuration, without what cannot change a result: paths, logging,
callbacks that only watch, and the blocks of the recipe that belong to other tasks. It names the
run's folder, so that a cell finds its own interrupted run and never another's.
"""

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from macformer.runs.protocol import merge_protocol
from macformer.runs.row import check_row

IRRELEVANT = (
    "paths",
    "logger",
    "hydra",
    "identity",
    "cell",
    "sweep",
    "overwrite",
    "retry",
    "exclusive",
    "experiment",
)
WATCHERS = ("last", "random_states", "throughput", "device_use", "peak_memory", "progress")
IRRELEVANT_ANYWHERE = ("data_dir", "source_dir", "num_workers")  # where data lie, how they are made


def run_identity(cfg: DictConfig) -> str:
    """Hash a composed configuration to ten hexadecimal digits."""
    cfg.protocol = cfg.protocol  # merged once, in place of once for each value taken from it
    keys = [key for key in cfg if key not in IRRELEVANT]
    return digest({key: _resolved(cfg, key) for key in keys})


def _resolved(cfg: DictConfig, key: Any) -> Any:
    if key == "recipe":
        return cfg.recipe.name
    if key == "callbacks":
        return _deciding_callbacks(cfg)
    node = cfg[key]
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return _without_paths(value)


def _deciding_callbacks(cfg: DictConfig) -> dict[str, Any]:
    """Return the callbacks that choose weights or may end a run; their paths stay unresolved."""
    if cfg.callbacks is None:
        return {}
    callbacks: Any = OmegaConf.to_container(cfg.callbacks, resolve=False)
    return {name: node for name, node in callbacks.items() if name not in WATCHERS}


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _without_paths(v) for k, v in value.items() if k not in IRRELEVANT_ANYWHERE}
    return [_without_paths(v) for v in value] if isinstance(value, list) else value


def digest(value: Any) -> str:
    """Hash plain data to ten hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def register_resolver() -> None:
    """Make ``${identity:}``, ``${protocol:...}`` and ``${row:...}`` known to configurations."""
    OmegaConf.register_new_resolver("protocol", merge_protocol, replace=True)
    OmegaConf.register_new_resolver(
        "identity", lambda *, _root_: run_identity(_root_), replace=True
    )
    OmegaConf.register_new_resolver("row", check_row, replace=True)
