"""A progress bar that counts optimiser steps."""

import math
import sys
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress(Callback):
    """Show optimiser steps, the loss and the last validation accuracy.

    Without a terminal there is no bar but a line for each validation.

    Args:
        refresh_interval: Steps between updates of the bar.
    """

    def __init__(self, *, refresh_interval: int):
        self.refresh_interval = refresh_interval
        self._bar = Bar(disable=True)  # until training starts

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation = ""
        self._bar = Bar(
            TextColumn("train"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[steps_per_second]:.1f} steps/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[results]}"),
            disable=not (trainer.is_global_zero and sys.stderr.isatty()),
            transient=True,
        )
        self._task = self._bar.add_task(
            "train",
            total=trainer.max_steps,
            completed=trainer.global_step,
            steps_per_second=0.0,
            results="",
        )
        self._first = self._shown = trainer.global_step
        self._started = perf_counter()
        self._bar.start()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_step - self._shown >= self.refresh_interval:
            self._shown = trainer.global_step
            steps, seconds = trainer.global_step - self._first, perf_counter() - self._started
            self._bar.update(
                self._task,
                completed=trainer.global_step,
                steps_per_second=steps / seconds,
                results=self._results(trainer, pl_module),
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        accuracy = trainer.callback_metrics.get("val/accuracy")
        if trainer.state.fn != TrainerFn.FITTING or accuracy is None:
            return
        self._validation = f"val {100 * float(accuracy):.1f} %"
        if self._bar.disable and trainer.is_global_zero:
            print(
                f"step {trainer.global_step}/{trainer.max_steps}  "
                f"{self._results(trainer, pl_module)}",
                file=sys.stderr,
                flush=True,
            )

    def _results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> str:
        """Name the loss at the last point of the curve and the last validation, if there is one."""
        loss: Any = pl_module.train_loss
        has_loss = not math.isnan(loss) or "train/loss" in trainer.callback_metrics
        return "  ".join(filter(None, (f"loss {loss:.3f}" if has_loss else "", self._validation)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        self._bar.stop()
