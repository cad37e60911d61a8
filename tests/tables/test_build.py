import pytest

from macformer.tables.build import build_tables
from macformer.tables.layout import TIMES, Table
from macformer.tables.published import read_published
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise


def tables(sweep) -> tuple[list[Table], list[Table]]:
    runs = name_runs(read_runs([sweep]))[0]
    return build_tables(runs, summarise(runs), against="softmax", published=read_published())


def texts(table: Table, label: str) -> list[str]:
    (row,) = [row for row in table.rows if row.label == label]
    return [entry.text for entry in row.entries]


def test_one_task_comes_first_in_detail(write_run, sweep):
    write_run(test=0.4)
    write_run(attention="rfa", ppsbn="with", test=0.3, speed=150.0, num_parameters=1100)
    (detail, *_), _ = tables(sweep)
    # accuracy best, last; train ex./s, tok./s, ratio, MiB, ratio; the same at inference
    expected = ["30.00", "30.00", "150", "7.00K", f"1.50{TIMES}", "512", f"1.00{TIMES}"]
    expected += ["300", "21.0K", f"1.00{TIMES}", "256", f"1.00{TIMES}"]
    assert texts(detail, "rfa + ppSBN") == expected
    assert texts(detail, "majority class")[:3] == ["20.00", "20.00", ""]
    assert "Majority class: ListOps 20.00 %." in detail.caption
    assert "Recipe smoke; device laptop; commit abc1234." in detail.caption


def test_rows_of_different_data_share_no_floor(write_run, sweep):
    """Recall among 8 pairs has another floor than among 64; a mean would be that of neither."""
    for row, pairs, rate, test in (("softmax", 8, 0.125, 0.5), ("rfa", 64, 0.016, 0.01)):
        data = {"config": {"seed": 0, "task": {"num_pairs": pairs}}, "data_digest": str(pairs)}
        rates = {"floors": {"values": {"accuracy": rate}}, "majority_rate": rate}
        write_run(attention=row, test=test, **data, **rates)
    (detail, *_), _ = tables(sweep)
    assert texts(detail, "majority class") == [""] * len(detail.columns)
    assert texts(detail, "floor: values") == [""] * len(detail.columns)
    assert texts(detail, "rfa (num_pairs=64)")[0].endswith("§")
    assert not texts(detail, "softmax (num_pairs=8)")[0].endswith("§")
    assert any("no line shows one for all" in note for note in detail.notes)


def test_a_task_without_floors_has_not_several(write_run, sweep):
    write_run(floors={"first_token": {"accuracy": 0.3}})
    write_run(task="text")
    (accuracy, *_), _ = tables(sweep)
    assert texts(accuracy, "best shallow floor")[:2] == ["30.00", ""]
    assert any("Floors:" in note for note in accuracy.notes)
    assert not any("no line shows one for all" in note for note in accuracy.notes)


def test_memory_is_shown_in_gib_once_it_reaches_one(write_run, sweep):
    write_run(train={"examples_per_second": 1.0, "tokens_per_second": 1.0, "peak_memory_gib": 2.5})
    (detail, *_), _ = tables(sweep)
    assert ("training", "GiB") in detail.columns
    assert texts(detail, "softmax")[5] == "2.50"


def test_the_average_of_a_row_that_lacks_tasks_is_marked_and_explained(write_run, sweep):
    write_run(test=0.4)
    write_run(task="text", test=0.7)
    write_run(attention="rfa", test=0.3)
    (accuracy, _), _ = tables(sweep)
    assert texts(accuracy, "softmax") == ["40.00", "70.00", "55.00"]
    assert texts(accuracy, "rfa") == ["30.00", "", "30.00‡"]
    assert any("‡" in note and "rfa lacks Text" in note for note in accuracy.notes)
    assert "mean of the 2 tasks ListOps, Text" in accuracy.caption


def test_path_x_never_enters_the_average(write_run, sweep):
    for task, test in (("listops", 0.4), ("image", 0.6), ("pathx", 0.9)):
        write_run(task=task, test=test)
    (accuracy, _), _ = tables(sweep)
    assert texts(accuracy, "softmax") == ["40.00", "60.00", "90.00", "50.00"]


def test_failed_and_running_cells_say_so_with_their_reason(write_run, write_stopped, sweep):
    for task in ("listops", "text"):
        write_run(task=task)
    write_run(attention="rfa")
    for seed in (0, 1):
        write_stopped(task="text", attention="rfa", seed=seed)
    write_stopped(attention="uniform", status="running", reason=None)
    (accuracy, cost), _ = tables(sweep)
    assert texts(accuracy, "rfa")[1] == texts(cost, "rfa")[1] == "failed"
    assert texts(accuracy, "uniform")[0] == "running"
    assert "failed: Text, rfa, seeds 0, 1: out of memory" in accuracy.notes
    assert "running: ListOps, uniform, seed 0" in accuracy.notes


def test_n_stands_beside_a_value_of_fewer_seeds(write_run, write_stopped, sweep):
    for seed, test in enumerate([0.30, 0.34, 0.41]):
        write_run(seed=seed, test=test)
    write_run(attention="rfa", test=0.5)
    write_stopped(attention="rfa", seed=1)
    (detail, *_), _ = tables(sweep)
    assert texts(detail, "softmax")[0] == "35.00 ± 5.57"
    assert texts(detail, "rfa")[0] == "50.00 (1)"
    assert "n = 3 seeds; a smaller n stands in brackets" in detail.caption


def test_shared_measurements_are_marked_and_explained(write_run, sweep):
    write_run()
    write_run(attention="rfa", exclusive=False)
    (detail, *_), _ = tables(sweep)
    assert texts(detail, "rfa")[2:5] == ["100†", "7.00K†", ""]
    assert texts(detail, "softmax")[2:5] == ["100", "7.00K", f"1.00{TIMES}"]
    assert any("†" in note and "shared" in note for note in detail.notes)


def test_a_missing_reference_is_said(write_run, sweep):
    write_run(attention="rfa")
    (detail, *_), _ = tables(sweep)
    assert "No finished softmax without ppSBN to relate to: ListOps." in detail.notes


def test_mixed_devices_have_rows_of_their_own(write_run, sweep):
    write_run(device="laptop", test=0.4)
    write_run(device="card", test=0.5)
    (detail, *_), _ = tables(sweep)
    assert texts(detail, "softmax, laptop")[0] == "40.00"
    assert texts(detail, "softmax, card")[0] == "50.00"


@pytest.mark.parametrize(
    ("recipe", "label", "expected"),
    [  # Skyformer, Table 1, and Long Range Arena, Table 1: ListOps, text
        ("skyformer_legacy", "Skyformer: Self-Attention", ["38.37", "61.95", "50.16"]),
        ("lra_paper", "LRA: Transformer", ["36.37", "64.27", "50.32"]),
    ],
)
def test_published_rows_stand_beside_their_own_protocol(write_run, sweep, recipe, label, expected):
    for task in ("listops", "text"):
        write_run(task=task, recipe=recipe)
    (accuracy, _), others = tables(sweep)
    assert texts(accuracy, label) == expected
    beside = [row.label for row in accuracy.rows if ":" in row.label]
    assert {name.partition(":")[0] for name in beside} == {label.partition(":")[0]}
    assert "Linformer" in [row.label for row in others[-1].rows]


@pytest.mark.parametrize(
    "keys", [{"attention": "rfa"}, {"recipe": "skyformer"}, {"recipe": "smoke"}]
)
def test_nothing_published_is_shown_beside_other_rows(write_run, sweep, keys):
    for task in ("listops", "text"):
        write_run(task=task, **keys)
    (accuracy, _), _ = tables(sweep)
    assert [row.label for row in accuracy.rows][1:] == ["majority class"]


def test_a_sweep_without_a_finished_run_still_has_its_table(write_stopped, sweep):
    write_stopped()
    (detail, *_), _ = tables(sweep)
    assert texts(detail, "softmax")[:2] == ["failed", "failed"]
    assert "No run has finished." in detail.caption


def test_cost_stands_in_a_table_of_its_own(write_run, sweep):
    cost = {"flops": 2e6, "state_size": 6400, "latency_p50_ms": 4.0, "latency_p95_ms": 5.0}
    write_run(cost=cost, trimmed={"examples_per_second": 200.0})
    larger = cost | {"flops": 1e6, "state_size": None}
    write_run(
        attention="rfa",
        speed=150.0,
        num_parameters=1101,
        cost=larger,
        trimmed={"examples_per_second": 300.0},
        exclusive=False,
    )
    (_, table), _ = tables(sweep)
    assert table.title == "ListOps: cost"
    # parameters, FLOPs and state with ratios; latency; padded and trimmed rate, ratio of the latter
    expected = ["1.00K", f"1.00{TIMES}", "2.00M", f"1.00{TIMES}", "6.40K", f"1.00{TIMES}"]
    assert texts(table, "softmax") == [*expected, "4.00", "5.00", "100", "200", f"1.00{TIMES}"]
    expected = ["1.10K", f"1.10{TIMES}¶", "1.00M", f"0.50{TIMES}", "", ""]
    assert texts(table, "rfa") == [*expected, "4.00†", "5.00†", "150†", "300†", ""]
    assert any(note.startswith("¶ over 10 %") for note in table.notes)


def test_runs_that_measured_no_cost_leave_its_columns_out(write_run, sweep):
    write_run()
    (_, table), _ = tables(sweep)
    assert [" ".join(column) for column in table.columns] == [
        "parameters count",
        "parameters rel.",
        "training, ex./s padded",
    ]


def test_rows_of_both_beginnings_stand_beside_the_cost_of_both_runs(write_run, sweep):
    own = {"seconds": 1800.0, "joules": None, "num_devices": 1, "examples": 1600}
    before = {"seconds": 3600.0, "joules": None, "num_devices": 2, "examples": 64_000}
    write_run(use=own, test=0.3)
    for seed, seconds in enumerate((1800.0, 5400.0)):
        write_run(
            attention="softmax+mlm",
            seed=seed,
            use=own | {"seconds": seconds},
            pretraining=before | {"exclusive": False},
        )
    table = next(t for t in tables(sweep)[0] if t.title == "ListOps: pretraining")
    assert [" ".join(column) for column in table.columns] == [
        "test accuracy % best",
        "examples before",
        "examples own",
        "device hours before",
        "device hours own",
    ]
    assert texts(table, "softmax") == ["30.00 (1)", "", "1.60K", "", "0.500"]
    assert texts(table, "softmax+mlm") == ["40.00 ± 0.00", "64.0K", "1.60K", "2.00†", "1.00"]
    assert any(note.startswith("† measured while") for note in table.notes)


def test_without_a_pretrained_row_there_is_no_table_of_pretraining(write_run, sweep):
    write_run(use={"seconds": 1800.0, "joules": None, "num_devices": 1})
    assert not [t for t in tables(sweep)[0] if "pretraining" in t.title]
