"""Random states as part of a checkpoint."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback


class RandomStates(Callback):
    """Keep every random state in the checkpoint, and go on from there when a run resumes.

    Each rank has its own, of its own device. All ranks build their model from one seed; from the
    first step on each of them draws its own dropout.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None
        self._device = torch.device("cpu")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        kind, keys, *rest = np.random.get_state(legacy=True)
        own = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self._device) if self._is_cuda() else None,
            "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
            "python": random.getstate(),
        }
        ranks: list[Any] = [own]
        if dist.is_available() and dist.is_initialized():
            ranks = [None] * dist.get_world_size()
            dist.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self._loaded is None:
            return
        ranks, self._loaded = self._loaded, None
        if trainer.global_rank >= len(ranks):  # a run on fewer devices had none for this one
            return
        states = ranks[trainer.global_rank]
        torch.set_rng_state(states["torch"])
        if states["cuda"] is not None and self._is_cuda():
            torch.cuda.set_rng_state(states["cuda"], self._device)
        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))

    def _is_cuda(self) -> bool:
        return self._device.type == "cuda"
