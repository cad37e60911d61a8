"""Run a cell in a process of its own, which owns its memory and its device."""

import os
import subprocess
import sys
from pathlib import Path
from signal import SIG_DFL, SIGKILL, SIGTERM, default_int_handler
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

import macformer.runs.config  # noqa: F401  workers of a launcher compose after importing this
from macformer.record import read_metrics, read_rank_error, read_status, write_config, write_end
from macformer.runs.data_now import DataNow
from macformer.runs.hydra_bridge import calling_folder, is_multirun, output_folder
from macformer.runs.identity import check_once
from macformer.runs.stop import (
    CRASHES,
    PARENT,
    TIME_LIMIT,
    Stopped,
    end_signal,
    ending_with_sweep,
    num_out_of_memory_kills,
    stop_signals_raise,
)
from macformer.runs.unread import readers_may_go

BUSY = os.EX_TEMPFAIL  # exit code of a cell that another process runs
FAILED = 1  # that of one whose reason stands in metrics.json
AGAIN = "overwrite=true trains it again"
GRACE_SECONDS = 10.0  # for a cell that was asked to stop
_LOOK_SECONDS = 0.05  # a running cell holds its lock for longer, others that look for less
# How the threads of torch wait for each other: they spin a little, then sleep. Two threads on two
# cores train at 567 examples/s if they spin without end, at 549 so, at 172 if they sleep at once;
# beside two processes that take all they can get at 180, 238 and 99.
WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PATIENCE = {"GOMP_SPINCOUNT": "10000"}


@readers_may_go()
@ending_with_sweep()
def run_composed(cfg: DictConfig) -> bool:
    """Run the cell that Hydra has composed, in the folder that Hydra has given it.

    Returns:
        Whether the cell is finished.
    """
    check_once(cfg)
    run_dir, cwd = output_folder(), calling_folder()
    if reason := _refusal(cfg, run_dir):  # of every rank: one alone would wait for others
        if _rank() == 0:
            print(reason, file=sys.stderr)
        return False
    if _rank() == 0:
        if not is_running(run_dir) and (cfg.overwrite or read_status(run_dir) != "finished"):
            write_config(run_dir, cfg)
        if (first := pretraining_folder(cfg)) is not None and not is_multirun():
            retry_pretraining(first)
        return run_in_process(run_dir, overwrite=cfg.overwrite, cwd=cwd)
    if cfg.trainer.devices == 1 and cfg.trainer.num_nodes == 1:
        print(
            f"{run_dir.name}: Slurm task {_rank()} has no part in a run of one device, and ends; "
            "use --ntasks=1, or trainer.devices and trainer.num_nodes for all tasks",
            file=sys.stderr,
        )
        return False
    # Another rank may come late, when the first one already holds the lock. It joins whatever
    # there is, and leaves nothing in the folder.
    if read_status(run_dir) == "finished" and not cfg.overwrite:
        return True
    with TemporaryDirectory() as folder:
        write_config(Path(folder), cfg)
        command = cell_command(run_dir, folder)
        return _wait(command, run_dir, cwd=cwd, overwrite=cfg.overwrite) == 0


def run_in_process(run_dir: Path, *, overwrite: bool, cwd: Path | None = None) -> bool:
    """Run the cell of a folder in a new process, unless it is finished or runs already.

    The parent records a process that could not record its own end. A failed cell does not stop a
    sweep, and one that was stopped resumes when it is called again.

    Args:
        cwd: The folder where the user called, if not the current one.

    Returns:
        Whether the cell is finished.

    Raises:
        SystemExit: If this process is asked to stop, which ends a sweep, too.
    """
    if read_status(run_dir) == "finished" and not overwrite:
        print(f"{run_dir.name}: finished before, in {run_dir}; {AGAIN}")
        return True
    if is_running(run_dir):
        print(f"{run_dir.name}: another process runs it")
        return False
    before, kills = read_metrics(run_dir), num_out_of_memory_kills()
    returncode = _wait(cell_command(run_dir), run_dir, cwd=cwd, overwrite=overwrite)
    is_new = returncode == 0 or read_metrics(run_dir) != before
    if is_new and read_status(run_dir) == "finished":
        return True  # however its process ended afterwards
    if returncode != BUSY:
        out_of_memory = num_out_of_memory_kills() != kills
        _record_end(run_dir, returncode, out_of_memory=out_of_memory, overwrite=overwrite)
    return False


def _refusal(cfg: DictConfig, run_dir: Path) -> str | None:
    """Say why a run cannot begin, from what is on disk, which this leaves as it is."""
    if not cfg.overwrite:
        if other := _other_run(cfg, run_dir):
            return f"{run_dir} holds another run, {other}; overwrite=true drops it"
        if change := DataNow().change(cfg, run_dir):
            return f"{run_dir.name}: {change}; {AGAIN}"
        if read_status(run_dir) == "finished":
            return None
    first = pretraining_folder(cfg)
    if first is None or int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return None
    if read_status(first) == "finished":
        return None
    return (
        f"{first.name} comes first and is not finished, and a run of several Slurm tasks cannot "
        "train it: call the same command in a job of one task, or without Slurm, first"
    )


def _other_run(cfg: DictConfig, run_dir: Path) -> str | None:
    """Name the run of a folder if it is not this one, as ``paths.run_dir`` may have it."""
    metrics = read_metrics(run_dir) or {}
    known = metrics.get("identity")
    return None if known in (None, cfg.identity) else f"{metrics.get('name')} ({known})"


def pretraining_folder(cfg: DictConfig) -> Path | None:
    """Return the folder of the run that comes before one, if any."""
    return None if cfg.get("pretrain") is None else Path(cfg.pretrain.run.paths.run_dir)


def retry_pretraining(run_dir: Path) -> None:
    """Let a run that failed begin again, where it comes before one that the user asks for anew."""
    end = read_metrics(run_dir) or {}
    if end.get("status") == "failed" and not is_running(run_dir):
        write_end(run_dir, "interrupted", f"failed before: {end['reason']}")


def cell_command(run_dir: Path, *config_dir: str) -> list[str]:
    """Return the command that runs the cell of a folder."""
    return [sys.executable, "-m", "macformer.runs.cell", str(run_dir), *config_dir]


def cell_environment() -> dict[str, str]:
    """Return the environment of a cell, where our packages come before the user's of that name."""
    ours = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])
    patience = {} if any(name in os.environ for name in WAIT_SETTINGS) else PATIENCE
    own = {PARENT: str(os.getpid()), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return {**os.environ, **patience, **own}


def _wait(command: list[str], run_dir: Path, *, cwd: Path | None, overwrite: bool) -> int:
    """Wait for a cell; what stops this process stops it, too."""
    try:
        with stop_signals_raise(over=(SIG_DFL, default_int_handler)):
            process = subprocess.Popen(command, env=cell_environment(), cwd=cwd)
            try:
                return process.wait()
            except BaseException:
                _stop(process)
                raise
    except Stopped as stop:
        if read_status(run_dir) == "running" and _rank() == 0:
            write_end(run_dir, "interrupted", str(stop))
        _say_interrupted(run_dir, str(stop), overwrite=overwrite)
        sys.exit(stop.exit_code)


def _stop(process: Any) -> None:
    """Ask a cell to stop, and end it where it does not do so soon, or another signal comes."""
    try:
        process.send_signal(SIGTERM)
        process.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, Stopped):
        process.kill()
        process.wait()


def _record_end(run_dir: Path, returncode: int, *, out_of_memory: bool, overwrite: bool) -> None:
    """Record and say how a cell ended that is not finished, unless it has done so itself."""
    metrics = read_metrics(run_dir) or {}
    status, reason = metrics.get("status"), metrics.get("reason")
    if status == "failed" and returncode == FAILED:
        return
    signum = end_signal(returncode)
    if signum == SIGKILL and (reason := read_rank_error(run_dir)):  # the others end the first rank
        write_end(run_dir, "failed", reason)
        print(f"{run_dir.name}: failed: {reason}", file=sys.stderr)
        return
    if returncode in (0, TIME_LIMIT) or (
        signum is not None and signum not in CRASHES and not (signum == SIGKILL and out_of_memory)
    ):
        if status != "interrupted":
            reason = f"stopped by {signum.name}" if signum else "stopped"
            write_end(run_dir, "interrupted", reason)
        _say_interrupted(run_dir, str(reason), overwrite=overwrite)
        return
    if signum == SIGKILL:
        reason = "killed by the system (signal 9), most likely for want of memory"
    else:
        reason = f"killed by signal {signum.value}" if signum else f"exit code {returncode}"
    write_end(run_dir, "failed", reason)
    print(f"{run_dir.name}: failed: {reason}", file=sys.stderr)


def _say_interrupted(run_dir: Path, reason: str, *, overwrite: bool) -> None:
    """Say how to go on: who asks again to overwrite gets what was asked for, a new beginning."""
    command = "the same command without overwrite=true" if overwrite else "the same command"
    print(
        f"{run_dir.name}: interrupted ({reason}); {command} goes on from here",
        file=sys.stderr,
    )


def run_lock(run_dir: Path) -> FileLock:
    """Return the lock that the process of a cell holds as long as it lives."""
    return FileLock(run_dir / ".lock", timeout=0)


def is_running(run_dir: Path) -> bool:
    """Say whether some process runs the cell of a folder now."""
    if not run_dir.exists():
        return False
    try:
        with run_lock(run_dir).acquire(timeout=_LOOK_SECONDS, poll_interval=_LOOK_SECONDS / 5):
            return False
    except (FileNotFoundError, PermissionError):  # removed since, or nobody can run it from here
        return False
    except Timeout:
        return True


def _rank() -> int:
    """Return which of the processes of a distributed run Slurm started this one as."""
    return int(os.environ.get("SLURM_PROCID", "0"))
