"""Run the cells of a sweep that are not finished, and say what came of all of them."""

import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from macformer.heartbeat import announced
from macformer.runs.config import COMPOSITION_ERRORS
from macformer.runs.hydra_bridge import Callback, ConfigLoader, current_loader, launch
from macformer.runs.hydra_messages import one_line
from macformer.runs.options import check_option
from macformer.runs.plan import Cell, plan_cells, read_state
from macformer.runs.process import AGAIN, retry_pretraining, run_composed
from macformer.runs.stop import SWEEP
from macformer.watch.bar import sweep_bar

OF_SWEEP = ("retry", "overwrite", "best_of")  # options that are read before those of any cell


class RunSweep(Callback):
    """Run a multirun in place of Hydra's basic sweeper, and exit.

    That sweeper refuses all cells for one that does not compose, starts jobs for finished cells,
    and loses what the others did when a job of a queue dies. Hydra takes sweepers from packages
    called ``hydra_plugins`` alone, callbacks from anywhere. Another ``hydra/sweeper`` is left to
    itself.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.runtime.choices["hydra/sweeper"] != "basic":
            return
        try:
            finished = run_sweep(config)
        except (*COMPOSITION_ERRORS, OSError) as error:  # the last: of a folder that cannot be made
            print(f"macformer-train: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except Exception:  # Hydra would only warn, and go on to its own sweeper
            traceback.print_exc()
            sys.exit(1)
        sys.exit(0 if finished else 1)


def run_sweep(config: DictConfig) -> bool:
    """Launch what is left of a sweep, and make its tables.

    Args:
        config: The configuration of the multirun, with Hydra's own node.

    Returns:
        Whether every cell is finished.

    Raises:
        HydraException: If no cell can be composed.
        ValueError: If an option of the sweep itself has a value that it cannot have, or a pattern
            matches nothing.
    """
    for option in OF_SWEEP:
        check_option(option, config[option])
    loader = current_loader()
    cells = plan_cells(config, loader)
    wanted = {"new", "interrupted", config.retry}
    if config.overwrite:
        wanted |= {"finished", "failed"}
    todo = [cell for cell in cells if cell.status in wanted]
    print(_describe_plan(cells, todo), flush=True)
    if config.overwrite or config.retry == "failed":
        for folder in {cell.pretraining for cell in todo if cell.pretraining}:
            retry_pretraining(folder)
    if todo:
        run_dirs = [cell.run_dir for cell in todo]
        with announced(run_dirs), sweep_bar(run_dirs):
            _launch(config, loader, todo)
    for folder in sorted({cell.run_dir.parent for cell in cells}):
        show_tables(folder)
    for cell in cells:
        if cell.lock is not None:
            cell.lock.release()
    known = {"outdated": "outdated", "uncomposed": "failed"}
    statuses = [known.get(cell.status) or read_state(cell.run_dir) for cell in cells]
    print(", ".join(f"{n} {status}" for status, n in sorted(Counter(statuses).items())), flush=True)
    return set(statuses) == {"finished"}


def _launch(config: DictConfig, loader: ConfigLoader, cells: Sequence[Cell]) -> None:
    os.environ[SWEEP] = str(os.getpid())
    for error in launch(config, loader, run_composed, [cell.overrides for cell in cells]):
        print(f"launcher: {type(error).__name__}: {error}", file=sys.stderr)


def show_tables(folder: Path) -> None:
    """Make and print the tables, which name what failed and why, of all that lies in a folder."""
    from macformer.tables import TableError, make_tables, table_console

    console = table_console()
    try:
        paths = make_tables([folder], console=console)
    except (TableError, OSError) as error:  # the latter of a full disk
        console.print(f"no tables: {error}")
        return
    console.print("wrote " + ", ".join(map(str, paths)), soft_wrap=True)


def _describe_plan(cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    count = Counter(cell.status for cell in cells)
    resumed = sum(cell.status == "interrupted" for cell in todo)
    skipped = count["failed"] - sum(cell.status == "failed" for cell in todo)
    parts = [f"{len(cells)} cell{'s' * (len(cells) != 1)}", f"{count['finished']} finished"]
    if count["running"]:
        parts.append(f"{count['running']} running in another process")
    if count["uncomposed"]:
        parts.append(f"{count['uncomposed']} without a valid configuration")
    if count["outdated"]:
        parts.append(f"{count['outdated']} finished on other data ({AGAIN})")
    if skipped:
        parts.append(f"{skipped} failed before (retry=failed runs them again)")
    parts.append(f"{len(todo)} to run" + (f", {resumed} of them resumed" if resumed else ""))
    return "; ".join(parts)
