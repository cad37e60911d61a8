"""The device that is measured, the clock, and the units of memory."""

import time

import torch

MIB, GIB = 2**20, 2**30


def check_device(name: str) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        ValueError: With what torch says of it.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"device is {name}, which cannot be used here: {reason}") from error


def now(device: torch.device, *, cpu_time: bool = False) -> float:
    """Read the clock, in seconds, once the device has done what was asked of it.

    Args:
        cpu_time: On a CPU, read this process's own time, which other processes do not disturb.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.process_time() if cpu_time and device.type == "cpu" else time.perf_counter()
