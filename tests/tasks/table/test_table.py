"""A table of one's own becomes a task: what is in it, and how it is split."""

import hashlib
from contextlib import nullcontext
from functools import partial

import pandas as pd
import pytest
import torch

from tasks import table
from tasks.errors import DataError
from tasks.store.describe import describe
from tasks.store.manifest import SPLITS, read_manifest
from tasks.table.examples import Example
from tasks.table.scan import parse_time
from tasks.table.task import plan_files


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_bytes(
    tmp_path, prepare, kind, rows_of, all_rows, records
):
    frame = pd.DataFrame(records()).iloc[::-1]  # in another order
    path = tmp_path / f"other.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    folder = prepare(path=str(path))
    expected = {(row["message"], row["severity"]) for row in records()}
    assert set(all_rows(folder)) == expected and len(all_rows(folder)) == 60
    for split in SPLITS:
        assert set(rows_of(folder, split)) == set(rows_of(prepare(), split))


def test_each_class_is_shared_out_alike_and_named(prepare):
    manifest = read_manifest(prepare())
    counts = {split: manifest["splits"][split]["class_counts"] for split in SPLITS}
    assert counts == {"train": [12] * 3, "validation": [4] * 3, "test": [4] * 3}
    assert manifest["classes"] == ["ERROR", "INFO", "NA"]
    assert "ERROR 33.3 INFO 33.3 NA 33.3 %" in describe(prepare())[0]


def test_another_seed_holds_others_out(prepare, rows_of):
    first, second = (set(rows_of(prepare(split_seed=seed), "test")) for seed in (0, 1))
    assert first != second


def test_whole_numbers_are_classes_in_their_order(tmp_path, prepare, rows_of, records, write_csv):
    rows = [row | {"severity": ["2", "10", "1"][i % 3]} for i, row in enumerate(records())]
    folder = prepare(path=write_csv(tmp_path / "n.csv", rows), classes=["1", "2", "10"])
    assert {row[-1] for row in rows_of(folder, "train")} == {"1", "2", "10"}


def test_labels_that_merely_look_like_numbers_are_texts(
    tmp_path, prepare, rows_of, records, write_csv
):
    labels = ["--5", "12", "9" * 5000]
    rows = [row | {"severity": labels[i % 3]} for i, row in enumerate(records())]
    folder = prepare(path=write_csv(tmp_path / "n.csv", rows), classes=labels)
    assert {row[-1] for row in rows_of(folder, "train")} == set(labels)


def test_rows_without_text_or_label_are_left_out_and_counted(
    tmp_path, prepare, all_rows, records, write_csv
):
    rows = records()
    for i, row in enumerate(rows[:9]):
        row |= {"message": " "} if i < 5 else {"severity": ""}
    folder = prepare(path=write_csv(tmp_path / "gaps.csv", rows))
    assert read_manifest(folder)["left_out"] == {"no text": 5, "no label": 4}
    assert len(all_rows(folder)) == 51
    assert "left out: no text 5, no label 4" in "\n".join(describe(folder))


def test_equal_texts_share_a_split_though_their_labels_differ(
    tmp_path, prepare, rows_of, records, write_csv
):
    rows = [row | {"message": f"message {i % 20}"} for i, row in enumerate(records())]
    folder = prepare(path=write_csv(tmp_path / "same.csv", rows))
    found = {split: {text for text, _ in rows_of(folder, split)} for split in SPLITS}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 20
    assert read_manifest(folder)["shared_texts"] == {"validation": 0, "test": 0}


def test_rows_of_one_group_share_a_split(prepare, rows_of, records):
    folder = prepare(group="host")
    hosts = {row["message"]: row["host"] for row in records()}
    found = [{hosts[text] for text, _ in rows_of(folder, split)} for split in SPLITS]
    assert [len(group) for group in found] == [4, 1, 1]
    assert len(set.union(*found)) == 6


def test_the_last_rows_are_those_of_the_test_split(tmp_path, prepare, rows_of, records, write_csv):
    rows = records()
    folder = prepare(path=write_csv(tmp_path / "late.csv", rows[::-1]), time="time")
    when = {row["message"]: row["time"] for row in rows}
    first, held_out, last = ([when[text] for text, _ in rows_of(folder, s)] for s in SPLITS)
    assert max(first) < min(held_out) and max(held_out) < min(last)
    assert [len(first), len(held_out), len(last)] == [36, 12, 12]


def test_rows_of_one_moment_share_a_split(tmp_path, prepare, rows_of, records, write_csv):
    rows = [row | {"time": str(i // 21)} for i, row in enumerate(records(63))]
    folder = prepare(path=write_csv(tmp_path / "days.csv", rows), time="time")
    assert [len(rows_of(folder, split)) for split in SPLITS] == [21, 21, 21]


def test_a_column_may_name_the_splits_or_test_alone(tmp_path, prepare, rows_of, records, write_csv):
    names = ["train", "train", "val", "Test"]
    rows = [row | {"part": names[i % 4]} for i, row in enumerate(records())]
    folder = prepare(path=write_csv(tmp_path / "parts.csv", rows), split="part")
    part = {row["message"]: row["part"] for row in rows}
    found = [{part[text] for text, _ in rows_of(folder, split)} for split in SPLITS]
    assert found == [{"train"}, {"val"}, {"Test"}]

    rows = [row | {"part": "test" if i % 4 == 3 else "train"} for i, row in enumerate(records())]
    folder = prepare(path=write_csv(tmp_path / "test.csv", rows), split="part")
    part = {row["message"]: row["part"] for row in rows}
    found = [{part[text] for text, _ in rows_of(folder, split)} for split in SPLITS]
    assert found == [{"train"}, {"train"}, {"test"}]
    assert [len(rows_of(folder, split)) for split in SPLITS] == [36, 9, 15]


def test_a_split_may_have_files_of_its_own(tmp_path, prepare, rows_of, records, write_csv):
    rows = records(90)
    path, path_test = (
        write_csv(tmp_path / f"{name}.csv", part)
        for name, part in (("a", rows[:60]), ("b", [*rows[60:], *rows[:3]]))
    )
    folder = prepare(path=path, path_test=path_test)
    assert [len(rows_of(folder, split)) for split in SPLITS] == [48, 12, 33]
    shared = read_manifest(folder)["shared_texts"]["test"]
    train = {text for text, _ in rows_of(folder, "train")}
    assert shared == sum(row["message"] in train for row in rows[:3]) > 0


def test_a_file_that_moves_from_one_split_to_the_next_makes_other_data(
    tmp_path, prepare, rows_of, records, write_csv
):
    """As where the last months are held out, and a month is learnt from later on."""
    rows = records(120)
    for i in range(4):
        write_csv(tmp_path / f"month{i}.csv", rows[30 * i : 30 * i + 30])
    folders = [
        prepare(path=f"{tmp_path}/month[{train}].csv", path_test=f"{tmp_path}/month[{test}].csv")
        for train, test in (("01", "23"), ("012", "3"))
    ]
    assert [len(rows_of(folder, "test")) for folder in folders] == [60, 30]
    sha256 = read_manifest(folders[0])["parameters"]["source"]
    with pytest.raises(DataError, match="is not what the task was written for: its sha256 is"):
        prepare(
            path=f"{tmp_path}/month[012].csv", path_test=f"{tmp_path}/month3.csv", sha256=sha256
        )


def test_a_file_to_learn_from_is_not_asked_for(tmp_path, prepare):
    for path in (tmp_path / "logs.csv", tmp_path):
        with pytest.raises(DataError, match=r"logs\.csv is a file of train and of test; give each"):
            prepare(path=str(path), path_test=str(tmp_path / "logs.csv"))
    assert not list((tmp_path / "data").glob("table/*[!k]"))


def test_a_file_to_validate_on_is_not_one_to_test_on(tmp_path, prepare, records, write_csv):
    path = write_csv(tmp_path / "held_out.csv", records(30))
    with pytest.raises(
        DataError, match=r"held_out\.csv is a file of validation and of test; give each files of"
    ):
        prepare(path_validation=path, path_test=str(tmp_path / "held_*.csv"))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ({"path_test": range(6)}, r"column 'host' has 5 values in train and in test, 'node\d' amo"),
        ({"path_test": [5, 6]}, r"'host' has 1 values in (train|validation) and in test, 'node5' "),
        (
            {"path_validation": [6, 7, 8], "path_test": [8, 9, 7]},
            r"column 'host' has 2 values in validation and in test, 'node7' among them; rows of on",
        ),
        ({"path_validation": [6, 7], "path_test": [8, 9]}, None),
    ],
    ids=["all", "one", "held out", "none"],
)
def test_rows_of_one_group_share_a_split_whatever_files_they_are_of(
    tmp_path, prepare, records, write_csv, held_out, message
):
    def file(name: str, hosts) -> str:
        rows = [row | {"host": f"node{hosts[i % len(hosts)]}"} for i, row in enumerate(records(30))]
        return write_csv(tmp_path / f"{name}.csv", rows)

    paths = {option: file(option, hosts) for option, hosts in held_out.items()}
    with pytest.raises(DataError, match=message) if message else nullcontext():
        prepare(group="host", **paths)


@pytest.mark.parametrize("decider", [{"time": "time"}, {"split": "part"}], ids=["time", "split"])
def test_files_of_a_split_need_no_column_that_names_it(
    tmp_path, prepare, rows_of, records, write_csv, decider
):
    rows = [row | {"part": ["train", "val"][i % 5 // 4]} for i, row in enumerate(records())]
    held_out = [{"message": f"late {i}", "severity": row["severity"]} for i, row in enumerate(rows)]
    folder = prepare(
        path=write_csv(tmp_path / "named.csv", rows),
        path_test=write_csv(tmp_path / "unnamed.csv", held_out),
        **decider,
    )
    assert [len(rows_of(folder, split)) for split in SPLITS] == [48, 12, 60]
    assert set(rows_of(folder, "test")) == {(r["message"], r["severity"]) for r in held_out}


def test_two_columns_are_one_text_or_a_pair(prepare, all_rows):
    folder = prepare(text=["host", "message"])
    assert ("node0\nnaïve message no. 0", "ERROR") in all_rows(folder)
    folder = prepare(text=["host", "message"], paired=True)
    assert ("node0", "naïve message no. 0", "ERROR") in all_rows(folder)
    assert len(all_rows(folder)) == 60


@pytest.mark.parametrize(("keep", "kept"), [("head", "naïv"), ("tail", " 17"), ("both", "na17")])
def test_what_is_kept_of_a_longer_text_can_be_chosen(prepare, keep, kept, all_rows):
    max_len = {"head": 5, "tail": 3, "both": 4}[keep]  # bytes
    folder = prepare(keep=keep, max_len=max_len)
    assert kept in {text for text, _ in all_rows(folder)}
    assert read_manifest(folder)["cut"] == {"train": 36, "validation": 12, "test": 12}


@pytest.mark.parametrize(
    ("keep", "max_seq_len", "longest"), [("head", 9, None), ("tail", 9, 19), ("tail", 19, None)]
)
def test_an_end_that_was_kept_is_not_cut_off_by_shorter_batches(
    tmp_path, prepare, plain_data_module, keep, max_seq_len, longest
):
    folder = prepare(keep=keep, max_len=19)
    data = plain_data_module(
        prepare=lambda _: folder,
        load=partial(table.load, vocab_size=257, append_eos=False),
        data_dir=tmp_path,
        batch_size=2,
        max_seq_len=max_seq_len,
        padded_len=max_seq_len,
    )
    refused = pytest.raises(
        DataError, match=f"max_seq_len is {max_seq_len}, .* train split have up to {longest} tokens"
    )
    with refused if longest else nullcontext():
        data.setup()


def test_characters_are_those_of_training(prepare, rows_of):
    folder = prepare(tokens="characters")
    assert "ï" in read_manifest(folder)["vocabulary"]
    rows = table.load(folder, "train", vocab_size=100, append_eos=False)
    text = next(iter(rows_of(prepare(), "train")))[0]
    assert int(rows.lengths(torch.tensor([0]))) == len(text)


def test_the_checksum_is_that_of_the_file_and_another_file_is_refused(tmp_path, prepare):
    content = (tmp_path / "logs.csv").read_bytes()
    folder = prepare(sha256=hashlib.sha256(content).hexdigest())
    assert folder == prepare()
    (tmp_path / "logs.csv").write_bytes(content + b"2025-01-01,node0,late,INFO\n")
    with pytest.raises(DataError, match=r"logs\.csv is not what the task was written for: its sh"):
        prepare(sha256=hashlib.sha256(content).hexdigest())
    assert prepare() != folder


def test_what_was_prepared_is_used_when_its_file_is_gone(tmp_path, prepare):
    folder = prepare()
    sha256 = read_manifest(folder)["parameters"]["source"]
    (tmp_path / "logs.csv").unlink()
    assert prepare(sha256=sha256) == folder == prepare()
    with pytest.raises(DataError, match=r"logs\.csv is no file"):
        prepare(sha256=sha256, split_seed=1)


def test_what_was_prepared_from_another_file_is_not_taken_for_a_mistyped_one(tmp_path, prepare):
    prepare()
    with pytest.raises(
        DataError, match=r"lgos\.csv is no file; give a file, a folder of them, or a"
    ):
        prepare(path=str(tmp_path / "lgos.csv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\n,,late,INFO", r"logs\.csv has changed while it was read; call again when"),
        (None, r"logs\.csv, line \d+ had another label when it was first read"),
    ],
    ids=["grown", "other labels"],
)
def test_a_file_that_changes_while_it_is_read_is_not_prepared(
    tmp_path, prepare, monkeypatch, line, message
):
    path = tmp_path / "logs.csv"

    def change_behind(*args, **options):
        parts = plan_files(*args, **options)
        text = path.read_text(encoding="utf-8")
        path.write_text(text + line if line else text.replace("INFO", "WARN"), encoding="utf-8")
        return parts

    monkeypatch.setattr("tasks.table.task.plan_files", change_behind)
    with pytest.raises(DataError, match=message):
        prepare()
    assert not list((tmp_path / "data").glob("table/*[!k]"))


def test_a_moved_file_is_the_same_data(tmp_path, prepare):
    folder = prepare()
    moved = (tmp_path / "logs.csv").rename(tmp_path / "moved.csv")
    assert prepare(path=str(moved)) == folder


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1704164645.5", 1704164645.5),
        ("2024-01-02 03:04:05,500", 1704164645.5),
        ("2024-01-02T04:04:05.5+01:00", 1704164645.5),
        ("2024-01-02", 1704153600.0),
    ],
)
def test_times_are_read_as_they_are_written_in_logs(text, seconds):
    assert parse_time(Example((b"",), "", text, "")) == seconds


def test_rows_are_known_to_be_in_the_order_of_a_file(prepare):
    assert table.load(prepare(), "test", vocab_size=257, append_eos=False).in_file_order


def test_files_give_the_same_rows_as_ever(prepare):
    """After a change on purpose: the new digest, and a higher number in the module and in YAML."""
    digest = read_manifest(prepare(keep="both", max_len=18))["digest"]
    assert digest == "2159ed369a907ae39913bce1dd02cf32b656cbdb1ba4a1715dbd4961a6a9d3e2"


def test_rows_of_another_code_are_made_anew_and_never_by_this_one(prepare, monkeypatch):
    folder = prepare()
    with pytest.raises(DataError, match="generator_version is 2, but this code makes other data"):
        prepare(generator_version=2)
    monkeypatch.setattr("tasks.table.task.GENERATOR", 2)
    assert prepare(generator_version=2) != folder
