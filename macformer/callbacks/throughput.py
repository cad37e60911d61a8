"""Throughput of training and of inference, as a user waits for them."""

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor


class Stopwatch:
    """Count examples, tokens and positions over the time in which it runs.

    Clocks are read only after the device has finished its work.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = 0.0
        self.examples = 0
        self.positions = 0
        self.tokens: Tensor | int = 0
        self._started: float | None = None

    def start(self) -> None:
        if self._started is None:
            self._started = self._now()

    def stop(self) -> None:
        if self._started is not None:
            self.seconds += self._now() - self._started
            self._started = None

    def count(self, batch: Mapping[str, Tensor]) -> None:
        if self._started is None:
            return
        padding = batch["key_padding_mask"]
        self.examples += len(batch["labels"])
        self.positions += padding.numel()
        self.tokens = self.tokens + (~padding).sum()

    def rates(self, num_ranks: int) -> dict[str, float | None]:
        """Return rates per second over all ranks, or None where nothing was timed."""
        totals = {
            "examples": self.examples,
            "tokens": int(self.tokens),
            "positions": self.positions,
        }
        return {
            f"{name}_per_second": total * num_ranks / self.seconds if self.seconds else None
            for name, total in totals.items()
        }

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Throughput(Callback):
    """Time training and testing from batch to batch, data loading included.

    The first batches warm up and do not count; neither do validation and checkpoints. ``train`` and
    ``inference`` hold the last rates, per second. A resumed run times what it trains itself; where
    that is too little, what its checkpoint had timed stands.

    Args:
        warmup_batches: Batches left out; at most half of a short test.
    """

    def __init__(self, *, warmup_batches: int):
        self.warmup_batches = warmup_batches
        self.train: dict[str, float | None] = {}
        self.train_seconds = 0.0
        self.inference: dict[str, float | None] = {}
        self._seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"train": self.train, "train_seconds": self.train_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train, self.train_seconds = state_dict["train"], state_dict["train_seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch = Stopwatch(pl_module.device)
        self._seen = 0

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx) -> None:
        before = self._seen
        for step_batch in outputs["batches"]:
            self._watch.count(step_batch)
            self._seen += 1
        if before < min(self.warmup_batches, max(trainer.max_steps // 2, 1)) <= self._seen:
            self._watch.start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._watch.stop()
            self._read(trainer.world_size)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self._seen and self._watch.seconds:
            self._watch.start()  # after a validation

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch.stop()
        self._read(trainer.world_size)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch = Stopwatch(pl_module.device)
        self._seen = 0
        num_batches = trainer.num_test_batches[0]
        self._test_warmup = int(min(self.warmup_batches, num_batches // 2))
        if self._test_warmup == 0:
            self._watch.start()

    def on_test_batch_end(
        self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self._watch.count(batch)
        self._seen += 1
        if self._seen == self._test_warmup:
            self._watch.start()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch.stop()
        self.inference = self._watch.rates(trainer.world_size)

    def _read(self, num_ranks: int) -> None:
        if self._watch.seconds or not self.train:
            self.train = self._watch.rates(num_ranks)
            self.train_seconds = self._watch.seconds
