"""What a task is scored by beside accuracy has a table of its own."""

from macformer.tables.build import build_tables
from macformer.tables.published import read_published
from macformer.tables.runs import read_runs
from macformer.tables.settings import name_runs
from macformer.tables.summary import summarise


def scores(best: float, last: float) -> dict:
    return {
        rule: {"val": {"macro_f1": 0.9}, "test": {"macro_f1": value}}
        for rule, value in (("best", best), ("last", last))
    }


def test_scores_are_averaged_over_seeds_and_shown_for_both_rules(write_run, sweep):
    write_run(seed=0, name="a", scores=scores(0.3, 0.2))
    write_run(seed=1, name="b", scores=scores(0.5, 0.4))
    write_run(seed=0, name="c", attention="rfa")
    runs, _ = name_runs(read_runs([sweep]), best_of=())
    summary = summarise(runs)
    tables, _ = build_tables(runs, summary, against="softmax", published=read_published())
    (table,) = [table for table in tables if "scores" in table.title]
    assert table.columns == [("test macro F1 %", "best"), ("test macro F1 %", "last")]
    texts = {row.label: [entry.text for entry in row.entries] for row in table.rows}
    assert texts == {"softmax": ["40.00 ± 14.14", "30.00 ± 14.14"], "rfa": ["", ""]}


def test_a_task_without_them_has_no_such_table(write_run, sweep):
    write_run()
    runs, _ = name_runs(read_runs([sweep]), best_of=())
    tables, _ = build_tables(runs, summarise(runs), against="softmax", published=read_published())
    assert not [table for table in tables if "scores" in table.title]
