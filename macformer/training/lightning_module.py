"""The Lightning module: the step function under Lightning's bookkeeping."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from macformer.measuring import count_batch
from macformer.partials import without_hydra
from macformer.training.capture import CapturedGradients, can_capture
from macformer.training.lightning_counters import count_steps, scales_loss, steps_to_validation
from macformer.training.objectives import Batch, Loss, Objective, judge, to_device
from macformer.training.scores import Accuracy, MeanLoss, at_least_float32
from macformer.training.step import Clip, optimisation_step


class DivergedError(RuntimeError):
    """A loss is no longer finite."""


class ClassificationModule(pl.LightningModule):
    """Train and score a model under manual optimisation.

    One call of ``training_step`` takes several optimiser steps, so that Lightning's work is shared
    out among them; it never passes a point of the curve, a validation or the end.
    ``trainer.global_step``, ``batch_idx`` and the trainer's intervals count optimiser steps all the
    same, and the number of steps per call changes no result.

    Args:
        objective: What validation and test score; see :mod:`macformer.training.objectives`.
        gradients: Factory ``(model, clip=, backward=) -> (batch -> Loss)``.
        steps_per_call: The most optimiser steps of one call.
        optimizer: Factory ``(parameters) -> optimizer``.
        scheduler: Factory ``(optimizer) -> schedule``, stepped once per optimiser step.
        clip: Clips a list of parameters' gradients in place; None leaves them.
        log_interval: Optimiser steps between points of the training curve, each a mean over them.
        metrics: Of classes and labels, beside accuracy, by the names that they are logged under.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        gradients: Callable[..., Callable[[Batch], Loss]],
        steps_per_call: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        clip: Clip | None,
        log_interval: int,
        metrics: Mapping[str, Metric] | None = None,
    ):
        super().__init__()
        assert steps_per_call >= 1 and log_interval >= 1
        self.automatic_optimization = False
        self.model = model
        self.objective = without_hydra(objective)
        self.clip = clip
        self.steps_per_call = steps_per_call
        self.log_interval = log_interval
        self._make_gradients = gradients
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self.val_loss = MeanLoss()
        self.val_accuracy = Accuracy()
        self.test_accuracy = Accuracy()
        self.val_metrics = MetricCollection(dict(metrics or {}), prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")
        self.train_loss = float("nan")
        self._sums = _no_sums()
        self._compute_gradients: Callable[[Batch], Loss] | None = None  # in training only
        self._logits = torch.empty(0)  # of the last batch that was scored
        self.keeps_answers = True  # of tests
        self._answers: list[tuple[Tensor, Tensor, Tensor]] = []

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.model.parameters())
        return [optimizer], [{"scheduler": self._make_scheduler(optimizer), "interval": "step"}]

    def on_train_start(self) -> None:
        if scales_loss(self.trainer):
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}, which scales the loss; "
                "use bf16-mixed, which needs no scale"
            )
        self._compute_gradients = self._make_gradients(
            self.model, clip=self.clip, backward=self.manual_backward
        )

    def on_fit_end(self) -> None:
        """Free what only training needs, so that it is no part of inference."""
        self.zero_grad(set_to_none=True)
        self._compute_gradients = None

    def training_step(self, dataloader_iter: Iterator[tuple[Batch, int, int]]) -> dict[str, Any]:
        """Take the steps of one call; return what each worked off, and keep no batch."""
        assert self._compute_gradients is not None
        optimizer = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        scheduler = self.lr_schedulers()
        counts, learning_rate = [], float("nan")
        for host_batch, *_ in islice(dataloader_iter, self._num_steps_of_call()):
            batch = to_device(host_batch, self.device)
            learning_rate = optimizer.param_groups[0]["lr"]
            result = optimisation_step(
                self._compute_gradients,
                batch,
                optimizer,
                cast(torch.optim.lr_scheduler.LRScheduler, scheduler),
            )
            for name, value in result._asdict().items():
                self._sums[name] = self._sums[name] + at_least_float32(value)
            counts.append(count_batch(batch))
        self._sums["num_steps"] += len(counts)
        count_steps(self.trainer, len(counts))
        if self.global_step % self.log_interval == 0 or self.global_step == self.trainer.max_steps:
            self._log_curve_point(float(learning_rate))
        return {"counts": counts}

    def takes_any_shape(self, device: torch.device) -> bool:
        """Say whether batches may differ in shape, as those of a captured step may not.

        Args:
            device: That of the training; Lightning leaves the module elsewhere behind a test.
        """
        factory = getattr(self._make_gradients, "func", self._make_gradients)
        return not (factory is CapturedGradients and can_capture(device))

    def step_beside(self) -> Callable[[Batch], Loss]:
        """Return the step that training takes, with an optimiser and a schedule of its own.

        It needs no trainer. Weights and buffers are the model's.
        """
        optimizer = self._make_optimizer(self.model.parameters())
        return partial(
            optimisation_step,
            self._make_gradients(self.model, clip=self.clip),
            optimizer=optimizer,
            scheduler=self._make_scheduler(optimizer),
        )

    def _num_steps_of_call(self) -> int:
        """Count the steps up to the next point of the curve, validation or end, if few enough."""
        step, trainer = self.global_step, self.trainer
        limits = [self.steps_per_call, self.log_interval - step % self.log_interval]
        to_validation = steps_to_validation(trainer)
        if to_validation is not None:
            limits.append(to_validation)
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps - step)
        return min(limits)

    def _log_curve_point(self, learning_rate: float) -> None:
        """Log the means since the last point, and the rate of the last step.

        The one place where training waits for the device.
        """
        sums = self._sum_over_ranks(self._sums)
        self._sums = _no_sums()
        self.train_loss = sums["loss"] / sums["num_steps"]
        self._check_finite("training", self.train_loss)
        values = {
            "train/loss": self.train_loss,
            "train/accuracy": sums["num_correct"] / sums["num_scored"],
            "learning_rate": learning_rate,
            "step": float(self.global_step),  # Lightning would count from zero
        }
        values |= {
            f"attention/{name}": value for name, value in mean_diagnostics(self.model).items()
        }
        self.log_dict(values, sync_dist=self.trainer.world_size > 1, batch_size=1)

    def _check_finite(self, name: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the {name} loss is {loss} at step {self.global_step}; "
                "a smaller learning_rate or ppsbn=with may help"
            )

    def _sum_over_ranks(self, sums: dict[str, Tensor | float]) -> dict[str, float]:
        # behind a validation of the trainer's own the module is no longer where ranks can meet
        device = self.trainer.strategy.root_device
        values = torch.tensor([float(value) for value in sums.values()], device=device)
        total = cast(Tensor, self.trainer.strategy.reduce(values, reduce_op="sum"))
        return dict(zip(sums, total.tolist(), strict=True))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["interval"] = self._sum_over_ranks(self._sums)
        checkpoint["train_loss"] = self.train_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The sums are those of all ranks: one of them goes on from there.
        self._sums = dict(checkpoint["interval"]) if self.global_rank == 0 else _no_sums()
        self.train_loss = checkpoint["train_loss"]

    def on_validation_start(self) -> None:
        self._watch_logits()

    def on_validation_end(self) -> None:
        self._hook.remove()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, num_correct, num_scored = self.objective(self.model, batch)
        self.val_loss.update(loss, num_scored)
        self.val_accuracy.update(num_correct, num_scored)
        size = len(batch["labels"])
        self.log("val/loss", self.val_loss, on_epoch=True, batch_size=size)
        self.log("val/accuracy", self.val_accuracy, on_epoch=True, batch_size=size)
        self._log_metrics(self.val_metrics, batch["labels"])
        self.log("step", float(self.global_step), on_epoch=True, batch_size=size)

    def on_validation_epoch_end(self) -> None:
        """Refuse weights that the last steps have spoilt, before any checkpoint keeps them.

        The first class is the answer where no logit is a number, which may well be the best so far.
        """
        self._check_finite("validation", float(self.val_loss.compute()))

    def _watch_logits(self) -> None:
        def keep(model: nn.Module, inputs: Any, logits: Tensor) -> None:
            self._logits = logits.detach()

        self._hook = self.model.register_forward_hook(keep)

    def _log_metrics(self, metrics: MetricCollection, labels: Tensor) -> None:
        if len(metrics):
            metrics.update(self._logits.argmax(-1).flatten(), labels.flatten())
            self.log_dict(metrics, on_epoch=True, batch_size=len(labels))

    def on_test_start(self) -> None:
        self._answers = []
        self._watch_logits()

    def on_test_end(self) -> None:
        self._hook.remove()

    def test_answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels, predictions and margins of this rank's share of the last test, in order.

        Each has an item for an example, or for each of the tokens that an example is asked at. None
        of them is there unless ``keeps_answers``.
        """
        labels, predictions, margins = (torch.cat(x) for x in zip(*self._answers, strict=True))
        return labels, predictions, margins

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        _, num_correct, num_scored = self.objective(self.model, batch)
        labels = batch["labels"]
        if self.keeps_answers:
            self._answers.append((labels, *judge(self._logits, labels)))
        self.test_accuracy.update(num_correct, num_scored)
        self.log("test/accuracy", self.test_accuracy, on_epoch=True, batch_size=len(labels))
        self._log_metrics(self.test_metrics, labels)


def mean_diagnostics(model: nn.Module) -> dict[str, float]:
    """Average each diagnostic over the modules that offer it."""
    values: dict[str, list[Tensor]] = {}
    for module in model.modules():
        offer: Callable[[], dict[str, Tensor]] | None = getattr(module, "diagnostics", None)
        for name, value in offer().items() if offer is not None else ():
            values.setdefault(name, []).append(value)
    return {name: float(torch.stack(shares).mean()) for name, shares in values.items()}


def _no_sums() -> dict[str, Tensor | float]:
    """Start the sums over an interval of the training curve."""
    return dict.fromkeys((*Loss._fields, "num_steps"), 0.0)
