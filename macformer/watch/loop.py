"""Go round: read, show, wait."""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live

from macformer.watch.cells import CellView, SweepReader
from macformer.watch.page import FILE_NAME, RELOAD_SECONDS, write_watch_page
from macformer.watch.terminal import line, render

LOOK_SECONDS = 2.0  # between two looks, in a terminal
LINE_SECONDS = 60.0  # between two lines, elsewhere


def watch(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    console: Console | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Show the cells below some folders until none of them runs or waits, or until Ctrl-C.

    A terminal shows all of them, anything else a line now and then, and watch.html a page.

    Args:
        out: The folder of the page; the first of the folders if None. One that cannot be written
            has none.
        wait: What passes the time.
    """
    console = console or Console()
    reader, page = SweepReader(folders), (out or folders[0]) / FILE_NAME
    with suppress(KeyboardInterrupt):
        _announce(page, reader, console)
        if console.is_terminal:
            _show(reader, page, console, wait)
        else:
            _print(reader, page, console, wait)


def at_work(views: Sequence[CellView]) -> bool:
    """Say whether there is anything to wait for: of cells that are not there yet, too."""
    return not views or any(view.state in ("running", "waiting") for view in views)


def _show(reader: SweepReader, page: Path, console: Console, wait: Callable[[float], None]) -> None:
    looks = max(round(RELOAD_SECONDS / LOOK_SECONDS), 1)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for look in itertools.count():
            views = reader.read()
            shown = render(views, width=console.width, height=console.height, now=datetime.now())
            live.update(shown, refresh=True)
            if look % looks == 0 or not at_work(views):
                _write_page(page, views)
            if not at_work(views):
                return
            wait(LOOK_SECONDS)


def _print(
    reader: SweepReader, page: Path, console: Console, wait: Callable[[float], None]
) -> None:
    looks = round(LINE_SECONDS / RELOAD_SECONDS)
    for look in itertools.count():
        views = reader.read()
        _write_page(page, views)
        if look % looks == 0 or not at_work(views):
            console.print(line(views, now=datetime.now()), markup=False, soft_wrap=True)
        if not at_work(views):
            return
        wait(RELOAD_SECONDS)


def _announce(page: Path, reader: SweepReader, console: Console) -> None:
    try:
        _write(page, reader.read())
    except OSError as error:
        print(f"no page: {error}", file=sys.stderr)
    else:
        console.print(f"page: {page.resolve().as_uri()}", markup=False, soft_wrap=True)


def _write_page(page: Path, views: Sequence[CellView]) -> None:
    with suppress(OSError):  # said once, at the beginning
        _write(page, views)


def _write(page: Path, views: Sequence[CellView]) -> None:
    title = f"Sweep {page.parent.resolve().name}"
    write_watch_page(page, views, title=title, now=datetime.now(), at_work=at_work(views))
