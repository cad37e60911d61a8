import pytest

from macformer.tables.runs import TableError, read_runs


def test_overlapping_folders_count_a_run_once(write_run, sweep):
    folder = write_run()
    write_run(attention="uniform")
    assert len(read_runs([sweep, folder])) == 2


def test_linked_runs_count_once(write_run, sweep, tmp_path):
    folder = write_run()
    gathered = tmp_path / "gathered"
    gathered.mkdir()
    for name in ("one", "again"):
        (gathered / name).symlink_to(folder)
    (gathered / "round").symlink_to(gathered)
    assert len(read_runs([gathered])) == len(read_runs([gathered, sweep])) == 1


def test_columns_are_the_paths_inside_the_file(write_run, sweep):
    write_run(test=0.37, speed=123.0)
    run = read_runs([sweep]).iloc[0]
    assert run["accuracy.best.test"] == 0.37
    assert run["train.examples_per_second"] == 123.0
    assert run["inference.peak_memory_gib"] == 0.25


def test_a_run_that_stopped_early_keeps_its_place_and_no_numbers(write_run, write_stopped, sweep):
    write_run()
    write_stopped(attention="rfa")
    run = read_runs([sweep]).set_index("attention").loc["rfa"]
    assert run[["accuracy.best.test", "train.tokens_per_second", "num_parameters"]].isna().all()
    assert run["device"] == "laptop"
    assert not run["exclusive"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TableError, match=r"no such folder: .*nowhere"):
        read_runs([tmp_path / "nowhere"])


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(TableError, match=f"no metrics.json below {tmp_path}"):
        read_runs([tmp_path])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is damaged"),
        ("[1]", "is not the record of a run"),
        ('{"schema": 2}', "is not the record of a run"),
        ('{"schema": 1, "status": "failed", "task": "text"}', "lacks attention, ppsbn"),
        ('{"schema": 1, "status": "finished"}', "says finished and holds no accuracy"),
        (
            '{"schema": 1, "status": "finished", "accuracy": {"best": {"val": 1}}}',
            "says finished and holds no accuracy",
        ),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, content, complaint):
    file = tmp_path / "metrics.json"
    file.write_text(content)
    with pytest.raises(TableError, match=complaint) as raised:
        read_runs([tmp_path])
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"majority_rate": "half"}, "majority_rate is half, which is no number"),
        ({"num_parameters": [1, 2]}, "num_parameters is .1, 2., which is no number"),
        ({"config": "max_steps: 3"}, "config is max_steps: 3, which names nothing"),
        ({"floors": [0.3]}, "floors is .0.3., which names nothing"),
        ({"floors": {"first": {"recipe": "a look"}}}, "is damaged: floors are"),
    ],
)
def test_a_record_with_a_value_of_another_kind_is_named(write_run, sweep, keys, complaint):
    write_run(attention="rfa")
    folder = write_run(**keys)
    with pytest.raises(TableError, match=complaint) as raised:
        read_runs([sweep])
    assert str(folder / "metrics.json") in str(raised.value)


def test_an_unknown_status_is_refused(write_stopped, sweep):
    write_stopped(status="paused")
    with pytest.raises(TableError, match="paused, not one of running"):
        read_runs([sweep])
