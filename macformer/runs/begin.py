"""With which weights a run begins: random ones, or those of the run that comes before it.

Whoever needs that run first trains it; the others wait for it, and an interrupted one is resumed.
One that failed is left alone until the user asks again (``runs.process.retry_pretraining``), or
every cell of a sweep would pay for the same failure.
"""

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from macformer.record import CHECKPOINTS_NAME, read_metrics, write_config
from macformer.runs.checkpoint import load_weights
from macformer.runs.data_now import DataNow
from macformer.runs.process import is_running, run_in_process
from macformer.runs.stop import TIME_LIMIT, Stopped

_SECONDS = 2.0  # between looks at a run that another process trains


def pretrain(cfg: DictConfig) -> Path | None:
    """Return the folder of the finished run that comes before this one, trained now if need be.

    Raises:
        ValueError: If it fails, or has failed and the user has not asked for it again, or was
            trained on other data than there are now.
        Stopped: If it was interrupted, and goes on when this run does.
    """
    if cfg.get("pretrain") is None:
        return None
    before = cfg.pretrain.run
    run_dir = Path(before.paths.run_dir)
    waits = tried = False
    while True:
        running = is_running(run_dir)  # first, or it could end between the two looks
        end = read_metrics(run_dir) or {}
        if running:
            if not waits:
                print(f"waiting for {before.cell}, which another process trains", flush=True)
            waits = True
            time.sleep(_SECONDS)
        elif end.get("status") == "finished":
            break
        elif end.get("status") == "failed":
            raise ValueError(_failure(run_dir, end["reason"], before=not (tried or waits)))
        elif end.get("status") == "interrupted" and tried:
            raise Stopped(f"pretraining: {end['reason']}", TIME_LIMIT)
        else:
            write_config(run_dir, before)
            run_in_process(run_dir, overwrite=False)
            tried = True
    if change := DataNow().change(before, run_dir):
        raise ValueError(f"pretraining {change}; remove {run_dir} to pretrain again")
    return run_dir


def _failure(run_dir: Path, reason: str, *, before: bool) -> str:
    if not before:
        return f"pretraining failed ({run_dir}): {reason}"
    again = "retry=failed in a sweep, or removing that folder, begins it again"
    return f"pretraining failed before ({run_dir}): {reason}; {again}"


def load_encoder(model: nn.Module, run_dir: Path) -> None:
    """Give an encoder the weights and features, best in validation, of the run before.

    Raises:
        CheckpointError: If they are missing, damaged or another encoder's.
    """
    load_weights(model, run_dir / CHECKPOINTS_NAME / "best.ckpt", part="encoder")


def pretraining_record(run_dir: Path) -> dict[str, Any]:
    """Return what the record of a run says about its pretraining: its cost and its accuracy."""
    metrics = read_metrics(run_dir) or {}
    return {
        "name": metrics["name"],
        "identity": metrics["identity"],
        "steps": metrics["train"]["steps"],
        "accuracy": metrics["accuracy"]["best"]["test"],
        "majority_rate": metrics["majority_rate"],
        "exclusive": metrics["exclusive"],
        **metrics["use"],
    }
