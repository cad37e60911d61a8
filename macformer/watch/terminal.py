"""A sweep in a terminal: what runs, how far it is, and what has ended."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len
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
WIDE = 130  # columns, below which bars and curves leave no room for names
TASK_WIDTH = 12  # of a narrow terminal
MOST_REASONS = 4  # of so many lines one may be a reason


def render(views: Sequence[CellView], *, width: int, height: int, now: datetime) -> RenderableType:
    """Show a sweep in so many columns and lines: what runs, then what has ended, then what waits.

    A narrow terminal has shares in place of bars, no curves, and reasons below the cells.
    """
    ordered = sorted(views, key=lambda view: ORDER.index(view.state))
    is_wide = width >= WIDE
    reasons = [] if is_wide else _reasons(ordered)[: height // MOST_REASONS]
    room = max(height - OTHER_LINES - len(reasons), 1)
    left, shown = seconds_left(views), ordered[:room]
    table = _wide(shown, left) if is_wide else _narrow(shown, left, width=width)
    parts: list[RenderableType] = [_summary(views, now, is_wide=is_wide), table]
    if len(ordered) > room:
        parts.append(Text(f"and {words.counts(ordered[room:])}", style="dim"))
    return Group(*parts, *reasons)


def _wide(views: Sequence[CellView], left: Mapping[Path, float | None]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("task", "row", "seed", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("step", width=BAR_WIDTH)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("validation accuracy", no_wrap=True)
    table.add_column("test %", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    for view in views:
        curve = Text(words.sparkline(view.curve, width=CURVE_WIDTH))
        if view.curve:
            curve.append(f"  {100 * view.curve[-1][1]:.1f}", style="dim")
        if view.reason:
            curve = Text(view.reason, style=_colour(view), overflow="ellipsis")
        bar = ProgressBar(total=view.max_steps or 1, completed=view.step, width=BAR_WIDTH)
        table.add_row(
            view.task,
            Text(view.row or view.name, overflow="ellipsis"),
            _seed(view),
            Text(words.state(view), style=_colour(view)),
            bar if _has_begun(view) else "",
            f"{view.step:,}/{view.max_steps:,}" if _has_begun(view) else "",
            curve,
            _test(view),
            _left(view, left),
        )
    return table


def _narrow(views: Sequence[CellView], left: Mapping[Path, float | None], *, width: int) -> Table:
    """Give task and row what the numbers leave, and cut both in their middle."""
    lines = [
        (
            _seed(view),
            words.state(view),
            f"{view.step / view.max_steps:.0%}" if view.max_steps and _has_begun(view) else "",
            f"{100 * view.curve[-1][1]:.1f}" if view.curve else "",
            _test(view),
            _left(view, left),
        )
        for view in views
    ]
    names = ("seed", "state", "step", "val %", "test %", "left")
    taken = sum(max(map(cell_len, column)) + 1 for column in zip(names, *lines, strict=True))
    tasks = min(max((cell_len(view.task) for view in views), default=0), TASK_WIDTH)
    rows = max(width - taken - tasks - 2, 1)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("task", "row", *names):
        side = "left" if name in ("task", "row", "state") else "right"
        table.add_column(name, no_wrap=True, justify=side)
    for view, (seed, state, *numbers) in zip(views, lines, strict=True):
        task = words.shorten(view.task, width=tasks)
        row = words.shorten(view.row or view.name, width=rows)
        table.add_row(task, row, seed, Text(state, style=_colour(view)), *numbers)
    return table


def _reasons(views: Sequence[CellView]) -> list[RenderableType]:
    """Say in a line each why cells have not finished, those of one reason together."""
    cells: dict[str, list[CellView]] = {}
    for view in views:
        if view.reason:
            cells.setdefault(view.reason, []).append(view)
    return [
        Text(
            f"{found[0].row or found[0].name}{f' and {len(found) - 1} more' if found[1:] else ''}: "
            f"{reason}",
            style=_colour(found[0]),
            no_wrap=True,
            overflow="ellipsis",
        )
        for reason, found in cells.items()
    ]


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


def _summary(views: Sequence[CellView], now: datetime, *, is_wide: bool) -> RenderableType:
    done, left = sum(view.state == "finished" for view in views), sweep_left(views)
    end = words.end(left, now=now)
    if not is_wide:
        return Text(f"{done}/{len(views)}  {'; '.join(filter(None, [words.counts(views), end]))}\n")
    grid = Table.grid(padding=(0, 2, 1, 0))
    bar = ProgressBar(total=max(len(views), 1), completed=done, width=30)
    grid.add_row(f"{done}/{len(views)}", bar, words.counts(views), Text(end, style="bold"))
    return grid


def _colour(view: CellView) -> str:
    return "yellow" if view.silent is not None else COLOURS.get(view.state, "dim")


def _has_begun(view: CellView) -> bool:
    return view.state in ("running", "interrupted") and bool(view.max_steps)


def _seed(view: CellView) -> str:
    return "" if view.seed is None else str(view.seed)


def _test(view: CellView) -> str:
    return "" if view.accuracy is None else f"{100 * view.accuracy:.2f}"


def _left(view: CellView, left: Mapping[Path, float | None]) -> str:
    return words.duration(left.get(view.path)) if view.state in ("running", "waiting") else ""
