"""Train and test a run from its configuration, resuming where it was stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Timer

from macformer.provenance import device_name
from macformer.record import CHECKPOINTS_NAME, write_metrics, write_predictions
from macformer.runs.begin import load_encoder
from macformer.runs.build import Run, build_run
from macformer.runs.checkpoint import WholeCheckpoints, find_start
from macformer.runs.devices import Claim
from macformer.runs.measurements import flat, measurements
from macformer.runs.model_cost import measure_cost
from macformer.runs.score import DECIDING, score_run
from macformer.runs.sharing import sharing, sharing_so_far
from macformer.runs.stop import TIME_LIMIT, Stopped
from macformer.training.loggers import close_wandb


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
        if built.callback(kind) is None:
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
        measured = measurements(built)  # first: the passes of the cost are others than the run's
        metrics = {**(record or {}), **measured, **measure_cost(built, cfg), **results}
        for logger in built.trainer.loggers:
            logger.log_metrics(flat(metrics), step=built.trainer.global_step)
    if record is not None and predictions is not None:
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
