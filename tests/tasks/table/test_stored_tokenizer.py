"""The tokenizer of a model that exists makes the tokens of a table."""

import json
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from tasks.describe import cli
from tasks.describe.model_files import find_model_files
from tasks.errors import DataError
from tasks.store.manifest import read_manifest
from tasks.table import load
from tasks.tokenizers import _special_tokens, load_tokenizer

WORDS = ["disk", "fan", "full", "hot", "is", "the"]
# As a model's folder has it: the length and the padding of its author's use are in the file, too.
STORED = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    },
    "added_tokens": [],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "decoder": None,
    "model": {
        "type": "WordLevel",
        "vocab": {
            word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])
        },
        "unk_token": "[UNK]",
    },
}
VOCAB_SIZE = len(STORED["model"]["vocab"])


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(STORED))
    return path


@pytest.fixture
def options(tmp_path, stored):
    """A table in which each text has five words."""
    messages = [f"The {part} is {how} {i}" for i in range(10) for part, how in PARTS]
    pd.DataFrame({"message": messages, "part": [m.split()[1] for m in messages]}).to_csv(
        tmp_path / "table.csv", index=False
    )
    return {
        "name": "parts",
        "path": str(tmp_path / "table.csv"),
        "text": ["message"],
        "label": "part",
        "classes": ["disk", "fan"],
        "num_classes": 2,
        "tokenizer": str(stored),
        "max_len": 7,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
    }


@pytest.fixture
def prepare(tmp_path, prepare_own, options):
    return partial(prepare_own, "_table", tmp_path / "data", **options)


PARTS = (("disk", "full"), ("fan", "hot"))


def first_row(folder):
    rows = load(folder, "train", vocab_size=VOCAB_SIZE + 1, append_eos=False)
    label = int(rows.labels[0])
    return label, (rows.ids[rows.offsets[0] : rows.offsets[1]]).tolist()


@pytest.mark.parametrize(
    ("max_len", "keep", "kept"),
    [(7, "head", slice(5)), (5, "head", slice(3)), (5, "tail", slice(2, 5))],
    ids=["whole", "head", "tail"],
)
def test_what_is_kept_stands_between_the_special_tokens(prepare, max_len, keep, kept):
    pytest.importorskip("tokenizers")
    folder = prepare(max_len=max_len, keep=keep)
    label, ids = first_row(folder)
    words = ["the", PARTS[label][0], "is", PARTS[label][1], "[UNK]"][kept]
    vocabulary = STORED["model"]["vocab"]
    assert ids == [vocabulary[word] for word in ("[CLS]", *words, "[SEP]")]
    assert (sum(read_manifest(folder)["cut"].values()) > 0) == (max_len < 7)


def test_another_tokenizer_is_another_preparation(prepare, stored):
    pytest.importorskip("tokenizers")
    first = prepare()
    assert prepare(tokenizer=None) != first
    stored.write_text(json.dumps({**STORED, "normalizer": None}))
    assert prepare() != first


def test_what_was_prepared_is_used_when_the_tokenizer_is_gone(prepare, stored, monkeypatch):
    pytest.importorskip("tokenizers")
    folder = prepare()
    stored.unlink()
    for option in ({"max_len": 5}, {"tokenizer": str(stored.with_name("none.json"))}):
        with pytest.raises(DataError, match=r"\.json, which is no file; give a tokenizer\.json"):
            prepare(**option)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert prepare() == folder


def test_a_limit_of_its_authors_use_does_not_count(stored):
    pytest.importorskip("tokenizers")
    tokenizer = load_tokenizer(stored)
    ids = tokenizer.encode(b"the disk is full the fan is hot")
    np.testing.assert_array_equal(ids, [9, 4, 8, 6, 9, 5, 8, 7])
    assert (tokenizer.front, tokenizer.back) == ((2,), (3,))


def test_a_letter_without_tokens_says_nothing_of_where_special_ones_stand():
    assert _special_tokens([2, 9, 8, 3], [9, 8]) == ((2,), (3,))
    with pytest.raises(DataError, match=r"makes \[\] of a text makes \[2, 3\] with special tokens"):
        _special_tokens([2, 3], [])


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"none\.json, which is no file"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json cannot be read as a tokenizer"):
        load_tokenizer(tmp_path / "config.json")


def test_the_extra_is_named_where_it_is_missing(stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"macformer\[hf\]"):
        load_tokenizer(stored)


def test_a_description_counts_in_the_tokens_of_a_model(tmp_path, options, stored, capsys):
    pytest.importorskip("tokenizers")
    (tmp_path / "config.json").write_text('{"vocab_size": 16, "max_position_embeddings": 6}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')  # no limit
    columns = ["--text", "message", "--label", "part", "--no-floors"]
    for folder in (tmp_path, stored):
        assert cli.main([options["path"], *columns, "--tokenizer", str(folder)]) == 0
        out, err = capsys.readouterr()
        task = OmegaConf.create(out)
        assert (task.tokenizer, task.vocab_size, task.max_len) == (str(stored), 17, 6)
        assert "tokens of a training text: min 7" in out
        assert "longer than 6 tokens and are cut" in err
    (tmp_path / "config.json").write_text("none")
    assert cli.main([options["path"], *columns, "--tokenizer", str(tmp_path)]) == 2
    assert "config.json is no JSON" in capsys.readouterr().err


def test_without_a_model_beside_it_a_tokenizer_says_how_many_ids_there_are(stored):
    pytest.importorskip("tokenizers")
    assert find_model_files(str(stored)) == (stored, VOCAB_SIZE, None)
