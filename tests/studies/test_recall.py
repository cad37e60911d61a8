"""The grid of the recall study, one of its points, and its table on rows made by hand."""

import pandas as pd
import pytest

from macformer.studies.recall import FACTORS, measure, plot, points, table


def test_one_factor_varies_at_a_time(compose_study):
    found = points(compose_study("study=recall", "size=table"))
    around = {tuple(point[factor] for factor in FACTORS) for point in found}
    assert around == {(4, 16), (2, 16), (5, 16), (4, 12), (4, 24)}


def test_a_point_knows_its_floor_and_what_is_kept(compose_study):
    cfg = compose_study("study=recall")
    point = {"num_pairs": 2, "max_len": 12, "num_steps": 1, "seed": 0, "ppsbn": "without"}
    (row,) = measure({**point, "attention": "softmax"}, cfg)
    # Keys and values of 12 tokens, of width 64, in two layers.
    assert (row["floor"], row["state_size"]) == (0.5, 2 * 12 * 2 * 64)
    assert 0 < row["error"] < 0.05 and 0 <= row["accuracy"] <= 1


LEARNT = {"loss": 1.0, "chance": 2.3, "gradient_norm": 1.0, "largest_gradient_norm": 9.0}
DIVERGED = LEARNT | {"loss": float("nan")}


def made_rows() -> pd.DataFrame:
    rows = [
        {
            **{"attention": attention, "ppsbn": ppsbn, "num_pairs": num_pairs, "max_len": max_len},
            **{"seed": seed, "accuracy": accuracy + 0.02 * seed, "error": 0.01},
            **(DIVERGED if attention == "rmfa_exp" and num_pairs == 4 else LEARNT),
            **{"floor": 1 / num_pairs, "state_size": 100 * max_len},
        }
        for attention, ppsbn, accuracy in (("softmax", "without", 0.9), ("rmfa_exp", "with", 0.3))
        for num_pairs, max_len in ((2, 8), (4, 8), (2, 16))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_table_by_hand():
    softmax, rmfa = table(made_rows()).to_dict("records")
    assert softmax["numbers kept"] == 800 and softmax["n"] == 2
    assert (softmax["diverged"], rmfa["diverged"]) == ("0 of 6", "2 of 6")
    assert softmax["2 pairs in 16, %"].startswith("91.0 ± ")
    assert (rmfa["ppSBN"], rmfa["4 pairs in 8, %"][:4]) == ("with", "31.0")


def test_plot_shows_one_factor_in_each_panel():
    figure = plot(made_rows())
    drawn = [axis.lines[0].get_xdata().tolist() for axis in figure.axes]
    assert drawn == [[2, 4], [8, 16], [800]]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([91, 91])


def test_what_is_kept_is_compared_at_one_length():
    """A state of one size at every length, where accuracy is another at the longer one."""
    frame = made_rows().assign(state_size=100)
    frame["num_pairs"] = frame["num_pairs"].replace({2: 4, 4: 2})  # the centre is the hardest
    frame.loc[frame["max_len"] == 16, "accuracy"] = 0.1
    _, _, kept = plot(frame).axes
    assert [line.get_ydata()[0] for line in kept.lines[:1]] == pytest.approx([91])
