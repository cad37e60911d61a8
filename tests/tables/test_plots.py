import numpy as np
import pytest
from matplotlib.collections import PathCollection

from macformer.tables.plots import bubble_chart, draw_plots, learning_curves
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise

LOG = """step,train/loss,val/accuracy
5,2.0,
10,,{first}
15,1.0,
20,,{second}
"""


def test_bubbles_stand_at_speed_and_accuracy_with_memory_as_area(write_run, sweep):
    write_run(test=0.4, speed=100.0)
    memory = {"tokens_per_second": 1.0, "peak_memory_gib": 0.125}
    write_run(attention="rfa", test=0.3, train=memory, speed=150.0)
    figure = bubble_chart(summarise(name_runs(read_runs([sweep]))[0]))
    assert figure is not None
    (axis,) = figure.axes
    bubbles = [mark for mark in axis.collections if isinstance(mark, PathCollection)]
    points = np.concatenate([np.asarray(mark.get_offsets()) for mark in bubbles])
    np.testing.assert_allclose(points, [[100.0, 40.0], [150.0, 30.0]])
    areas = [mark.get_sizes().item() for mark in bubbles]
    assert areas[0] / areas[1] == pytest.approx(4.0)  # 0.5 GiB against 0.125 GiB
    assert "512 MiB" in axis.get_title(loc="right")


def test_curves_are_means_in_bands_over_seeds(write_run, sweep):
    for seed, (first, second) in enumerate([(0.2, 0.5), (0.4, 0.6)]):
        log = LOG.format(first=first, second=second)
        (write_run(seed=seed) / "metrics.csv").write_text(log)
    figure = learning_curves(
        name_runs(read_runs([sweep]))[0], "val/accuracy", ylabel="accuracy (%)"
    )
    assert figure is not None
    (axis,) = figure.axes
    curve = next(
        line for line in axis.lines if len(line.get_xydata()) and line.get_linestyle() == "-"
    )
    np.testing.assert_allclose(curve.get_xydata(), [[10, 30.0], [20, 55.0]])
    band = axis.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in np.round(band, 6)} == {(10, 20), (20, 50), (20, 60), (10, 40)}


@pytest.mark.parametrize("log", [None, "", "\n", "step,lr\n1,0.1\n", 'step,val/accuracy\n1,"0.'])
def test_plots_without_data_are_left_out(write_stopped, sweep, log):
    folder = write_stopped()
    if log is not None:
        (folder / "metrics.csv").write_text(log)
    runs = name_runs(read_runs([sweep]))[0]
    assert draw_plots(runs, summarise(runs), out=sweep) == []


def test_a_failed_run_shows_the_curve_that_it_reached(write_run, write_stopped, sweep):
    (write_run() / "metrics.csv").write_text(LOG.format(first=0.2, second=0.5))
    folder = write_stopped(task="text", attention="rfa")
    (folder / "metrics.csv").write_text("step,train/loss\n5,2.0\n")
    runs = name_runs(read_runs([sweep]))[0]
    titles = [plot.title for plot in draw_plots(runs, summarise(runs), out=sweep)]
    assert titles == ["Accuracy against speed", "Validation accuracy", "Training loss"]
    assert (sweep / "bubble.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (sweep / "curves_loss.svg").read_text()


def test_the_same_runs_give_the_same_svg(write_run, sweep):
    write_run()
    runs = name_runs(read_runs([sweep]))[0]
    first, second = (
        draw_plots(runs, summarise(runs), out=sweep)[0].svg.read_bytes() for _ in range(2)
    )
    assert first == second
