"""The joules that a device draws, from the counter that there is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from macformer.callbacks.neighbours import gpu_handle

POWERCAP = Path("/sys/class/powercap")  # where Linux shows the counters of RAPL


@dataclass(frozen=True)
class EnergyCounter:
    """A reader of joules since some moment, and what it reads.

    Attributes:
        source: ``nvml`` for the board of a GPU, ``rapl`` for the packages of all sockets; None
            where nothing counts, and the reader returns None.
    """

    source: str | None
    read: Callable[[], float | None]


NO_COUNTER = EnergyCounter(None, lambda: None)


def energy_counter(device: torch.device, *, powercap: Path = POWERCAP) -> EnergyCounter:
    """Open the counter of a device: NVML's of a GPU, from Volta on, or RAPL's of the sockets.

    What else the machine draws is in neither: memory, fans, losses of the supply, and beside a GPU
    its host.

    Args:
        powercap: The folder of the kernel's counters.
    """
    if device.type == "cpu":
        return _rapl_counter(powercap) or NO_COUNTER
    return _nvml_counter(device) or NO_COUNTER


def _nvml_counter(device: torch.device) -> EnergyCounter | None:
    found = gpu_handle(device)
    if found is None:
        return None
    nvml, handle = found

    def read() -> float | None:
        try:
            return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        except Exception:  # no counter, or none any more: the run goes on without it
            return None

    return None if read() is None else EnergyCounter("nvml", read)


def _rapl_counter(powercap: Path) -> EnergyCounter | None:
    """Open the counters of the packages; None unless all of them can be read.

    Since 2020 kernels let root alone read them. Cores and memory are counted in their package, too,
    and the domain ``psys`` counts the whole platform: neither is added.
    """
    try:
        domains = sorted(powercap.glob("intel-rapl:*"))  # of AMD's processors, too
        packages = [
            _Package(domain)
            for domain in domains
            if (domain / "name").read_text().startswith("package")
        ]
    except (OSError, ValueError):
        return None
    if not packages:
        return None

    def read() -> float | None:
        try:
            return sum(package.read() for package in packages) / 1e6
        except (OSError, ValueError):
            return None

    return EnergyCounter("rapl", read)


class _Package:
    """The microjoules of one socket, whose counter starts again at zero every few minutes."""

    def __init__(self, domain: Path) -> None:
        self._file = domain / "energy_uj"
        self._range = int((domain / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._total = 0

    def read(self) -> int:
        """Return what has been drawn since the start; calls lie closer than two turns."""
        now = int(self._file.read_text())
        passed = now - self._last
        self._total += passed if passed >= 0 else passed + self._range
        self._last = now
        return self._total
