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

from macformer.measuring import GIB


class MemoryMeter:
    """Measure the peak memory since the last ``reset``, above the level at ``mark_level``.

    What was loaded before the level was taken does not count. On a GPU the peak is that of torch's
    allocator. On the CPU it is the high-water mark of the process: one process for each
    measurement. Pages of mapped files are left out: how many of them
    are resident depends on how much data has been read, not on the model. Linux lets the mark be
    reset and tells those pages apart; elsewhere an earlier peak hides a smaller later one.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._level = 0

    def reset(self) -> None:
        """Measure from here on, above the level of now."""
        self.mark_level()
        self.reset_peak()

    def mark_level(self) -> None:
        """Take what is in memory now for what was loaded before."""
        if self.device.type == "cuda":
            self._level = torch.cuda.memory_allocated(self.device)
            return
        _give_back()
        memory = _read_memory()
        self._level = memory["rss"] - memory["files"]

    @property
    def level_gib(self) -> float:
        """Return what was loaded before."""
        return self._level / GIB

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        _give_back()  # what is free does not hide a new peak
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read_gib(self) -> float:
        if self.device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self.device) - self._level) / GIB
        memory = _read_memory()
        return max(memory["peak"] - memory["files"] - self._level, 0.0) / GIB


class PeakMemory(Callback):
    """Measure the peak memory of training and of testing, in GiB.

    The level of training is taken before a model is on a GPU and before a checkpoint is loaded:
    weights and the optimiser's state count, in a run that resumes as in one that does not. On a CPU
    the weights lie there by then, and do not count. What lies on a GPU by then is the resident
    data, which stand apart. Testing starts above all that training has left behind, the weights
    included. A run that resumes after its last step has the peak of its checkpoint.
    """

    def __init__(self) -> None:
        self.resident_gib: float | None = None
        self.train_gib: float | None = None
        self.inference_gib: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"train_gib": self.train_gib}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_gib = state_dict["train_gib"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._meter = MemoryMeter(trainer.strategy.root_device)
            self._meter.mark_level()
            if self._meter.device.type == "cuda":
                self.resident_gib = self._meter.level_gib

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._meter.reset_peak()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._read()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read()

    def _read(self) -> None:
        """Take the highest reading: pages of files that come after a peak lower it later."""
        self.train_gib = max(self.train_gib or 0.0, self._meter.read_gib())

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._meter = MemoryMeter(pl_module.device)
        self._meter.reset()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.inference_gib = self._meter.read_gib()


def _give_back() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _read_memory() -> dict[str, int]:
    """Return bytes: the ``peak``, what is resident (``rss``), and what of it is of ``files``."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        kib = {name: int(value) for name, value in fields.items()}
        files = kib.get("RssFile", 0) + kib.get("RssShmem", 0)
        return {"peak": kib["VmHWM"] * 1024, "rss": kib["VmRSS"] * 1024, "files": files * 1024}
    except (OSError, KeyError):
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"peak": peak, "rss": peak, "files": 0}
