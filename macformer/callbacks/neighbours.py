"""Find out whether others used the cores or the GPU of this process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def core_times() -> tuple[float, float, float] | None:
    """Return seconds since their starts: this process ran, it waited for a core, others ran.

    Summed over all threads; a thread waits when it could run but no core is free. None on systems
    other than Linux, which do not report this.
    """
    times = os.times()
    ran = times.user + times.system
    try:
        waited = sum(map(_waited, Path("/proc/self/task").glob("*/schedstat"))) / 1e9
        fields = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, _, _, irq, softirq, steal = fields
    everybody = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return ran, waited, everybody - ran


def _waited(schedstat: Path) -> int:
    """Return the nanoseconds that a thread waited; none of one that has ended meanwhile."""
    try:
        return int(schedstat.read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def gpu_handle(device: torch.device) -> tuple[Any, Any] | None:
    """Return NVML and its handle of a GPU; None without the package ``nvidia-ml-py``, say."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports] (optional)

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception:  # no package, no GPU, no driver: the run goes on without it
        return None


def stranger_counter(device: torch.device) -> Callable[[], int]:
    """Return a counter of the other processes that compute on a GPU now; 0 where nobody tells.

    A container sees other numbers for its processes than the driver does: then one is taken for
    this one.
    """
    found = gpu_handle(device)
    if found is None:
        return lambda: 0
    nvml, handle = found

    def count() -> int:
        try:
            pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        except Exception:  # not supported
            return 0
        return max(len(pids) - 1, 0)

    return count
