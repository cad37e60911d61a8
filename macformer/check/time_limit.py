"""The end of a training that takes too long."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class TimeLimit(Callback):
    """End training after some seconds, and let the run be scored as it is.

    ``trainer.max_time`` interrupts a run instead, which a later call would go on with.
    """

    def __init__(self, *, seconds: float):
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end = time.monotonic() + self.seconds

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if time.monotonic() >= self._end:
            trainer.should_stop = True
