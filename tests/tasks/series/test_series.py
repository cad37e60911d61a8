"""Series of one's own become rows of values, cut, split by series and standardised as promised."""

import numpy as np
import pytest

from tasks import series
from tasks.errors import DataError
from tasks.store.manifest import SPLITS, read_manifest

NUM_SERIES, NUM_STEPS = 30, 12
CLASSES = ["bad", "good"]


def statistics(values: np.ndarray) -> dict[str, list[float]]:
    deviation = values.std(axis=0)
    return {
        "channel_mean": values.mean(axis=0).tolist(),
        "channel_std": np.where(deviation > 0, deviation, 1).tolist(),
    }


def machines(rows: list[tuple]) -> set[int]:
    return {int(values[0, 0]) // 100 for values, _ in rows}


def test_steps_come_in_the_order_of_their_times_each_with_its_channels(prepare, rows_of):
    folder = prepare()
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    assert len(rows) == NUM_SERIES
    for values, label in rows:
        machine = int(values[0, 0]) // 100
        steps = np.arange(NUM_STEPS)
        np.testing.assert_array_equal(values, np.stack([100 * machine + steps, -steps / 2], 1))
        assert label == CLASSES[machine % 2]


def test_series_are_shared_out_each_class_alike(prepare):
    splits = read_manifest(prepare())["splits"]
    assert [splits[split]["class_counts"] for split in SPLITS] == [[9, 9], [3, 3], [3, 3]]


def test_windows_of_one_series_share_a_split_and_have_the_label_of_their_end(
    prepare, tmp_path, rows_of, frame
):
    late = frame["vibration"] < -3.9  # from step 8 on
    frame["state"] = np.where(late, "bad", "good")
    path = tmp_path / "late.csv"
    frame.to_csv(path, index=False)
    folder = prepare(path=str(path), window=5, stride=3)
    found = [machines(rows_of(folder, split)) for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == NUM_SERIES
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    assert len(rows) == NUM_SERIES * 3  # first steps 0, 3 and 6
    for values, label in rows:
        last = int(values[-1, 0]) % 100
        assert last in (4, 7, 10) and len(values) == 5
        assert label == ("bad" if last >= 8 else "good")


def test_a_window_may_have_the_label_of_most_of_its_steps(prepare, tmp_path, rows_of, frame):
    frame["state"] = np.where(frame["vibration"] < -2.6, "bad", "good")  # from step 6 on
    path = tmp_path / "most.csv"
    frame.to_csv(path, index=False)
    folder = prepare(path=str(path), window=4, stride=4, window_label="majority")
    labels = {int(v[0, 0]) % 100: label for v, label in rows_of(folder, "train")}
    assert labels[0] == "good" and labels[8] == "bad"


def test_windows_that_all_have_one_label_are_refused(prepare, tmp_path, frame):
    frame["state"] = np.where(frame["vibration"] == -2.0, "bad", "good")  # at one step in twelve
    path = tmp_path / "rare.csv"
    frame.to_csv(path, index=False)
    with pytest.raises(
        DataError, match="the label has one value, 'good'; there is nothing to lear"
    ):
        prepare(path=str(path), window=6, window_label="majority", classes=["good"], num_classes=1)


@pytest.mark.parametrize("keep", ["head", "tail"])
def test_a_token_is_a_patch_of_steps_and_the_rest_is_dropped(prepare, keep, rows_of):
    folder = prepare(patch=5, keep=keep)
    for values, _ in rows_of(folder, "train", patch=5):
        assert values.shape == (2, 10)
        first = int(values[0, 0]) % 100
        assert first == (0 if keep == "head" else 2)
        assert values.reshape(10, 2)[:, 0].tolist() == [values[0, 0] + i for i in range(10)]


def test_series_of_one_group_share_a_split_or_the_last_to_begin_are_held_out(prepare, rows_of):
    folder = prepare(group="site")
    sites = [{machine % 5 for machine in machines(rows_of(folder, split))} for split in SPLITS]
    assert [len(found) for found in sites] == [3, 1, 1] and len(set.union(*sites)) == 5
    folder = prepare(split_by_time=True)
    found = [machines(rows_of(folder, split)) for split in SPLITS]
    assert found == [set(range(18)), set(range(18, 24)), set(range(24, 30))]


def test_a_group_in_two_splits_is_refused_whatever_files_it_is_of(prepare, tmp_path, frame):
    later = frame.assign(machine=frame["machine"] + "b")
    later.to_csv(tmp_path / "later.csv", index=False)
    with pytest.raises(DataError, match=r"column 'site' has \d values in train and in test, 'site"):
        prepare(group="site", path_test=str(tmp_path / "later.csv"))
    later["site"] += "b"
    later.to_csv(tmp_path / "later.csv", index=False)
    folder = prepare(group="site", path_test=str(tmp_path / "later.csv"))
    assert read_manifest(folder)["splits"]["test"]["rows"] == NUM_SERIES


def test_the_statistics_are_those_of_the_training_steps(tmp_path, prepare_checked, rows_of):
    with pytest.raises(DataError, match=r"task\.channel_mean is \[0\.0, 0\.0\]; the training st"):
        prepare_checked()
    (folder,) = (tmp_path / "data" / "series").glob("machines-*[!k]")
    train = np.concatenate([values for values, _ in rows_of(folder, "train")])
    assert prepare_checked(**statistics(train)) == folder


REFUSED = {
    "window": ({"window": 0}, r"task\.window is 0; it must be a whole number of at least 1"),
    "length": ({"max_len": 0}, r"task\.max_len is 0; it must be a whole number of at least 1"),
    "letters": ({"channels": "temp"}, r"task\.channels is 'temp'; it must be a list of texts"),
    "fraction": ({"validation_fraction": -0.1}, r"validation_fraction is -0\.1 and task\.test_fra"),
    "missing": ({"missing": "zero"}, r"task\.missing is 'zero'; it must be one of refuse, indic"),
    "time": ({"split_by_time": True, "time": None}, r"split_by_time needs task\.time"),
    "two": (
        {"split_by_time": True, "group": "site"},
        r"only one of group, split and split_by_time",
    ),
    "site": ({"group": "state", "label": "site"}, r"labels that no training row has|has 2 values"),
    "channels": ({"channels": None}, r"channels names no column; say which hold the values"),
    "twice": ({"channels": ["temp", "temp"]}, r"channels names 'temp' 2 times"),
    "told": ({"channels": ["temp", "state"]}, r"column 'state' is a channel and the label at once"),
    "named": ({"channels": ["machine"]}, r"column 'machine' is a channel and the series at once"),
    "patch": (
        {"window": 2, "patch": 3},
        r"task\.window is 2; it must be at least task\.patch, which",
    ),
    "stride": ({"stride": 2}, r"task\.stride is 2, but there is no window"),
    "short": ({"window": 13}, r"no row can be used: 30 have under 13 steps"),
    "wide": (
        {"series": None},
        r"time is 'step', but without a column of the series each row is one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_contradict_each_other_are_refused(prepare, case):
    changed, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        prepare(**changed)


def test_a_series_that_is_shorter_than_a_window_is_left_out_and_counted(prepare, tmp_path, frame):
    short = frame.drop(index=range(4, 12))  # of machine 0
    short.to_csv(tmp_path / "short.csv", index=False)
    folder = prepare(path=str(tmp_path / "short.csv"), window=6)
    assert read_manifest(folder)["left_out"] == {"under 6 steps": 1}


def test_rows_are_known_to_be_in_the_order_of_a_file_and_to_keep_their_end(prepare):
    for keep in ("head", "tail"):
        folder = prepare(keep=keep)
        rows = series.load(folder, "test", channel_mean=[0.0, 0.0], patch=1)
        assert rows.in_file_order and rows.keeps_end == (keep == "tail")


def test_files_give_the_same_rows_as_ever(prepare):
    """After a change on purpose: the new digest, and a higher number in the module and in YAML."""
    digest = read_manifest(prepare(patch=5, window=10, stride=1))["digest"]
    assert digest == "71537b7989f3b7c94cd978144969ef533bc280edd8532a917ff7f9481e6292e8"


def test_rows_of_another_code_are_made_anew_and_never_by_this_one(prepare, monkeypatch):
    folder = prepare()
    with pytest.raises(DataError, match="generator_version is 2, but this code makes other data"):
        prepare(generator_version=2)
    monkeypatch.setattr("tasks.series.task.GENERATOR", 2)
    assert prepare(generator_version=2) != folder
