"""Times, counts and curves in a few characters."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from macformer.watch.cells import STATES, CellView

BLOCKS = "▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """Show a time by its two largest units; `?` where it is unknown."""
    if seconds is None:
        return "?"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def end(seconds: float | None, *, now: datetime) -> str:
    """Say how long it takes and until when; nothing where that is unknown or over."""
    return f"{duration(seconds)} left, until {clock(seconds, now=now)}" if seconds else ""


def clock(seconds: float, *, now: datetime) -> str:
    """Show when it will be, with the day if that is another one."""
    then = now + timedelta(seconds=seconds)
    return then.strftime("%H:%M" if then.date() == now.date() else "%a %d %b %H:%M")


def counts(views: Sequence[CellView]) -> str:
    """Count the cells in each state."""
    found = Counter(view.state for view in views)
    parts = [f"{found[state]} {state}" for state in STATES if found[state]]
    return ", ".join(parts) or "no cells yet"


def state(view: CellView) -> str:
    """Say in a word or two how a cell stands."""
    if view.state != "running":
        return view.state
    if view.silent is not None:
        return f"silent for {duration(view.silent)}"
    return view.phase or "running"


def shorten(text: str, *, width: int) -> str:
    """Cut a text in its middle: rows of a table differ at either end."""
    if len(text) <= width:
        return text
    front = max(width - 1, 0) // 2
    return (
        text[:front] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - (max(width - 1, 0) - front) :]
    )


def sparkline(curve: Sequence[tuple[int, float]], *, width: int) -> str:
    """Draw a curve as bars from its least to its greatest value, the last `width` of them."""
    values = [value for _, value in curve][-width:]
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((v - low) / span * top) if span else top // 2] for v in values)
