"""Panels, lines and files that all plots share."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from macformer.plotting import COLOURS, draw_legend, draw_over_length, draw_panels, save

NAN = float("nan")


@pytest.fixture
def benchmark() -> pd.DataFrame:
    rows = [
        ("rfa", "forward", 512, 2.0),
        ("softmax", "forward", 1024, 16.0),
        ("softmax", "forward", 512, 4.0),
        ("softmax", "forward", 512, 6.0),
        ("rfa", "forward", 1024, NAN),
        ("softmax", "forward_backward", 512, 9.0),
    ]
    return pd.DataFrame(rows, columns=["attention", "mode", "length", "ms"])


def points(axis) -> dict[str, list[list[float]]]:
    return {
        bars.get_label(): np.column_stack(bars.lines[0].get_data()).tolist()
        for bars in axis.containers
    }


def test_lines_are_means_over_the_lengths_of_a_mode(benchmark):
    figure = draw_over_length(benchmark, {"ms": "time (ms)"})
    forward, both = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["forward", "forward + backward"]
    assert points(forward) == {"softmax": [[512, 5.0], [1024, 16.0]], "rfa": [[512, 2.0]]}
    assert points(both) == {"softmax": [[512, 9.0]]}
    assert forward.get_xscale() == forward.get_yscale() == "log"
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == ["rfa", "softmax"]


@pytest.mark.parametrize("number", [1, 16, 18, 40])
def test_every_name_of_a_legend_is_within_the_figure(number):
    figure, (axis, _) = draw_panels(["one", "two"], legend=True)
    for i in range(number):
        axis.plot([0, 1], [0, i], label=f"rmfa_exp_scaled + ppSBN, {i}")
    draw_legend(figure, figure.axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(canvas.get_renderer()), figure.bbox
    assert len(legend.get_texts()) == number
    assert whole.y0 <= box.y0 and box.y1 <= whole.y1 and box.x1 <= whole.x1
    (left, right) = (a.get_window_extent(canvas.get_renderer()) for a in figure.axes)
    assert min(left.width, right.width) > 0.6 * right.height and right.x1 < box.x0


def test_one_attention_looks_the_same_in_every_panel(benchmark):
    figure = draw_over_length(benchmark, {"ms": "time (ms)"})
    lines = [
        bars.lines[0]
        for axis in figure.axes
        for bars in axis.containers
        if bars.get_label() == "softmax"
    ]
    assert [(line.get_color(), line.get_marker()) for line in lines] == [(COLOURS[1], "o")] * 2


def test_panels_fill_rows_and_hide_what_is_left():
    figure, axes = draw_panels(list("abcd"), num_columns=3)
    assert [axis.get_title(loc="left") for axis in axes] == list("abcd")
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2


def test_a_plot_is_saved_twice_with_the_same_bytes(benchmark, tmp_path):
    first = save(draw_over_length(benchmark, {"ms": "ms"}), tmp_path / "plot")
    texts = [path.read_bytes() for path in first]
    second = save(draw_over_length(benchmark, {"ms": "ms"}), tmp_path / "plot")
    assert [path.name for path in first] == ["plot.png", "plot.svg"]
    assert texts == [path.read_bytes() for path in second]
