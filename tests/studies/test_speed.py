"""The slopes of the speed study on times made by hand, and one real measurement."""

from itertools import product

import pandas as pd
import pytest

from macformer.benchmark.table import length_exponent
from macformer.studies.speed import DRAWN, measure, plot, points, table


def made_rows() -> pd.DataFrame:
    """Time is 100 + N^2 for softmax and 3 N for the other: the start of softmax is not its law."""
    rows = []
    for length in (4, 1024, 2048, 4096):
        for attention, ms in (("softmax", 100.0 + length**2), ("linear", 3.0 * length)):
            row = {"attention": attention, "mode": "forward", "length": length, "seed": 0}
            ratio = ms / (100.0 + length**2)
            rows.append(
                {**row, "ms": ms, "ratio": ratio, "peak MiB": 2.0 * length, "failure": None}
            )
    return pd.DataFrame(rows)


def test_slopes_are_those_of_long_sequences():
    frame = made_rows()
    exact, linear = (frame[frame["attention"] == name] for name in ("softmax", "linear"))
    assert length_exponent(exact, "ms") == pytest.approx(2, abs=1e-3)
    assert length_exponent(linear, "ms") == pytest.approx(1, abs=1e-9)


def test_table_relates_to_softmax():
    rows = table(made_rows()).set_index("attention")
    assert rows.loc["softmax", "time / softmax at 4,096"] == "1"
    assert rows.loc["linear", "time / softmax at 4,096"] == "0.00073"  # 3 / 4096
    assert rows.loc["linear", "peak MiB at 4,096"] == 8192


def test_one_length_has_no_slope():
    assert pd.isna(length_exponent(made_rows().head(1), "ms"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("study.settings.attention=[softmax,nope]", "attention nope is unknown"),
        ("study.settings.mode=[forwards]", "mode is"),
        ("study.sizes.smoke.rounds=0", "rounds is 0"),
    ],
)
def test_what_the_benchmark_cannot_run_is_refused_first(compose_study, option, message):
    with pytest.raises(ValueError, match=message):
        points(compose_study("study=speed", option))


def test_why_a_row_has_no_time_stands_in_the_table(compose_study):
    cfg = compose_study("study=speed", "study.settings.attention=[softmax]")
    rows = pd.DataFrame([{"length": 37, **row} for row in measure({"length": 37, "seed": 0}, cfg)])
    assert "not measured" not in table(rows)
    rows.loc[0, "failure"] = "out of memory"
    assert table(rows)["not measured"].dropna().tolist() == ["out of memory"]


def test_measures_every_attention_in_both_modes(compose_study):
    cfg = compose_study("study=speed", "study.settings.attention=[softmax,uniform]")
    rows = list(measure({"length": 37, "seed": 0}, cfg))
    found = {(row["attention"], row["mode"]) for row in rows}
    assert found == set(product(("softmax", "uniform"), ("forward", "forward_backward")))
    assert all(row["ms"] > 0 and not row["failure"] for row in rows)


def test_of_many_attentions_one_of_each_kind_is_drawn():
    names = [*DRAWN, "rmfa_inv", "bigbird"]
    rows = made_rows().head(2)
    frame = pd.concat([rows.assign(attention=name, length=[512, 1024]) for name in names])
    assert drawn(plot(frame)) == [*DRAWN]
    few = names[-3:]
    assert drawn(plot(frame[frame["attention"].isin(few)])) == few


def drawn(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
