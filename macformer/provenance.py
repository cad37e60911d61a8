"""The hardware that a figure was measured on."""

import platform
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """Name the hardware, with torch's threads for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].partition(":")[2].strip() if models else name
    threads = torch.get_num_threads()
    return f"{name} ({threads} thread{'s' * (threads != 1)})"
