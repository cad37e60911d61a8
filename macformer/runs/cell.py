"""Run one cell from the configuration in its folder, and record whatever comes of it."""

import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from signal import SIG_DFL, default_int_handler

from filelock import Timeout
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from macformer.record import (
    CHECKPOINTS_NAME,
    CURVE_NAME,
    PREDICTIONS_NAME,
    RANK_ERROR_NAME,
    describe_run,
    read_config,
    read_metrics,
    read_rank_error,
    write_end,
    write_metrics,
)
from macformer.runs.begin import pretrain, pretraining_record
from macformer.runs.devices import claim_devices, device_names, show_claimed
from macformer.runs.failure import failure_reason, reason_kept
from macformer.runs.measurements import summary
from macformer.runs.process import BUSY, FAILED, pretraining_folder, run_lock
from macformer.runs.sharing import sharing_kept
from macformer.runs.stop import Stopped, die_with_parent, stop_behind, stop_signals_raise
from macformer.runs.train_and_test import train_and_test
from macformer.runs.unread import readers_may_go
from macformer.training.loggers import JOURNAL


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
        with reason_kept(run_dir):
            train_and_test(cfg, run_dir, pretrained=pretraining_folder(cfg))  # the first trained it
        return True
    with run_lock(run_dir).acquire(timeout=1):  # others hold it for a moment to look
        return _run_and_record(cfg, run_dir)


def _run_and_record(cfg: DictConfig, run_dir: Path) -> bool:
    before = read_metrics(run_dir) or {}
    if before.get("status") == "finished" and not cfg.overwrite:
        return True
    error_log = run_dir / "error.log"
    for log in (error_log, run_dir / RANK_ERROR_NAME):
        log.unlink(missing_ok=True)
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
            if names != ["cpu"]:
                show_claimed(claim, names)
            with sharing_kept(run_dir, record, claim):
                metrics = train_and_test(
                    cfg, run_dir, record=record, claim=claim, pretrained=pretrained
                )
        write_metrics(run_dir, metrics)
    except (Stopped, Exception) as error:
        if (stop := stop_behind(error)) is not None:
            with suppress(OSError):  # of a full disk
                write_end(run_dir, "interrupted", str(stop))
            raise stop from None
        reason = read_rank_error(run_dir) or failure_reason(error)
        with suppress(OSError):  # of a full disk, which may still have room for the reason
            write_end(run_dir, "failed", reason)
        with suppress(OSError):
            error_log.write_text(traceback.format_exc())
        print(f"{cfg.cell}: failed: {reason} (traceback in error.log)", file=sys.stderr)
        return False
    print(summary(metrics), flush=True)
    return True


def _remove_results(run_dir: Path) -> None:
    results = [*(run_dir / CHECKPOINTS_NAME).glob("*"), run_dir / PREDICTIONS_NAME]
    results += [run_dir / CURVE_NAME, run_dir / JOURNAL, *run_dir.glob("hpc_ckpt_*")]
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
    with readers_may_go():
        sys.exit(main())
