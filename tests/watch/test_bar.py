"""The line below a sweep: what it says, where it stands, and that it goes."""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
from contextlib import contextmanager

import pytest

from macformer.watch import bar
from macformer.watch.cells import CellView


def test_the_line_says_how_far_and_how_long_within_the_width():
    views = [CellView(n, row="rfa", state="finished", seconds=90.0) for n in "abc"]
    views += [CellView("d", row="rfa", state="failed"), CellView("e", row="rfa")]
    text = bar.bar_text(views, width=100)
    assert text.startswith("4/5 ") and "2 min left" in text
    assert text.endswith("1 waiting, 3 finished, 1 failed")
    assert len(bar.bar_text(views, width=30)) == 29


@contextmanager
def terminal(monkeypatch, *, streams=("stdout", "stderr"), term="xterm"):
    """Let streams be a terminal of 12 lines; yield the end that reads it."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patch:
        for stream in streams:
            patch.setattr(sys, stream, terminal)
        patch.setenv("TERM", term)
        yield reader
    os.close(reader)


def read_all(reader: int) -> str:
    """Read until nothing has come for a while: a terminal hands on what it gets in pieces."""
    seen = b""
    while select.select([reader], [], [], 0.5)[0]:
        seen += os.read(reader, 65536)
    return seen.decode()


def test_a_terminal_keeps_its_last_line_for_the_bar_and_gets_it_back(
    monkeypatch, sweep, write_cell
):
    run_dirs = [write_cell("rfa", status="finished"), write_cell("softmax", status="failed")]
    with terminal(monkeypatch) as reader:
        with pytest.raises(SystemExit), bar.sweep_bar(run_dirs):
            sys.exit(143)  # as at a signal
        seen = read_all(reader)
    assert "\033[1;11r" in seen  # lines 1 to 11 scroll
    assert "\033[12;1H\033[2K2/2 " in seen
    assert seen.index("\033[1;11r") < seen.index("2/2") < seen.index("\033[r")
    assert seen.endswith("\033[12;1H\033[2K\0338")
    assert seen.count("\0337") == seen.count("\0338")


@pytest.mark.parametrize(
    "options", [{"term": "dumb"}, {"streams": ["stdout"]}, {"streams": ["stderr"]}]
)
def test_a_log_or_a_dumb_terminal_has_no_bar(options, monkeypatch, sweep):
    with terminal(monkeypatch, **options) as reader:
        with bar.sweep_bar([sweep / "cell"]):
            pass
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
