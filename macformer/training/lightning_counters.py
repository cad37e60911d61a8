"""What this project reads and writes of Lightning that Lightning's documentation does not promise.

All of it stands here, so that an upgrade has one file to break. The step of a call takes several
batches and optimiser steps where Lightning sees one of each; its intervals, checkpoints and
``global_step`` follow these counters.
"""

from typing import Any

import pytorch_lightning as pl

TESTED = "2.6"  # Lightning's minor releases, in each of which any of this may change


def count_steps(trainer: pl.Trainer, num_steps: int) -> None:
    """Tell Lightning of the batches and steps of a call, of which it counts one and none itself."""
    loop: Any = trainer.fit_loop.epoch_loop
    loop.batch_progress.increment_by(num_steps - 1)
    loop._batches_that_stepped += num_steps - 1
    loop.manual_optimization.optim_step_progress.increment_by(num_steps)


def steps_to_validation(trainer: pl.Trainer) -> int | None:
    """Count the steps up to the next validation; None where there is none."""
    interval = trainer.val_check_batch
    if not isinstance(interval, int):  # infinite without validation
        return None
    return interval - trainer.global_step % interval


def scales_loss(trainer: pl.Trainer) -> bool:
    """Say whether the precision multiplies the loss by a scale."""
    return trainer.scaler is not None
