import numpy as np
import pytest
from matplotlib.text import Text

from macformer.record import write_predictions
from macformer.tables.comparison import add_comparison
from macformer.tables.fronts import draw_front
from macformer.tables.plots import draw_plots, learning_curves
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise

LOG = """step,train/loss,val/accuracy
5,2.0,
10,,{first}
15,1.0,
20,,{second}
"""


def front(sweep, column, *, smaller_is_better):
    runs = name_runs(read_runs([sweep]))[0]
    summary = summarise(runs)
    if (summary["attention"] == "softmax").any():
        summary = add_comparison(summary, runs, against="softmax")
    figure = draw_front(summary, column, label="x", smaller_is_better=smaller_is_better)
    assert figure is not None
    (axis,) = figure.axes
    return figure, axis


def test_the_front_holds_what_no_row_beats_in_both(write_run, sweep):
    """Slow and right, quick and wrong, and between them one that softmax beats in both."""
    for attention, test, speed in (("softmax", 0.4, 100.0), ("rfa", 0.3, 90.0), ("none", 0.2, 300)):
        write_run(attention=attention, test=test, speed=speed, cost={"flops": 1e9 / speed})
    for column, smaller in (("train.examples_per_second", False), ("cost.flops", True)):
        _, axis = front(sweep, column, smaller_is_better=smaller)
        assert {text.get_text() for text in axis.texts} == {"softmax", "none"}


def test_a_mark_leads_to_its_runs_and_says_where_devices_were_shared(write_run, sweep):
    write_run(cost={"flops": 1e9})
    write_run(attention="rfa", ppsbn="with", exclusive=False, cost={"flops": 2e9})
    for column, notes in (
        ("train.examples_per_second", {"some on a shared device"}),
        ("cost.flops", {""}),
    ):
        _, axis = front(sweep, column, smaller_is_better=False)
        links = {line.get_url() for line in axis.lines} - {None}
        assert links == {
            "#listops-softmax-without---smoke-laptop",
            "#listops-rfa-with---smoke-laptop",
        }
        assert {axis.get_title(loc="right")} == notes


def test_bars_are_intervals_and_lines_floors(write_run, sweep):
    """Wilson's interval for 40 of 100: 30.9 to 49.8; floors at 20 and at 35 %."""
    floors = {"first token": {"accuracy": 0.35, "recipe": "look-up", "num_train_rows": 9}}
    folder = write_run(test=0.4, floors=floors)
    rows = {"row": np.arange(100), "label": np.ones(100), "best_prediction": np.arange(100) < 40}
    write_predictions(folder, rows)
    _, axis = front(sweep, "train.examples_per_second", smaller_is_better=False)
    (bar,) = axis.collections
    np.testing.assert_allclose(bar.get_segments()[0][:, 1], [30.9, 49.8], atol=0.05)
    flat = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 2]
    assert [20, 20] in [list(np.round(y, 9)) for y in flat]
    assert [35, 35] in [list(np.round(y, 9)) for y in flat]


def test_a_row_is_beaten_on_its_own_device_alone(write_run, sweep):
    """A card is quicker than a laptop, whatever runs there; operations are the same on both."""
    for attention, test, speed in (("softmax", 0.4, 100.0), ("rfa", 0.3, 90.0)):
        cost = {"flops": 1e9 / speed}
        write_run(attention=attention, test=test, speed=speed, cost=cost)
        write_run(attention=attention, test=test + 0.1, speed=9 * speed, device="card", cost=cost)
    _, axis = front(sweep, "train.examples_per_second", smaller_is_better=False)
    assert {text.get_text() for text in axis.texts} == {"softmax, laptop", "softmax, card"}
    _, axis = front(sweep, "cost.flops", smaller_is_better=True)
    assert {text.get_text() for text in axis.texts} == {"softmax, card"}


def test_a_speed_that_was_measured_beside_other_work_beats_none(write_run, sweep):
    write_run(test=0.4, speed=100.0)
    write_run(attention="rfa", test=0.3, speed=50.0)
    write_run(attention="none", test=0.5, speed=200.0, exclusive=False)
    _, axis = front(sweep, "train.examples_per_second", smaller_is_better=False)
    assert {text.get_text() for text in axis.texts} == {"softmax"}


@pytest.mark.parametrize("smaller_is_better", [False, True])
def test_the_front_is_the_best_accuracy_at_a_cost_or_a_better_one(
    write_run, sweep, smaller_is_better
):
    write_run(test=0.4, speed=100.0)
    write_run(attention="rfa", test=0.3, speed=200.0)
    write_run(attention="none", test=0.2, speed=300.0)
    _, axis = front(sweep, "train.examples_per_second", smaller_is_better=smaller_is_better)
    (line,) = [line for line in axis.lines if line.get_drawstyle().startswith("steps")]
    if smaller_is_better:  # softmax is cheapest and best
        assert line.get_xydata().tolist() == [[100, 40]]
    else:  # what is quicker than 100 and up to 200 reaches 30 %
        assert line.get_drawstyle() == "steps-pre"
        np.testing.assert_allclose(line.get_xydata(), [[100, 40], [200, 30], [300, 20]])


def test_names_of_a_crowded_front_hide_neither_names_nor_points(write_run, sweep):
    for number in range(8):
        test, speed = 0.40 - 0.002 * number, 100 + number
        write_run(attention=f"a_long_name_{number}", test=test, speed=speed)
    write_run(attention="quick", test=0.1, speed=200.0)
    figure, axis = front(sweep, "train.examples_per_second", smaller_is_better=False)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]
    points = axis.transData.transform([text.xy for text in axis.texts])
    assert len(boxes) == 9
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert not any(box.contains(*point) for point in points)
        inside = axis.get_window_extent()
        assert inside.contains(*box.min) and inside.contains(*box.max)


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


def curve(sweep) -> np.ndarray:
    runs = name_runs(read_runs([sweep]))[0]
    figure = learning_curves(runs, "val/accuracy", ylabel="accuracy (%)")
    assert figure is not None
    (line,) = [line for line in figure.axes[0].lines if line.get_url()]
    return line.get_xydata()


def test_a_seed_that_failed_does_not_pull_the_mean_of_those_that_finished(
    write_run, write_stopped, sweep
):
    for seed, last in enumerate((0.5, 0.6)):
        (write_run(seed=seed) / "metrics.csv").write_text(LOG.format(first=0.4, second=last))
    (write_stopped(seed=2) / "metrics.csv").write_text("step,val/accuracy\n10,0.1\n")
    np.testing.assert_allclose(curve(sweep), [[10, 40.0], [20, 55.0]])


def test_a_mean_of_unfinished_seeds_ends_where_the_first_of_them_does(write_stopped, sweep):
    (write_stopped(seed=0) / "metrics.csv").write_text(LOG.format(first=0.4, second=0.9))
    (write_stopped(seed=1) / "metrics.csv").write_text("step,val/accuracy\n10,0.2\n")
    np.testing.assert_allclose(curve(sweep), [[10, 30.0]])


@pytest.mark.parametrize(("num_rows", "marked"), [(8, False), (15, True)])
def test_curves_look_different_however_many_there_are(write_run, sweep, num_rows, marked):
    for number in range(num_rows):
        for ppsbn in ("without", "with"):
            folder = write_run(attention=f"row{number}", ppsbn=ppsbn)
            (folder / "metrics.csv").write_text(LOG.format(first=0.2, second=0.5))
    figure = learning_curves(name_runs(read_runs([sweep]))[0], "val/accuracy", ylabel="accuracy")
    assert figure is not None
    curves = [line for line in figure.axes[0].lines if line.get_url()]
    named = figure.legends[0].get_lines()[: len(curves)]  # above the floors
    for lines in (curves, named):
        looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines]
        assert len(set(looks)) == len(looks) == 2 * num_rows
        assert all((line.get_marker() not in ("", "None")) is marked for line in lines)


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
    assert (sweep / "front_speed.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (sweep / "curves_loss.svg").read_text()


def test_the_same_runs_give_the_same_svg(write_run, sweep):
    write_run()
    runs = name_runs(read_runs([sweep]))[0]
    first, second = (
        draw_plots(runs, summarise(runs), out=sweep)[0].svg.read_bytes() for _ in range(2)
    )
    assert first == second
