"""How long a sweep will still take, by what its finished cells took.

A cell that has begun goes on at its own pace. One that waits takes what finished cells of its row
and task took on average, or else those of its task, or else all; running cells count by what they
will have taken where none has finished.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from macformer.watch.cells import CellView


def seconds_left(views: Sequence[CellView]) -> dict[Path, float | None]:
    """Estimate for each cell that runs or waits how long it still takes, by its folder.

    None where that is unknown.
    """
    taken = [(v, v.seconds) for v in views if v.seconds is not None]
    if not taken:
        taken = [(v, v.pace * v.max_steps) for v in views if v.pace and v.max_steps]
    left: dict[Path, float | None] = {}
    for view in views:
        if view.state == "running" and view.pace is not None and view.max_steps:
            left[view.path] = view.pace * max(view.max_steps - view.step, 0)
        elif view.state in ("running", "waiting"):
            left[view.path] = _like(view, taken)
    return left


def sweep_left(views: Sequence[CellView]) -> float | None:
    """Estimate how long all cells together still take, as many at a time as run now."""
    left = seconds_left(views)
    if None in left.values():
        return None
    at_once = max(sum(view.state == "running" for view in views), 1)
    return sum(value for value in left.values() if value is not None) / at_once


def _like(view: CellView, taken: Sequence[tuple[CellView, float]]) -> float | None:
    of_task = [(other, seconds) for other, seconds in taken if other.task == view.task]
    of_row = [(other, seconds) for other, seconds in of_task if _method(other) == _method(view)]
    found = [seconds for _, seconds in of_row or of_task or taken]
    return fmean(found) if found else None


def _method(view: CellView) -> str:
    """Name a row without the options that set its cells apart."""
    return view.row.partition(" (")[0]
