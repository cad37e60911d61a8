from math import isnan, nan, sqrt

import pandas as pd
import pytest

from macformer.tables.captions import cost_notes
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise

RATIOS_OF_COST = [
    "train.examples_per_second.relative",
    "train.peak_memory_gib.relative",
    "inference.tokens_per_second.relative",
]


def results(sweep) -> pd.DataFrame:
    return summarise(name_runs(read_runs([sweep]))[0]).set_index(["task", "attention", "ppsbn"])


def test_mean_and_sample_deviation_over_seeds(write_run, sweep):
    for seed, test in enumerate([0.30, 0.34, 0.41]):
        write_run(seed=seed, test=test)
    result = results(sweep).loc[("listops", "softmax", "without")]
    assert result["num_finished"] == 3
    assert result["accuracy.best.test"] == pytest.approx(0.35)
    # deviations -5, -1 and +6 points: squares 25 + 1 + 36, over n - 1 = 2
    assert result["accuracy.best.test.sd"] == pytest.approx(sqrt(31) / 100)


def test_one_seed_has_no_deviation(write_run, sweep):
    write_run()
    assert isnan(results(sweep)["accuracy.best.test.sd"].item())


def test_ratios_divide_by_softmax_of_the_same_task(write_run, sweep):
    write_run(speed=100.0)
    write_run(task="text", speed=10.0)
    write_run(attention="rfa", speed=150.0, num_parameters=1100)
    write_run(task="text", attention="rfa", speed=40.0)
    summary = results(sweep)
    speeds = summary["train.examples_per_second.relative"]
    assert speeds[("listops", "rfa", "without")] == pytest.approx(1.5)
    assert speeds[("text", "rfa", "without")] == pytest.approx(4.0)
    parameters = summary["num_parameters.relative"]
    assert parameters[("listops", "rfa", "without")] == pytest.approx(1.1)


def test_ratios_divide_by_softmax_of_the_same_device(write_run, sweep):
    write_run(device="laptop", speed=100.0)
    write_run(device="card", speed=1000.0)
    write_run(device="card", attention="rfa", speed=3000.0)
    speeds = results(sweep)["train.examples_per_second.relative"]
    assert speeds[("listops", "rfa", "without")] == pytest.approx(3.0)


def write_sizes(write_run, attention: str, speeds: dict[int, float]) -> None:
    for layers, speed in speeds.items():
        config = {"model": {"encoder": {"num_layers": layers}}}
        write_run(attention=attention, name=f"{layers} layers", speed=speed, config=config)


def test_ratios_divide_by_softmax_of_the_same_size(write_run, sweep):
    write_sizes(write_run, "softmax", {4: 100.0, 12: 10.0})
    write_sizes(write_run, "rfa", {4: 150.0, 12: 20.0})
    speeds = results(sweep)["train.examples_per_second.relative"].loc["listops"]
    assert speeds.loc["softmax"].tolist() == [1.0, 1.0]
    assert speeds.loc["rfa"].tolist() == pytest.approx([1.5, 2.0])


def test_a_size_that_softmax_was_not_run_at_has_no_ratios(write_run, sweep):
    write_sizes(write_run, "softmax", {4: 100.0})
    write_sizes(write_run, "rfa", {4: 150.0, 12: 20.0})
    summary = results(sweep).reset_index()
    rfa = summary[summary["attention"] == "rfa"]
    assert rfa[RATIOS_OF_COST[0]].tolist() == pytest.approx([1.5, nan], nan_ok=True)
    assert cost_notes(summary) == [
        "No single softmax without ppSBN matches the options of rfa (num_layers=12)."
    ]


def test_of_two_softmaxes_that_a_row_could_stand_beside_it_has_neither(write_run, sweep):
    """An option that only softmax has decides nothing of rfa, whose features are its own."""
    for dropout in (0.0, 0.1):
        write_run(name=f"{dropout}", config={"attention": {"dropout": dropout}})
    for number in (16, 64):
        config = {"attention": {"num_features": number}}
        write_run(attention="rfa", name=f"{number}", config=config)
    summary = results(sweep).reset_index()
    assert summary["num_parameters.relative"].count() == 2  # each softmax beside itself
    (note,) = cost_notes(summary)
    assert note.endswith("matches the options of rfa (num_features=16); rfa (num_features=64).")


def test_softmax_with_ppsbn_is_not_the_reference(write_run, sweep):
    write_run(ppsbn="with", speed=50.0)
    assert isnan(results(sweep)["train.examples_per_second.relative"].item())


@pytest.mark.parametrize("sharing", ["softmax", "rfa"])
def test_a_shared_device_withholds_ratios_of_speed_and_memory(write_run, sweep, sharing):
    for attention in ("softmax", "rfa"):
        write_run(attention=attention, exclusive=attention != sharing)
    result = results(sweep).loc[("listops", "rfa", "without")]
    assert result[RATIOS_OF_COST].isna().all()
    assert result["num_parameters.relative"] == 1.0


def test_one_shared_seed_withholds_the_ratios_of_its_cell(write_run, sweep):
    write_run()
    write_run(attention="rfa", seed=0)
    write_run(attention="rfa", seed=1, exclusive=False)
    assert results(sweep).loc[("listops", "rfa", "without"), RATIOS_OF_COST].isna().all()


def test_blanks_and_unfinished_runs_stay_out_of_means(write_run, write_stopped, sweep):
    write_run(seed=0, test=0.30)
    write_run(seed=1, test=None)
    write_stopped(seed=2)
    write_stopped(seed=3, status="running", reason=None, accuracy={"best": {"test": 0.99}})
    result = results(sweep).loc[("listops", "softmax", "without")]
    assert result["accuracy.best.test"] == pytest.approx(0.30)
    assert result[["num_finished", "num_failed", "num_running"]].tolist() == [2, 1, 1]


def test_rows_follow_the_order_of_lra_with_softmax_and_the_control_first(write_run, sweep):
    for task in ("user_task", "image", "listops"):
        for attention in ("rfa", "uniform", "kernelized_exp", "softmax"):
            for ppsbn in ("with", "without"):
                write_run(task=task, attention=attention, ppsbn=ppsbn)
    order = results(sweep).index
    assert list(order.unique("task")) == ["listops", "image", "user_task"]
    assert list(order[:4]) == [
        ("listops", "softmax", "without"),
        ("listops", "softmax", "with"),
        ("listops", "uniform", "without"),
        ("listops", "uniform", "with"),
    ]
    assert list(order.unique("attention"))[2:] == ["kernelized_exp", "rfa"]


def test_settings_stand_in_the_order_of_their_numbers(write_run, sweep):
    for value in (128, 16, 1e-4, 0.001):
        write_run(attention="rfa", name=f"run {value}", config={"mixer": {"x": value}})
    labels = summarise(name_runs(read_runs([sweep]))[0])["own_options"]
    assert list(labels) == ["x=0.0001", "x=0.001", "x=16", "x=128"]
