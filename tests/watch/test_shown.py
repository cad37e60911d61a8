"""What a watcher sees: words, a terminal, lines elsewhere, a page."""

import re
from datetime import datetime
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from macformer.heartbeat import announced, write_progress
from macformer.watch import watch, words
from macformer.watch.cells import CellView
from macformer.watch.page import curve_svg
from macformer.watch.terminal import render

NOW = datetime(2026, 3, 1, 22, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599.0, "1 h 0 min"),
        (3 * 3600 + 720.0, "3 h 12 min"),
        (50 * 3600.0, "2 d 2 h"),
    ],
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text


def test_another_day_is_named():
    assert words.clock(3600.0, now=NOW) == "23:00"
    assert words.clock(3 * 3600.0, now=NOW) == "Mon 02 Mar 01:00"


def test_a_sparkline_spans_its_own_values():
    curve = [(step, value) for step, value in enumerate((0.1, 0.2, 0.9, 0.5))]
    assert words.sparkline(curve, width=3) == "▁█▄"
    assert words.sparkline([(1, 0.5)], width=3) == "▄" and words.sparkline([], width=3) == ""


def test_a_drawn_curve_is_placed_over_the_whole_run():
    svg = curve_svg([(50, 0.25), (100, 0.75)], max_steps=200)
    assert 'points="28.5,24.0 55.0,2.0"' in svg and "from 25.0 to 75.0 %" in svg
    assert curve_svg([], max_steps=200) == ""


def terminal(views, *, width=150, height=30) -> list[str]:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(render(views, width=width, height=height, now=NOW))
    return console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_terminal_shows_what_runs_first_and_no_more_than_it_has_lines():
    views = [CellView(f"w{n:02}", task="text", row=f"row{n:02}") for n in range(40)]
    running = {"state": "running", "phase": "training", "step": 1500, "max_steps": 2000}
    views.append(CellView("r", task="text", row="rfa", pace=0.36, **running))
    lines = terminal(views, height=20)
    assert len(lines) <= 20
    (first,) = [line for line in lines if "rfa" in line]
    assert "training" in first and "1,500/2,000" in first and "3 min" in first
    assert lines.index(first) < min(i for i, line in enumerate(lines) if "row00" in line)
    assert lines[-1] == "and 26 waiting"
    assert "1 running, 40 waiting" in lines[0]


def test_a_reason_stands_where_the_curve_would():
    views = [CellView("f", task="text", row="rfa", state="failed", reason="the loss is nan")]
    assert any("failed" in line and "the loss is nan" in line for line in terminal(views))


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_shows_every_number_and_tells_rows_apart(width):
    rows = (
        "rmfa_exp_scaled (learning_rate=0.001)",
        "rmfa_exp_scaled + ppSBN (learning_rate=0.003)",
    )
    task = {"task": "selective_copy_small", "seed": 2, "max_steps": 8000}
    running = {"state": "running", "phase": "validating", "step": 4000, "curve": [(2000, 0.365)]}
    views = [CellView(row, row=row, pace=1.2, **task, **running) for row in rows]
    reason = "the training loss is nan at step 12; a smaller learning_rate or ppsbn=with may help"
    failed = {"state": "failed", "reason": reason}
    views += [CellView(f"f{n}", row="rfa", **task, **failed) for n in range(3)]
    views.append(CellView("d", row="softmax", state="finished", accuracy=0.4125, **task))
    lines = terminal(views, width=width, height=24)
    assert max(map(len, lines)) <= width and len(lines) <= 24
    ours = [line for line in lines if "validating" in line]
    assert len({line.partition(" 2 validating")[0] for line in ours}) == 2
    assert all(re.search(r" 2 validating +50% +36\.5 +1 h 20 min$", line) for line in ours)
    assert any(re.search(r"softmax +2 finished +41\.25", line) for line in lines)
    assert [line for line in lines if line.startswith("rfa and 2 more: the training loss is nan")]


def test_a_text_is_cut_in_its_middle():
    assert words.shorten("selective_copy", width=14) == "selective_copy"
    assert words.shorten("selective_copy", width=9) == "sele\N{HORIZONTAL ELLIPSIS}copy"
    assert words.shorten("selective_copy", width=1) == "\N{HORIZONTAL ELLIPSIS}"


def look(sweep, *, stop_after: int | None = None) -> tuple[str, list[float]]:
    """Watch without a terminal; return what was printed and for how long each wait was."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == stop_after:
            raise KeyboardInterrupt

    console = Console(file=StringIO(), width=200)
    watch([sweep], console=console, wait=wait)
    return console.file.getvalue(), waits  # pyright: ignore[reportAttributeAccessIssue]


def test_without_a_terminal_a_line_a_minute_is_printed_until_ctrl_c(sweep, write_cell):
    run_dir = write_cell("rfa")
    write_progress(run_dir, phase="training", step=80, max_steps=200, first_step=0, seconds=80.0)
    printed, waits = look(sweep, stop_after=13)
    lines = [line for line in printed.splitlines() if "1 running" in line]
    assert sum(waits[:12]) == 120 and len(lines) == 3  # at 0, 60 and 120 seconds
    assert re.search(r"1 running; 2 min left, until .*; listops rfa 80/200$", lines[0])
    assert "\033" not in printed


def test_watching_ends_by_itself_once_nothing_runs_or_waits(sweep, write_cell):
    write_cell("softmax", status="finished")
    write_cell("rfa", status="failed", reason="out of memory")
    printed, waits = look(sweep)
    assert waits == [] and "1 finished, 1 failed" in printed


class Elements(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [str(value) for key, value in attrs if key == "href"]


def test_the_page_reloads_while_anything_runs_and_leads_to_the_cells(sweep, write_cell):
    running = write_cell("rfa", curve=[(50, 0.25), (100, 0.5)])
    with announced([sweep / "listops-<b>-ppsbn_without-smoke-seed0-b2"]):
        look(sweep, stop_after=1)
        text = (sweep / "watch.html").read_text()
    assert '<meta http-equiv="refresh"' in text and "http://" not in text
    elements = Elements(text)
    assert f"{running.name}/" in elements.links and elements.tags.count("polyline") == 1
    assert "b" in elements.tags and "&lt;b&gt;" in text  # the only bold is ours
    assert elements.tags.count("tr") == 3

    (running / "metrics.json").unlink()
    write_cell("softmax", status="finished")
    look(sweep)
    assert "refresh" not in (sweep / "watch.html").read_text()


def test_a_folder_that_takes_no_page_is_watched_without_one(sweep, write_cell, capsys):
    write_cell(status="finished")
    (sweep / "watch.html").mkdir()
    printed, _ = look(sweep)
    assert "1 finished" in printed and "no page" in capsys.readouterr().err
