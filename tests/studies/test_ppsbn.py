"""The grid of the ppSBN study, and its table on rows made by hand."""

import pandas as pd
import pytest
from omegaconf import OmegaConf

from macformer.studies.ppsbn import FACTORS, measure, plot, points, table


def test_one_factor_varies_at_a_time(compose_study):
    cfg = compose_study("study=ppsbn", "size=table")
    found = points(cfg)
    around = {tuple(point[factor] for factor in FACTORS) for point in found}
    assert around == {(32, 1.0), (8, 1.0), (128, 1.0), (32, 0.1), (32, 10.0), (32, 100.0)}
    unguarded = [point for point in found if point["attention"] == "rmfa_exp_unguarded"]
    assert {point["ppsbn"] for point in unguarded} == {"without"}
    assert len(found) == 3 * 2 * (5 * 3 + 4) * 6


def made_rows() -> pd.DataFrame:
    """Softmax falls at scale 100 and diverges once; batch 8 costs ten points."""
    points = [(32, 1.0, 0.9), (8, 1.0, 0.8), (32, 100.0, 0.1)]
    rows = [
        {
            "task": "reverse",
            "attention": "softmax",
            "ppsbn": "without",
            "batch_size": batch_size,
            "input_scale": scale,
            "seed": seed,
            "accuracy": accuracy + 0.02 * seed,
            "gradient_norm": 3.0,
            "largest_gradient_norm": 10.0 * scale,
            "diverged": scale == 100.0 and seed == 1,
        }
        for batch_size, scale, accuracy in points
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_table_by_hand():
    (row,) = table(made_rows()).to_dict("records")
    assert row["accuracy % at the centre"] == "91 ± 1.4"
    assert row["lowest over batch size"] == "81 (at 8)"
    assert row["lowest over input scale"] == "11 (at 100)"
    assert row["diverged runs"] == "1 of 6"
    assert row["n"] == 2
    assert row["largest gradient norm"] == 1000


def test_plot_shows_one_factor_in_each_panel():
    figure = plot(made_rows())
    drawn = [line.get_xdata().tolist() for axis in figure.axes for line in axis.lines[:1]]
    assert drawn == [[8, 32], [1.0, 100.0]]


@pytest.mark.parametrize("task", ["listops", "reverse"])
@pytest.mark.parametrize("attention", ["softmax", "rmfa_inv_unguarded", "rmfa_exp_scaled"])
def test_a_point_of_each_task_and_kind_of_row_is_measured(compose_study, task, attention):
    cfg = compose_study(
        "study=ppsbn",
        f"study.sizes.smoke.task=[{task}]",
        f"study.sizes.smoke.attention=[{attention}]",
        "study.sizes.smoke.num_steps=2",
    )
    OmegaConf.set_readonly(cfg, False)
    cfg.study.settings.listops["task.num_examples"] = {"train": 64, "validation": 8, "test": 16}
    point, *_ = points(cfg)
    (row,) = measure(point, cfg)
    assert 0 <= row["accuracy"] <= 1


def test_a_gradient_that_is_not_finite_is_the_largest():
    rows = made_rows()
    rows.loc[rows["diverged"], "largest_gradient_norm"] = float("nan")
    (row,) = table(rows).to_dict("records")
    assert row["largest gradient norm"] == float("inf")
