"""Series of one's own become rows of values, cut, split by series and standardised as promised."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from tasks import series
from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import SPLITS, read_manifest

NUM_SERIES, NUM_STEPS = 30, 12
CLASSES = ["bad", "good"]
OPTIONS = {
    "name": "machines",
    "path_validation": None,
    "path_test": None,
    "sha256": None,
    "encoding": "utf-8",
    "separator": None,
    "quotes": True,
    "series": "machine",
    "time": "step",
    "channels": ["temp", "vibration"],
    "label": "state",
    "group": None,
    "split": None,
    "split_by_time": False,
    "window": None,
    "stride": None,
    "window_label": "last",
    "missing": "refuse",
    "patch": 1,
    "max_len": 100,
    "keep": "head",
    "classes": CLASSES,
    "num_classes": 2,
    "class_counts": None,
    "num_rows": None,
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
    "seed": 0,
    "generator_version": 1,
}


def frame() -> pd.DataFrame:
    """Machines whose values name them: 100 times their number and the step, and minus a half."""
    rows = [
        {
            "machine": f"m{i}",
            "step": 10.0 * i + step,
            "temp": 100.0 * i + step,
            "vibration": -0.5 * step,
            "state": CLASSES[i % 2],
            "site": f"site{i % 5}",
        }
        for i in range(NUM_SERIES)
        for step in range(NUM_STEPS)
    ]
    return pd.DataFrame(rows)


def statistics(values: np.ndarray) -> dict[str, list[float]]:
    deviation = values.std(axis=0)
    return {
        "channel_mean": values.mean(axis=0).tolist(),
        "channel_std": np.where(deviation > 0, deviation, 1).tolist(),
    }


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Prepare with statistics that are not looked at, but where a test gives some."""
    monkeypatch.setattr("tasks.series.task._check_statistics", lambda folder, given: None)
    path = tmp_path / "machines.csv"
    frame().sample(frac=1, random_state=0).to_csv(path, index=False)  # out of order
    given = {"path": str(path), "channel_mean": [0.0, 0.0], "channel_std": [1.0, 1.0]}
    return partial(series.prepare, tmp_path / "data", **OPTIONS | given)


def rows_of(folder, split: str, *, patch: int = 1, channels: int = 2) -> list[tuple]:
    rows = series.load(folder, split, channel_mean=[0.0] * channels, patch=patch)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=10_000, padded_len=None)
    values = [
        row[~mask].numpy()
        for row, mask in zip(batch["inputs"], batch["key_padding_mask"], strict=True)
    ]
    names = read_manifest(folder)["classes"]
    return list(zip(values, [names[i] for i in batch["labels"].tolist()], strict=True))


def machines(folder, split: str) -> set[int]:
    return {int(values[0, 0]) // 100 for values, _ in rows_of(folder, split)}


def test_steps_come_in_the_order_of_their_times_each_with_its_channels(prepare):
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


def test_windows_of_one_series_share_a_split_and_have_the_label_of_their_end(prepare, tmp_path):
    table = frame()
    late = table["vibration"] < -3.9  # from step 8 on
    table["state"] = np.where(late, "bad", "good")
    path = tmp_path / "late.csv"
    table.to_csv(path, index=False)
    folder = prepare(path=str(path), window=5, stride=3)
    found = [machines(folder, split) for split in SPLITS]
    assert sum(map(len, found)) == len(set.union(*found)) == NUM_SERIES
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    assert len(rows) == NUM_SERIES * 3  # first steps 0, 3 and 6
    for values, label in rows:
        last = int(values[-1, 0]) % 100
        assert last in (4, 7, 10) and len(values) == 5
        assert label == ("bad" if last >= 8 else "good")


def test_a_window_may_have_the_label_of_most_of_its_steps(prepare, tmp_path):
    table = frame()
    table["state"] = np.where(table["vibration"] < -2.6, "bad", "good")  # from step 6 on
    path = tmp_path / "most.csv"
    table.to_csv(path, index=False)
    folder = prepare(path=str(path), window=4, stride=4, window_label="majority")
    labels = {int(v[0, 0]) % 100: label for v, label in rows_of(folder, "train")}
    assert labels[0] == "good" and labels[8] == "bad"


@pytest.mark.parametrize("keep", ["head", "tail"])
def test_a_token_is_a_patch_of_steps_and_the_rest_is_dropped(prepare, keep):
    folder = prepare(patch=5, keep=keep)
    for values, _ in rows_of(folder, "train", patch=5):
        assert values.shape == (2, 10)
        first = int(values[0, 0]) % 100
        assert first == (0 if keep == "head" else 2)
        assert values.reshape(10, 2)[:, 0].tolist() == [values[0, 0] + i for i in range(10)]


def test_series_of_one_group_share_a_split_or_the_last_to_begin_are_held_out(prepare):
    folder = prepare(group="site")
    sites = [{machine % 5 for machine in machines(folder, split)} for split in SPLITS]
    assert [len(found) for found in sites] == [3, 1, 1] and len(set.union(*sites)) == 5
    folder = prepare(split_by_time=True)
    found = [machines(folder, split) for split in SPLITS]
    assert found == [set(range(18)), set(range(18, 24)), set(range(24, 30))]


def test_the_statistics_are_those_of_the_training_steps(tmp_path):
    path = tmp_path / "machines.csv"
    frame().to_csv(path, index=False)
    given = {"path": str(path), "channel_mean": [0.0, 0.0], "channel_std": [1.0, 1.0]}
    prepare = partial(series.prepare, tmp_path / "data", **OPTIONS | given)
    with pytest.raises(DataError, match=r"task\.channel_mean is \[0\.0, 0\.0\]; the training st"):
        prepare()
    (folder,) = (tmp_path / "data" / "series").glob("machines-*[!k]")
    train = np.concatenate([values for values, _ in rows_of(folder, "train")])
    assert prepare(**statistics(train)) == folder


def test_a_wide_table_has_a_series_in_a_row_and_blanks_at_its_end(prepare, tmp_path):
    rows = [[CLASSES[i % 2], *range(i, i + 3 + i % 4), *[""] * (3 - i % 4)] for i in range(40)]
    path = tmp_path / "wide.csv"
    table = pd.DataFrame(rows, columns=["state", *(f"t{i}" for i in range(6))])
    table.to_csv(path, index=False)
    folder = prepare(path=str(path), series=None, time=None, channels=None)
    rows = [row for split in SPLITS for row in rows_of(folder, split, channels=1)]
    assert {tuple(values[:, 0]) for values, _ in rows} == {
        tuple(range(i, i + 3 + i % 4)) for i in range(40)
    }


def test_an_archive_holds_series_of_their_lengths(prepare, tmp_path):
    path = tmp_path / "a.npz"
    x = np.arange(40 * 6 * 2, dtype=np.float64).reshape(40, 6, 2)
    x[3, 4:] = np.nan  # a shorter one
    np.savez(path, x=x, y=np.arange(40) % 2)
    folder = prepare(path=str(path), series=None, time=None, channels=None, classes=["0", "1"])
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    lengths = {int(values[0, 0]) // 12: len(values) for values, _ in rows}
    assert lengths == {i: 4 if i == 3 else 6 for i in range(40)}


def test_where_an_archive_lies_has_no_part_in_the_split(prepare, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    x = np.random.default_rng(0).normal(size=(40, 3, 2))
    options = {"series": None, "time": None, "channels": None, "classes": ["0", "1"]}
    tests = []
    for seed, path in enumerate([tmp_path / "a.npz", tmp_path / "elsewhere" / "b.npz"]):
        order = np.random.default_rng(seed).permutation(40)
        np.savez(path, x=x[order], y=order % 2)
        rows = rows_of(prepare(path=str(path), **options), "test")
        tests.append({values.tobytes() for values, _ in rows})
    assert tests[0] == tests[1] and len(tests[0]) == 8


TS = """#The problem of a test, written
% by several hands
@problemName Machines
@timeStamps false
@missing false
@equalLength true
@classLabel true Standing walking
@data
{}
"""


def ts_line(i: int) -> str:
    temps = ",".join(f"{i}.{step}" for step in range(3 + i % 3))
    others = ",".join(["-1e-3", "?", "7"][step % 3] for step in range(3 + i % 3))
    return f"{temps}:{others}:{['Standing', 'walking'][i % 2]}"


def test_a_ts_file_keeps_the_case_of_its_labels_its_signs_and_its_lengths(prepare, tmp_path):
    path = tmp_path / "a_TRAIN.ts"
    path.write_text(TS.format("\n".join(map(ts_line, range(40)))))
    options = {"series": None, "time": None, "channels": None, "classes": ["Standing", "walking"]}
    folder = prepare(path=str(path), **options, missing="indicator")
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    assert {len(values) for values, _ in rows} == {3, 4, 5}
    values = next(values for values, _ in rows if values[0, 0] == 7)
    np.testing.assert_allclose(values[:2], [[7.0, -1e-3], [7.1, np.nan]], rtol=1e-6)
    with pytest.raises(DataError, match=r"values are missing among those of train: \d+ in channel"):
        prepare(path=str(path), **options)


def table(**changed) -> str:
    found = frame()
    for column, values in changed.items():
        found[column] = values
    return found.to_csv(index=False)


HOSTILE = {
    "text.csv": (table(temp="warm"), r"text\.csv, line 2: 'warm' is no number"),
    "inf.csv": (table(temp=np.inf), r"inf\.csv, line 2: 'inf' is not finite"),
    "gaps.csv": (
        table(temp=[np.nan, *range(359)]),
        r"missing among those of train: 1 in channel 0 of 360 steps; fill them, or .*indicator",
    ),
    "twice.csv": (table(step=1), r"series 'm0' has two steps of one time \(330 such steps in all"),
    "labels.csv": (
        table(state=["bad", "good"] * 180),
        r"series 'm0' has several labels \(bad, good\); cut it into windows \(window, stride\)",
    ),
    "nameless.csv": (table(machine=""), r"nameless\.csv, line 2 has no machine"),
    "unlabelled.csv": (table(state=""), r"unlabelled\.csv, line 2 has no state"),
    "stamps.ts": (
        TS.replace("@timeStamps false", "@timeStamps true").format("(0,1):a"),
        r"has time stamps, which readers of this format disagree about; write it as a table",
    ),
    "stamped.ts": (TS.format("(0,1),(1,2):a"), r"stamped\.ts, line 9 has time stamps"),
    "target.ts": ("@targetLabel true\n@data\n1,2:3", r"predicts numbers \(@targetLabel\)"),
    "unequal.ts": (TS.format("1,2,3:1,2:a"), r"line 9: channels are of 3, 2 steps; one is allowed"),
    "word.ts": (TS.format("1,x:a"), r"word\.ts, line 9: 'x' is no number"),
    "bare.ts": (TS.format("1,2,3"), r"bare\.ts, line 9 is no series with a label at its end"),
    "headless.ts": ("1,2,3:a\n", r"line 1 stands before @data and does not begin with @"),
    "dataless.ts": ("@problemName x\n", r"dataless\.ts has no @data"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_line_that_says_what_to_do(prepare, tmp_path, name):
    content, message = HOSTILE[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        prepare(path=str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").glob("series/*[!k]"))


ARCHIVES = {
    "objects": ({"x": np.array([[1], [1, 2]], dtype=object)}, "holds Python objects, which are no"),
    "no y": ({"x": np.zeros((9, 3))}, "has the arrays x; it must have x and y"),
    "shape": ({"x": np.zeros((9, 3)), "y": np.zeros(8, int)}, r"x is of shape \(9, 3, 1\), y of"),
    "text": ({"x": np.full((9, 3), "a"), "y": np.zeros(9, int)}, r"x is of type <U1; it must hold"),
    "target": ({"x": np.zeros((9, 3)), "y": np.zeros(9)}, "y is of type float64; labels are whole"),
    "inf": ({"x": np.full((9, 3), np.inf), "y": np.zeros(9, int)}, "values that are not finite"),
    "long": (
        {"x": np.zeros((9, 3)), "y": np.zeros(9, int), "lengths": np.full(9, 4)},
        "lengths are not those of 9 series of 3",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_gives_one_line(prepare, tmp_path, case):
    arrays, message = ARCHIVES[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        prepare(path=str(tmp_path / "a.npz"), series=None, time=None)


REFUSED = {
    "window": ({"window": 0}, r"task\.window is 0; it must be at least 1"),
    "fraction": ({"validation_fraction": -0.1}, r"validation_fraction is -0\.1 and task\.test_fra"),
    "missing": ({"missing": "zero"}, r"task\.missing is 'zero'; it must be one of refuse, indic"),
    "time": ({"split_by_time": True, "time": None}, r"split_by_time needs task\.time"),
    "two": (
        {"split_by_time": True, "group": "site"},
        r"only one of group, split and split_by_time",
    ),
    "site": ({"group": "state", "label": "site"}, r"labels that no training row has|has 2 values"),
    "channels": ({"channels": None}, r"channels names no column; say which hold the values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_contradict_each_other_are_refused(prepare, case):
    changed, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        prepare(**changed)


def test_a_series_that_is_shorter_than_a_window_is_left_out_and_counted(prepare, tmp_path):
    short = frame().drop(index=range(4, 12))  # of machine 0
    short.to_csv(tmp_path / "short.csv", index=False)
    folder = prepare(path=str(tmp_path / "short.csv"), window=6)
    assert read_manifest(folder)["left_out"] == {"under 6 steps": 1}


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
