"""What a table of one's own cannot be is refused in one line."""

import json

import pytest

from tasks.errors import DataError, check_name

REFUSED = {
    "class_counts": (
        {"class_counts": [12, 12, 11]},
        r"the classes have \[12, 12, 12\] training rows, task\.class_counts says \[12, 12, 11\]",
    ),
    "classes": ({"classes": ["ERROR", "INFO"], "num_classes": 2}, r"labels of the training rows a"),
    "num_classes": ({"num_classes": 4}, r"task\.num_classes is 4; task\.classes has 3"),
    "num_rows": (
        {"num_rows": {"train": 37, "validation": 12, "test": 12}},
        r"the splits have .*'train': 36.* rows, task\.num_rows says .*'train': 37",
    ),
    "id": (
        {"label": "message", "text": ["host"]},
        r"the label has 60 values in 60 rows, which looks like an id or a number to predict",
    ),
    "text is label": ({"label": "message"}, r"'message' is a text and the label at once"),
    "two deciders": (
        {"group": "host", "time": "time"},
        r"only one column .* group=host, time=time",
    ),
    "pair of three": ({"paired": True}, r"text names 1 columns; it must name two for a pair"),
    "few groups": ({"group": "severity", "label": "host"}, r"labels that no training row has"),
    "no time": ({"time": "host"}, r"line 2: 'node0' is neither a number nor a time as 2024-01-31"),
    "unknown split": ({"split": "host"}, r"column 'host' names splits 'node0', .* it may name tra"),
    "fraction": ({"test_fraction": 0.9}, r"test_fraction is 0\.9; each must be above 0, and"),
    "empty": ({"test_fraction": 0.001}, r"the test split has no rows; there are too few rows"),
    "one text": ({"text": "message"}, r"task\.text is 'message'; it must be a list of texts"),
    "numbers": ({"classes": [0, 1, 2]}, r"task\.classes is \[0, 1, 2\]; it must be a list of tex"),
    "no length": ({"max_len": 0}, r"task\.max_len is 0; it must be a whole number of at least 1"),
    "half a token": ({"max_len": 2.5}, r"task\.max_len is 2\.5; it must be a whole number"),
    "seed": ({"split_seed": "x"}, r"task\.split_seed is 'x'; it must be a whole number of at le"),
    "a text as a fraction": (
        {"validation_fraction": "x"},
        r"validation_fraction is x and task\.test_fraction is .*; each must be above 0, and",
    ),
    "true as a fraction": ({"test_fraction": True}, r"test_fraction is True; each must be above"),
    "no frequency": ({"min_frequency": "x"}, r"task\.min_frequency is 'x'; it must be a whole n"),
    "counts": ({"class_counts": "x"}, r"task\.class_counts is 'x'; it must be a list of numbers"),
    "rows": ({"num_rows": 60}, r"task\.num_rows is 60; it must have a number for each of"),
    "nan": ({"test_fraction": float("nan")}, r"test_fraction is nan; each must be above 0, and"),
    "code page": ({"encoding": 1252}, r"task\.encoding is 1252; it must be a text, as utf-8 or c"),
    "separator": ({"separator": 1}, r"task\.separator is 1; it must be a text, as ';'"),
    "elsewhere": ({"name": "../logs"}, r"task\.name is '\.\./logs'; it must be a text of lett"),
    "tokens": ({"tokens": "words"}, r"task\.tokens is 'words'; it must be one of bytes, char"),
    "keep": ({"keep": "middle"}, r"task\.keep is 'middle'; it must be one of head, tail, both"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_one_line(prepare, tmp_path, case):
    changed, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        prepare(**changed)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").glob("table/*[!k]"))  # nothing half-written; locks are kept


@pytest.mark.parametrize("case", ["class_counts", "num_rows"])
def test_counts_are_held_to_what_was_prepared_before(prepare, case):
    """By a call that did not say them."""
    prepare()
    changed, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        prepare(**changed)


def test_a_name_that_is_a_number_is_refused():
    with pytest.raises(
        DataError, match=r"task\.name is 2024; it must be a text of letters, digits"
    ):
        check_name(2024)


def wrong_labels(rows, case):
    labels = {
        "id": lambda i: f"id{i // 2}",
        "one": lambda i: "x",
        "reference": lambda i: f"${{a}}{i % 3}",
        "missing": lambda i: "?" * (i % 2 * 2 + 1),
    }
    return [row | {"severity": labels[case](i)} for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("id", r"30 values in 60 rows, which looks like an id or a number to predict"),
        ("one", r"the label has one value, 'x'; there is nothing to learn"),
        ("reference", r"'\$\{a\}0' is a reference to a configuration; rename it"),
        ("missing", r"'\?\?\?' is a value that is missing to a configuration; rename it"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    tmp_path, prepare, case, message, records, write_csv
):
    rows = wrong_labels(records(), case)
    path = write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=message):
        prepare(path=path, group="host")


def test_an_id_is_no_label_before_all_of_a_large_file_is_read(tmp_path, prepare):
    """The last row, which is never reached, would be refused itself."""
    rows = [f"message {i},{i}" for i in range(200)]
    (tmp_path / "ids.csv").write_text("\n".join(["message,severity", *rows, "too,many,values"]))
    with pytest.raises(
        DataError, match="the label has 101 values in 101 rows, which looks like an"
    ):
        prepare(path=str(tmp_path / "ids.csv"))


def test_a_row_without_the_value_that_decides_its_split_is_named(
    tmp_path, prepare, records, write_csv
):
    rows = records()
    rows[10]["host"] = ""
    path = write_csv(tmp_path / "hosts.csv", rows)
    with pytest.raises(DataError, match=r"hosts\.csv, line 12 has no host, which decides its spl"):
        prepare(path=path, group="host")


@pytest.mark.parametrize("column", ["message", "severity", "host"])
def test_half_a_character_is_named(tmp_path, prepare, records, column):
    rows = records()
    rows[3][column] = "\ud83d"
    (tmp_path / "half.jsonl").write_text("\n".join(map(json.dumps, rows)))
    message = rf"half\.jsonl, line 4: {column} has half a character \(\\ud83d\)"
    with pytest.raises(DataError, match=message):
        prepare(path=str(tmp_path / "half.jsonl"), group="host")
