"""Where a run's curves go: a CSV file that survives a resume, and Weights & Biases."""

import csv
import io
import logging
import netrc
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from macformer.record import MAX_ID
from macformer.whole_file import whole_file

WANDB_URL = "https://api.wandb.ai"
MAX_TAG = 64
_CONNECTION_SECONDS = 3.0  # that a host may take to answer
JOURNAL = Path("wandb", "logged.csv")  # in a run's folder: what an offline run has logged so far

log = logging.getLogger(__name__)


class CurveLogger(Logger):
    """Write one row per optimiser step that logged something.

    An existing file is continued: a resumed run overwrites the steps that it repeats and keeps the
    others. The file is written with every validation, before the checkpoint that follows it, and in
    the end: Lightning asks for it after every row.
    """

    def __init__(self, *, path: str):
        super().__init__()
        self.path = Path(path)
        self.rows: dict[int, dict[str, str | float]] = {}
        self._is_due = False
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if (row["step"] or "").isdigit()]
            self.rows = {int(row["step"]): dict(row) for row in rows}

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
        self.rows.setdefault(step or 0, {}).update(values)
        self._is_due |= any(name.startswith("val/") for name in values)

    @rank_zero_only
    def save(self) -> None:
        if self._is_due:
            self.write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.write()

    def write(self) -> None:
        """Write all rows."""
        columns = sorted({name for row in self.rows.values() for name in row} - {"step"})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["step", *columns])
        writer.writeheader()
        for step in sorted(self.rows):
            writer.writerow({**self.rows[step], "step": step})
        with whole_file(self.path) as file:
            file.write(text.getvalue().encode())
        self._is_due = False


class ContinuedWandbLogger(WandbLogger):
    """Log to Weights & Biases, and once more what an offline run before a resume had logged.

    Two offline runs of one id do not add up: syncing the second replaces the first. So what is
    logged is kept beside them, and goes into the new run in place of the old one, which is removed
    then. An online run is continued by the server.

    A run does not depend on it: where W&B fails, it goes on without.

    Args:
        journal: The file that keeps it.
    """

    def __init__(self, *, journal: Path, **options: Any):
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # W&B warns of it at every run, whatever its value
        self._is_lost = False
        self._replaced: list[Path] = []
        if rank_zero_only.rank == 0:
            self._replaced = list(journal.parent.glob("offline-run-*"))
            if not self._replaced:
                journal.unlink(missing_ok=True)
        self._journal = CurveLogger(path=str(journal))
        self._to_repeat = dict(self._journal.rows)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._tell(super().log_hyperparams, params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = step or 0
        self._journal.log_metrics(metrics, step=step)
        self._tell(self._repeat_before, step)
        self._tell(super().log_metrics, metrics, step=step)

    def _repeat_before(self, step: int) -> None:
        """Log what an earlier run had logged before a step; later ones are taken again."""
        for earlier in sorted(s for s in self._to_repeat if s < step):
            row = self._to_repeat.pop(earlier).items()
            values = {name: float(value) for name, value in row if name != "step" and value != ""}
            super().log_metrics(values, step=earlier)
        self._to_repeat.clear()
        while self._replaced:
            shutil.rmtree(self._replaced.pop(), ignore_errors=True)

    @rank_zero_only
    def save(self) -> None:
        self._journal.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._journal.finalize(status)
        self._tell(super().finalize, status)

    def _tell(self, work: Callable[..., object], *args: Any, **options: Any) -> None:
        """Do what W&B has a part in; from the first time that it fails, do without."""
        if not self._is_lost:
            try:
                work(*args, **options)
            # A service that died, a network: versions of W&B differ in what they raise.
            except Exception as error:
                self._is_lost = True
                # Lightning asks for W&B's run all the same, and would start it again.
                self._experiment: Any = SimpleNamespace(id=self._id, name=self._name)
                _warn(error, "goes on without it")


def wandb_logger(
    *, project: str, save_dir: str, name: str, group: str, job_type: str, tags: Sequence[str]
) -> WandbLogger:
    """Log to Weights & Biases; without a key or a network, on disk for ``wandb sync``.

    ``WANDB_MODE`` wins over what is found. A run's name carries its identity, so that a resumed run
    goes on under its own id.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _can_reach_wandb() else "offline")
    options = {
        "project": project,
        "save_dir": save_dir,
        "name": name,
        "id": wandb_id(name),
        "group": group[:MAX_ID],
        "job_type": job_type[:MAX_TAG],
        "tags": [tag[:MAX_TAG] for tag in tags],
        "journal": Path(save_dir, JOURNAL),
    }
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    if mode == "online" and rank_zero_only.rank == 0:
        logger = _open_online(options)
        if logger is not None:
            return logger
        mode = "offline"
    return _make_logger(options, mode)


def close_wandb(*, exit_code: int) -> None:
    """Close the run that W&B has open, or the next one in this process would be logged into it."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:  # the results are on disk
        _warn(error, "is not closed there")


def wandb_id(name: str) -> str:
    """Turn the name of a run into an id that W&B accepts; its end tells runs apart."""
    allowed = re.sub(r"[/\\#?%:]", "_", name)
    return allowed if len(allowed) <= MAX_ID else f"{allowed[: MAX_ID - 12]}-{allowed[-11:]}"


def _warn(error: Exception, what_follows: str) -> None:
    reason = str(error).partition("\n")[0] or type(error).__name__
    log.warning("Weights & Biases: %s; the run %s", reason, what_follows)


def _open_online(options: dict[str, Any]) -> WandbLogger | None:
    """Connect now, so that a key that W&B refuses costs a line and not the run."""
    import wandb

    logger = _make_logger(options, "online")
    try:
        _ = logger.experiment
    except (wandb.Error, ValueError) as error:
        _warn(error, "is logged offline, for wandb sync")
        return None
    return logger


def _make_logger(options: dict[str, Any], mode: str) -> WandbLogger:
    import wandb  # seconds, and only for those who log to it

    return ContinuedWandbLogger(
        **options,
        resume="allow" if mode == "online" else None,
        mode=mode,
        settings=wandb.Settings(silent=mode != "online"),
    )


def _can_reach_wandb() -> bool:
    """Look for a key first: without one no connection is tried."""
    url = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_URL))
    host = url.hostname or ""
    if not os.environ.get("WANDB_API_KEY") and not _has_netrc_entry(host):
        return False
    proxy = getproxies().get(url.scheme)
    if proxy is not None and not proxy_bypass(host):
        url = urlparse(proxy if "://" in proxy else f"http://{proxy}")
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=_CONNECTION_SECONDS).close()
    except OSError:
        return False
    return True


def _has_netrc_entry(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
