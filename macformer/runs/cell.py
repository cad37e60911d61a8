"""Run one cell from the configuration in its folder: prepare, train, test, write metrics.json."""

import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIG_DFL, default_int_handler
from typing import Any, cast

import torch
from filelock import Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities import rank_zero_only

from macformer.provenance import device_name
from macformer.record import (
    CHECKPOINTS_NAME,
    PREDICTIONS_NAME,
    describe_run,
    read_config,
    read_metrics,
    write_end,
    write_metrics,
    write_predictions,
)
from macformer.runs.begin import load_encoder, pretrain, pretraining_record
from macformer.runs.build import Run, build_run
from macformer.runs.checkpoint import WholeCheckpoints, find_start
from macformer.runs.devices import Claim, claim_devices, device_names
from macformer.runs.measurements import flat, measurements, summary
from macformer.runs.model_cost import measure_cost
from macformer.runs.process import BUSY, FAILED, run_lock
from macformer.runs.score import DECIDING, find_callback, score_run
from macformer.runs.sharing import sharing, sharing_kept, sharing_so_far
from macformer.runs.stop import (
    TIME_LIMIT,
    Stopped,
    die_with_parent,
    stop_behind,
    stop_signals_raise,
)
from macformer.training.capture import CaptureError
from macformer.training.lightning_module import DivergedError
from macformer.training.loggers import JOURNAL, close_wandb


def run(run_dir: Path, *, config_dir: Path | None = None) -> bool:
    """Run a cell unless it is finished; what goes wrong ends as one line and a failed status.

    Args:
        config_dir: Where config.yaml lies, if not in the run's folder.

    Returns:
        Whether the cell is finished.

    Raises:
        Timeout: If another process runs the cell.
        Stopped: If it is asked to stop, or its time is up.
    """
    cfg = read_config(run_dir, folder=config_dir)
    if rank_zero_only.rank > 0:  # what a run leaves on disk is written by its first rank
        train_and_test(cfg, run_dir)
        return True
    with run_lock(run_dir).acquire(timeout=1):  # others hold it for a moment to look
        return _run_and_record(cfg, run_dir)


def _run_and_record(cfg: DictConfig, run_dir: Path) -> bool:
    before = read_metrics(run_dir) or {}
    if before.get("status") == "finished" and not cfg.overwrite:
        return True
    error_log = run_dir / "error.log"
    error_log.unlink(missing_ok=True)
    record = describe_run(cfg)
    if not cfg.overwrite:
        kept = ("data_digest", "data_folder", "device", "sharing")
        record |= {key: before[key] for key in kept if before.get(key)}
    names, count = device_names(cfg)
    try:
        print(f"{cfg.cell}: {run_dir}", flush=True)
        if cfg.overwrite:  # first of all: whatever stops this run, it goes on from nothing older
            _remove_results(run_dir)
        write_metrics(run_dir, record)
        pretrained = pretrain(cfg)
        record["pretraining"] = None if pretrained is None else pretraining_record(pretrained)
        with claim_devices(names, count=count) as claim:
            if count == 1 and names != ["cpu"]:
                os.environ["CUDA_VISIBLE_DEVICES"] = claim.devices[0]
            with sharing_kept(run_dir, record, claim):
                metrics = train_and_test(
                    cfg, run_dir, record=record, claim=claim, pretrained=pretrained
                )
    except (Stopped, Exception) as error:
        if (stop := stop_behind(error)) is not None:
            write_end(run_dir, "interrupted", str(stop))
            raise stop from None
        reason = _reason(error)
        print(f"{cfg.cell}: failed: {reason} (traceback in error.log)", file=sys.stderr)
        with suppress(OSError):  # of a full disk
            error_log.write_text(traceback.format_exc())
            write_end(run_dir, "failed", reason)
        return False
    write_metrics(run_dir, metrics)
    print(summary(metrics), flush=True)
    return True


def train_and_test(
    cfg: DictConfig,
    run_dir: Path,
    *,
    record: dict[str, Any] | None = None,
    claim: Claim | None = None,
    pretrained: Path | None = None,
) -> dict[str, Any]:
    """Train from the last checkpoint or from the start, and test the last and the best weights.

    Args:
        record: What is known of the run, which its first rank completes.
        claim: The devices of the first rank.
        pretrained: The folder of the run whose encoder this one begins with.
    """
    if cfg.num_threads is not None:
        torch.set_num_threads(cfg.num_threads)
    checkpoints = run_dir / CHECKPOINTS_NAME
    built = build_run(cfg)
    for kind, key in DECIDING.items():
        if find_callback(built, kind) is None:
            raise ValueError(f"callbacks.{key} is missing; a run cannot do without it")
    built.trainer.strategy.checkpoint_io = WholeCheckpoints()
    start = None if cfg.overwrite else find_start(checkpoints)
    if start is None and pretrained is not None:
        load_encoder(built.module.model, pretrained)
    if record is not None:
        resumes = start is not None
        data = _find_data(built, record, resumes=resumes)
        device = device_name(built.trainer.strategy.root_device)
        shared = sharing_so_far(cfg, record, claim, device=device, resumes=resumes)
        record |= {**data, "device": device, "sharing": shared}
        write_metrics(run_dir, record)
    with _closed_loggers(built):
        for logger in built.trainer.loggers:
            logger.log_hyperparams(cast(dict, OmegaConf.to_container(cfg, resolve=True)))
        built.trainer.fit(built.module, built.data, ckpt_path=start and str(start))
        _check_time(built)
        results, predictions = score_run(built, eval_interval=cfg.eval_interval)
        cost = measure_cost(built, cfg)
        metrics = {**(record or {}), **measurements(built), **cost, **results}
        for logger in built.trainer.loggers:
            logger.log_metrics(flat(metrics), step=built.trainer.global_step)
    if record is not None:
        write_predictions(run_dir, predictions)
    return {**metrics, **sharing(built, record, claim), "status": "finished"}


def _find_data(built: Run, record: dict[str, Any], *, resumes: bool) -> dict[str, str]:
    """Say which data a run is trained on; one that goes on must find the same."""
    data: Any = built.data
    data.prepare_data()
    known = record.get("data_digest")
    if resumes and known not in (None, data.digest):
        raise ValueError(
            f"the data are not those that this run began with (digest {known}, now {data.digest}); "
            "overwrite=true begins anew"
        )
    return {"data_digest": data.digest, "data_folder": data.folder_name}


def _check_time(built: Run) -> None:
    """End a run here whose time was up before its last step."""
    trainer = built.trainer
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # pyright: ignore[reportAttributeAccessIssue]
    if trainer.global_step < trainer.max_steps and any(
        (timer.time_remaining() or 0) <= 0 for timer in timers
    ):
        steps = f"step {trainer.global_step} of {trainer.max_steps}"
        raise Stopped(f"trainer.max_time was up at {steps}", TIME_LIMIT)


@contextmanager
def _closed_loggers(built: Run) -> Iterator[None]:
    """Close the loggers, and say to W&B how the run ended."""
    finished = False
    try:
        yield
        finished = True
    finally:
        for logger in built.trainer.loggers:
            logger.finalize("success" if finished else "failed")
        close_wandb(exit_code=int(not finished))


def _reason(error: BaseException) -> str:
    message = textwrap.shorten(str(error), width=400, placeholder=" ...")
    if (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "can't allocate memory" in message
    ):
        return f"out of memory: {message}"
    kind = type(error).__name__
    plain = isinstance(error, (CaptureError, DivergedError, ValueError, OSError))
    return message if plain and message else f"{kind}: {message}"


def _remove_results(run_dir: Path) -> None:
    results = [*(run_dir / CHECKPOINTS_NAME).glob("*"), run_dir / PREDICTIONS_NAME]
    results += [run_dir / "metrics.csv", run_dir / JOURNAL, *run_dir.glob("hpc_ckpt_*")]
    for file in results:
        file.unlink(missing_ok=True)


def main() -> int:
    """Run the cell of the folder that is the first argument.

    Returns:
        The exit code: 0, 1 if the cell failed, that of a shell for a signal that stopped it, that
        of timeout(1) for a time limit, or ``BUSY`` if another process runs it.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    die_with_parent()
    sys.path.append(os.getcwd())  # the user's own variants, behind everything else
    run_dir, *config_dir = map(Path, sys.argv[1:])
    try:
        with stop_signals_raise(over=(SIG_DFL, default_int_handler), once=True):
            finished = run(run_dir, config_dir=config_dir[0] if config_dir else None)
        return 0 if finished else FAILED
    except Stopped as stop:
        return stop.exit_code
    except Timeout:
        print(f"{run_dir}: another process runs it", file=sys.stderr)
        return BUSY


if __name__ == "__main__":
    sys.exit(main())
