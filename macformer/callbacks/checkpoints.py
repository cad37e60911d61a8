"""Keep the last weights of a run and the best ones."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.trainer.states import TrainerFn


class LastCheckpoint(Checkpoint):
    """Keep the weights of the last validation, and in the end those of the last step.

    Args:
        dirpath: The folder of ``last.ckpt``.
    """

    def __init__(self, *, dirpath: str):
        self.path = Path(dirpath) / "last.ckpt"
        self._saved_step: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what a time limit ends, too: it may come before the first validation."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Forget the time that ``trainer.max_time`` has counted: each call has that much."""
        checkpoint["callbacks"].pop("Timer", None)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_step = trainer.global_step


class BestCheckpoint(Checkpoint):
    """Keep the weights that are best in validation, and what the validation said of them.

    What it said is part of every checkpoint, so that a run may go on in another folder.

    Args:
        dirpath: The folder of ``best.ckpt``.
        monitor: The validation's metric that decides.
        mode: ``max`` or ``min``, whichever of its values is better.
    """

    def __init__(self, *, dirpath: str, monitor: str, mode: str):
        if mode not in ("max", "min"):
            raise ValueError(f"mode is {mode}; allowed are max, min")
        self.path = Path(dirpath) / "best.ckpt"
        self.monitor = monitor
        self.mode = mode
        self.step: int | None = None
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.metrics = state_dict["step"], state_dict["metrics"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.consider(trainer, trainer.callback_metrics)

    def consider(self, trainer: pl.Trainer, metrics: Mapping[str, Any]) -> None:
        """Keep the weights of this step if their validation is the best so far.

        Raises:
            ValueError: If the validation has no such metric.
        """
        values = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
        if self.monitor not in values:
            raise ValueError(
                f"callbacks.best.monitor is {self.monitor}; a validation gives {', '.join(values)}"
            )
        if self.step is None or self._is_better(values[self.monitor], self.metrics[self.monitor]):
            self.step, self.metrics = trainer.global_step, values
            trainer.save_checkpoint(self.path)

    def _is_better(self, value: float, best: float) -> bool:
        if math.isnan(value) or math.isnan(best):
            return math.isnan(best) and not math.isnan(value)
        return value > best if self.mode == "max" else value < best
