"""Which device of this machine a cell gets, and whether it has it to itself."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from uuid import uuid4

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig

GPU_NAME = re.compile("[0-9]|GPU-|MIG-")  # not -1, nor NoDevFiles, by which GPUs are hidden
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # one entry each, and no driver is woken to look


@dataclass
class Claim:
    """The devices of a cell, as long as it lives."""

    devices: list[str]
    places: list[Path]
    found_others: bool

    @property
    def is_alone(self) -> bool:
        """Say whether no other cell has used the devices since the claim was made."""
        return not self.found_others and not any(_shared(p).exists() for p in self.places)

    @property
    def sharing(self) -> str | None:
        """Say so in words, None for a claim that is alone."""
        return None if self.is_alone else "another cell used the device"


@contextmanager
def claim_devices(names: Sequence[str], *, count: int) -> Iterator[Claim]:
    """Claim the devices that the fewest other cells of this user use.

    In the folder of each device, every cell holds the lock on a file of its own. One that finds
    others there knows that it is not alone, and tells them, for they measure it as well.
    """
    root = Path(tempfile.gettempdir(), f"macformer-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    with FileLock(root / "lock"):
        folders = {name: root / name.replace("/", "_") for name in names}  # MIG-GPU-<uuid>/1/0
        others = {name: _alive(folder) for name, folder in folders.items()}
        devices = sorted(names, key=lambda name: len(others[name]))[:count]
        places = [folders[device] / f"{uuid4().hex}.lock" for device in devices]
        locks = [FileLock(place, timeout=0) for place in places]
        for lock in locks:
            lock.acquire()
        neighbours = [place for device in devices for place in others[device]]
        for place in neighbours:
            _shared(place).touch()
    try:
        yield Claim(devices, places, found_others=bool(neighbours))
    finally:
        for place, lock in zip(places, locks, strict=True):
            lock.release()
            _forget(place)


def show_claimed(claim: Claim, names: Sequence[str]) -> None:
    """Let this process, and those that it starts, see the claimed GPUs alone, in their order.

    Where Slurm has started one process for each GPU, the others find theirs among all.
    """
    if len(claim.devices) == 1 or os.environ.get("SLURM_NTASKS", "1") == "1":
        shown = [name for name in names if name in claim.devices]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown)


def device_names(cfg: DictConfig) -> tuple[list[str], int]:
    """Return the devices that a run may have, and how many of them it takes.

    The CPU is one device. A GPU goes by its name for ``CUDA_VISIBLE_DEVICES``.
    """
    gpus = visible_gpus() if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else []
    if not gpus or torch.version.cuda is None:
        return ["cpu"], 1
    return gpus, cfg.trainer.devices


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use: as for CUDA, those before the first that is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(index) for index, _ in enumerate(NVIDIA_GPUS.glob("*"))]
    return list(takewhile(GPU_NAME.match, map(str.strip, visible.split(","))))


def _alive(folder: Path) -> list[Path]:
    """List the places that living cells hold; those of the dead are removed."""
    folder.mkdir(exist_ok=True)
    alive = []
    for place in folder.glob("*.lock"):
        try:
            with FileLock(place, timeout=0):
                pass
        except Timeout:
            alive.append(place)
        else:
            _forget(place)
    return alive


def _forget(place: Path) -> None:
    place.unlink(missing_ok=True)
    _shared(place).unlink(missing_ok=True)


def _shared(place: Path) -> Path:
    return place.with_suffix(".shared")
