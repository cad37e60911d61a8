"""Accuracy over the learning rate: points, cells that are read again, intervals, table and plot."""

import json
from math import sqrt
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from macformer.studies import learning_rate
from macformer.studies.runner import StudyError

RATES = (0.0003, 0.001, 0.003)


@pytest.fixture
def cfg(tmp_path, compose_study):
    return compose_study("study=learning_rate", f"paths.output_dir={tmp_path / 'outputs'}")


@pytest.fixture
def ended(monkeypatch):
    """Replace training: cells end as a test says."""
    cells: list[Path] = []
    metrics = {
        "status": "finished",
        "reason": None,
        "accuracy": {"best": {"val": 0.4, "test": 0.3}},
        "num_examples": {"test": 1000},
        "majority_rate": 0.17,
    }

    def run(run_dir, *, overwrite):
        cells.append(run_dir)
        (run_dir / "metrics.json").write_text(json.dumps(metrics))
        return metrics["status"] == "finished"

    monkeypatch.setattr(learning_rate, "run_in_process", run)
    return cells, metrics


def rows(attention="softmax", *, validation=(0.2, 0.4, 0.3), accuracy=(0.3, 0.2, 0.4), seed=0):
    point = {"task": "listops_short", "attention": attention, "ppsbn": "without", "seed": seed}
    known = {"recipe_rate": 0.001, "num_examples": 100, "majority_rate": 0.17}
    return [
        {**point, **known, "learning_rate": rate, "validation": val, "accuracy": test}
        for rate, val, test in zip(RATES, validation, accuracy, strict=True)
    ]


def test_a_point_is_a_cell_at_its_rate_whose_tables_show_the_best(cfg, ended, tmp_path):
    point = learning_rate.points(cfg)[0]
    (row,) = learning_rate.measure(point, cfg)
    (cell,), _ = ended
    assert cell.parent == tmp_path / "outputs" / "learning_rate-smoke"
    composed = learning_rate._compose(point, cfg)
    assert (composed.learning_rate, composed.optimizer.lr) == (0.0003, 0.0003)
    assert composed.best_of == ["learning_rate"] and composed.num_threads == cfg.threads
    assert "progress" not in composed.callbacks  # the study has a bar of its own
    assert (row["validation"], row["accuracy"], row["num_examples"]) == (0.4, 0.3, 1000)
    assert row["recipe_rate"] == 0.001


def test_a_failed_cell_is_a_row_with_its_reason_and_a_stopped_one_stops_the_study(cfg, ended):
    point = learning_rate.points(cfg)[0]
    ended[1].update(status="failed", reason="the loss is nan")
    (row,) = learning_rate.measure(point, cfg)
    assert row["accuracy"] is None and row["reason"] == "the loss is nan"
    ended[1].update(status="interrupted")
    with pytest.raises(StudyError, match="goes on with it"):
        list(learning_rate.measure(point, cfg))


def test_validation_chooses_and_the_test_has_no_say():
    assert learning_rate.choose_rate(pd.DataFrame(rows())) == 0.001
    nothing = pd.DataFrame(rows(validation=(None, None, None)))
    assert learning_rate.choose_rate(nothing) is None


def test_a_rate_at_which_a_seed_failed_does_not_compete():
    """Two seeds reach 0.5 at the highest rate and a third diverges; all three reach 0.4 below."""
    highest = (0.5, 0.5, None)
    seeds = [rows(seed=seed, validation=(0.2, 0.4, val)) for seed, val in enumerate(highest)]
    frame = pd.DataFrame([row for found in seeds for row in found])
    frame["accuracy"] = frame["accuracy"].where(frame["validation"].notna())
    assert learning_rate.choose_rate(frame) == 0.001
    (row,) = learning_rate.table(frame.assign(recipe_rate=0.003)).to_dict("records")
    assert row["chosen by validation"] == "0.001" and row["failed"] == "1 of 9"
    assert row["accuracy % at 0.003"] == "40 ± 0 (2 of 3 seeds)"
    assert pd.isna(row["gain over 0.003"])  # of means over other seeds
    (axis,) = learning_rate.plot(frame).axes
    (hollow,) = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert list(hollow.get_ydata()) == [40]


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_one_seed_or_equal_ones_have_wilson_s_interval(num_seeds):
    frame = pd.DataFrame([rows(seed=seed)[0] for seed in range(num_seeds)])
    mean, low, high = learning_rate.interval(frame)
    n, p, z = 100, 0.3, stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (mean, low, high) == pytest.approx((p, centre - half, centre + half))


@pytest.mark.parametrize("spread", [0.1, 0.01, 1e-6])
def test_several_seeds_vary_by_seed_and_by_example(spread):
    """Wider than of seeds alone (Student's quantile at two degrees), or of 100 examples alone."""
    seeds = [rows(seed=s, accuracy=(0.4 + d * spread,) * 3)[0] for s, d in enumerate((-1, 0, 1))]
    mean, low, high = learning_rate.interval(pd.DataFrame(seeds))
    of_seeds = 4.302652729749464 * spread / sqrt(3)
    of_examples = stats.norm.ppf(0.975) * sqrt(0.4 * 0.6 / 100)
    assert mean == pytest.approx(0.4) and high - mean == pytest.approx(mean - low)
    assert max(of_seeds, of_examples) < (high - mean) * 1.0001
    assert high - mean < of_seeds + of_examples


def test_the_table_states_choice_gain_and_failures():
    frame = pd.DataFrame([*rows(), *rows("rfa", validation=(0.2, 0.3, 0.4))])
    frame.loc[frame.index[-3], ["accuracy", "validation"]] = None
    softmax, rfa = learning_rate.table(frame).to_dict("records")
    assert [softmax[f"accuracy % at {rate:g}"] for rate in RATES] == ["30", "20", "40"]
    assert (softmax["chosen by validation"], softmax["gain over 0.001"]) == ("0.001", 0.0)
    assert rfa["chosen by validation"] == "0.003 (highest tried)"
    assert (rfa["gain over 0.001"], rfa["failed"]) == (20.0, "1 of 3")
    assert rfa["accuracy % at 0.0003"] == "failed"


def test_the_plot_rings_each_choice():
    frame = pd.DataFrame([*rows(), *rows("rfa", validation=(0.2, 0.3, 0.4))])
    (axis,) = learning_rate.plot(frame).axes
    rings = [line for line in axis.lines if line.get_markersize() == 11]
    assert [list(ring.get_ydata()) for ring in rings] == [[20], [40]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [f"{r:g}" for r in RATES]
