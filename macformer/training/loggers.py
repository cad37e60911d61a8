"""Where a run's curves go: a CSV file that survives a resume, and Weights & Biases."""

import csv
import netrc
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

WANDB_URL = "https://api.wandb.ai"


class CurveLogger(Logger):
    """Write one row per optimiser step that logged something.

    An existing file is continued: a resumed run overwrites the steps that it repeats and keeps the
    others.
    """

    def __init__(self, *, path: str):
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, dict[str, str | float]] = {}
        if self.path.exists():
            with self.path.open(newline="") as file:
                self._rows = {int(row["step"]): dict(row) for row in csv.DictReader(file)}

    @property
    def name(self) -> str:
        return "curve"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Nothing: config.yaml stands beside the curve."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        self._rows.setdefault(step or 0, {}).update(values)

    @rank_zero_only
    def save(self) -> None:
        columns = sorted({name for row in self._rows.values() for name in row} - {"step"})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            for step in sorted(self._rows):
                writer.writerow({**self._rows[step], "step": step})
        temporary.replace(self.path)

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        self.save()

    def finalize(self, status: str) -> None:
        self.save()


def wandb_logger(
    *, project: str, save_dir: str, name: str, group: str, job_type: str, tags: Sequence[str]
) -> WandbLogger:
    """Log to Weights & Biases; without a key or a network, on disk for ``wandb sync``.

    ``WANDB_MODE`` wins over what is found. A run's name carries its identity, so that a resumed run
    goes on under its own id.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _can_reach_wandb() else "offline")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    import wandb  # seconds, and only for those who log to it

    return WandbLogger(
        project=project,
        save_dir=save_dir,
        name=name,
        id=name,
        resume="allow" if mode == "online" else None,
        group=group,
        job_type=job_type,
        tags=list(tags),
        mode=mode,
        settings=wandb.Settings(silent=mode != "online"),
    )


def _can_reach_wandb(timeout: float = 3.0) -> bool:
    """Look for a key first: without one no connection is tried."""
    url = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_URL))
    host = url.hostname or ""
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_entry(host):
        return False
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError:
        return False
    return True


def _has_netrc_entry(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
