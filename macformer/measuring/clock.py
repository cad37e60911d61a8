"""The clock, and the units of memory."""

import time

import torch

MIB, GIB = 2**20, 2**30


def now(device: torch.device, *, cpu_time: bool = False) -> float:
    """Read the clock, in seconds, once the device has done what was asked of it.

    Args:
        cpu_time: On a CPU, read this process's own time, which other processes do not disturb.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if cpu_time and device.type == "cpu" else time.perf_counter()
