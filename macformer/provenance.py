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
    """Name the hardware, with torch's threads for a CPU."""
    import torch  # seconds, which the tables do not need

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
