import re

import pytest

from macformer.tables.comparable import check_comparable
from macformer.tables.runs import TableError, read_runs


def check(sweep, *, allow_mixed):
    check_comparable(read_runs([sweep]), allow_mixed=allow_mixed)


@pytest.mark.parametrize(
    ("column", "values"), [("recipe", ("lra_paper", "smoke")), ("device", ("card", "laptop"))]
)
def test_mixed_recipes_and_devices_need_leave(write_run, sweep, column, values):
    for value in values:
        write_run(**{column: value})
    with pytest.raises(TableError, match=f"several {column}s.*{', '.join(values)}.*--allow-mixed"):
        check(sweep, allow_mixed=False)
    check(sweep, allow_mixed=True)


def test_rows_of_different_settings_need_leave(write_run, sweep):
    write_run(config={"seed": 0, "max_steps": 300})
    other = write_run(attention="rfa", config={"seed": 0, "max_steps": 500})
    complaint = f"max_steps is .*(300|500).*{re.escape(str(other))}.*--allow-mixed"
    with pytest.raises(TableError, match=complaint):
        check(sweep, allow_mixed=False)
    check(sweep, allow_mixed=True)


def test_settings_are_compared_past_a_run_that_never_had_any(write_run, write_stopped, sweep):
    write_stopped(seed=0)
    for seed, max_steps in ((1, 300), (2, 500)):
        write_run(seed=seed, config={"max_steps": max_steps})
    with pytest.raises(TableError, match="max_steps is 300 in"):
        check(sweep, allow_mixed=True)


def test_seeds_of_different_settings_are_never_averaged(write_run, sweep):
    write_run(seed=0, config={"seed": 0, "learning_rate": 1e-4})
    write_run(seed=1, config={"seed": 1, "learning_rate": 2e-4})
    with pytest.raises(TableError, match=r"learning_rate is 0.0001 in .* and 0.0002 in"):
        check(sweep, allow_mixed=True)


def test_tasks_may_differ_in_settings(write_run, sweep):
    write_run(config={"max_steps": 300})
    write_run(task="text", config={"max_steps": 500})
    check(sweep, allow_mixed=False)


def test_the_same_seed_twice_is_refused(write_run, sweep):
    folder = write_run()
    copy = folder.parent / "copy"
    copy.mkdir()
    (copy / "metrics.json").write_bytes((folder / "metrics.json").read_bytes())
    with pytest.raises(TableError, match="appears twice") as raised:
        check(sweep, allow_mixed=True)
    assert str(folder) in str(raised.value) and str(copy) in str(raised.value)
