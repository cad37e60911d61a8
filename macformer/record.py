"""metrics.json: all that is needed to rebuild a row of a table."""

import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

CONFIG_NAME = "config.yaml"
FILE_NAME = "metrics.json"
PACKAGES = ("torch", "pytorch-lightning", "numpy", "macformer")


def describe_run(cfg: DictConfig) -> dict[str, Any]:
    """Say which run this is, before it has any result."""
    return {
        "schema": 1,
        "status": "running",
        "reason": None,
        "identity": cfg.identity,
        "name": cfg.cell,
        "task": cfg.task.name,
        "attention": cfg.choices.attention,
        "ppsbn": cfg.choices.ppsbn,
        "recipe": cfg.recipe.name,
        "seed": cfg.seed,
        "commit": source_commit(),
        "versions": {
            "python": platform.python_version(),
            **{name.replace("-", "_"): importlib.metadata.version(name) for name in PACKAGES},
        },
        "exclusive": cfg.exclusive,
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def describe_uncomposed(choices: Mapping[str, Any], *, reason: str) -> dict[str, Any]:
    """Say which run this would have been, had there been a configuration for it."""
    names = {key: choices[key] for key in ("task", "attention", "ppsbn", "recipe", "seed")}
    names["attention"] = row_name(choices)
    label = "{task}-{attention}-ppsbn_{ppsbn}-{recipe}-seed{seed}".format(**names)
    return {
        "schema": 1,
        "status": "failed",
        "reason": reason,
        "identity": None,
        "name": re.sub(r"[^\w.-]+", "_", label),
        **names,
    }


def row_name(choices: Mapping[Any, Any]) -> str:
    """Name the row of the tables: an attention, rotated or not, or another mixer in its place."""
    if choices["mixer"] != "attention":
        return choices["mixer"]
    return choices["attention"] + ("" if choices["rotary"] == "without" else "+rotary")


def read_config(run_dir: Path) -> DictConfig:
    """Read the resolved configuration of a run."""
    cfg = OmegaConf.load(run_dir / CONFIG_NAME)
    assert isinstance(cfg, DictConfig)
    return cfg


def read_metrics(run_dir: Path) -> dict[str, Any] | None:
    """Read a run's metrics, None where it has none."""
    path = run_dir / FILE_NAME
    return json.loads(path.read_text()) if path.exists() else None


def read_status(run_dir: Path) -> str | None:
    """Read whether a run is ``running``, ``failed`` or ``finished``; None before its start.

    A run that was interrupted still says that it is running.
    """
    return (read_metrics(run_dir) or {}).get("status")


def write_metrics(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Replace a run's metrics at once, so that no reader meets a half of them."""
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / (FILE_NAME + ".tmp")
    temporary.write_text(json.dumps(metrics, indent=1))
    temporary.replace(run_dir / FILE_NAME)


def write_failure(run_dir: Path, reason: str) -> None:
    """Mark a run as failed, keeping what is known of it."""
    known = read_metrics(run_dir) or describe_run(read_config(run_dir))
    write_metrics(run_dir, {**known, "status": "failed", "reason": reason})


def source_commit() -> str | None:
    """Return the source tree's commit, with ``+`` if files were changed; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "--short", "HEAD")
        return commit + "+" * bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
