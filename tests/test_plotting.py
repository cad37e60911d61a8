"""Panels, lines and files that all plots share."""

import numpy as np
import pandas as pd
import pytest

from macformer.plotting import COLOURS, draw_over_length, draw_panels, save

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
