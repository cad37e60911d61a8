"""One line at the bottom of a sweep's terminal: how far it is, and how long it will take.

The cells are processes of their own and draw bars of their own. They go on scrolling in all lines
but the last, which the terminal is asked to keep out of it (DECSTBM).
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from macformer.watch import words
from macformer.watch.cells import CellView, SweepReader
from macformer.watch.estimate import sweep_left

LOOK_SECONDS = 1.0
BAR_WIDTH = 24
SAVE, RESTORE = "\0337", "\0338"  # of the cursor's place
MIN_LINES = 4


@contextmanager
def sweep_bar(run_dirs: Sequence[Path]) -> Iterator[None]:
    """Show the bar of some cells meanwhile, where both streams are one terminal's."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()) or os.environ.get("TERM") == "dumb":
        yield
        return
    reader = SweepReader(
        sorted({run_dir.parent for run_dir in run_dirs}), only=(path.name for path in run_dirs)
    )
    ended = threading.Event()
    drawer = threading.Thread(target=_draw, args=(reader, ended), daemon=True)
    drawer.start()
    try:
        yield
    finally:
        ended.set()
        drawer.join()


def bar_text(views: Sequence[CellView], *, width: int) -> str:
    """Show counts, a bar and the time left in one line of at most so many characters."""
    done = sum(view.state in ("finished", "failed") for view in views)
    filled = round(BAR_WIDTH * done / max(len(views), 1))
    left = words.duration(sweep_left(views))
    text = f"{done}/{len(views)} {'━' * filled}{'╌' * (BAR_WIDTH - filled)} {left} left  "
    return (text + words.counts(views))[: width - 1]


def _draw(reader: SweepReader, ended: threading.Event) -> None:
    """Draw once a second until told to end; a terminal of another size is laid out anew."""
    size = None
    try:
        while True:
            now = os.get_terminal_size(sys.stderr.fileno())
            if now.lines >= MIN_LINES:
                text = bar_text(reader.read(), width=now.columns)
                _write(("" if now == size else _lay_out(now.lines)) + _at_bottom(text, now.lines))
                size = now
            if ended.wait(LOOK_SECONDS):
                break
    finally:  # whatever stops it, the terminal gets its last line back
        if size is not None:
            _write(f"{SAVE}\033[r{RESTORE}{_at_bottom('', size.lines)}")


def _lay_out(lines: int) -> str:
    """Leave the last line free, and let all others scroll; setting it moves the cursor."""
    return f"\n{SAVE}\033[1;{lines - 1}r{RESTORE}\033[1A"


def _at_bottom(text: str, lines: int) -> str:
    return f"{SAVE}\033[{lines};1H\033[2K{text}{RESTORE}"


def _write(text: str) -> None:
    """Write at once, so that what a cell writes comes before or after it."""
    os.write(sys.stderr.fileno(), text.encode())
