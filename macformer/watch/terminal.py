"""A sweep in a terminal: what runs, how far it is, and what has ended."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from macformer.watch import words
from macformer.watch.cells import CellView
from macformer.watch.estimate import seconds_left, sweep_left

ORDER = ("running", "failed", "interrupted", "finished", "waiting")
COLOURS = {"failed": "red", "interrupted": "yellow", "finished": "green", "running": "cyan"}
BAR_WIDTH, CURVE_WIDTH = 18, 20
OTHER_LINES = 5  # above and below the cells


def render(views: Sequence[CellView], *, height: int, now: datetime) -> RenderableType:
    """Show a sweep in so many lines: first what runs, then what has ended, then what waits."""
    left = seconds_left(views)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("task", "row", "seed", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("step", width=BAR_WIDTH)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("validation accuracy", no_wrap=True)
    table.add_column("test %", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    ordered = sorted(views, key=lambda view: ORDER.index(view.state))
    room = max(height - OTHER_LINES, 1)
    for view in ordered[:room]:
        table.add_row(*_cells(view, left.get(view.path)))
    parts: list[RenderableType] = [_summary(views, now), table]
    if len(ordered) > room:
        parts.append(Text(f"and {words.counts(ordered[room:])}", style="dim"))
    return Group(*parts)


def line(views: Sequence[CellView], *, now: datetime) -> str:
    """Say in one line how a sweep stands."""
    left = sweep_left(views)
    running = "; ".join(
        f"{view.task} {view.row} {view.step}/{view.max_steps or '?'}"
        for view in views
        if view.state == "running"
    )
    parts = [words.counts(views), words.end(left, now=now), running]
    return f"{now:%H:%M:%S}  " + "; ".join(filter(None, parts))


def _summary(views: Sequence[CellView], now: datetime) -> RenderableType:
    done, left = sum(view.state == "finished" for view in views), sweep_left(views)
    grid = Table.grid(padding=(0, 2, 1, 0))
    end = words.end(left, now=now)
    bar = ProgressBar(total=max(len(views), 1), completed=done, width=30)
    grid.add_row(f"{done}/{len(views)}", bar, words.counts(views), Text(end, style="bold"))
    return grid


def _cells(view: CellView, left: float | None) -> list[RenderableType]:
    colour = "yellow" if view.silent is not None else COLOURS.get(view.state, "dim")
    curve = Text(words.sparkline(view.curve, width=CURVE_WIDTH))
    if view.curve:
        curve.append(f"  {100 * view.curve[-1][1]:.1f}", style="dim")
    if view.reason:
        curve = Text(view.reason, style=colour, overflow="ellipsis")
    begun = view.state in ("running", "interrupted") and view.max_steps
    bar = ProgressBar(total=view.max_steps or 1, completed=view.step, width=BAR_WIDTH)
    return [
        view.task,
        Text(view.row or view.name, overflow="ellipsis"),
        "" if view.seed is None else str(view.seed),
        Text(words.state(view), style=colour),
        bar if begun else "",
        f"{view.step:,}/{view.max_steps:,}" if begun else "",
        curve,
        "" if view.accuracy is None else f"{100 * view.accuracy:.2f}",
        words.duration(left) if view.state in ("running", "waiting") else "",
    ]
