"""Pairs of papers in the released form."""

from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import retrieval
from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import read_manifest

OPTIONS = {
    "source": "lra_release",
    "num_examples": {"train": 11, "validation": 5, "test": 3},
    "tokens": "bytes",
    "min_frequency": 2,
    "max_document_len": 90,
}


@pytest.fixture
def prepare(tmp_path, aan):
    return partial(retrieval.prepare, tmp_path / "data", **OPTIONS | {"source_dir": str(aan)})


def lines_of(aan, name: str) -> list[list[bytes]]:
    content = (aan / "tsv_data" / f"new_aan_pairs.{name}.tsv").read_bytes()
    return [line.split(b"\t") for line in content.splitlines()]


def test_pairs_are_kept_byte_by_byte(prepare, aan):
    rows = retrieval.load(prepare(), "validation", vocab_size=257, append_eos=False)
    batch = gather_batch(rows, torch.arange(5), max_len=90, padded_len=90)
    assert batch["inputs"].shape == (5, 2, 90)
    texts = [[bytes((ids[ids > 0] - 1).tolist()) for ids in pair] for pair in batch["inputs"]]
    lines = lines_of(aan, "eval")
    assert texts == [[first[:90], second[:90]] for *_, first, second in lines]
    assert batch["labels"].tolist() == [int(float(label)) for label, *_ in lines]


def test_a_paper_is_stored_once(prepare, aan):
    folder = prepare()
    papers = {text for line in lines_of(aan, "train") for text in line[3:]}
    assert len(np.load(folder / "train.offsets.npy")) == len(papers) + 1 == 6
    # The statistics are those of the pairs.
    tokens = sum(len(text[:90]) for line in lines_of(aan, "train") for text in line[3:])
    assert read_manifest(folder)["splits"]["train"]["tokens"] == tokens


def test_characters(prepare, aan):
    folder = prepare(tokens="characters")
    vocabulary = read_manifest(folder)["vocabulary"]
    rows = retrieval.load(folder, "test", vocab_size=len(vocabulary) + 1, append_eos=False)
    batch = gather_batch(rows, torch.tensor([0]), max_len=90, padded_len=90)
    first = [vocabulary[i - 1] for i in batch["inputs"][0, 0].tolist() if i]
    text = lines_of(aan, "test")[0][3].decode()
    assert first == [c if c in vocabulary else "<unk>" for c in text[:90]]
    assert "ï" in first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"1.0\ta\tb\ttext", "line 2 has 4 columns, not 5", id="columns"),
        pytest.param(b"2.0\ta\tb\tt\tu", r"line 2 has the label b'2\.0', not 0\.0 or", id="label"),
        pytest.param(b"1.0\ta\tb\t\tu", "line 2 has an empty text", id="empty"),
        pytest.param(b"1.0\ta\tb\tt\xff\tu", "line 2 is not UTF-8 at byte 9", id="non-utf8"),
    ],
)
def test_a_line_that_is_no_pair_is_named(prepare, aan, line, message):
    path = aan / "tsv_data" / "new_aan_pairs.eval.tsv"
    path.write_bytes(b"1.0\ta\tb\tt\tu\n" + line + b"\n")
    with pytest.raises(DataError, match=message):
        prepare()


def test_a_missing_file_is_named(prepare, aan):
    (aan / "tsv_data" / "new_aan_pairs.test.tsv").unlink()
    with pytest.raises(DataError, match=r"new_aan_pairs\.test\.tsv is missing"):
        prepare()


def test_a_missing_folder_is_named(prepare, tmp_path):
    with pytest.raises(DataError, match=r"no tsv_data/new_aan_pairs\.train\.tsv in .*nowhere"):
        prepare(source_dir=str(tmp_path / "nowhere"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_corrupted_file_is_read_or_refused(aan, tmp_path, data):
    path = aan / "tsv_data" / "new_aan_pairs.eval.tsv"
    original = path.read_bytes()
    corrupted = bytearray(original[: data.draw(st.integers(0, len(original)), label="length")])
    for position in data.draw(st.lists(st.integers(0, len(original) - 1), max_size=4)):
        if position < len(corrupted):
            corrupted[position] = data.draw(st.integers(0, 255))
    data_dir = Path(mkdtemp(dir=tmp_path))
    try:
        path.write_bytes(corrupted)
        folder = retrieval.prepare(data_dir, **OPTIONS | {"source_dir": str(aan)})
    except DataError as error:
        assert "\n" not in str(error)
        assert not list(data_dir.glob("**/*.npy"))
    else:
        assert read_manifest(folder)["splits"]["validation"]["rows"] == 5
    finally:
        path.write_bytes(original)
