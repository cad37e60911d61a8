"""Run a cell in a process of its own, which owns its memory and its device."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from macformer.record import CONFIG_NAME, read_status, write_failure
from macformer.runs.identity import register_resolver

BUSY = os.EX_TEMPFAIL  # exit code of a cell that another process runs
INTERRUPTED = 128 + signal.SIGINT  # exit code, as shells have it
STOPPED = (-signal.SIGINT, -signal.SIGTERM)  # asked to stop: an interruption, not a failure
CONCURRENT_LAUNCHERS = ("joblib",)  # several cells at once on one machine
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # one entry each, and no driver is woken to look

register_resolver()  # workers of a launcher import this module before they compose


def run_composed(cfg: DictConfig) -> bool:
    """Run the cell that Hydra has composed, in the folder that Hydra has given it.

    Returns:
        Whether the cell is finished.
    """
    hydra_cfg = HydraConfig.get()
    run_dir = Path(hydra_cfg.runtime.output_dir)
    gpu = None
    if hydra_cfg.runtime.choices["hydra/launcher"] in CONCURRENT_LAUNCHERS:
        cfg.exclusive = False
        gpu = gpu_of_job(hydra_cfg.job.num) if cfg.trainer.devices == 1 else None
    if not is_running(run_dir):
        OmegaConf.save(cfg, run_dir / CONFIG_NAME, resolve=True)
    return run_in_process(run_dir, overwrite=cfg.overwrite, gpu=gpu)


def gpu_of_job(job: int) -> str | None:
    """Deal jobs out to the GPUs of this machine in turn; None where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = [str(index) for index, _ in enumerate(NVIDIA_GPUS.glob("*"))]
    else:
        gpus = [name for name in visible.split(",") if name]
    return gpus[job % len(gpus)] if gpus else None


def run_in_process(run_dir: Path, *, overwrite: bool, gpu: str | None = None) -> bool:
    """Run the cell of a folder in a new process, unless it is finished or runs already.

    The parent records a process that could not record its own end. A failed cell does not stop a
    sweep, and one that was asked to stop resumes when it is called again.

    Args:
        gpu: The only GPU that the process sees, by its CUDA name; None leaves it all of them.

    Returns:
        Whether the cell is finished.

    Raises:
        SystemExit: If the user interrupts it, which ends a sweep, too.
    """
    if read_status(run_dir) == "finished" and not overwrite:
        print(f"{run_dir.name}: finished before, in {run_dir}; overwrite=true trains it again")
        return True
    if is_running(run_dir):
        print(f"{run_dir.name}: another process runs it")
        return False
    environment = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    command = [sys.executable, "-m", "macformer.runs.cell", str(run_dir)]
    try:
        process = subprocess.run(command, env=environment)
    except KeyboardInterrupt:
        print(f"{run_dir.name}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    status = read_status(run_dir)
    if process.returncode not in (0, BUSY, *STOPPED) and status != "failed" and _is_first_rank():
        reason = _describe_exit(process.returncode)
        write_failure(run_dir, reason)
        print(f"{run_dir.name}: failed: {reason}", file=sys.stderr)
    return process.returncode == 0 and status == "finished"


def run_lock(run_dir: Path) -> FileLock:
    """Return the lock that the process of a cell holds as long as it lives."""
    return FileLock(run_dir / ".lock", timeout=0)


def is_running(run_dir: Path) -> bool:
    """Say whether some process runs the cell of a folder now."""
    if not run_dir.exists():
        return False
    try:
        with run_lock(run_dir):
            return False
    except Timeout:
        return True


def _is_first_rank() -> bool:
    """Say whether Slurm started this process as the first of a distributed run."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def _describe_exit(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "killed by the system (signal 9), most likely for want of memory"
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
