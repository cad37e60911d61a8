"""metrics.json: all that is needed to rebuild a row of a table."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

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


def read_metrics(run_dir: Path) -> dict[str, Any] | None:
    """Read a run's metrics, None where it has none."""
    path = run_dir / FILE_NAME
    return json.loads(path.read_text()) if path.exists() else None


def is_finished(run_dir: Path) -> bool:
    """Say whether a run was trained and tested to its end."""
    return (read_metrics(run_dir) or {}).get("status") == "finished"


def write_metrics(run_dir: Path, metrics: dict[str, Any]) -> None:
    """Replace a run's metrics at once, so that no reader meets a half of them."""
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / (FILE_NAME + ".tmp")
    temporary.write_text(json.dumps(metrics, indent=1))
    temporary.replace(run_dir / FILE_NAME)


def write_failure(run_dir: Path, reason: str) -> None:
    """Mark a run as failed, keeping what is known of it."""
    write_metrics(run_dir, {**(read_metrics(run_dir) or {}), "status": "failed", "reason": reason})


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


def device_name(device: torch.device) -> str:
    """Name the hardware, with torch's threads for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].partition(":")[2].strip() if models else name
    threads = torch.get_num_threads()
    return f"{name} ({threads} thread{'s' * (threads != 1)})"
