"""How each cell of a sweep stands, read from its files."""

import csv
import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from macformer.heartbeat import PLANS, PROGRESS_NAME, is_alive, read_plans, read_sign
from macformer.record import (
    CONFIG_NAME,
    CURVE_NAME,
    METRICS_NAME,
    DamagedRecord,
    add_ppsbn,
    printable,
    read_record,
    walk_runs,
)

SILENT_SECONDS = 120.0  # of no sign, after which a cell is shown as silent
STATES = ("running", "waiting", "finished", "interrupted", "failed")
NAME = re.compile(r"(?P<task>.+?)-(?P<row>.+)-ppsbn_(?P<ppsbn>\w+)-.+-seed(?P<seed>\d+)-[0-9a-f]+")
MAX_START_SECONDS = 300.0  # from the call of a cell to its training; more is another call's


@dataclass(frozen=True)
class CellView:
    """One cell at one moment.

    Attributes:
        name: Of its folder.
        row: What it is called by in a table.
        state: One of ``STATES``.
        reason: Of a failure or an interruption.
        phase: What a running cell does: training, validating, testing.
        pace: Seconds for each step since the run was last begun; None before it has made one.
        curve: Validation accuracies by step, as far as they are written.
        accuracy: On the test split, at the end.
        seconds: That a finished cell took.
        silent: Seconds since the last sign of a cell that has given none for long.
        sweep: The folder around that of the cell.
    """

    name: str
    task: str = ""
    row: str = ""
    seed: int | None = None
    state: str = "waiting"
    reason: str = ""
    phase: str = ""
    step: int = 0
    max_steps: int | None = None
    pace: float | None = None
    curve: Sequence[tuple[int, float]] = ()
    accuracy: float | None = None
    seconds: float | None = None
    silent: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    sweep: Path = Path()

    @property
    def path(self) -> Path:
        """The cell's folder, by which it is known: two sweeps may hold cells of one name."""
        return self.sweep / self.name


class SweepReader:
    """Read the cells below some folders, again and again; what has not changed is read once.

    Args:
        folders: Of sweeps.
        only: Names of the cells that count, if not all.
    """

    def __init__(self, folders: Sequence[Path], *, only: Iterable[str] | None = None):
        self.folders = folders
        self.only = None if only is None else set(only)
        self._known: dict[Path, tuple[tuple[int, int], Any]] = {}

    def read(self) -> list[CellView]:
        """Return all cells as they stand now, by name, those that wait among them."""
        found: dict[Path, CellView] = {}
        plans: dict[Path, float] = {}
        cells = []
        for folder, names in walk_runs(self.folders):
            if METRICS_NAME in names:
                cells.append(folder)
            elif fnmatch.filter(names, PLANS):
                for plan in read_plans(folder):
                    planned = plan.get("cells") or []
                    plans |= {folder / name: float(plan.get("time", 0.0)) for name in planned}
        for run_dir in cells:
            view = self._view(run_dir, planned=plans.get(run_dir))
            if view is not None:
                found[run_dir] = view
        for run_dir in plans.keys() - found.keys():
            found[run_dir] = _waiting(run_dir)
        shown = [v for v in found.values() if self.only is None or v.name in self.only]
        return _tell_apart(sorted(shown, key=lambda view: (view.name, view.sweep)))

    def _view(self, run_dir: Path, *, planned: float | None) -> CellView | None:
        record = self._once(run_dir / METRICS_NAME, read_record)
        if record is None:
            return None
        config = record.get("config") or {}
        curve = self._once(run_dir / CURVE_NAME, _curve) or ()
        view = {
            "name": run_dir.name,
            "task": printable(str(record.get("task", ""))),
            "row": printable(
                add_ppsbn(str(record.get("attention", "")), str(record.get("ppsbn", "without")))
            ),
            "seed": record.get("seed"),
            "state": record["status"],
            "reason": printable(record.get("reason") or ""),
            "max_steps": config.get("max_steps"),
            "curve": curve,
            "step": curve[-1][0] if curve else 0,
            "options": _options(config),
            "sweep": run_dir.parent,
        }
        sign = read_sign(run_dir / PROGRESS_NAME) or {}
        if planned is not None and not _begun_since(planned, run_dir, record, sign):
            view |= {"state": "waiting", "reason": "", "step": 0}  # its turn is still to come
        elif record["status"] == "running":
            view |= _progress(sign, view, self._stamps(run_dir))
        elif record["status"] == "finished":
            view |= {"accuracy": record["accuracy"]["best"]["test"], "step": view["max_steps"] or 0}
            view["seconds"] = _taken(run_dir, record)
        return CellView(**view)

    def _stamps(self, run_dir: Path) -> float:
        """Return when a cell last wrote one of its files."""
        return max(map(_modified, (run_dir / n for n in (METRICS_NAME, CURVE_NAME, PROGRESS_NAME))))

    def _once(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """Read a file that has changed; keep what was read where it can no longer be."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if path not in self._known or self._known[path][0] != stamp:
                self._known[path] = (stamp, read(path))
        except FileNotFoundError:
            self._known.pop(path, None)
        except (OSError, ValueError, LookupError, TypeError, DamagedRecord):
            pass  # half of a file: the next look finds the whole one
        return self._known[path][1] if path in self._known else None


def _curve(path: Path) -> list[tuple[int, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["step"], row.get("val/accuracy")) for row in csv.DictReader(file)]
    return [(int(step), float(value)) for step, value in rows if value]


def _begun_since(
    planned: float, run_dir: Path, record: dict[str, Any], sign: dict[str, Any]
) -> bool:
    """Say whether a cell has begun since a sweep planned it, or is at work for another one."""
    if _modified(run_dir / METRICS_NAME) >= planned:
        return True
    alive = is_alive(sign)
    if alive is None:  # on another machine
        alive = sign.get("time", 0.0) >= planned
    return record["status"] == "running" and alive


def _progress(sign: dict[str, Any], view: dict[str, Any], stamp: float) -> dict[str, Any]:
    """Say what a cell does that has not ended, or that its process has."""
    if sign and is_alive(sign) is False:
        return {"state": "interrupted", "reason": "its process has ended"}
    since = time.time() - stamp
    known: dict[str, Any] = {"silent": since if since > SILENT_SECONDS else None}
    trained = view["step"] > 0 and view["step"] == view["max_steps"]
    known["phase"] = sign.get("phase", "finishing" if trained else "starting")
    if not sign and trained:
        known["pace"] = 0.0
    if sign.get("step") is not None:
        known |= {"step": sign["step"], "max_steps": sign["max_steps"]}
        done = sign["step"] - sign.get("first_step", sign["step"])
        if done > 0:
            known["pace"] = sign["seconds"] / done
    return known


def _waiting(run_dir: Path) -> CellView:
    """Read from the name of a cell's folder what the cell has not written yet."""
    name, sweep = run_dir.name, run_dir.parent
    match = NAME.fullmatch(name)
    if match is None:
        return CellView(name, sweep=sweep)
    row = add_ppsbn(match["row"], match["ppsbn"])
    return CellView(name, task=match["task"], row=row, seed=int(match["seed"]), sweep=sweep)


def _taken(run_dir: Path, record: dict[str, Any]) -> float | None:
    """Return the seconds that a finished cell took, its start included where files tell it."""
    used = (record.get("use") or {}).get("seconds")
    if used is None:
        return None
    start = _modified(run_dir / METRICS_NAME) - _modified(run_dir / CONFIG_NAME) - used
    return used + (start if 0 < start < MAX_START_SECONDS else 0.0)


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run and of its attention that are one value each."""
    attention = config.get("attention")
    parts = [config, attention if isinstance(attention, dict) else {}]
    skipped = {"seed", "identity", "cell", "sweep"}
    return {
        key: value
        for part in parts
        for key, value in part.items()
        if isinstance(value, str | int | float | bool) and key not in skipped
    }


def _tell_apart(views: Sequence[CellView]) -> list[CellView]:
    """Add to the names of rows the options in which cells of one row and seed differ."""
    groups: dict[tuple, list[CellView]] = {}
    for view in views:
        groups.setdefault((view.task, view.row, view.seed), []).append(view)
    named = {}
    for group in groups.values():
        keys = {key for view in group for key in view.options}
        differing = [k for k in sorted(keys) if len({str(v.options.get(k)) for v in group}) > 1]
        for view in group:
            options = ", ".join(f"{key}={view.options.get(key)}" for key in differing)
            named[view.path] = f"{view.row} ({options})" if options and view.row else view.row
    return [replace(view, row=named[view.path]) for view in views]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
