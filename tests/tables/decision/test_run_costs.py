"""Costs of runs whose every number is chosen so that they come out by hand."""

from math import inf, isnan, nan

import pandas as pd
import pytest

from macformer.tables.decision.costs import PADDED, SERVED, break_even, run_costs
from macformer.tables.decision.rates import read_rates
from macformer.tables.runs import read_runs

# Two devices for an hour at 10 W each: 2 hours, 20 Wh. 100 documents a second: 0.02 s of devices.
USE = {"seconds": 3600.0, "joules": 36_000.0, "energy_source": "nvml", "num_devices": 2}
INFERENCE = {"examples_per_second": 100.0}


def cost_of(write_run, rates: str, *, rate: str = PADDED, **keys) -> pd.Series:
    folder = write_run(**({"use": USE, "inference": INFERENCE} | keys))
    runs = read_runs([folder])
    return run_costs(runs, read_rates(rates), documents_per_second=runs[rate]).iloc[0]


def test_a_run_costs_its_hours_and_its_energy(write_run):
    cost = cost_of(write_run, "hour=1.5,kwh=0.5")
    assert cost["hours"] == 2 and cost["watt_hours"] == pytest.approx(20)
    assert cost["price"] == pytest.approx(2 * 1.5 + 0.02 * 0.5)
    assert cost["source"] == "nvml"


def test_a_document_costs_its_share_of_the_devices_and_of_their_power(write_run):
    cost = cost_of(write_run, "hour=1.8,kwh=0.9")
    assert cost["document_seconds"] == 0.02
    assert cost["document_watt_hours"] == pytest.approx(10 * 0.02 / 3600)
    assert 1000 * cost["document_price"] == pytest.approx(0.01 + 0.9 * 10 * 20 / 3600 / 1000)


def test_documents_are_served_at_the_rate_that_is_named(write_run):
    cost = cost_of(write_run, "hour=1", rate=SERVED, served={"examples_per_second": 400.0})
    assert cost["document_seconds"] == 0.005


def test_what_comes_before_a_run_is_paid_for_with_it(write_run):
    before = {"seconds": 1800.0, "joules": 72_000.0, "num_devices": 1, "exclusive": True}
    cost = cost_of(write_run, "hour=1", pretraining=before)
    assert cost["hours"] == 2.5 and cost["watt_hours"] == pytest.approx(20 + 20)
    assert cost["document_seconds"] == 0.02


def test_energy_of_less_than_a_minute_is_not_believed(write_run):
    short = USE | {"seconds": 59.0}
    cost = cost_of(write_run, "hour=1", use=short)
    assert isnan(cost["watt_hours"]) and isnan(cost["document_watt_hours"])
    assert pd.isna(cost["source"]) and cost["price"] == pytest.approx(2 * 59 / 3600)


def test_power_that_is_stated_stands_in_where_none_was_measured(write_run):
    cost = cost_of(write_run, "hour=1,watts=40", use=USE | {"joules": None, "energy_source": None})
    assert cost["watt_hours"] == pytest.approx(80) and cost["source"] == "stated"
    cost = cost_of(write_run, "hour=1,watts=40", name="measured")
    assert cost["watt_hours"] == pytest.approx(20) and cost["source"] == "nvml"


def test_energy_with_a_price_and_without_a_figure_leaves_no_price(write_run):
    cost = cost_of(write_run, "hour=1,kwh=0.3", use=USE | {"joules": None})
    assert isnan(cost["price"]) and isnan(cost["document_price"]) and cost["hours"] == 2


@pytest.mark.parametrize("shared", [{"exclusive": False}, {"use": {}}])
def test_a_run_that_shared_its_device_or_did_not_look_has_no_costs(write_run, shared):
    cost = cost_of(write_run, "hour=1,kwh=1,watts=5,target=0", **shared)
    assert cost.drop("num_reached").isna().all()


def test_pretraining_on_a_shared_device_leaves_the_cost_of_training_unknown(write_run):
    before = {"seconds": 1800.0, "joules": None, "num_devices": 1, "exclusive": False}
    cost = cost_of(write_run, "hour=1", pretraining=before)
    assert isnan(cost["price"]) and cost["document_price"] > 0


def test_a_target_takes_the_share_of_a_run_until_validation_reaches_it(write_run):
    """70 % at step 30 of 120: a quarter of the run, and all of what came before it."""
    before = {"seconds": 3600.0, "joules": 3600.0, "num_devices": 1, "exclusive": True}
    train = {"steps": 120, "examples_per_second": 1.0}
    folder = write_run(use=USE, inference=INFERENCE, train=train, pretraining=before)
    lines = ["step,val/accuracy", "15,0.6", "30,0.7", "45,0.65", "60,0.9"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    runs = read_runs([folder])
    speed = runs[PADDED]
    rates = read_rates("hour=1,target=70")
    found = run_costs(runs, rates, documents_per_second=speed).iloc[0]
    assert found["target_hours"] == pytest.approx(2 / 4 + 1)
    assert found["target_watt_hours"] == pytest.approx(20 / 4 + 1)
    rates = read_rates("hour=1,target=95")
    never = run_costs(runs, rates, documents_per_second=speed).iloc[0]
    assert isnan(never["target_hours"]) and never["num_reached"] == 0
    (folder / "metrics.csv").unlink()
    unknown = run_costs(runs, rates, documents_per_second=speed).iloc[0]
    assert isnan(unknown["num_reached"])


@pytest.mark.parametrize(
    ("extra", "saved", "documents"),
    [
        (100.0 - 40.0, 0.004 - 0.001, 20_000),
        (-5.0, 0.001, 0),  # it costs less to begin with
        (60.0, 0.0, inf),
        (-5.0, -0.001, inf),
        (nan, -0.001, inf),
        (nan, 0.001, nan),
    ],
)
def test_a_row_is_won_back_by_what_its_documents_cost_less(extra, saved, documents):
    assert break_even(extra, saved) == pytest.approx(documents, nan_ok=True)
