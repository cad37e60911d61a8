"""ListOps from its generator and from the released form."""

from functools import partial

import pytest
import torch

from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.listops import task as listops
from tasks.listops.generate import VOCABULARY
from tasks.listops.release import read_listops_tsv
from tasks.store.manifest import SPLITS, read_manifest

OPTIONS = {
    "source": "generate",
    "source_dir": None,
    "brackets": "keep",
    "num_examples": {"train": 31, "validation": 7, "test": 5},
    "seed": 0,
    "generator_version": 1,
    "min_len": 5,
    "max_len": 60,
    "max_depth": 4,
    "max_args": 5,
    "num_workers": 1,
}


@pytest.fixture
def prepare(tmp_path):
    return partial(listops.prepare, tmp_path / "data", **OPTIONS)


@pytest.fixture
def prepare_release(prepare, listops_release):
    return partial(
        prepare,
        source="lra_release",
        source_dir=str(listops_release),
        num_examples=dict.fromkeys(SPLITS, 3),
    )


def expressions_of(folder, split: str) -> list[tuple[str, int]]:
    rows = listops.load(folder, split, vocab_size=16, append_eos=False)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=60, padded_len=60)
    expressions = [" ".join(VOCABULARY[i] for i in ids if i) for ids in batch["inputs"].tolist()]
    return list(zip(expressions, batch["labels"].tolist(), strict=True))


def test_splits_are_disjoint(prepare):
    folder = prepare()
    rows = [row for split in SPLITS for row in expressions_of(folder, split)]
    assert len(rows) == len(set(rows)) == 43


def test_an_expression_is_worth_its_label(prepare):
    for expression, label in expressions_of(prepare(), "validation"):
        assert evaluate(expression.split()) == label


def evaluate(tokens: list[str]) -> int:
    token = tokens.pop(0)
    if token.isdigit():
        return int(token)
    arguments = []
    while tokens[0] != "]":
        arguments.append(evaluate(tokens))
    tokens.pop(0)
    ordered = sorted(arguments)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
    return {
        "[MIN": ordered[0],
        "[MAX": ordered[-1],
        "[MED": middle,
        "[SM": sum(ordered) % 10,
    }[token]


def test_the_seed_decides_the_bytes(prepare, tmp_path):
    again = listops.prepare(tmp_path / "again", **OPTIONS)
    other = prepare(seed=1)
    assert read_manifest(again) == read_manifest(prepare())
    assert read_manifest(other)["splits"] != read_manifest(again)["splits"]


@pytest.mark.parametrize(("min_len", "found"), [(0, "410 of 443"), (5, "0 of 5")])
def test_nothing_is_left_of_a_law_with_too_few_expressions(prepare, tmp_path, min_len, found):
    few = {"min_len": min_len, "max_len": 9, "max_depth": 2, "max_args": 2}
    with pytest.raises(DataError, match=f"found only {found} distinct expressions"):
        prepare(**few, num_examples={"train": 431, "validation": 7, "test": 5})
    assert not list((tmp_path / "data").glob("listops/*[!k]"))


def test_brackets_can_be_dropped(prepare):
    kept, dropped = (
        expressions_of(prepare(brackets=brackets), "train") for brackets in ("keep", "drop")
    )
    assert dropped == [(expression.replace(" ]", ""), label) for expression, label in kept]


def test_released_rows_lose_their_parentheses(prepare_release):
    folder = prepare_release()
    assert expressions_of(folder, "train") == [("[MAX 1 9 ]", 9), ("[SM 1 4 ]", 5), ("1", 1)]
    assert expressions_of(folder, "test") == [("[MAX 3 9 ]", 9), ("[SM 3 4 ]", 7), ("3", 3)]


def test_released_rows_can_lose_their_brackets(prepare_release):
    rows = expressions_of(prepare_release(brackets="drop"), "validation")
    assert rows == [("[MAX 2 9", 9), ("[SM 2 4", 6), ("2", 2)]


def test_the_folder_itself_may_be_given(prepare_release, listops_release, monkeypatch):
    folder = prepare_release()
    assert prepare_release(source_dir=str(listops_release / "listops-1000")) == folder
    monkeypatch.chdir(listops_release / "listops-1000")
    assert prepare_release(source_dir=".", brackets="drop") != folder


@pytest.mark.parametrize("away", ["", "listops-1000", "listops-1000/basic_*.tsv"])
def test_finished_parts_outlive_a_source_that_is_away(
    prepare_release, listops_release, tmp_path, monkeypatch, away
):
    read = []

    def interrupted_at_the_last(path):
        read.append(path.name)
        if read == ["basic_train.tsv", "basic_val.tsv", "basic_test.tsv"]:
            raise RuntimeError("power cut")
        yield from read_listops_tsv(path)

    monkeypatch.setattr(listops, "read_listops_tsv", interrupted_at_the_last)
    with pytest.raises(RuntimeError, match="power cut"):
        prepare_release()
    moved = {
        path: path.rename(tmp_path / f"elsewhere_{path.name}")
        for path in (listops_release.glob(away) if away else [listops_release])
    }
    with pytest.raises(DataError, match=r"no listops-1000 in|basic_test\.tsv is missing"):
        prepare_release()
    for path, elsewhere in moved.items():
        elsewhere.rename(path)
    read.clear()
    prepare_release()
    assert read == ["basic_test.tsv"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"1\t1\t1", "line 3 has 3 columns, not 2", id="columns"),
        pytest.param(b"1\t10", r"line 3 has the label b'10', not a digit", id="label"),
        pytest.param(b"\t1", "line 3 holds something that is not a token", id="empty"),
        pytest.param(b"( [AVG 1 ) ]\t1", "line 3 holds something", id="operator"),
        pytest.param(b"( [MAX 12 ) ]\t1", "line 3 holds something", id="number"),
        pytest.param(b"A 1\t1", "line 3 holds something", id="letter"),
        pytest.param(b"\xff 1\t1", "line 3 holds something", id="non-utf8"),
    ],
)
def test_a_line_that_is_no_row_is_named(prepare_release, listops_release, line, message):
    path = listops_release / "listops-1000" / "basic_val.tsv"
    path.write_bytes(b"Source\tTarget\n1\t1\n" + line + b"\n2\t2\n")
    with pytest.raises(DataError, match=message):
        prepare_release()


def test_a_file_without_its_header_is_named(prepare_release, listops_release):
    (listops_release / "listops-1000" / "basic_test.tsv").write_bytes(b"")
    with pytest.raises(DataError, match=r"basic_test\.tsv does not begin with the columns"):
        prepare_release()


def test_a_short_file_is_noticed(prepare_release):
    with pytest.raises(DataError, match="the validation split has 3 rows, not 4"):
        prepare_release(num_examples={"train": 3, "validation": 4, "test": 3})
