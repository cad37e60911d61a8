"""Run one cell from the configuration in its folder: prepare, train, test, write metrics.json."""

import ctypes
import logging
import signal
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any, cast

import torch
from filelock import Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from macformer.callbacks import DeviceUse, PeakMemory, Throughput
from macformer.provenance import device_name
from macformer.record import (
    describe_run,
    read_config,
    read_status,
    write_failure,
    write_metrics,
)
from macformer.runs.build import Run, build_run
from macformer.runs.process import BUSY, run_lock
from macformer.runs.score import score_run
from macformer.training.capture import CaptureError
from macformer.training.lightning_module import DivergedError

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(run_dir: Path) -> bool:
    """Run a cell unless it is finished; what goes wrong ends as one line and a failed status.

    Returns:
        Whether the cell is finished.

    Raises:
        Timeout: If another process runs the cell.
    """
    cfg = read_config(run_dir)
    if rank_zero_only.rank > 0:  # what a run leaves on disk is written by its first rank
        train_and_test(cfg, run_dir)
        return True
    with run_lock(run_dir).acquire(timeout=1):  # others hold it for a moment to look
        return _run_and_record(cfg, run_dir)


def _run_and_record(cfg: DictConfig, run_dir: Path) -> bool:
    if read_status(run_dir) == "finished" and not cfg.overwrite:
        return True
    error_log = run_dir / "error.log"
    error_log.unlink(missing_ok=True)
    try:
        print(f"{cfg.cell}: {run_dir}", flush=True)
        write_metrics(run_dir, describe_run(cfg))
        metrics = train_and_test(cfg, run_dir)
    except Exception as error:
        error_log.write_text(traceback.format_exc())
        reason = _reason(error)
        write_failure(run_dir, reason)
        print(f"{cfg.cell}: failed: {reason} (traceback in error.log)", file=sys.stderr)
        return False
    write_metrics(run_dir, metrics)
    print(_summary(metrics), flush=True)
    return True


def train_and_test(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Train from the last checkpoint or from the start, and test the last and the best weights."""
    for name in ("max_steps", "eval_interval", "eval_batches", "test_batches"):
        if cfg[name] == 0:
            raise ValueError(f"{name} is 0; at least 1 is needed")
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    checkpoints = run_dir / "checkpoints"
    if cfg.overwrite:
        _remove(checkpoints, run_dir / "metrics.csv")
    built = build_run(cfg)
    for logger in built.trainer.loggers:
        logger.log_hyperparams(cast(dict, OmegaConf.to_container(cfg, resolve=True)))
    last = checkpoints / "last.ckpt"
    finished = False
    try:
        built.trainer.fit(built.module, built.data, ckpt_path=str(last) if last.exists() else None)
        accuracy = score_run(built, eval_interval=cfg.eval_interval)
        metrics = {**describe_run(cfg), **_measurements(built), "accuracy": accuracy}
        for logger in built.trainer.loggers:
            logger.log_metrics(_flat(metrics), step=built.trainer.global_step)
        finished = True
    finally:
        for logger in built.trainer.loggers:
            logger.finalize("finished" if finished else "failed")
        _finish_wandb(exit_code=int(not finished))
    return {**metrics, "status": "finished"}


def _measurements(built: Run) -> dict[str, Any]:
    data: Any = built.data
    throughput, memory = built.callbacks["throughput"], built.callbacks["peak_memory"]
    assert isinstance(throughput, Throughput) and isinstance(memory, PeakMemory)
    use = built.callbacks["device_use"]
    assert isinstance(use, DeviceUse)
    return {
        "device": device_name(built.trainer.strategy.root_device),
        "num_parameters": sum(p.numel() for p in built.module.model.parameters()),
        "num_examples": data.num_examples,
        "majority_rate": data.majority_rate("test"),
        "train": {
            "steps": built.trainer.global_step,
            "seconds": throughput.train_seconds,
            "loss": built.module.train_loss,
            "peak_memory_gib": memory.train_gib,
            **throughput.train,
        },
        "use": {
            "seconds": use.seconds,
            "joules": use.joules,
            "num_devices": built.trainer.world_size,
        },
        "inference": {"peak_memory_gib": memory.inference_gib, **throughput.inference},
    }


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    """Name the results as W&B shows them."""
    values = {
        "test/accuracy": metrics["accuracy"]["best"]["test"],
        "test/accuracy_last": metrics["accuracy"]["last"]["test"],
        "test/majority_rate": metrics["majority_rate"],
        "num_parameters": metrics["num_parameters"],
    }
    for phase in ("train", "inference"):
        for name, value in metrics[phase].items():
            if name.endswith(("_per_second", "_gib")) and value is not None:
                values[f"perf/{phase}_{name}"] = value
    return values


def _summary(metrics: dict[str, Any]) -> str:
    best, last = metrics["accuracy"]["best"], metrics["accuracy"]["last"]
    return (
        f"{metrics['name']}: test accuracy {100 * best['test']:.2f} % "
        f"(best validation, step {best['step']}), {100 * last['test']:.2f} % (last step); "
        f"majority class {100 * metrics['majority_rate']:.2f} %"
    )


def _reason(error: Exception) -> str:
    message = textwrap.shorten(str(error), width=400, placeholder=" ...")
    if (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in message
    ):
        return f"out of memory: {message}"
    kind = type(error).__name__
    plain = isinstance(error, (CaptureError, DivergedError, ValueError, OSError))
    return message if plain and message else f"{kind}: {message}"


def _remove(*paths: Path) -> None:
    for path in paths:
        for file in [path] if path.is_file() else path.glob("*"):
            file.unlink(missing_ok=True)  # by another rank


def _finish_wandb(*, exit_code: int) -> None:
    """Close the run, if there is one: the next cell in this process must not log into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def main() -> int:
    """Run the cell of the folder named by the one argument.

    Returns:
        The exit code: 0, 1 if the cell failed, or ``BUSY`` if another process runs it.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Lightning would exit as if the run had failed
    try:
        return 0 if run(Path(sys.argv[1])) else 1
    except Timeout:
        print(f"{sys.argv[1]}: another process runs it", file=sys.stderr)
        return BUSY


def _die_with_parent() -> None:
    """Leave no cell behind a sweep that was killed; without Linux the lock must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
