"""Say every few seconds how far a run is, to whoever watches its folder."""

from pathlib import Path
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from macformer.heartbeat import remove_progress, write_progress


class Heartbeat(Callback):
    """Keep progress.json up to date while training, validating or testing.

    Args:
        run_dir: The run's folder.
        interval: Seconds between two signs.
    """

    def __init__(self, *, run_dir: str, interval: float):
        self.run_dir = Path(run_dir)
        self.interval = interval
        self._last = float("-inf")
        self._first = 0
        self._started: float | None = None  # a run that had been trained before is only tested

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first, self._started = trainer.global_step, perf_counter()
        self._beat(trainer, "training", due=True)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._beat(trainer, "training")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._beat(trainer, "validating")

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._beat(trainer, "testing")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            remove_progress(self.run_dir)

    def _beat(self, trainer: pl.Trainer, phase: str, *, due: bool = False) -> None:
        at = perf_counter()
        if not trainer.is_global_zero or not (due or at - self._last >= self.interval):
            return
        self._last = at
        steps = {"step": trainer.global_step, "max_steps": trainer.max_steps}
        if self._started is not None:
            steps |= {"first_step": self._first, "seconds": at - self._started}
        write_progress(self.run_dir, phase=phase, **steps)
