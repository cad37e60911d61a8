"""Recall tasks in the store and in batches."""

from functools import partial

import numpy as np
import pytest
import torch

from tasks import TaskDataModule
from tasks.errors import DataError
from tasks.recall import load, prepare_mqar, prepare_selective_copy
from tasks.recall.mqar import Mqar
from tasks.recall.task import generate
from tasks.store.manifest import read_manifest

LAW = {
    "max_len": 40,
    "num_pairs": 5,
    "num_keys": 50,
    "num_values": 60,
    "distance_power": 0.01,
    "random_filler": True,
}
OPTIONS = {
    "num_examples": {"train": 300, "validation": 7, "test": 5},
    "seed": 0,
    "generator_version": 1,
    **LAW,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepare_mqar(tmp_path_factory.mktemp("data"), **OPTIONS)


def test_a_stream_is_the_beginning_of_a_longer_one():
    short, long = (
        np.concatenate([chunk.ids for chunk in generate(Mqar(**LAW), n, seed=0, split=0)])
        for n in (290, 600)
    )
    assert (short == long[: 290 * 40]).all()


@pytest.mark.parametrize(
    ("change", "digest_changes"), [({}, False), ({"seed": 1}, True), ({"num_pairs": 4}, True)]
)
def test_seed_and_difficulty_decide_the_data(folder, tmp_path, change, digest_changes):
    other = read_manifest(prepare_mqar(tmp_path, **{**OPTIONS, **change}))
    assert (other["digest"] != read_manifest(folder)["digest"]) == digest_changes


def test_floors_are_stated_whatever_the_number_of_rows(folder, tmp_path):
    floors = read_manifest(folder)["floors"]
    assert {name: floor["accuracy"] for name, floor in floors.items()} == {
        "chance": 1 / 60,
        "values": 1 / 5,
    }
    options = OPTIONS | {"num_marked": 8}
    for name in ("num_pairs", "num_keys", "distance_power", "random_filler"):
        del options[name]
    floors = read_manifest(prepare_selective_copy(tmp_path, **options))["floors"]
    assert set(floors) == {"chance", "most_frequent"}


def test_a_choice_too_small_for_disjoint_splits_is_refused(tmp_path):
    few = {"num_pairs": 1, "num_keys": 50, "num_values": 60, "max_len": 12}
    with pytest.raises(DataError, match=r"there are 30,000 examples to draw 312 from"):
        prepare_mqar(tmp_path, **{**OPTIONS, **few})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def data_module(folder, plain_data_module):
    """Return the function from a length to the data as a run of that length has them."""

    def make(*, max_seq_len: int) -> TaskDataModule:
        data = plain_data_module(
            prepare=lambda _: folder,
            load=partial(load, vocab_size=112, append_eos=True),
            data_dir=folder,
            batch_size=4,
            max_seq_len=max_seq_len,
            padded_len=max_seq_len,
        )
        data.prepare_data()
        data.setup()
        return data

    return make


def test_a_batch_says_where_it_is_asked(data_module):
    batch = next(iter(data_module(max_seq_len=43).train_dataloader()))
    assert batch["places"].shape == batch["labels"].shape == (4, 5)
    asked = batch["inputs"].gather(1, batch["places"])
    keys, values = batch["inputs"][:, 0:10:2], batch["inputs"][:, 1:10:2]
    answers = values.gather(1, (asked[:, :, None] == keys[:, None, :]).int().argmax(2))
    assert torch.equal(answers - 51, batch["labels"])


def test_a_length_that_cuts_questions_off_is_refused(data_module):
    with pytest.raises(DataError, match="max_seq_len is 20, but rows of the train split are asked"):
        data_module(max_seq_len=20)
