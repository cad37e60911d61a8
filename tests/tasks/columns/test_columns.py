"""Values come as they stand in a file, whatever its kind; what is damaged is named in one line."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.columns import Form, column_names, find_files, read_rows
from tasks.errors import DataError

FORM = Form("utf-8", None, True)
# What readers take for a missing value, a number, a truth value or a date.
TRAPS = ["NA", "None", "null", "nan", "N/A", "", "007", "1.0", "1e5", "TRUE", "2024-01-02", " x "]


def values(path, *columns, form=FORM):
    return [row.values for row in read_rows([path], columns, form=form)]


def written(tmp_path, name: str, content: str | bytes):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_no_text_of_a_csv_is_taken_for_anything_else(tmp_path):
    lines = "".join(f'"{value}",{number}\n' for number, value in enumerate(TRAPS))
    path = written(tmp_path, "a.csv", f"text,number\n{lines}")
    assert values(path, "text") == [[value] for value in TRAPS]
    assert values(path, "number", "text")[6] == ["6", "007"]


def test_numbers_of_json_lines_keep_their_digits_and_null_is_no_text(tmp_path):
    path = written(
        tmp_path,
        "a.jsonl",
        '{"a": 1.0, "b": {"c": "x"}}\n\n{"a": true, "b": {"c": null}}\n'
        '{"a": 12345678901234567890}\n',
    )
    assert values(path, "a", "b.c") == [
        ["1.0", "x"],
        ["true", None],
        ["12345678901234567890", None],
    ]
    assert column_names(path, form=FORM) == ["a", "b.c"]


def test_a_parquet_file_of_pandas_is_read_with_its_categoricals_and_gaps(tmp_path):
    frame = pd.DataFrame(
        {
            "kind": pd.Categorical(["b", "a", None, "b"]),
            "count": pd.array([1, None, 3, 4], dtype="Int64"),
            "share": [0.5, np.nan, 2.0, 3.0],
            "when": pd.to_datetime(["2024-01-02", None, "2024-01-03", "2024-01-05"]),
        },
        index=[5, 6, 7, 9],
    )
    frame.to_parquet(tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet", "kind", "count", "share", "when") == [
        ["b", "1", "0.5", "2024-01-02T00:00:00"],
        ["a", None, None, None],
        [None, "3", "2.0", "2024-01-03T00:00:00"],
        ["b", "4", "3.0", "2024-01-05T00:00:00"],
    ]


def test_a_field_within_a_structure_of_a_parquet_file_is_a_column(tmp_path):
    """What a missing structure would hold is missing."""
    path = tmp_path / "a.parquet"
    body = [{"message": "a", "size": {"n": 1}}, None, {"message": None, "size": {"n": 3}}]
    pd.DataFrame({"body": body, "b.c": ["x", "y", "z"]}).to_parquet(path)
    assert values(path, "body.message", "body.size.n", "b.c") == [
        ["a", "1", "x"],
        [None, None, "y"],
        [None, "3", "z"],
    ]
    with pytest.raises(DataError, match=r"no column 'body'; it has 'body.message', 'body.size.n'"):
        values(path, "body")


def test_line_breaks_and_long_values_in_quotes_are_part_of_a_value(tmp_path):
    long = "x" * 200_000  # the csv module's own limit is 131,072
    path = written(tmp_path, "a.csv", f'text,n\n"one\r\ntwo, ""three""",1\n"{long}",2\n')
    rows = list(read_rows([path], ["text"], form=FORM))
    assert [row.values for row in rows] == [['one\r\ntwo, "three"'], [long]]
    assert [row.number for row in rows] == [2, 4]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_lines_may_end_in_any_way(tmp_path, end):
    path = written(tmp_path, "a.csv", end.join(["a,b", "1,2", "", "3,4", ""]))
    assert values(path, "b") == [["2"], ["4"]]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("mark.csv", "text,n\nnaïve,1\n".encode("utf-8-sig"), FORM),
        ("japanese.csv", "text,n\n警告,1\n".encode("cp932"), Form("cp932", None, True)),
        ("wide.csv", "text,n\nnaïve,1\n".encode("utf-16"), Form("utf-16", None, True)),
        ("european.csv", "text;n\na,b;1\n", Form("utf-8", ";", True)),
        ("tabs.tsv", "text\tn\na,b\t1\n", FORM),
        ("quotes.tsv", 'text\tn\n"a" said\t1\n', Form("utf-8", None, False)),
    ],
)
def test_a_form_that_is_said_is_read(tmp_path, name, content, form):
    path = written(tmp_path, name, content)
    expected = {"japanese": "警告", "european": "a,b", "tabs": "a,b", "quotes": '"a" said'}
    assert values(path, "text", "n", form=form) == [[expected.get(path.stem, "naïve"), "1"]]


# Each file that would be read wrongly elsewhere, with the line it gives here.
HOSTILE = {
    "japanese.csv": (
        "text,n\n警告,1\n".encode("cp932"),
        r"japanese\.csv is not utf-8 at byte 7; if Excel wrote it in Japanese, --encoding cp932",
    ),
    "late.csv": (
        b"text\n" + b"x" * (2**20 + 11) + b"\n\xe9\n",
        rf"late\.csv is not utf-8 at byte {5 + 2**20 + 12};",
    ),
    "wide.csv": (
        "text\nx\n".encode("utf-16"),
        r"is not utf-8 at byte 0; it begins as UTF-16 does: --encoding utf-16",
    ),
    "nul.csv": (b"text\nab\0c\n", r"nul\.csv, line 2 has a NUL byte"),
    "european.csv": (
        "text;n\na;1\n",
        r"has no column 'text'; it has 'text;n'; if ';' separates them, say so \(--separator ';'\)",
    ),
    "spaced.csv": ("n, text\n1,a\n", r"has no column 'text'; it has 'n', ' text'"),
    "twice.csv": ("text,text\n1,a\n", r"has 2 columns 'text'; rename them"),
    "ragged.csv": (
        'text,n\n"a\nb",1\nc, d,2\n',
        r"ragged\.csv, line 4 has 3 values under 2 names; is a separator within a value",
    ),
    "short.csv": ("text,n\na\n", r"short\.csv, line 2 has 1 values under 2 names"),
    "open.csv": (
        'text,n\na,1\n"b,2\nc,3\n',
        r"open\.csv, line 3 begins a row that is not well formed .* is a quote not closed",
    ),
    "after.csv": ('text,n\n"a" b,1\n', r"after\.csv, line 2 begins a row .* meant as it stands"),
    "huge.csv": (
        'text\n"' + "x" * (2**24 + 1),
        r"huge\.csv, line 2 begins a row .* larger than field limit",
    ),
    "empty.csv": ("", r"empty\.csv is empty; its first line must name the columns"),
    "blank.csv": ("\n\n", r"blank\.csv is empty; its first line must name the columns"),
    "array.json": ('[{"text": "a"}]', r"array\.json, line 1 is no JSON object \(jq -c '\.\[\]'"),
    "pretty.json": ('[\n {"text": "a"}\n]', r"line 1 is no JSON object: .* jq -c"),
    "cut.jsonl": ('{"text": "a"}\n{"text": "b', r"cut\.jsonl, line 2 is no JSON object: "),
    "nested.jsonl": (
        '{"text": {"de": "a", "en": "b"}}\n',
        r"nested\.jsonl, line 1: text is an object; name a key in it, as text\.de, text\.en",
    ),
    "list.jsonl": ('{"text": ["a"]}\n', r"list\.jsonl, line 1: text is a list"),
    "other.jsonl": ('{"body": "a"}\n', r"other\.jsonl has no column 'text'; it has 'body'"),
    "bare.jsonl": ("\n\n", r"bare\.jsonl is empty; each line must be an object"),
    "cut.parquet": (b"PAR1 and no more", r"cut\.parquet is no whole Parquet file"),
    "data.xlsx": (b"", r"data\.xlsx is of no kind that can be read; its name must end with one of"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_line_that_says_what_to_do(tmp_path, name):
    content, message = HOSTILE[name]
    path = written(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(find_files(str(path)), ["text"], form=FORM))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("nonsense", "encoding is 'nonsense'; it must be one that Python knows, as utf-8"),
        ("rot13", "encoding is 'rot13'; it must be"),
        ("utf-16", r"a\.csv is not utf-16: UTF-16 stream does not start with BOM"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused(tmp_path, encoding, message):
    path = written(tmp_path, "a.csv", "text\na\n")
    with pytest.raises(DataError, match=message):
        values(path, "text", form=Form(encoding, None, True))


def test_types_that_are_no_values_are_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": [["a"], ["b"]], "n": [1, 2]}).to_parquet(path)
    with pytest.raises(DataError, match=r"column 'text' is of type list<.*must hold texts"):
        values(path, "text")
    with pytest.raises(DataError, match=r"has no column 'body'; it has 'text', 'n'"):
        values(path, "body")


def damaged_parquet(path) -> None:
    """Its pages are damaged, and what says where they are is not."""
    texts = [f"{i} {i * i}" for i in range(5000)]
    pd.DataFrame({"text": texts}).to_parquet(path, compression="snappy")
    content = bytearray(path.read_bytes())
    content[100:2000:7] = bytes(len(content[100:2000:7]))
    path.write_bytes(content)


def latin_parquet(path) -> None:
    """Its texts are bytes of another encoding."""
    texts = pa.array([b"caf\xe9"] * 9, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), path)


def late_parquet(path) -> None:
    """Its times are after the last one that Python has."""
    pq.write_table(pa.table({"text": pa.array([2**62] * 9, pa.timestamp("us"))}), path)


def twice_parquet(path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text"]), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damaged_parquet, r"a\.parquet cannot be read: "),
        (latin_parquet, r"a\.parquet cannot be read: .*utf-8"),
        (late_parquet, r"a\.parquet cannot be read: "),
        (twice_parquet, r"a\.parquet has 2 columns 'text'; rename them"),
    ],
)
def test_a_parquet_file_that_opens_and_cannot_be_read_is_named(tmp_path, write, message):
    write(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message) as caught:
        values(tmp_path / "a.parquet", "text")
    assert "\n" not in str(caught.value)


def test_files_of_a_folder_may_have_other_columns_and_come_in_order(tmp_path):
    written(tmp_path, "b.csv", "n,text,more\n1,b,x\n")
    written(tmp_path, "a.jsonl", json.dumps({"text": "a", "n": 0}) + "\n")
    written(tmp_path, ".a.csv", "not,for\nus,x\n")
    written(tmp_path, "C.CSV", "text,n\nc,2\n")
    files = find_files(str(tmp_path))
    assert [file.name for file in files] == ["C.CSV", "a.jsonl", "b.csv"]
    read = [row.values for row in read_rows(files, ["text", "n"], form=FORM)]
    assert read == [["c", "2"], ["a", "0"], ["b", "1"]]
    assert find_files(str(tmp_path / "*.csv")) == [tmp_path / "b.csv"]
    with pytest.raises(DataError, match="is no file; give a file, a folder of them, or a pattern"):
        find_files(str(tmp_path / "c.csv"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_progress_ends_with_the_size_of_the_file(tmp_path, name):
    path = tmp_path / name
    frame = pd.DataFrame({"text": [f"row {i}" for i in range(2500)]})
    if name == "a.csv":
        frame.to_csv(path, index=False)
    elif name == "a.jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    seen: list[int] = []
    assert len(list(read_rows([path], ["text"], form=FORM, advance=seen.append))) == 2500
    assert seen[-1] == path.stat().st_size
    assert len(seen) >= 3
    assert seen == sorted(seen)
