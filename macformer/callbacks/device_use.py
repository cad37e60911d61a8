"""How long a run holds its devices, and what energy they draw meanwhile."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class DeviceUse(Callback):
    """Count seconds and joules from the setup of training or testing to its end.

    All that a user pays for is in: warm-up, validation, checkpoints, waiting for data. A resumed
    run adds to what its checkpoint had counted; the time between the last checkpoint and the
    interruption is lost. In distributed training the figures are those of one rank's device.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.joules: float | None = 0.0
        self._started: tuple[float, float | None] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._read_joules = energy_counter(trainer.strategy.root_device)
        self._started = (time.perf_counter(), self._read_joules())

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._advance()
        self._started = None

    def state_dict(self) -> dict[str, Any]:
        self._advance()
        return {"seconds": self.seconds, "joules": self.joules}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.joules = state_dict["seconds"], state_dict["joules"]

    def _advance(self) -> None:
        """Move what has passed since the last reading to the totals."""
        if self._started is None:
            return
        seconds, joules = time.perf_counter(), self._read_joules()
        self.seconds += seconds - self._started[0]
        if joules is None or self._started[1] is None or self.joules is None:
            self.joules = None
        else:
            self.joules += joules - self._started[1]
        self._started = (seconds, joules)


def energy_counter(device: torch.device) -> Callable[[], float | None]:
    """Return a reader of the joules that a device has drawn since its driver was loaded.

    Of a GPU from Volta on, by NVML, if the package ``nvidia-ml-py`` is installed; torch reads the
    momentary power alone, and by the same package. Elsewhere the reader returns None.
    """
    try:
        import pynvml  # pyright: ignore[reportMissingImports] (optional)

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no package, no GPU, no driver, no counter: the run goes on without it
        return lambda: None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
