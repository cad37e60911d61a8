"""The cost sheet of a sweep whose records are made by hand."""

import json

import pandas as pd
import pytest

from macformer.studies.cost import measure, points, table
from macformer.studies.runner import StudyError


def write_run(sweep, name, *, attention="softmax", status="finished", use=None, **options):
    record = {
        "status": status,
        "task": "listops",
        "attention": attention,
        "ppsbn": "without",
        "seed": 0,
        "device": "AMD EPYC (1 thread)",
        "commit": "abc",
        "versions": {"torch": "2"},
        "exclusive": True,
        "majority_rate": 0.2,
        "accuracy": {"best": {"test": 0.3}},
        "use": use or {"seconds": 7200.0, "joules": None, "num_devices": 1},
        **options,
    }
    (sweep / name).mkdir(parents=True)
    (sweep / name / "metrics.json").write_text(json.dumps(record))


@pytest.fixture
def sheet(tmp_path, compose_study):
    rate = "study.settings.rate={cpu: 3.0, gpu: 10.0}"
    cfg = compose_study("study=cost", f"study.sweep={tmp_path}", rate)
    return lambda: pd.DataFrame([row for point in points(cfg) for row in measure(point, cfg)])


def test_hours_price_and_points_by_hand(tmp_path, sheet):
    write_run(tmp_path, "a")
    gpu = {"seconds": 1800.0, "joules": 7200.0, "num_devices": 2}
    write_run(
        tmp_path,
        "b",
        attention="rmfa_exp",
        device="NVIDIA H100",
        use=gpu,
        accuracy={"best": {"test": 0.25}},
    )
    write_run(tmp_path, "c", status="failed")
    softmax, rmfa = table(sheet()).to_dict("records")
    assert (softmax["device hours"], softmax["price"], softmax["accuracy %"]) == ("2", 6.0, "30")
    assert softmax["price per point"] == pytest.approx(0.6)  # 6 for ten points
    assert pd.isna(softmax["Wh"]) and rmfa["Wh"] == 4.0  # twice 7200 J
    assert (rmfa["device hours"], rmfa["price"]) == ("1", 10.0)
    assert rmfa["price / softmax"] == pytest.approx(10 / 6)
    assert rmfa["points over softmax"] == pytest.approx(-5)


def test_a_run_that_begins_with_another_pays_for_both(tmp_path, sheet):
    before = {"seconds": 3600.0, "joules": 3600.0, "num_devices": 2}
    own = {"seconds": 1800.0, "joules": 7200.0, "num_devices": 1}
    write_run(tmp_path, "a", attention="softmax+mlm", use=own, pretraining=before)
    (row,) = table(sheet()).to_dict("records")
    assert (row["device hours"], row["Wh"]) == ("2.5", 4.0)


def test_no_price_per_point_at_the_majority_class(tmp_path, sheet):
    write_run(tmp_path, "a", accuracy={"best": {"test": 0.19}})
    assert pd.isna(table(sheet())["price per point"]).all()


def test_a_shared_device_gives_no_ratio(tmp_path, sheet):
    write_run(tmp_path, "a", exclusive=False)
    assert pd.isna(table(sheet())["price / softmax"]).all()


def test_a_sweep_without_runs_is_named(tmp_path, sheet):
    write_run(tmp_path, "a", status="failed")
    with pytest.raises(StudyError, match=r"no finished run in .*study\.sweep"):
        sheet()
