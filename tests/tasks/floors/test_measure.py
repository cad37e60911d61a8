"""Floors are measured once, beside data that are whole without them."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tasks.floors import Floor, add_floors
from tasks.store.manifest import read_manifest
from tasks.store.once import prepare_once
from tasks.store.rows import open_split
from tasks.store.write import Chunk, Contents, Split

ROWS = {"train": 300, "validation": 4, "test": 120}


def prepare(data_dir: Path, *, rows=ROWS) -> Path:
    def chunk(num_rows: int):
        labels = np.arange(num_rows) % 4 // 3
        yield Chunk(labels.astype(np.uint8), np.ones(num_rows, int), labels)

    return prepare_once(
        data_dir / "ones",
        variant="test",
        parameters={},
        contents=lambda: Contents([Split(s, n, [partial(chunk, n)]) for s, n in rows.items()]),
        num_classes=2,
        paired=False,
        num_bytes=0,
    )


def always(label: int, *, calls: list | None = None):
    def predict(train, test):
        if calls is not None:
            calls.append((len(train.labels), len(test.labels)))
        return np.full(len(test.labels), label)

    return predict


def test_a_floor_is_the_accuracy_on_the_test_split(tmp_path):
    calls = []
    floors = {
        "zero": Floor("always 0", always(0, calls=calls), 200),
        "one": Floor("1", always(1), 90),
    }
    folder = add_floors(prepare(tmp_path), floors)
    found = read_manifest(folder)["floors"]
    assert found["zero"] == {
        "accuracy": 0.75,
        "recipe": "always 0",
        "num_train_rows": 200,
        "num_test_rows": 120,
    }
    assert found["one"]["num_test_rows"] == 90
    assert calls == [(200, 120)]


def test_floors_are_measured_once_and_again_by_another_recipe(tmp_path):
    calls = []
    folder = prepare(tmp_path)
    digest = read_manifest(folder)["digest"]
    for recipe in ("always 0", "always 0", "always 0, again"):
        add_floors(folder, {"zero": Floor(recipe, always(0, calls=calls), 200)})
    assert len(calls) == 2
    assert read_manifest(folder)["floors"]["zero"]["recipe"] == "always 0, again"
    assert read_manifest(folder)["digest"] == digest
    assert prepare(tmp_path) == folder


@pytest.mark.parametrize("error", [ValueError("no such column"), MemoryError(), ImportError("x")])
def test_a_floor_that_fails_leaves_data_and_other_floors(tmp_path, caplog, error):
    def fail(train, test):
        raise error

    folder = prepare(tmp_path)
    add_floors(folder, {"bad": Floor("fails", fail, 9), "zero": Floor("0", always(0), 200)})
    assert list(read_manifest(folder)["floors"]) == ["zero"]
    assert "the floor bad was not measured" in caplog.text
    assert len(open_split(folder, "test", first_id=1, vocab_size=3)) == ROWS["test"]


def test_a_floor_that_fails_is_tried_once_by_each_recipe(tmp_path):
    calls = []

    def fail(train, test):
        calls.append("bad")
        raise ValueError("no such column")

    folder = prepare(tmp_path)
    digest = read_manifest(folder)["digest"]
    for recipe in ("fails", "fails", "fails, again", "fails, again"):
        add_floors(folder, {"bad": Floor(recipe, fail, 9), "zero": Floor("0", always(0), 200)})
    assert len(calls) == 2
    manifest = read_manifest(folder)
    assert list(manifest["floors"]) == ["zero"] and manifest["digest"] == digest
    assert manifest["unmeasured"] == {"bad": {"recipe": "fails, again", "reason": "no such column"}}
    add_floors(folder, {"bad": Floor("mended", always(1), 200)})
    manifest = read_manifest(folder)
    assert list(manifest["floors"]) == ["bad"] and manifest["unmeasured"] == {}


@pytest.mark.parametrize("want", [MemoryError, ImportError, OSError])
def test_a_floor_that_failed_for_want_of_the_machine_is_tried_again(tmp_path, want):
    def fail(train, test):
        raise want

    folder = prepare(tmp_path)
    add_floors(folder, {"0": Floor("always 0", fail, 200)})
    add_floors(folder, {"0": Floor("always 0", always(0), 200)})
    assert list(read_manifest(folder)["floors"]) == ["0"]


def test_an_interruption_leaves_whole_data_and_the_next_call_measures(tmp_path):
    def interrupt(train, test):
        raise KeyboardInterrupt

    folder = prepare(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        add_floors(folder, {"zero": Floor("0", interrupt, 200)})
    assert "floors" not in read_manifest(folder)
    add_floors(folder, {"zero": Floor("0", always(0), 200)})
    assert read_manifest(folder)["floors"]["zero"]["accuracy"] == 0.75


def test_too_few_rows_say_nothing(tmp_path):
    calls = []
    folder = prepare(tmp_path, rows=ROWS | {"test": 99})
    add_floors(folder, {"zero": Floor("0", always(0, calls=calls), 200)})
    assert not calls and "floors" not in read_manifest(folder)


def test_a_floor_of_few_training_rows_is_as_certain_as_another(tmp_path):
    folder = prepare(tmp_path, rows=ROWS | {"train": 9})
    add_floors(folder, {"zero": Floor("0", always(0), 200)})
    assert read_manifest(folder)["floors"]["zero"]["num_train_rows"] == 9


def test_a_run_knows_the_floors_of_its_data(tmp_path, plain_data_module):
    data = plain_data_module(
        prepare=lambda data_dir: add_floors(
            prepare(data_dir), {"zero": Floor("always 0", always(0), 200)}
        ),
        load=partial(open_split, first_id=1, vocab_size=3),
        data_dir=tmp_path,
        batch_size=2,
        max_seq_len=1,
        padded_len=1,
    )
    assert data.floors["zero"]["accuracy"] == 0.75
    manifest = json.loads(next(tmp_path.glob("ones/*/manifest.json")).read_text())
    assert data.digest == manifest["digest"]
