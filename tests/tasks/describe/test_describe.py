"""A description is a task that holds what is in the file, and says what is wrong with it."""

import csv
import random
import re
import tracemalloc

import numpy as np
import pytest
from omegaconf import OmegaConf

from tasks.columns import Form
from tasks.describe import cli
from tasks.describe.example import write_machines, write_sessions
from tasks.describe.findings import other_columns
from tasks.describe.quote import quoted
from tasks.errors import DataError
from tasks.table import Columns

WORDS = ["disk", "net", "cpu", "memory", "queue", "cache"]


CALL = ["{}", "--text", "message", "--label", "severity"]


def lines(number: int, labels: list[str], *, seed: int = 0) -> list[str]:
    """Rows whose texts differ in their words, and say nothing of their label."""
    rng = random.Random(seed)
    return [
        f"{' '.join(rng.choices(WORDS, k=rng.randrange(6, 14)))},{labels[i % len(labels)]}"
        for i in range(number)
    ]


def describe(tmp_path, capsys, rows: list[str], *options: str, head: str = "message,severity"):
    """Describe a file of rows; return the task, its text and the remarks."""
    path = tmp_path / "my-logs.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    call = [str(path), "--text", "message", "--label", "severity", "--no-floors", *options]
    code = cli.main(call)
    out, err = capsys.readouterr()
    assert code == 0, err
    return OmegaConf.create(out), out, err


def test_everything_that_decides_a_run_is_in_the_task(tmp_path, capsys):
    task, text, _ = describe(tmp_path, capsys, lines(400, ["no", "yes", "007", "null"]))
    assert text.startswith("# macformer-train --config-dir my task=my_logs")
    assert task.path == str(tmp_path / "my-logs.csv")
    assert task.classes == ["007", "no", "null", "yes"]
    assert task.class_counts == [80] * 4
    assert task.num_rows == {"train": 320, "validation": 40, "test": 40}
    assert task.max_len % 32 == 0 and re.fullmatch("[0-9a-f]{64}", task.sha256)
    assert re.search(r"# bytes of a training text: min \d+, .*, max \d+; \d\.\d % are longer", text)


def test_a_sound_table_is_said_to_be_small_and_nothing_else(tmp_path, capsys):
    rows = lines(400, ["a1", "b2"])[:-3]  # one class has a few more than the other
    _, _, err = describe(tmp_path, capsys, rows, "--max-len", "1000")
    assert err.count("\n") == 1 and "the test split has 40 rows" in err


REMARKS = {
    "unequal": (lines(200, ["ok"] * 9 + ["bad"]), (), "classes are unequal: ok 90.0 %, bad 10.0 %"),
    "rare": (lines(200, ["ok"] * 9 + ["bad"]), (), "fewer than 10 rows of bad"),
    "case": (
        lines(200, ["Error", "error"]),
        (),
        "blanks alone count as several: Error, er",
    ),
    "empty": ([*lines(200, ["a", "b"]), ",a", "x,"], (), "1 rows have no text and are left out"),
    "named": (
        [f"Warn {line}" for line in lines(200, ["warn"])] + lines(200, ["ok"], seed=1),
        (),
        "warn stands in over 90 % of its own rows' text",
    ),
    "contradicted": (
        [f"text {i // 2} {'abcdefghij'[i // 2 % 10] * 3},{'ab'[i % 2]}" for i in range(200)],
        (),
        "200 rows (100.0 %) have a text that stands with several labels: nobody can have more than "
        "50.0 % right",
    ),
    "templates": (
        [f"user {i} logged {'in' if i % 2 else 'out'},{'ab'[i % 2]}" for i in range(200)],
        (),
        "100 % of the test rows are a training row but for numbers",
    ),
    "cut": (lines(200, ["a", "b"]), ("--max-len", "20"), "are longer than 20 bytes and are cut"),
    "bytes": (
        [f"警告{i}番の装置,{'ab'[i % 2]}" for i in range(200)],
        (),
        "--tokens characters makes sequences that much shorter",
    ),
}


@pytest.mark.parametrize("case", REMARKS)
def test_what_is_wrong_with_a_table_is_said(tmp_path, capsys, case):
    rows, options, expected = REMARKS[case]
    _, _, err = describe(tmp_path, capsys, rows, *options)
    assert expected in err


def with_columns(rows: list[str]) -> list[str]:
    return [f"2024-01-{1 + i % 28:02d},m{i % 7},{i},{row}" for i, row in enumerate(rows)]


def test_columns_that_should_decide_the_split_are_named_unless_one_does(tmp_path, capsys):
    rows, head = with_columns(lines(200, ["a", "b"])), "when,machine,id,message,severity"
    _, _, err = describe(tmp_path, capsys, rows, head=head)
    assert "column when holds times" in err and "(--time when)" in err
    assert "column machine has 7 values" in err and "(--group machine)" in err
    assert "column id" not in err
    task, _, err = describe(tmp_path, capsys, rows, "--group", "machine", head=head)
    assert task.group == "machine" and "column when" not in err


def test_long_values_of_other_columns_are_not_kept(tmp_path):
    """20 MB of them in all, of which the first hundred are looked at."""
    path = tmp_path / "pages.csv"
    rows = [f"{i % 5},{str(i) * 2500},a,b" for i in range(1000, 3000)]
    path.write_text("\n".join(["kind,page,text,label", *rows]))
    columns = Columns(["text"], False, "label")
    tracemalloc.start()
    try:
        kind, page = other_columns(
            [path], ["kind", "page", "text", "label"], columns, form=Form("utf-8", None, True)
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (kind.num_values, page.num_values, page.num_rows) == (5, 2000, 2000)
    assert peak < 4e6


def test_characters_are_counted_for_the_vocabulary(tmp_path, capsys):
    task, _, _ = describe(tmp_path, capsys, lines(200, ["a", "b"]), "--tokens", "characters")
    letters = {letter for word in WORDS for letter in word} | {" "}
    assert task.vocab_size == len(letters) + 2  # padding and the unknown character


def test_the_page_stands_alone(tmp_path, capsys):
    page = tmp_path / "page.html"
    rows = lines(200, ["$a$ <b>", "ok"])
    describe(tmp_path, capsys, rows, "--html", str(page))
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert "<td>$a$ &lt;b&gt;</td><td>80</td><td>10</td><td>10</td>" in html
    assert not re.search(r"(src|href)=[\"'](?!#)", html)


def test_a_drawing_has_letters_that_its_own_font_lacks(tmp_path, capsys):
    page = tmp_path / "page.html"
    describe(tmp_path, capsys, lines(200, ["警告", "ok"]), "--html", str(page))
    assert re.search(r"<text[^>]*>警告</text>", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["{}", "--label", "severity"], r"has the columns 'message', 'severity'; say which is the"),
        (["{}", "--text", "body", "--label", "severity"], r"has no column 'body'; it has 'message"),
        (["nowhere.csv", "--text", "a", "--label", "b"], r"nowhere\.csv is no file"),
        (
            ["{}", "--text", "message", "--label", "severity", "--name", "text"],
            "task 'text' exists",
        ),
        (
            ["{}", "--text", "severity", "--label", "message"],
            "looks like an id or a number to pred",
        ),
        (
            ["{}", "--text", "message", "--label", "severity", "--name", "a b"],
            "the name 'a b' is no",
        ),
        (
            ["{}", "--text", "message", "--label", "severity", "--name", "No"],
            "the name 'No' is no text to a configuration",
        ),
        ([*CALL, "--split-by-time"], r"--split-by-time is of series \(--series, --wide\), not of"),
        ([*CALL, "--window", "9"], r"--window is of series"),
        ([*CALL, "--no-floors", "--seed", "-1"], r"task\.split_seed is -1; it must be a whole"),
        (
            ["{}", "--text", "message", "--label", "${{severity}}"],
            r"'\$\{severity\}' is a reference to a configuration",
        ),
    ],
)
def test_a_mistake_gives_one_line_and_no_task(tmp_path, capsys, call, message):
    path = tmp_path / "my-logs.csv"
    rows = [f"row {i},{'ab'[i % 2]}" for i in range(200)]
    path.write_text("\n".join(["message,severity", *rows]))
    assert cli.main([part.format(path) for part in call]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.search(message, err)


@pytest.mark.parametrize(
    "text",
    ["no", "007", "1.0", "null", "2024-01-01", 'a "b"', "a: b", "警告", "x\u2028y", "😀", "~"],
)
def test_texts_are_quoted_so_that_they_come_back(text):
    assert OmegaConf.create(f"x: [{quoted(text)}]").x[0] == text


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${b}", "???"])
def test_what_a_configuration_would_take_for_something_else_is_refused(text):
    with pytest.raises(DataError, match=rf"{re.escape(repr(text))} is a .* to a configuration"):
        quoted(text)


def test_the_name_of_a_column_may_have_several_lines(tmp_path, capsys):
    path = tmp_path / "sums.csv"
    path.write_text("\n".join(['"a\nsum: 1",b', *lines(200, ["up", "down"])]))
    assert cli.main([str(path), "--text", "a\nsum: 1", "--label", "b", "--no-floors"]) == 0
    task = OmegaConf.create(capsys.readouterr().out)
    assert (task.text, task.name) == (["a\nsum: 1"], "sums")


def test_series_are_described_with_the_statistics_of_their_training_steps(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(50, 4, (200, 24, 2)).astype(np.float32)
    x[:, 3, 1] = np.nan
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(200) % 10 == 0)
    call = [str(tmp_path / "machines.npz"), "--patch", "4", "--missing", "indicator"]
    assert cli.main(call) == 0
    out, err = capsys.readouterr()
    task = OmegaConf.create(out)
    assert task.classes == ["False", "True"] and task.class_counts == [144, 16]
    assert (task.max_len, task.patch, task.missing) == (6, 4, "indicator")
    assert task.channel_mean == pytest.approx([50, 50], abs=0.5)
    assert task.channel_std == pytest.approx([4, 4], abs=0.3)
    assert "classes are unequal: False 90.0 %" in err
    assert "4.2 % of the values of channel 1 are missing and marked" in err


def test_series_have_a_page_too(tmp_path, capsys):
    x = np.random.default_rng(0).normal(50, 4, (60, 24, 2)).astype(np.float32)
    x[:, :6, 1] = np.nan
    np.savez(tmp_path / "machines.npz", x=x, y=np.arange(60) % 2)
    page = tmp_path / "page.html"
    call = [str(tmp_path / "machines.npz"), "--missing", "indicator", "--html", str(page)]
    assert cli.main(call) == 0
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2 and "<td>0</td><td>24</td><td>3</td><td>3</td>" in html
    assert "<td>25.0 %</td>" in html and capsys.readouterr().out.replace('"', "&quot;") in html


def test_archives_in_a_folder_are_series_as_well(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "machines"
    folder.mkdir()
    for i in range(2):
        np.savez(folder / f"{i}.npz", x=rng.normal(size=(30, 8)), y=np.arange(30) % 2)
    assert cli.main([str(folder)]) == 0
    assert OmegaConf.create(capsys.readouterr().out).class_counts == [24, 24]


def test_a_series_that_stands_in_two_splits_is_told(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, first in (("train", 0), ("test", 30)):
        x = np.stack([np.random.default_rng(i).normal(size=24) for i in range(first, first + 40)])
        np.savez(tmp_path / f"{name}.npz", x=x, y=rng.permutation(40) % 2)
    call = [str(tmp_path / "train.npz"), "--test", str(tmp_path / "test.npz")]
    assert cli.main([*call, "--validation-fraction", "0.05", "--name", "twice"]) == 0
    err = capsys.readouterr().err
    told = re.search(r"(\d+) rows of test are of a series that training has, too", err)
    assert told and 8 <= int(told[1]) <= 10  # ten, but for those that are held out
    assert "rows, too few to choose a checkpoint" in err and "the test split has 40 rows" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--series", "machine"], r"say which column is the label \(--label\)"),
        (["--series", "machine", "--label", "state"], r"channels names no column; say which hold"),
        (["--series", "machine", "--tokens", "characters"], r"--tokens is of tables of texts, not"),
        (["--series", "machine", "--text", "temp"], r"--text is of tables of texts, not of series"),
    ],
)
def test_a_mistake_about_series_gives_one_line(tmp_path, capsys, options, message):
    (tmp_path / "a.csv").write_text("machine,temp,state\nm,1,ok\n")
    assert cli.main([str(tmp_path / "a.csv"), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and re.search(message, err)


def test_a_worn_machine_shakes_before_it_heats_up(tmp_path):
    """In each two hours, at the first step that rises above half of what the events add."""
    path = tmp_path / "machines.csv"
    write_machines(path, num_machines=2, num_steps=1280)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 1280

    def first_rise(period: list[dict[str, str]], name: str, bound: float) -> int:
        above = [float(row[name]) > bound for row in period]
        return next(i for i in range(1, len(above)) if above[i] and not above[i - 1])

    seen = set()
    for first in range(0, len(rows), 128):
        period = rows[first : first + 128]
        if len({row["state"] for row in period}) == 1:
            shakes = first_rise(period, "vibration", 0.9)
            expected = "worn" if shakes < first_rise(period, "temperature", 66) else "normal"
            assert period[0]["state"] == expected
            seen.add(expected)
    assert seen == {"worn", "normal"}


def test_the_example_is_told_apart_by_the_order_of_two_events_alone(tmp_path):
    path = tmp_path / "example.csv"
    write_sessions(path, num_rows=300)
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 300
    for row in rows:
        waits = row["message"].index("disk wait") > row["message"].index("cache miss")
        expected = "failed" if "checksum" in row["message"] else "slow" if waits else "ok"
        assert row["outcome"] == expected
