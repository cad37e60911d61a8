import pytest

from macformer.tables.comparable import check_comparable
from macformer.tables.runs import TableError, read_runs
from macformer.tables.settings import name_runs


def check(sweep, *, allow_mixed):
    check_comparable(name_runs(read_runs([sweep]))[0], allow_mixed=allow_mixed)


@pytest.mark.parametrize(
    ("column", "values"), [("recipe", ("lra_paper", "smoke")), ("device", ("card", "laptop"))]
)
def test_mixed_recipes_and_devices_need_leave(write_run, sweep, column, values):
    for value in values:
        write_run(**{column: value})
    with pytest.raises(TableError, match=f"several {column}s.*{', '.join(values)}.*--allow-mixed"):
        check(sweep, allow_mixed=False)
    check(sweep, allow_mixed=True)


def test_runs_of_different_settings_are_not_the_same_run_twice(write_run, sweep):
    for rate in (1e-4, 2e-4):
        write_run(device="laptop", name=str(rate), config={"seed": 0, "learning_rate": rate})
    check(sweep, allow_mixed=False)


def test_the_same_seed_twice_is_refused(write_run, sweep):
    folder = write_run()
    copy = folder.parent / "copy"
    copy.mkdir()
    (copy / "metrics.json").write_bytes((folder / "metrics.json").read_bytes())
    with pytest.raises(TableError, match="appears twice") as raised:
        check(sweep, allow_mixed=True)
    assert str(folder) in str(raised.value) and str(copy) in str(raised.value)


def test_a_cell_that_no_run_can_be_stands_beside_its_row(write_run, sweep):
    write_run()
    write_run(name="uncomposed", identity=None, status="failed", reason="max_steps is 0")
    check(sweep, allow_mixed=False)


def test_runs_on_other_data_that_were_prepared_alike_are_refused(write_run, sweep):
    """Those of another preparation are a row of their own."""

    def write(digest, attention, **options):
        config = {"seed": 0, "data": {"prepare": options}, "nuisance": {"a": ["*.source_dir"]}}
        return write_run(data_digest=digest, attention=attention, config=config)

    write("1", "softmax", source_dir="here")
    write("1", "rfa", source_dir="there")
    write("2", "uniform", source_dir="here", brackets="drop")
    check(sweep, allow_mixed=False)
    other = write("3", "rmfa_exp", source_dir="there")
    with pytest.raises(TableError, match=r"different data \(digests (1 and 3|3 and 1)\)") as raised:
        check(sweep, allow_mixed=True)
    assert str(other) in str(raised.value)
