"""Predictions of hand-made runs: intervals, differences and floors as the tables show them."""

import numpy as np
import pytest
from scipy import stats

from macformer.record import write_predictions
from macformer.tables import make_tables
from macformer.tables.build import comparison_table
from macformer.tables.captions import comparison_notes
from macformer.tables.comparison import add_comparison
from macformer.tables.runs import TableError, read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise

NUM_EXAMPLES = 100


@pytest.fixture
def write_tested(write_run):
    """Write a run whose best weights have the first examples right, in an order of its own."""

    def write(*, right: int, seed: int = 0, first_row: int = 0, **keys):
        folder = write_run(seed=seed, test=right / NUM_EXAMPLES, **keys)
        row = np.random.default_rng(seed).permutation(NUM_EXAMPLES)
        correct = (row < right).astype(np.int64)
        label = np.ones(NUM_EXAMPLES, np.int64)
        rows = {"row": row + first_row, "label": label, "best_prediction": correct}
        write_predictions(folder, rows)
        return folder

    return write


def compared(sweep, against="softmax"):
    runs, _ = name_runs(read_runs([sweep]))
    return add_comparison(summarise(runs), runs, against=against).set_index(["attention", "ppsbn"])


def test_rows_are_compared_example_by_example(write_tested, sweep):
    """The 10 examples that softmax alone has right: 2 / 2^10 by McNemar, the only test."""
    write_tested(right=40)
    write_tested(attention="rfa", right=30)
    rows = compared(sweep)
    rfa = rows.loc[("rfa", "without")]
    assert rfa["difference"] == pytest.approx(-0.1)
    assert rfa["p"] == pytest.approx(2 / 2**10)
    assert rfa["low"] == pytest.approx(0.2189, abs=1e-4)  # Wilson, 30 of 100
    assert np.isnan(rows.loc[("softmax", "without"), "difference"])


def test_a_row_that_is_asked_several_times_counts_once(write_run, sweep):
    """Five rows of four answers each: Student's test of five shares."""
    for attention, right in (("softmax", [4, 4, 4, 4, 4]), ("rfa", [4, 2, 4, 3, 2])):
        folder = write_run(attention=attention, test=sum(right) / 20)
        predictions = (np.arange(4) < np.array(right)[:, None]).astype(np.int64)
        answers = {"label": np.ones((5, 4), np.int64), "best_prediction": predictions}
        write_predictions(folder, {"row": np.arange(5), **answers})
    rfa = compared(sweep).loc[("rfa", "without")]
    assert rfa["difference"] == pytest.approx(-0.25)
    expected = stats.ttest_rel([1, 0.5, 1, 0.75, 0.5], np.ones(5))
    assert rfa["p"] == pytest.approx(expected.pvalue, rel=1e-4)


def test_rows_of_several_sizes_are_compared_with_softmax_of_their_own(write_tested, sweep):
    for layers, softmax, rfa in ((4, 40, 30), (12, 60, 55)):
        size = {"name": str(layers), "config": {"model": {"num_layers": layers}}}
        write_tested(right=softmax, **size)
        write_tested(attention="rfa", right=rfa, **size)
    rows = compared(sweep)
    assert rows["difference"].dropna().tolist() == pytest.approx([-0.1, -0.05])


def test_rows_of_different_test_examples_are_not_compared(write_run, write_tested, sweep):
    """As many that are others, or a part of them; each accuracy has its interval."""
    write_tested(right=40)
    write_tested(attention="rfa", right=40, first_row=50)
    half = {"row": np.arange(50), "label": np.ones(50), "best_prediction": np.arange(50) < 20}
    write_predictions(write_run(attention="uniform"), half)
    write_tested(attention="same", right=30)
    rows = compared(sweep)["difference"].droplevel("ppsbn")
    assert rows.dropna().to_dict() == {"same": pytest.approx(-0.1)}
    assert compared(sweep)["low"].notna().all()
    text = make_tables([sweep])[0].read_text()
    assert "Tested on different rows, so not compared: uniform; rfa." in text


def test_seeds_of_one_row_that_were_tested_on_different_rows_are_not_pooled(write_tested, sweep):
    for seed in (0, 1):
        write_tested(right=40, seed=seed)
        write_tested(attention="rfa", right=40, seed=seed, first_row=seed)
    rfa = compared(sweep).loc[("rfa", "without")]
    assert rfa[["low", "difference"]].isna().all() and rfa["other_rows"] == 1


def test_seeds_that_both_rows_have_are_paired(write_tested, sweep):
    for seed, (ours, theirs) in enumerate([(41, 40), (43, 41), (45, 42)]):
        write_tested(right=theirs, seed=seed)
        write_tested(attention="rfa", right=ours, seed=seed)
    write_tested(attention="rfa", right=90, seed=3)
    assert compared(sweep).loc[("rfa", "without"), "difference"] == pytest.approx(0.02)
    text = make_tables([sweep])[0].read_text()
    assert "| +2.0 (3) |" in text
    assert "Differences are over the seeds in common, in brackets where they are fewer." in text


def test_one_seed_among_several_is_not_tested_as_if_seeds_did_not_differ(write_tested, sweep):
    """Where every row has one, McNemar's test would call these 10 examples a difference."""
    for seed in range(3):
        write_tested(right=40, seed=seed)
        write_tested(attention="uniform", right=38 + seed, seed=seed)
    write_tested(attention="rfa", right=30, seed=1)
    rows = compared(sweep)
    rfa = rows.loc[("rfa", "without")]
    assert rfa["difference"] == pytest.approx(-0.1)
    assert rfa[["low", "high", "difference.low", "difference.high", "p", "detectable"]].isna().all()
    assert rows.loc[("uniform", "without"), ["low", "p", "detectable"]].notna().all()
    text = make_tables([sweep])[0].read_text()
    (line,) = [line for line in text.splitlines() if "| -10.0" in line]
    assert line == "| rfa | 30.00 (1) |  | -10.0 |  |  |"
    assert "it has neither interval nor test" in text


@pytest.mark.parametrize(
    ("last", "level", "words"),
    [(39, 0.005, ". A difference of"), (10, 0.01, ". In rows without *, a difference of")],
)
def test_what_would_have_been_found_is_adjusted_like_what_was(
    write_tested, sweep, last, level, words
):
    """Of ten rows the first difference is found at a tenth of the level, the second at two."""
    write_tested(right=40)
    write_tested(attention="rfa", right=39)
    alone = compared(sweep).loc[("rfa", "without"), "detectable"]
    for number in range(9):
        write_tested(attention=f"row{number}", right=last if number == 8 else 39)
    rows = compared(sweep)
    among = rows.loc[("rfa", "without"), "detectable"]
    widths = [stats.norm.ppf(0.8) - stats.norm.ppf(x / 2) for x in (level, 0.05)]
    assert among / alone == pytest.approx(widths[0] / widths[1], rel=0.02)
    (note,) = comparison_notes(rows)
    assert f"{words} {100 * among:.1f} points would have been found four times" in note


def test_what_would_have_been_found_is_said_of_the_rows_that_were_not(write_tested, sweep):
    """Fewer answers in which two rows differ show a smaller difference; rfa is found already."""
    for attention, right in (("softmax", 40), ("rfa", 10), ("linear", 39), ("local", 36)):
        write_tested(attention=attention, right=right)
    rows = compared(sweep)
    found = 100 * rows["detectable"].droplevel("ppsbn")
    assert (rows["p"].droplevel("ppsbn") < 0.05).to_dict() == {
        **dict.fromkeys(found.index, False),
        "rfa": True,
    }
    (note,) = comparison_notes(rows)
    assert f"a difference of {found['linear']:.1f} to {found['local']:.1f} points, by row," in note


def test_an_accuracy_is_in_its_interval_though_a_seed_kept_no_predictions(
    write_run, write_tested, sweep
):
    for seed in range(3):
        write_tested(right=40 + seed, seed=seed)
    write_tested(attention="rfa", right=30, seed=0)
    write_tested(attention="rfa", right=32, seed=1)
    write_run(attention="rfa", test=0.9, seed=2)
    rfa = compared(sweep).loc[("rfa", "without")]
    assert rfa[["low", "high"]].isna().all()
    assert rfa["difference"] == pytest.approx(-0.095) and rfa["num_paired"] == 2


def test_any_row_can_be_the_reference(write_tested, sweep):
    write_tested(right=40)
    write_tested(attention="uniform", right=30)
    rows = compared(sweep, against="uniform")
    assert rows.loc[("softmax", "without"), "difference"] == pytest.approx(0.1)
    write_tested(attention="rfa", right=30, ppsbn="with")
    message = "no row rfa without ppSBN to compare with; there are softmax, uniform"
    with pytest.raises(TableError, match=message):
        make_tables([sweep], against="rfa")


def test_runs_without_predictions_are_not_compared(write_run, write_tested, sweep):
    write_tested(right=40)
    write_run(attention="rfa")
    assert compared(sweep).loc[("rfa", "without"), ["low", "difference", "p"]].isna().all()


def test_without_the_reference_there_is_no_column_of_differences_and_no_word_of_it(
    write_tested, sweep
):
    for attention, right in (("softmax", 40), ("rfa", 30)):
        write_tested(attention=attention, right=right, ppsbn="with")
    table = comparison_table(compared(sweep).reset_index(), against="softmax")
    assert table.columns == [("test accuracy %", "best"), ("test accuracy %", "95 %")]
    assert [entry.text for entry in table.rows[1].entries] == ["30.00", "21.9 to 39.6"]
    assert "Differences" not in table.caption


def test_the_table_shows_intervals_differences_and_floors(write_tested, sweep):
    floors = {"first token": {"accuracy": 0.35, "recipe": "look-up", "num_train_rows": 9}}
    for attention, right in (("softmax", 40), ("rfa", 30), ("linear", 39)):
        write_tested(attention=attention, right=right, floors=floors)
    text = make_tables([sweep])[0].read_text()
    _, rfa, _ = [line for line in text.splitlines() if line.startswith("| rfa ")]
    assert "30.00§" in rfa and "21.9 to 39.6" in rfa and r"-10.0\*" in rfa and "0.0039" in rfa
    (floor,) = [line for line in text.splitlines() if line.startswith("| floor: first token")]
    assert "35.00" in floor
    assert "§ at or below the best of them" in text
    assert "McNemar" in text and "four times out of five" in text
