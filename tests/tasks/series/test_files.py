"""Series come from tables, archives of NumPy and .ts files; what is wrong in them is named."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tasks.errors import DataError
from tasks.series.planned import plan_series
from tasks.store.manifest import SPLITS, read_manifest

CLASSES = ["bad", "good"]
WIDE = {"series": None, "time": None, "channels": None}
NO_COLUMNS = WIDE | {"label": "y"}


def test_a_wide_table_has_a_series_in_a_row_and_blanks_at_its_end(prepare, tmp_path, rows_of):
    rows = [[CLASSES[i % 2], *range(i, i + 3 + i % 4), *[""] * (3 - i % 4)] for i in range(40)]
    path = tmp_path / "wide.csv"
    table = pd.DataFrame(rows, columns=["state", *(f"t{i}" for i in range(6))])
    table.to_csv(path, index=False)
    folder = prepare(path=str(path), **WIDE)
    rows = [row for split in SPLITS for row in rows_of(folder, split, channels=1)]
    assert {tuple(values[:, 0]) for values, _ in rows} == {
        tuple(range(i, i + 3 + i % 4)) for i in range(40)
    }


def test_files_share_a_series_only_where_times_order_its_steps(prepare, tmp_path, frame):
    """Two recordings of one machine; without times nobody knows whether they are one series."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for part in (0, 1):
        frame[part::2].to_csv(folder / f"{part}.csv", index=False)
    prepare(path=str(folder))
    with pytest.raises(DataError, match=r"1\.csv, line 2: series 'm0' is in .*0\.csv, too, and no"):
        prepare(path=str(folder), time=None)


def test_windows_that_do_not_fit_on_the_disk_are_refused_before_anything_is_written(
    prepare, tmp_path, frame, monkeypatch
):
    path = str(tmp_path / "a.csv")
    frame.to_csv(path, index=False)
    free = SimpleNamespace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(DataError, match=r"needs about .* GiB"):
        prepare(path=path)
    assert not list(tmp_path.glob("**/*.npy"))
    free.free = 10**9
    prepare(path=path)


def test_an_archive_holds_series_of_their_lengths(prepare, tmp_path, rows_of):
    path = tmp_path / "a.npz"
    x = np.arange(40 * 6 * 2, dtype=np.float64).reshape(40, 6, 2)
    x[3, 4:] = np.nan  # a shorter one
    np.savez(path, x=x, y=np.arange(40) % 2)
    folder = prepare(path=str(path), classes=["0", "1"], **NO_COLUMNS)
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    lengths = {int(values[0, 0]) // 12: len(values) for values, _ in rows}
    assert lengths == {i: 4 if i == 3 else 6 for i in range(40)}


def test_where_an_archive_lies_has_no_part_in_the_split(prepare, tmp_path, rows_of):
    (tmp_path / "elsewhere").mkdir()
    x = np.random.default_rng(0).normal(size=(40, 3, 2))
    options = NO_COLUMNS | {"classes": ["0", "1"]}
    tests = []
    for seed, path in enumerate([tmp_path / "a.npz", tmp_path / "elsewhere" / "b.npz"]):
        order = np.random.default_rng(seed).permutation(40)
        np.savez(path, x=x[order], y=order % 2)
        rows = rows_of(prepare(path=str(path), **options), "test")
        tests.append({values.tobytes() for values, _ in rows})
    assert tests[0] == tests[1] and len(tests[0]) == 8


@pytest.mark.parametrize("decider", ["group", "split"])
def test_the_array_that_an_option_names_decides_the_split(prepare, tmp_path, rows_of, decider):
    path = tmp_path / "a.npz"
    values = np.arange(40)
    named = {"group": values % 10, "split": np.repeat(["train", "val", "test"], [20, 12, 8])}
    others = {"group": values, "split": np.full(40, "train")}  # of the options' own names
    np.savez(path, x=np.tile(values, (3, 1)).T, y=values // 2 % 2, named=named[decider], **others)
    folder = prepare(path=str(path), classes=["0", "1"], **NO_COLUMNS | {decider: "named"})
    found = [
        {str(named[decider][int(values[0, 0])]) for values, _ in rows_of(folder, split, channels=1)}
        for split in SPLITS
    ]
    assert sum(map(len, found)) == len(set.union(*found)) == len(set(named[decider]))
    with pytest.raises(DataError, match=r"a\.npz has no array 'other'; it has x, y, named, group"):
        prepare(path=str(path), **NO_COLUMNS | {decider: "other"})


def write_series(path, kind: str, *, first: int, **beside) -> None:
    """Write 30 series of two steps, that begin with a number of their own from the first on."""
    x, y = first + np.arange(60).reshape(30, 2), np.array(CLASSES * 15)
    if kind == "npz":
        np.savez(path, x=x, y=y, **beside)
    elif kind == "wide":
        table = pd.DataFrame({"state": y, "t0": x[:, 0], "t1": x[:, 1], **beside})
        table.to_csv(path, index=False)
    else:
        of_series = {"machine": x[:, 0], "state": y, **beside}
        table = pd.DataFrame({name: np.repeat(values, 2) for name, values in of_series.items()})
        table = table.assign(step=np.tile([0, 1], 30), temp=x.ravel(), vibration=0)
        table.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("long", {}), ("wide", WIDE), ("npz", NO_COLUMNS)],
    ids=["long", "wide", "npz"],
)
def test_files_of_a_split_need_no_column_that_names_it(prepare, tmp_path, kind, columns):
    """And may have it, which makes no step of a wide table."""
    suffix = "npz" if kind == "npz" else "csv"
    named, unnamed, test = (tmp_path / f"{name}.{suffix}" for name in ("named", "unnamed", "test"))
    part = np.resize(["train", "train", "val", "val"], 30)
    write_series(named, kind, first=0, part=part)
    write_series(unnamed, kind, first=100)
    write_series(test, kind, first=100, part=np.full(30, "test"))
    for path in (unnamed, test):
        folder = prepare(path=str(named), path_test=str(path), split="part", **columns)
        splits = read_manifest(folder)["splits"]
        assert [splits[split]["rows"] for split in SPLITS] == [16, 14, 30]


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


def test_a_ts_file_keeps_the_case_of_its_labels_its_signs_and_its_lengths(
    prepare, tmp_path, rows_of
):
    path = tmp_path / "a_TRAIN.ts"
    path.write_text(TS.format("\n".join(map(ts_line, range(40)))))
    options = NO_COLUMNS | {"classes": ["Standing", "walking"]}
    folder = prepare(path=str(path), **options, missing="indicator")
    rows = [row for split in SPLITS for row in rows_of(folder, split)]
    assert {len(values) for values, _ in rows} == {3, 4, 5}
    values = next(values for values, _ in rows if values[0, 0] == 7)
    np.testing.assert_allclose(values[:2], [[7.0, -1e-3], [7.1, np.nan]], rtol=1e-6)
    with pytest.raises(DataError, match=r"values are missing among those of train: \d+ in channel"):
        prepare(path=str(path), **options)


HOSTILE = {
    "text.csv": ({"temp": "warm"}, r"text\.csv, line 2: 'warm' is no number"),
    "grouped.csv": ({"temp": "1_000"}, r"grouped\.csv, line 2: '1_000' is no number"),
    "inf.csv": ({"temp": np.inf}, r"inf\.csv, line 2: 'inf' is not finite"),
    "gaps.csv": (
        {"temp": [np.nan, *range(359)]},
        r"missing among those of train: 1 in channel temp of 360 steps; fill them, or .*indicator",
    ),
    "twice.csv": ({"step": 1}, r"series 'm0' has two steps of one time \(330 such steps in all"),
    "labels.csv": (
        {"state": ["bad", "good"] * 180},
        r"series 'm0' has several labels \(bad, good\); cut it into windows \(window, stride\)",
    ),
    "nameless.csv": ({"machine": ""}, r"nameless\.csv, line 2 has no machine"),
    "large.csv": ({"temp": "1e39"}, r"large\.csv, line 2: '1e39' is not finite in 32 bits"),
    "unlabelled.csv": ({"state": ""}, r"unlabelled\.csv, line 2 has no state"),
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
    "bare_data.ts": ("@data\n", r"the files have no series"),
    "wider.ts": (TS.format("1,2:a\n1,2:3,4:b"), r"line 10 has 2 channels, .*line 9 has 1; all"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_line_that_says_what_to_do(prepare, tmp_path, name, frame):
    content, message = HOSTILE[name]
    if isinstance(content, dict):
        content = frame.assign(**content).to_csv(index=False)
    (tmp_path / name).write_text(content)
    columns = NO_COLUMNS if name.endswith(".ts") else {}
    with pytest.raises(DataError, match=message) as caught:
        prepare(path=str(tmp_path / name), **columns)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").glob("series/*[!k]"))


ARCHIVES = {
    "objects": ({"x": np.array([[1], [1, 2]], dtype=object)}, "holds Python objects, which are no"),
    "no y": ({"x": np.zeros((9, 3))}, "has the arrays x; it must have x and y"),
    "shape": ({"x": np.zeros((9, 3)), "y": np.zeros(8, int)}, r"x is of shape \(9, 3, 1\), y of"),
    "text": ({"x": np.full((9, 3), "a"), "y": np.zeros(9, int)}, r"x is of type <U1; it must hold"),
    "target": ({"x": np.zeros((9, 3)), "y": np.zeros(9)}, "y is of type float64; labels are whole"),
    "inf": ({"x": np.full((9, 3), np.inf), "y": np.zeros(9, int)}, "values that are not finite"),
    "large": (
        {"x": np.full((9, 3), 1e39), "y": np.zeros(9, int)},
        "x has values that are not finite in 32 bits",
    ),
    "none": ({"x": np.zeros((0, 3)), "y": np.zeros(0, int)}, "the files have no series"),
    "none of lengths": (
        {"x": np.zeros((0, 3)), "y": np.zeros(0, int), "lengths": np.zeros(0, int)},
        "the files have no series",
    ),
    "unlabelled": (
        {"x": np.zeros((2, 3)), "y": np.array(["a", ""])},
        r"a\.npz, series 1 has no label",
    ),
    **{
        f"lengths of {kind}": (
            {"x": np.zeros((9, 3)), "y": np.zeros(9, int), "lengths": lengths},
            "lengths are not those of 9 series of 3",
        )
        for kind, lengths in {
            "too many steps": np.full(9, 4),
            "less than none": np.full(9, -1),
            "parts of steps": np.full(9, 1.5),
            "texts": np.full(9, "2"),
        }.items()
    },
    **{
        f"{name} in another shape": (
            {"x": np.zeros((9, 3)), "y": np.zeros(9, int), name: values},
            rf"{name} is of shape .*; it must be \(9,\), as y",
        )
        for name, values in {"lengths": np.array(2), "group": np.zeros((9, 2), int)}.items()
    },
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_gives_one_line(prepare, tmp_path, case):
    arrays, message = ARCHIVES[case]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        prepare(
            path=str(tmp_path / "a.npz"), group="group" if "group" in arrays else None, **NO_COLUMNS
        )


def test_files_of_several_kinds_are_refused_with_their_folder(prepare, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.ts").write_text(TS.format("1,2,3:a"))
    (folder / "b.csv").write_text("state\n")
    with pytest.raises(DataError, match=r"mixed mixes kinds of files: \.csv, \.ts$"):
        prepare(path=str(folder))


def test_a_file_that_changes_while_it_is_read_is_not_prepared(prepare, tmp_path, monkeypatch):
    def change_behind(*args, **options):
        planned = plan_series(*args, **options)
        (tmp_path / "machines.csv").write_text("")
        return planned

    monkeypatch.setattr("tasks.series.task.plan_series", change_behind)
    with pytest.raises(DataError, match=r"machines\.csv has changed while it was read"):
        prepare()
    assert not list((tmp_path / "data").glob("series/*[!k]"))


def test_archives_whose_series_differ_in_their_channels_are_refused(prepare, tmp_path):
    for i, shape in enumerate([(9, 3, 2), (9, 3)]):
        np.savez(tmp_path / f"part{i}.npz", x=np.zeros(shape), y=np.zeros(9, int))
    with pytest.raises(
        DataError, match=r"part1\.npz, series 0 has 1 channels, .*series 0 has 2; all"
    ):
        prepare(path=str(tmp_path / "part*.npz"), **NO_COLUMNS)


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("a.csv", "state,t0,t1,t2\n", r"b\.csv has other columns than .*a\.csv; say which hold"),
        ("a.jsonl", "", r"a\.jsonl: an object may have keys that the first one lacks; say which"),
    ],
)
def test_no_step_of_a_wide_table_is_left_out_without_a_word(
    prepare, tmp_path, name, other, message
):
    folder = tmp_path / "wide"
    folder.mkdir()
    table = pd.DataFrame([["bad", 1, 2], ["good", 3, 4]], columns=["state", "t0", "t1"])
    if name == "a.csv":
        table.to_csv(folder / name, index=False)
        (folder / "b.csv").write_text(other)
    else:
        table.to_json(folder / name, orient="records", lines=True)
    with pytest.raises(DataError, match=message):
        prepare(path=str(folder), **WIDE)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_index_is_no_step_of_a_wide_table(prepare, tmp_path, kind):
    """Whoever does not turn it off has one; here it would tell the label."""
    rows = [["bad" if i < 20 else "good", *range(i, i + 3)] for i in range(40)]
    table = pd.DataFrame(rows, columns=["state", "t0", "t1", "t2"]).iloc[::-1]
    path = tmp_path / f"wide.{kind}"
    if kind == "csv":
        table.to_csv(path)
    else:
        table.to_parquet(path, index=True)
    with pytest.raises(DataError, match=rf"wide\.{kind} has a column .*, as an index is written"):
        prepare(path=str(path), **WIDE)
    assert prepare(path=str(path), **WIDE | {"channels": ["t0", "t1", "t2"]}).exists()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("a.npz", {"time": "t"}),
        ("a.npz", {"channels": ["a"]}),
        ("a.ts", {"series": "m"}),
        ("a.ts", {"group": "g"}),
        ("a.npz", {"label": "target"}),
        ("a.ts", {"label": "target"}),
    ],
)
def test_files_without_columns_are_asked_for_none(prepare, tmp_path, name, given):
    if name == "a.npz":
        np.savez(tmp_path / name, x=np.zeros((9, 3)), y=np.zeros(9, int))
    else:
        (tmp_path / name).write_text(TS.format("1,2,3:a"))
    with pytest.raises(
        DataError, match=rf"{min(given)} is .*\{name[1:]} files (have no such column|it is)"
    ):
        prepare(path=str(tmp_path / name), **NO_COLUMNS | given)
