"""The cost sheet of a sweep whose records are made by hand."""

import json

import pandas as pd
import pytest

from macformer.studies.cost import measure, plot, points, table
from macformer.studies.runner import StudyError


def write_run(sweep, name, *, attention="softmax", status="finished", use=None, **options):
    record = {
        "schema": 1,
        "status": status,
        "task": "listops",
        "attention": attention,
        "ppsbn": "without",
        "recipe": "smoke",
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
    return lambda: pd.DataFrame(
        [{**point, **row} for point in points(cfg) for row in measure(point, cfg)]
    )


def test_hours_price_and_points_by_hand(tmp_path, sheet):
    write_run(tmp_path, "a")
    gpu = {"seconds": 1800.0, "joules": 7200.0, "num_devices": 2}
    rmfa = {"attention": "rmfa_exp", "accuracy": {"best": {"test": 0.25}}}
    write_run(tmp_path, "b", use=gpu, device="NVIDIA H100", **rmfa)
    write_run(tmp_path, "c", use={**gpu, "seconds": 6000.0}, **rmfa)
    write_run(tmp_path, "d", status="failed")
    softmax, rmfa, on_gpu = table(sheet()).to_dict("records")
    assert (softmax["device hours"], softmax["price"], softmax["accuracy %"]) == ("2", 6.0, "30")
    assert softmax["price per point"] == pytest.approx(0.6)  # 6 for ten points
    assert pd.isna(softmax["Wh"]) and rmfa["Wh"] == 4.0  # twice 7200 J
    assert (rmfa["device hours"], rmfa["price"]) == ("3.33", pytest.approx(10))
    assert (on_gpu["device hours"], on_gpu["price"]) == ("1", 10.0)
    assert pd.isna(on_gpu["price / softmax"])  # which ran on another device
    assert rmfa["price / softmax"] == pytest.approx(10 / 6)
    assert rmfa["points over softmax"] == pytest.approx(-5)


def test_settings_of_one_row_are_no_seeds_of_it(tmp_path, sheet):
    """Two seeds of 16 features, two of 64 and one of softmax: three rows, not two."""
    write_run(tmp_path, "softmax", config={"seed": 0, "max_steps": 10})
    for number, accuracy in ((16, 0.25), (64, 0.35)):
        for seed in (0, 1):
            config = {"seed": seed, "max_steps": 10, "attention": {"num_features": number}}
            reached = {"accuracy": {"best": {"test": accuracy}}, "config": config, "seed": seed}
            write_run(tmp_path, f"rfa-{number}-{seed}", attention="rfa", **reached)
    rows = table(sheet()).to_dict("records")
    assert [(row["row"], row["n"], row["accuracy %"]) for row in rows] == [
        ("softmax", 1, "30"),
        ("rfa (num_features=16)", 2, "25 ± 0"),
        ("rfa (num_features=64)", 2, "35 ± 0"),
    ]
    assert [row["points over softmax"] for row in rows] == pytest.approx([0, -5, 5])


def test_a_row_stands_beside_softmax_of_its_own_setting(tmp_path, sheet):
    """Twice the steps take twice the hours, of softmax as well."""
    for steps in (10, 20):
        for attention in ("softmax", "rfa"):
            use = {"seconds": 360.0 * steps, "joules": None, "num_devices": 1}
            config = {"seed": 0, "max_steps": steps}
            write_run(tmp_path, f"{attention}-{steps}", attention=attention, use=use, config=config)
    rows = table(sheet()).to_dict("records")
    assert [row["price / softmax"] for row in rows] == [1] * 4


def test_a_run_named_anew_in_a_larger_sweep_counts_once(tmp_path, sheet):
    """What was measured before a second setting came has no option in its name yet."""
    write_run(tmp_path, "a", config={"seed": 0, "max_steps": 10})
    before = sheet()
    write_run(tmp_path, "b", config={"seed": 0, "max_steps": 20})
    rows = table(pd.concat([before, sheet()])).to_dict("records")
    assert [row["row"] for row in rows] == ["softmax (max_steps=10)", "softmax (max_steps=20)"]
    marks = plot(pd.concat([before, sheet()])).axes[0].containers
    assert [mark.get_label() for mark in marks] == [row["row"] for row in rows]


def test_a_run_that_begins_with_another_pays_for_both(tmp_path, sheet):
    before = {"seconds": 3600.0, "joules": 3600.0, "num_devices": 2}
    own = {"seconds": 1800.0, "joules": 7200.0, "num_devices": 1}
    write_run(tmp_path, "a", attention="softmax+mlm", use=own, pretraining=before)
    (row,) = table(sheet()).to_dict("records")
    assert (row["device hours"], row["Wh"]) == ("2.5", 4.0)


def test_a_run_that_was_trained_again_is_another_point(tmp_path, compose_study):
    cfg = compose_study("study=cost", f"study.sweep={tmp_path}")
    write_run(tmp_path, "a")
    (before,) = points(cfg)
    (tmp_path / "a" / "metrics.json").unlink()
    (tmp_path / "a").rmdir()
    write_run(tmp_path, "a", use={"seconds": 60.0, "joules": None, "num_devices": 1})
    assert points(cfg) != [before]


def test_no_price_per_point_at_the_majority_class(tmp_path, sheet):
    write_run(tmp_path, "a", accuracy={"best": {"test": 0.19}})
    assert pd.isna(table(sheet())["price per point"]).all()


@pytest.mark.parametrize("own", [True, False])
def test_a_shared_device_gives_no_ratio(tmp_path, sheet, own):
    """That of the run itself, or of the one that it begins with."""
    before = {"seconds": 1.0, "joules": None, "num_devices": 1, "exclusive": own}
    write_run(tmp_path, "a", exclusive=not own, pretraining=before)
    assert pd.isna(table(sheet())["price / softmax"]).all()


def test_a_sweep_without_runs_is_named(tmp_path, sheet):
    write_run(tmp_path, "a", status="failed")
    with pytest.raises(StudyError, match=r"no finished run in .*study\.sweep"):
        sheet()
