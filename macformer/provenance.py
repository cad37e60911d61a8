"""What a figure was measured on, and by which code."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "pytorch-lightning", "numpy", "macformer")


def device_name(device: "torch.device") -> str:
    """Name the hardware; of a CPU also what decides its speed, and torch's threads."""
    import torch  # seconds, which the tables do not need

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    parts = [_cpu_model(), torch.backends.cpu.get_cpu_capability(), second_level_cache()]
    return f"{', '.join(filter(None, parts))} ({threads} thread{'s' * (threads != 1)})"


def is_cpu(name: str) -> bool:
    """Say whether a device of this name is a CPU: only their names end with their threads."""
    return name.endswith(" thread)") or name.endswith(" threads)")


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def second_level_cache(caches: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> str | None:
    """Say how large a core's second-level cache is, None where the system does not."""
    for level in caches.glob("index*/level"):
        size = level.with_name("size")  # which a system may leave out
        if level.read_text().strip() == "2" and size.is_file():
            return f"{size.read_text().strip().removesuffix('K')} KiB L2"  # such as 2048K
    return None


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide a number."""
    return {
        "python": platform.python_version(),
        **{name.replace("-", "_"): package_version(name) for name in PACKAGES},
    }


def package_version(name: str) -> str | None:
    """Return a package's version, None for one that is on the path without being installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_commit(package: Path | None = None) -> str | None:
    """Return the commit of our source tree, with ``+`` if files were changed.

    None outside git, and where the package lies in somebody else's repository: in the environment
    of another project, say.
    """
    package = package or Path(__file__).resolve().parent
    try:
        if Path(_git(package, "rev-parse", "--show-toplevel")).resolve() != package.parent:
            return None
        commit = _git(package, "rev-parse", "--short", "HEAD")
        changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
