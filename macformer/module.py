"""The Lightning module: the step function under Lightning's bookkeeping."""

from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from macformer.attention.guard import NormGuard
from macformer.step import Batch, classification_loss, optimisation_step


class DivergedError(RuntimeError):
    """The training loss is no longer finite."""


class ClassificationModule(pl.LightningModule):
    """Train and score a classifier under manual optimisation.

    ``trainer.global_step`` counts optimiser steps.

    Args:
        model: From ``input_ids`` and ``key_padding_mask`` to logits.
        optimizer: Factory ``(parameters) -> optimizer``.
        scheduler: Factory ``(optimizer) -> schedule``, stepped once per optimiser step.
        clip: Clips a list of parameters' gradients in place; None leaves them.
        log_interval: Optimiser steps between points of the training curve, each a mean over them.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        num_classes: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        clip: Callable[[list[nn.Parameter]], object] | None,
        log_interval: int,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.clip = clip
        self.log_interval = log_interval
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._guards = {
            name: module for name, module in model.named_modules() if isinstance(module, NormGuard)
        }
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.train_loss = float("nan")
        self._loss_sum: Tensor | float = 0.0
        self._num_correct: Tensor | int = 0
        self._num_examples = 0
        self._num_steps = 0

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.model.parameters())
        return [optimizer], [{"scheduler": self._scheduler(optimizer), "interval": "step"}]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        loss, num_correct = optimisation_step(
            self.model,
            batch,
            cast(torch.optim.Optimizer, self.optimizers()),
            cast(torch.optim.lr_scheduler.LRScheduler, self.lr_schedulers()),
            clip=self.clip,
            backward=self.manual_backward,
        )
        self._loss_sum = self._loss_sum + loss
        self._num_correct = self._num_correct + num_correct
        self._num_examples += len(batch["labels"])
        self._num_steps += 1
        if self.global_step % self.log_interval == 0 or self.global_step == self.trainer.max_steps:
            self._log_interval()

    def _log_interval(self) -> None:
        """Log the means since the last point; the one place where training waits for the device."""
        self.train_loss = float(self._loss_sum) / self._num_steps
        if not torch.isfinite(torch.tensor(self.train_loss)):
            raise DivergedError(
                f"the training loss is {self.train_loss} at step {self.global_step}; "
                "a smaller learning_rate or ppsbn=with may help"
            )
        values = {
            "train/loss": self.train_loss,
            "train/accuracy": int(self._num_correct) / self._num_examples,
            "learning_rate": self._current_learning_rate(),
            "step": float(self.global_step),  # Lightning would count from zero
        }
        if self._guards:
            shares = torch.stack([guard.clipped_share for guard in self._guards.values()])
            values["attention/clipped_share"] = float(shares.mean())
        self.log_dict(values, sync_dist=self.trainer.world_size > 1)
        self._loss_sum, self._num_correct, self._num_examples, self._num_steps = 0.0, 0, 0, 0

    def _current_learning_rate(self) -> float:
        return cast(torch.optim.Optimizer, self.optimizers()).param_groups[0]["lr"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, logits = classification_loss(self.model, batch)
        self.val_accuracy(logits, batch["labels"])
        size = len(batch["labels"])
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=size)
        self.log("val/accuracy", self.val_accuracy, on_epoch=True, batch_size=size)
        self.log("step", float(self.global_step), on_epoch=True, batch_size=size)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        _, logits = classification_loss(self.model, batch)
        self.test_accuracy(logits, batch["labels"])
        self.log(
            "test/accuracy", self.test_accuracy, on_epoch=True, batch_size=len(batch["labels"])
        )
