"""A description is a task that holds what is in the file, and says what is wrong with it."""

import random
import re
import tracemalloc
from unittest.mock import Mock

import pytest
from omegaconf import OmegaConf

from tasks.columns import Form
from tasks.describe import cli
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
        "200 rows (100.0 %) have a text that occurs with several labels: no model can exceed "
        "50.0 % accuracy",
    ),
    "templates": (
        [f"user {i} logged {'in' if i % 2 else 'out'},{'ab'[i % 2]}" for i in range(200)],
        (),
        "100 % of the test rows equal a training row except for numbers",
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


@pytest.mark.parametrize(
    ("option", "column", "others"),
    [("--group", "machine", "another --seed, or "), ("--time", "when", "")],
)
@pytest.mark.parametrize("number", [3, 40])
def test_a_split_that_is_far_larger_than_asked_for_is_told(
    tmp_path, capsys, option, column, others, number
):
    """As where three machines have a third of the rows each, and a tenth is asked for."""
    rows = [
        f"2024-{1 + i % number % 12:02d}-{1 + i % number // 12:02d},m{i % number},{row}"
        for i, row in enumerate(lines(400, ["a", "b"]))
    ]
    _, _, err = describe(
        tmp_path, capsys, rows, option, column, head="when,machine,message,severity"
    )
    for split in ("validation", "test"):
        told = (
            rf"the {split} split has 33\.\d % of the rows, not the 10\.0 % asked for: rows of one "
            rf"{column} stay together; {others}another --{split}-fraction may come nearer"
        )
        assert bool(re.search(told, err)) == (number == 3)
    assert ("asked for" in err) == (number == 3)


def test_a_split_that_has_files_is_of_the_size_it_has(tmp_path, capsys):
    head = "machine,message,severity"
    rows = [f"m{i % 20},{row}" for i, row in enumerate(lines(400, ["a", "b"]))]
    others = [f"n{i},{row}" for i, row in enumerate(lines(400, ["a", "b"], seed=1))]
    (tmp_path / "test.csv").write_text("\n".join([head, *others]))
    options = ("--group", "machine", "--test", str(tmp_path / "test.csv"))
    _, _, err = describe(tmp_path, capsys, rows, *options, head=head)
    assert "asked for" not in err


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


def test_floors_can_be_left_out_of_any_tokens(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tasks.table.task.add_floors", Mock(side_effect=AssertionError))
    describe(tmp_path, capsys, lines(200, ["a", "b"]), "--tokens", "characters")


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
