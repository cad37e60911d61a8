"""Run the cells of a sweep, each in a process of its own, and gather their tables."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from macformer.results import is_finished, read_metrics, write_failure


def run_in_process(run_dir: Path, *, overwrite: bool) -> None:
    """Run the cell of a folder in a new process, which owns its memory and its device.

    A finished cell starts no process, unless it is to be overwritten.

    The parent records a process that could not record its own end. A failed cell does not stop a
    sweep.
    """
    if not overwrite and is_finished(run_dir):
        print(f"{run_dir.name}: finished before")
        return
    process = subprocess.run([sys.executable, "-m", "macformer.cell", str(run_dir)])
    metrics = read_metrics(run_dir) or {}
    if process.returncode != 0 and metrics.get("status") != "failed":
        reason = _describe_exit(process.returncode)
        write_failure(run_dir, reason)
        print(f"{run_dir.name}: failed: {reason}", file=sys.stderr)


def _describe_exit(returncode: int) -> str:
    if returncode == -9:
        return "killed by the system (signal 9), most likely for want of memory"
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


class MakeTables(Callback):
    """Make the tables and plots of a sweep when it ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from macformer.tables import TableError, make_tables, table_console

        console = table_console()
        try:
            paths = make_tables([Path(config.hydra.sweep.dir)], console=console)
        except TableError as error:
            console.print(f"no tables: {error}")
            return
        console.print("wrote " + ", ".join(map(str, paths)), soft_wrap=True)
