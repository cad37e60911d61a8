"""Time left, by hand."""

from pathlib import Path

import pytest

from macformer.watch.cells import CellView
from macformer.watch.estimate import seconds_left, sweep_left

FINISHED = [
    CellView("a", task="listops", row="softmax", state="finished", seconds=100.0),
    CellView("b", task="listops", row="softmax (rate=1)", state="finished", seconds=200.0),
    CellView("c", task="listops", row="rfa", state="finished", seconds=30.0),
    CellView("d", task="text", row="softmax", state="finished", seconds=1000.0),
]


@pytest.mark.parametrize(
    ("task", "row", "seconds"),
    [
        ("listops", "softmax (rate=2)", 150.0),  # its row's, whatever the options
        ("listops", "uniform", 110.0),  # its task's
        ("image", "uniform", 332.5),  # all
    ],
)
def test_a_cell_that_waits_takes_what_its_like_took(task, row, seconds):
    waiting = CellView("x", task=task, row=row)
    assert seconds_left([*FINISHED, waiting]) == {Path("x"): seconds}


def test_a_cell_that_runs_goes_on_at_its_own_pace():
    running = CellView("x", task="listops", row="softmax", state="running", step=80)
    running = CellView(**{**vars(running), "max_steps": 200, "pace": 0.5})
    assert seconds_left([*FINISHED, running]) == {Path("x"): 60.0}


def test_before_anything_has_finished_running_cells_foretell_the_others():
    running = CellView(
        "x", task="listops", row="softmax", state="running", step=50, max_steps=200, pace=1.0
    )
    waiting = [CellView(name, task="listops", row="rfa") for name in "yz"]
    assert seconds_left([running, *waiting]) == {
        Path("x"): 150.0,
        Path("y"): 200.0,
        Path("z"): 200.0,
    }
    assert sweep_left([running, *waiting]) == 550.0


def test_cells_that_run_side_by_side_share_the_rest():
    two = [
        CellView(n, task="listops", row="rfa", state="running", step=0, max_steps=10, pace=3.0)
        for n in "xy"
    ]
    assert sweep_left([*FINISHED, *two, CellView("z", task="listops", row="rfa")]) == 45.0


def test_nothing_known_is_no_estimate():
    assert sweep_left([CellView("x")]) is None
    assert seconds_left(FINISHED) == {} and sweep_left(FINISHED) == 0.0
