"""Throughput of training and of inference, as a user waits for them."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from macformer.measuring import Counts, count_batch, now

COUNTED = ("examples", "tokens", "positions")


@dataclass
class Interval:
    """What one rank has worked off in a stretch of time."""

    batches: int = 0
    examples: int = 0
    tokens: Tensor | int = 0  # on the device, which nothing waits for
    positions: int = 0
    seconds: float = 0.0


class Stopwatch:
    """Count examples, tokens and positions in intervals of the time in which it runs.

    Clocks are read only after the device has finished its work.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.intervals: list[Interval] = []
        self._current = Interval()
        self._started: float | None = None

    def start(self) -> None:
        if self._started is None:
            self._current = Interval()
            self._started = now(self.device)

    def lap(self) -> None:
        """End an interval and begin the next one."""
        if self._started is None:
            return
        read = now(self.device)
        self._current.seconds = read - self._started
        self._current.tokens = int(self._current.tokens)  # known now, and kept without memory there
        if self._current.batches:
            self.intervals.append(self._current)
        self._current, self._started = Interval(), read

    def stop(self) -> None:
        self.lap()
        self._started = None

    def count(self, batch: Counts) -> None:
        if self._started is None:
            return
        self._current.batches += 1
        self._current.examples += batch.examples
        self._current.positions += batch.positions
        self._current.tokens = self._current.tokens + batch.tokens

    @property
    def num_batches(self) -> int:
        """Count the batches of the interval that runs."""
        return self._current.batches


def summarise(intervals: Sequence[Interval], *, num_ranks: int) -> dict[str, float | int | None]:
    r"""Return rates per second over all ranks, with their spread, and what they are taken from.

    A rate is the median over intervals of equally many batches, so that a burst of other work does
    not move it; ``_q25`` and ``_q75`` are the quartiles. ``seconds``, ``examples``, ``tokens`` and
    ``positions`` are totals. Where nothing was timed, rates are None.
    """
    table = np.array([[float(value) for value in astuple(i)] for i in intervals]).reshape(-1, 5)
    batches, seconds = table[:, 0], table[:, 4]
    full = batches == batches.max(initial=0)  # the last interval before a pause may be shorter
    result: dict[str, float | int | None] = {
        "seconds": float(seconds.sum()),
        "num_intervals": int(full.sum()),
    }
    for name, counts in zip(COUNTED, table.T[1:4], strict=True):
        result[name] = int(counts.sum()) * num_ranks
        rates = counts[full] * num_ranks / seconds[full]
        for suffix, share in (("", 0.5), ("_q25", 0.25), ("_q75", 0.75)):
            rate = float(np.quantile(rates, share)) if len(rates) else None
            result[f"{name}_per_second{suffix}"] = rate
    return result


class Throughput(Callback):
    """Time training and testing from batch to batch, data loading included.

    The first batches warm up and do not count; neither do validation and checkpoints. ``train`` and
    ``inference`` hold the last figures of :func:`summarise`. A resumed run adds its intervals to
    those of its checkpoint.

    Args:
        warmup_batches: Batches left out, up to the end of a call; at most half of a short run of
            many calls.
        interval: Optimiser steps of an interval, or batches of a test; best those between points of
            the training curve, where the device is waited for anyway.
    """

    def __init__(self, *, warmup_batches: int, interval: int):
        if interval < 1:
            raise ValueError(f"interval is {interval}; at least 1 is needed")
        self.warmup_batches = warmup_batches
        self.interval = interval
        self.train = summarise([], num_ranks=1)
        self.inference = summarise([], num_ranks=1)
        self._train_watch: Stopwatch | None = None
        self._before: list[Interval] = []
        self._num_ranks = 1
        self._seen = 0

    def setup(self, trainer, pl_module, stage: str) -> None:
        self._num_ranks = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        rows = [[float(value) for value in astuple(i)] for i in self._train_intervals()]
        return {"intervals": torch.tensor(rows, dtype=torch.float64).view(-1, 5)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rows = state_dict["intervals"].tolist()
        self._before = [Interval(int(b), int(e), int(t), int(p), s) for b, e, t, p, s in rows]
        self.train = summarise(self._before, num_ranks=self._num_ranks)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._train_watch = self._watch = Stopwatch(pl_module.device)
        self._seen = 0
        self._is_warm = False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self._is_warm:
            self._watch.start()  # after a validation

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx) -> None:
        for counts in outputs["counts"]:
            self._watch.count(counts)
            self._seen += 1
        if self._is_warm:
            if trainer.global_step % self.interval == 0:
                self._watch.lap()
        elif self._seen >= min(self.warmup_batches, max(trainer.max_steps // 2, 1)):
            self._is_warm = True
            self._watch.start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._pause()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause()

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
        self._watch.count(count_batch(batch))
        self._seen += 1
        if self._seen == self._test_warmup:
            self._watch.start()
        elif self._watch.num_batches == self.interval:
            self._watch.lap()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch.stop()
        self.inference = summarise(self._watch.intervals, num_ranks=self._num_ranks)

    def _pause(self) -> None:
        self._watch.stop()
        self.train = summarise(self._train_intervals(), num_ranks=self._num_ranks)

    def _train_intervals(self) -> list[Interval]:
        watch = self._train_watch
        return self._before + (watch.intervals if watch else [])
