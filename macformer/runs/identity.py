"""What makes two runs the same run.

A hash over the resolved configuration, without what its block ``nuisance`` lists: that cannot
change a result. It names the run's folder, so that a cell finds its own interrupted run and never
another's.

The hash knows how data are made: the source, the generator's seed and sizes, the digest that a
table of the user's own carries in its YAML. What was really prepared is known to the data module
alone, as ``digest``. A cell writes it into metrics.json as ``data_digest`` when it starts, and a
run with another digest than that of the data which are there now is not the same run: it is named,
and neither resumed nor taken for finished.
"""

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from macformer.runs.options import check_options
from macformer.runs.pretraining import fix_pretraining
from macformer.runs.protocol import fix_protocol
from macformer.runs.values import check_values, settle_numbers


def fix_identity(cfg: DictConfig) -> str:
    """Hash a configuration once it is complete, and write the hash and the protocol into it.

    Whatever will be a run, or the folder of one, comes by here first: its options are checked.

    Raises:
        OptionError: If an option has a value that it cannot have.
    """
    if not OmegaConf.is_interpolation(cfg, "identity"):
        return cfg.identity
    check_once(cfg)
    with read_write(cfg):
        cfg.identity = run_identity(cfg)
    return cfg.identity


def check_once(cfg: DictConfig) -> None:
    """Check a configuration's options and complete it, unless that is done.

    Its protocol is merged, and the run that comes before it is composed.

    Raises:
        OptionError: If an option has a value that it cannot have.
    """
    if "protocol" in cfg and OmegaConf.is_interpolation(cfg, "protocol"):
        settle_numbers(cfg)  # of the recipe, too
        fix_protocol(cfg)  # first, for values may refer to the folder that the identity names
        check_values(cfg)
        check_options(cfg)
        fix_pretraining(cfg, fix_identity)
        with read_write(cfg):
            cfg.identity = "${identity:}"  # a value may have asked for it before all was there


def run_identity(cfg: DictConfig) -> str:
    """Hash what decides a result to ten hexadecimal digits."""
    patterns = [pattern for group in cfg.nuisance.values() for pattern in group]
    cfg = cfg.copy()
    OmegaConf.set_readonly(cfg, False)
    cfg.identity = "identity"  # what lies in the run's folder has its name in it
    OmegaConf.update(cfg, "paths", {key: f"/{key}" for key in cfg.paths})
    kept = [str(key) for key in cfg if key != "hydra" and not _matches(str(key), patterns)]
    decisive: Any = {key: _plain(cfg, key) for key in kept}
    leaves = {key: value for key, value in _leaves(decisive) if not _matches(key, patterns)}
    return digest(leaves | _choosing_metric(cfg))


def _choosing_metric(cfg: DictConfig) -> dict[str, Any]:
    """Return the metric of the task by which the best weights are chosen; others only watch."""
    monitor = OmegaConf.select(cfg, "callbacks.best.monitor", default="")
    metric = OmegaConf.select(cfg, f"task.metrics.{monitor.removeprefix('val/')}")
    return {} if metric is None else {monitor: OmegaConf.to_container(metric, resolve=True)}


def _plain(cfg: DictConfig, key: str) -> Any:
    node = cfg[key]
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _matches(key: str, patterns: Sequence[str]) -> bool:
    """Say whether a key, or one above it, is listed."""
    return any(fnmatch.fnmatchcase(key, p) or fnmatch.fnmatchcase(key, f"{p}.*") for p in patterns)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted key; lists and empty mappings are values."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def digest(value: Any) -> str:
    """Hash plain data to ten hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
