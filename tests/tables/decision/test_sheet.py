"""The sheet of hand-made sweeps, from their files to what is printed."""

import numpy as np
import pandas as pd
import pytest

from macformer.record import write_predictions
from macformer.tables import cli
from macformer.tables.comparison import add_comparison
from macformer.tables.decision import MEANINGS, decide, decision_tables, read_rates
from macformer.tables.formats import to_markdown
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise

NUM_EXAMPLES = 100
RATES = "hour=3.6,loss=4,documents=1e5,months=12"


@pytest.fixture
def write_seeds(write_run):
    """Write the runs of one row.

    Softmax trains for 1,000 s, which is a price of 1, and serves 100 documents a second, which is
    one of 0.01 for a thousand.
    """

    def write(
        attention: str = "softmax",
        *,
        seconds: float = 1000.0,
        rate: float = 100.0,
        right: int = 60,
        seeds: int = 3,
        answered: bool = True,
        first_row: int = 0,
        **keys,
    ) -> None:
        use = {"seconds": seconds, "joules": None, "energy_source": None, "num_devices": 1}
        defaults = {
            "use": use,
            "inference": {"examples_per_second": 50.0},
            "served": {"examples_per_second": rate},
        }
        for seed in range(seeds):
            run = {"attention": attention, "test": right / NUM_EXAMPLES, "seed": seed}
            folder = write_run(**(defaults | run | keys))
            if answered:
                correct = (np.arange(NUM_EXAMPLES) < right).astype(np.int64)
                label = np.ones(NUM_EXAMPLES, np.int64)
                rows = {"row": np.arange(NUM_EXAMPLES) + first_row, "label": label}
                write_predictions(folder, rows | {"best_prediction": correct})

    return write


def decided(sweep, rates: str = RATES, *, against: str = "softmax") -> pd.DataFrame:
    """Return the lines of a sweep's sheet."""
    read = read_runs([sweep])
    runs, chosen = name_runs(read)
    summary = summarise(runs)
    if against in set(summary["attention"]):
        summary = add_comparison(summary, runs, against=against)
    given = read_rates(rates)
    return decide(summary, runs, read=read, chosen=chosen, rates=given, against=against)


def by_row(lines: pd.DataFrame) -> pd.DataFrame:
    return lines.set_index("attention")


def text_of(lines: pd.DataFrame, rates: str = RATES, *, against: str = "softmax") -> str:
    tables = decision_tables(lines, read_rates(rates), against=against)
    return "\n".join(map(to_markdown, tables))


def test_a_row_is_priced_beside_its_reference_and_judged(write_seeds, sweep, capsys, monkeypatch):
    """2 more to train and half of 0.01 saved for each thousand: 400,000 documents, 4 months."""
    monkeypatch.setattr(cli, "draw_plots", lambda *_, **__: [])  # which takes a second
    write_seeds()
    write_seeds("rfa", seconds=3000.0, rate=200.0)
    assert cli.main([str(sweep), "--decide", RATES]) == 0
    rfa = pd.read_csv(sweep / "decision.csv").set_index("attention").loc["rfa"]
    assert rfa["train_price"] == pytest.approx(3)
    assert rfa["price_per_1000"] == pytest.approx(0.005)
    assert rfa["price_ratio"] == rfa["price_ratio.low"] == rfa["price_ratio.high"]
    assert rfa["price_ratio"] == pytest.approx(0.5)
    assert rfa["break_even"] == pytest.approx(400_000)
    assert rfa["break_even_months"] == pytest.approx(4)
    assert rfa["verdict"] == "pays" and rfa["num_paired"] == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "rfa: pays: accuracy differs by -3.7 to +3.7 points, and 4 may be lost; " in printed
    assert "serving costs 0.50 to" in printed
    assert "documents, and 1.20M are served in 12 months." in printed
    for name in ("table.md", "table.tex", "index.html"):
        text = (sweep / name).read_text()
        assert "ListOps: decision" in text and "rfa: pays: " in text
    assert "400K" in (sweep / "table.md").read_text()


def test_without_rates_the_sheet_is_blank_and_names_what_would_fill_it(write_seeds, sweep):
    write_seeds()
    write_seeds("rfa", rate=200.0, right=50)
    lines = decided(sweep, "")
    text = text_of(lines, "")
    for name, meaning in MEANINGS.items():
        assert f"{name} ({meaning}) for" in text or f"({name})" in text
    rfa = by_row(lines).loc["rfa"]
    prices = ["train_price", "search_price", "price_per_1000", "price_ratio", "break_even"]
    assert rfa[[*prices, "train_watt_hours", "target_hours"]].isna().all()
    assert rfa["verdict"] == "not decided" and "not given (hour)" in rfa["reason"]
    assert rfa["speed.own"] == pytest.approx(2)  # which needs no rate


OTHER_PRECISION = {"seed": 0, "max_steps": 300, "trainer": {"precision": "bf16-mixed"}}
WRONG = {
    "no reference": ({}, "there is no finished softmax without ppSBN in the same setting"),
    "one seed": ({"seeds": 1}, "1 seed in common with the reference"),
    "no answers": ({"answered": False}, "there are no answers to the test examples of softmax"),
    "other examples": ({"first_row": 1}, "it and softmax were tested on different rows"),
    "another machine": ({"device": "server"}, "there is no finished softmax"),
    "another precision": ({"config": OTHER_PRECISION}, "there is no finished softmax"),
    "a shared machine": ({"exclusive": False}, "were taken while others used the device"),
    "no time": ({"served": {}, "inference": {}}, "how fast its answers come was not measured"),
    "no use": ({"use": {}}, "how fast its answers come was not measured"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_compared_is_not_decided(case, write_seeds, sweep):
    """A row that would pay, but for one thing."""
    keys, reason = WRONG[case]
    if case != "no reference":
        write_seeds(config={"seed": 0, "max_steps": 300, "trainer": {"precision": "32"}})
    plain = {"config": {"seed": 0, "max_steps": 300, "trainer": {"precision": "32"}}}
    write_seeds("rfa", rate=200.0, **(plain | keys))
    rfa = by_row(decided(sweep)).loc["rfa"]
    assert rfa["verdict"] == "not decided" and reason in rfa["reason"]
    if case not in ("one seed", "no answers", "other examples"):
        assert pd.isna(rfa["price_ratio"]) and pd.isna(rfa["break_even"])


def test_power_is_asked_for_where_no_counter_was_read_alone(write_seeds, sweep):
    counted = {"seconds": 100.0, "joules": 900.0, "energy_source": "rapl", "num_devices": 1}
    write_seeds(use=counted)
    lines = decided(sweep)
    assert lines.loc[0, "train_watt_hours"] == pytest.approx(0.25)
    assert "| rapl |" in text_of(lines) and "watts (" not in text_of(lines)
    write_seeds("rfa")
    assert "watts (power of one device at work" in text_of(decided(sweep))


def test_a_shared_machine_leaves_all_times_blank_and_says_so(write_seeds, sweep):
    cost = {"latency_mean_ms": 2.0, "latency_p50_ms": 2.0, "latency_p95_ms": 3.0}
    write_seeds(cost=cost)
    write_seeds("rfa", rate=200.0, right=30, exclusive=False, cost=cost)
    lines = by_row(decided(sweep, f"{RATES},watts=9,target=0"))
    times = ["train_price", "train_hours", "price_per_1000", "watt_hours_per_1000", "speed.own"]
    times += ["speed.padded", "speed.alone", "cost.latency_p50_ms", "target_hours"]
    assert lines.loc["rfa", times].isna().all()
    assert lines.loc["softmax", "cost.latency_p95_ms"] == 3
    assert lines.loc["rfa", "verdict"] == "does not pay"  # 30 points less, whatever it costs
    assert "Blank, too: times of runs that shared" in text_of(lines.reset_index())


def test_a_row_without_a_finished_run_has_no_verdict(write_seeds, write_stopped, sweep):
    write_seeds()
    write_stopped(attention="rfa", seed=0)
    rfa = by_row(decided(sweep)).loc["rfa"]
    assert rfa["verdict"] == "not decided" and "there is no finished run" in rfa["reason"]


def test_a_sweep_that_has_nothing_finished_has_a_sheet_of_blanks(write_stopped, sweep):
    write_stopped()
    write_stopped(attention="rfa")
    lines = decided(sweep)
    assert list(lines["verdict"]) == ["", "not decided"] and "n/a" not in text_of(lines)


def test_any_row_can_be_the_reference(write_seeds, sweep):
    write_seeds("uniform", rate=400.0)
    write_seeds("rfa", rate=200.0)
    lines = decided(sweep, against="uniform")
    rfa = by_row(lines).loc["rfa"]
    assert rfa["price_ratio"] == pytest.approx(2) and rfa["verdict"] == "does not pay"
    assert rfa["break_even"] == np.inf
    assert "| never |" in text_of(lines, against="uniform")


def test_no_row_pays_where_no_attention_is_needed(write_seeds, sweep):
    floors = {"first token": {"accuracy": 0.65, "recipe": "look-up", "num_train_rows": 9}}
    write_seeds(floors=floors)
    write_seeds("rfa", rate=200.0, floors=floors)
    rfa = by_row(decided(sweep)).loc["rfa"]
    assert rfa["verdict"] == "not decided" and "neither row is above 65.0 %" in rfa["reason"]


def test_no_row_pays_that_the_majority_class_does_not_need(write_seeds, sweep):
    write_seeds(majority_rate=0.61)
    write_seeds("rfa", rate=200.0, majority_rate=0.61)
    assert "neither row is above 61.0 %" in by_row(decided(sweep)).loc["rfa", "reason"]


def test_rows_of_several_sizes_stand_beside_the_reference_of_their_own(write_seeds, sweep):
    """Serving takes half of softmax's time at 4 layers and a fifth at 12; it was not run at 24."""

    def size(layers: int) -> dict:
        config = {"seed": 0, "model": {"num_layers": layers}}
        return {"name": str(layers), "config": config}

    write_seeds(rate=100.0, **size(4))
    write_seeds(rate=10.0, **size(12))
    for rate, layers in ((200.0, 4), (50.0, 12), (9.0, 24)):
        write_seeds("rfa", rate=rate, **size(layers))
    rfa = by_row(decided(sweep)).loc["rfa"]
    assert rfa["price_ratio"].tolist() == pytest.approx([0.5, 0.2, np.nan], nan_ok=True)
    assert rfa["reason"].iloc[2] == "no single softmax without ppSBN matches its options"


def test_the_change_and_the_search_are_won_back_too(write_seeds, sweep):
    """The change costs 7, and rfa's search 3 * 1 more; 0.005 a thousand: 2,000,000 documents."""

    def config(rate: float) -> dict:
        return {"seed": 0, "learning_rate": rate, "best_of": ["learning_rate"]}

    write_seeds(config=config(1e-3), name="once")
    for rate, val in ((1e-3, 0.4), (1e-4, 0.3)):
        accuracy = {"last": {"val": val, "test": val}, "best": {"val": val, "test": 0.6}}
        options = {"config": config(rate), "name": str(rate), "accuracy": accuracy}
        write_seeds("rfa", rate=200.0, **options)
    rfa = by_row(decided(sweep, f"{RATES},once=7")).loc["rfa"]
    assert rfa["search_price"] == pytest.approx(3)
    assert rfa["break_even"] == pytest.approx(2_000_000)
    assert rfa["verdict"] == "does not pay" and "won back after 2.00M" in rfa["reason"]


def test_a_row_that_answers_in_half_the_time_is_twice_as_fast(write_seeds, sweep):
    write_seeds(cost={"latency_mean_ms": 6.0})
    write_seeds("rfa", cost={"latency_mean_ms": 3.0})
    assert by_row(decided(sweep)).loc["rfa", "speed.alone"] == pytest.approx(2)


def test_all_settings_that_were_tried_are_paid_for(write_seeds, sweep):
    """Two rates of learning: 4,000 s of the worse one, over two seeds, cost 4; rfa has one rate."""

    def config(rate: float) -> dict:
        return {"seed": 0, "learning_rate": rate, "best_of": ["learning_rate"]}

    for rate, val, seconds in ((1e-3, 0.4, 1000.0), (1e-4, 0.3, 2000.0)):
        accuracy = {"last": {"val": val, "test": val}, "best": {"val": val, "test": val}}
        options = {"config": config(rate), "name": str(rate), "accuracy": accuracy}
        write_seeds(seeds=2, seconds=seconds, **options)
    write_seeds("rfa", seeds=2, config=config(1e-3), name="once")
    lines = by_row(decided(sweep))
    assert lines.loc["softmax", "train_price"] == pytest.approx(1)
    assert lines.loc["softmax", "search_price"] == pytest.approx(4)
    assert lines.loc["softmax", "search_hours"] == pytest.approx(4000 / 3600)
    assert lines.loc["rfa", "search_price"] == 0


def test_what_comes_before_several_runs_of_a_search_is_paid_for_once(write_seeds, sweep):
    """Three settings of two seeds: two begin with one run of 500 s, the third with another.

    That of 500 s is a part of training already, so that the search has 2 * 1,000 s of the second
    setting, and of the third 2 * 1,000 s and once its 700 s.
    """
    for rate, val, before in ((1e-3, 0.4, "short"), (1e-4, 0.3, "short"), (1e-5, 0.2, "long")):
        accuracy = {"last": {"val": val, "test": val}, "best": {"val": val, "test": val}}
        config = {"seed": 0, "learning_rate": rate, "best_of": ["learning_rate"]}
        seconds = {"short": 500.0, "long": 700.0}[before]
        pretraining = {"identity": before, "seconds": seconds, "joules": None, "num_devices": 1}
        pretraining["exclusive"] = True
        options = {"config": config, "name": str(rate), "accuracy": accuracy}
        write_seeds(seeds=2, pretraining=pretraining, **options)
    softmax = by_row(decided(sweep)).loc["softmax"]
    assert softmax["train_hours"] == pytest.approx(1500 / 3600)
    assert softmax["search_hours"] == pytest.approx(4700 / 3600)
    assert softmax["search_price"] == pytest.approx(4.7)


def test_a_search_whose_times_are_not_all_known_has_no_price(write_seeds, write_stopped, sweep):
    config = {"seed": 0, "best_of": ["learning_rate"]}
    write_seeds(seeds=1, config=config | {"learning_rate": 0.1}, name="good")
    write_stopped(config=config | {"learning_rate": 9.0}, name="diverged", identity="b")
    assert pd.isna(by_row(decided(sweep)).loc["softmax", "search_price"])


def test_each_task_has_a_sheet_of_its_own(write_seeds, sweep):
    for task in ("listops", "logs"):
        write_seeds(task=task)
        write_seeds("rfa", task=task, rate=200.0 if task == "logs" else 50.0)
    found = decided(sweep)
    lines = found.set_index(["task", "attention"])
    assert lines.loc[("logs", "rfa"), "verdict"] == "pays"
    assert lines.loc[("listops", "rfa"), "verdict"] == "does not pay"
    text = text_of(found)
    assert "## ListOps: decision" in text and "## logs: decision" in text


def test_rows_that_are_served_at_different_lengths_are_not_compared(write_seeds, sweep):
    """One run of a task without a rate at its own lengths: all of them count padded."""
    write_seeds()
    write_seeds("rfa", rate=200.0)
    write_seeds("uniform", served={})
    found = decided(sweep)
    lines = by_row(found)
    assert lines.loc["rfa", "price_ratio"] == pytest.approx(1)
    assert lines.loc["softmax", "price_per_1000"] == pytest.approx(0.02)
    assert "as the test is run, at" in text_of(found)


@pytest.mark.parametrize("num_logged", [0, 2])
def test_where_a_curve_was_not_logged_no_seed_is_said_to_miss_its_target(
    write_seeds, sweep, num_logged
):
    write_seeds(train={"steps": 100, "examples_per_second": 1.0})
    for file in sorted(sweep.rglob("metrics.json"))[:num_logged]:
        file.with_name("metrics.csv").write_text("step,val/accuracy\n50,0.1\n")
    lines = decided(sweep, rates := f"{RATES},target=80")
    assert lines["num_reached"].isna().all()
    assert " of 3" not in text_of(lines, rates)


def test_a_target_that_some_seeds_miss_is_counted(write_seeds, sweep):
    write_seeds(train={"steps": 100, "examples_per_second": 1.0})
    for index, file in enumerate(sorted(sweep.rglob("metrics.json"))):
        values = f"50,{0.9 if index else 0.1}"
        file.with_name("metrics.csv").write_text(f"step,val/accuracy\n{values}\n")
    lines = decided(sweep, rates := f"{RATES},target=80")
    assert by_row(lines)["target_hours"].isna().all()
    assert "| 2 of 3 |" in text_of(lines, rates)
    lines = by_row(decided(sweep, f"{RATES},target=10"))
    assert lines.loc["softmax", "target_hours"] == pytest.approx(500 / 3600)
