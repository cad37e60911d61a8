"""Peak memory of training and of inference."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

GIB = 2**30


class MemoryMeter:
    """Measure the peak memory since the last ``reset``.

    On a GPU the peak of torch's allocator, everything resident included. On the CPU the high-water
    mark of the process above its level at the reset, so that what was loaded before does not
    count: one process for each measurement. Linux lets the mark be reset; elsewhere an earlier
    peak hides a smaller later one.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._level = 0.0

    def reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free does not hide a new peak
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._level = _high_water_gib()

    def read_gib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / GIB
        return max(_high_water_gib() - self._level, 0.0)


class PeakMemory(Callback):
    """Measure the peak memory of training and of testing, in GiB.

    A run that resumes after its last step has that of its checkpoint.
    """

    def __init__(self) -> None:
        self.train_gib: float | None = None
        self.inference_gib: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"train_gib": self.train_gib}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_gib = state_dict["train_gib"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._meter = MemoryMeter(pl_module.device)
        self._meter.reset()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.train_gib = self._meter.read_gib()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.train_gib = self._meter.read_gib()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._meter = MemoryMeter(pl_module.device)
        self._meter.reset()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.inference_gib = self._meter.read_gib()


def _high_water_gib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / GIB
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
