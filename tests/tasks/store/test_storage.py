"""A prepared folder is complete or absent, and damage to it is noticed."""

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.store.arrays import GrowingArray
from tasks.store.manifest import SPLITS, read_manifest, verify, write_json
from tasks.store.once import prepare_once
from tasks.store.rows import open_split
from tasks.store.write import Chunk, Contents, Split

LENGTHS = np.array([2, 3, 1])


class Interruption(Exception):
    pass


def part(number: int, *, calls: list[int], fail_at: int | None = None):
    calls.append(number)
    yield Chunk(np.full(6, number, np.uint8), LENGTHS, np.array([0, 1, 1]))
    if number == fail_at:
        raise Interruption
    yield Chunk(np.full(6, number + 100, np.uint8), LENGTHS, np.array([0, 1, 1]))


def prepare(
    root: Path,
    *,
    calls: list[int],
    fail_at: int | None = None,
    num_bytes: int = 0,
    num_bytes_found: int = 0,
) -> Path:
    """Three parts for training, of six rows each, and one for each other split."""

    def contents() -> Contents:
        parts = [partial(part, i, calls=calls, fail_at=fail_at) for i in range(5)]
        return Contents(
            [
                Split("train", 18, parts[:3]),
                Split("validation", 6, parts[3:4]),
                Split("test", 6, parts[4:]),
            ],
            vocabulary=["<pad>", "x"],
            num_bytes=num_bytes_found,
        )

    return prepare_once(
        root,
        variant="test",
        parameters={"seed": 3},
        contents=contents,
        num_classes=2,
        paired=False,
        num_bytes=num_bytes,
    )


def read(folder: Path, split: str) -> list[np.ndarray]:
    return [np.load(folder / f"{split}.{name}.npy") for name in ("ids", "offsets", "labels")]


def test_what_was_written_is_read(tmp_path):
    folder = prepare(tmp_path, calls=[])
    ids, offsets, labels = read(folder, "train")
    np.testing.assert_array_equal(ids, np.repeat([0, 100, 1, 101, 2, 102], 6))
    np.testing.assert_array_equal(offsets, np.cumsum([0, *np.tile(LENGTHS, 6)]))
    np.testing.assert_array_equal(labels, np.tile([0, 1, 1], 6))
    assert read_manifest(folder)["splits"]["train"] | {"sha256": None} == {
        "rows": 18,
        "left_out": 0,
        "tokens": 36,
        "largest_id": 102,
        "lengths": {"min": 1, "5%": 1, "median": 2, "95%": 3, "max": 3},
        "class_counts": [6, 12],
        "sha256": None,
    }


def test_a_second_call_makes_nothing(tmp_path):
    first = prepare(tmp_path, calls=[])
    calls: list[int] = []
    assert prepare(tmp_path, calls=calls) == first
    assert calls == []


@pytest.mark.parametrize("fail_at", range(5))
def test_an_interrupted_call_is_completed_by_the_next(tmp_path, fail_at):
    with pytest.raises(Interruption):
        prepare(tmp_path / "interrupted", calls=[], fail_at=fail_at)
    assert not list((tmp_path / "interrupted").glob("**/manifest.json"))
    calls: list[int] = []
    folder = prepare(tmp_path / "interrupted", calls=calls)
    assert calls == list(range(fail_at, 5))
    whole = prepare(tmp_path / "whole", calls=[])
    assert read_manifest(folder) == read_manifest(whole)


@pytest.mark.parametrize("damaged", ["", '{"train": [2,', "3"])
def test_a_damaged_record_of_progress_has_everything_made_anew(tmp_path, damaged, caplog):
    with pytest.raises(Interruption):
        prepare(tmp_path, calls=[], fail_at=3)
    (progress,) = tmp_path.glob("**/progress.json")
    progress.write_text(damaged)
    calls: list[int] = []
    folder = prepare(tmp_path, calls=calls)
    assert calls == list(range(5)) and "progress.json is damaged" in caplog.text
    whole = prepare(tmp_path / "whole", calls=[])
    assert read_manifest(folder) == read_manifest(whole)


def test_a_killed_call_is_completed_by_the_next(tmp_path):
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_storage
original = test_storage.part
def part(number, **options):
    for chunk in original(number, **options):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk
test_storage.part = part
test_storage.prepare(Path({str(tmp_path)!r}), calls=[])
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    calls: list[int] = []
    folder = prepare(tmp_path, calls=calls)
    assert calls == [2, 3, 4]
    assert read_manifest(folder)["splits"]["train"]["rows"] == 18


def test_a_partial_folder_that_lost_bytes_is_started_again(tmp_path):
    with pytest.raises(Interruption):
        prepare(tmp_path, calls=[], fail_at=1)
    os.truncate(next(tmp_path.glob("*.partial/train.ids.npy")), 130)
    with pytest.raises(DataError, match="shorter than recorded"):
        prepare(tmp_path, calls=[])
    assert read_manifest(prepare(tmp_path, calls=[]))["splits"]["train"]["rows"] == 18


def contents_of(chunk: Chunk, num_rows: int) -> Contents:
    return Contents([Split("train", num_rows, [lambda: [chunk]])])


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        pytest.param(
            contents_of(Chunk(np.zeros(1, np.uint8), np.ones(1, int), np.array([2])), 1),
            r"labels range over 2\.\.2, not 0\.\.1",
            id="label",
        ),
        pytest.param(
            contents_of(Chunk(np.zeros(1, np.uint8), np.ones(1, int), np.array([1])), 2),
            "the train split has 1 rows, not 2",
            id="rows",
        ),
    ],
)
def test_nothing_is_left_of_a_faulty_source(tmp_path, contents, message):
    with pytest.raises(DataError, match=message):
        prepare_once(
            tmp_path,
            variant="test",
            parameters={},
            contents=lambda: contents,
            num_classes=2,
            paired=False,
            num_bytes=0,
        )
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def prepare_labels(root: Path, labels: np.ndarray, num_classes: int) -> Path:
    chunk = Chunk(np.zeros(len(labels), np.uint8), np.ones(len(labels), int), labels)
    splits = [Split(name, len(labels), [lambda: [chunk]]) for name in SPLITS]
    return prepare_once(
        root,
        variant="test",
        parameters={},
        contents=lambda: Contents(splits),
        num_classes=num_classes,
        paired=False,
        num_bytes=0,
    )


@pytest.mark.parametrize("num_classes", [2, 256, 257, 40_000])
def test_labels_are_kept_however_many_classes_there_are(tmp_path, num_classes):
    labels = np.array([0, 1, num_classes - 1])
    folder = prepare_labels(tmp_path, labels, num_classes)
    assert open_split(folder, "test", first_id=1, vocab_size=3).labels.tolist() == labels.tolist()
    assert sum(read_manifest(folder)["splits"]["test"]["class_counts"]) == 3


def test_a_label_of_no_class_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels range over 0\.\.300, not 0\.\.299"):
        prepare_labels(tmp_path, np.array([0, 300]), 300)


def test_a_document_beyond_the_index_is_refused(tmp_path):
    chunk = Chunk(np.zeros(1, np.uint8), np.ones(1, int), np.zeros(1, int), np.array([[0, 2**31]]))
    with pytest.raises(DataError, match="2147483648 is more than int32 can hold"):
        prepare_once(
            tmp_path,
            variant="test",
            parameters={},
            contents=lambda: contents_of(chunk, 1),
            num_classes=1,
            paired=True,
            num_bytes=0,
        )


def test_the_digest_is_that_of_the_data_alone(tmp_path):
    def digest(name: str, labels: list[int]) -> str:
        return read_manifest(prepare_labels(tmp_path / name, np.array(labels), 2))["digest"]

    assert digest("a", [0, 1]) == digest("b", [0, 1]) != digest("c", [1, 0])


def test_a_manifest_without_a_digest_gets_the_one_it_would_have(tmp_path):
    folder = prepare(tmp_path, calls=[])
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    digest = manifest.pop("digest")
    path.write_text(json.dumps(manifest))
    assert read_manifest(folder)["digest"] == digest


def test_too_little_space(tmp_path):
    with pytest.raises(DataError, match=r"needs about 1048576\.0 GiB"):
        prepare(tmp_path, calls=[], num_bytes=2**50)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("known", ["num_bytes", "num_bytes_found"])
def test_finished_parts_outlive_a_want_of_space(tmp_path, known):
    """Whether it is known at once, or when the source has been looked at."""
    with pytest.raises(Interruption):
        prepare(tmp_path, calls=[], fail_at=2)
    with pytest.raises(DataError, match="GiB are free"):
        prepare(tmp_path, calls=[], **{known: 2**50})
    calls: list[int] = []
    prepare(tmp_path, calls=calls)
    assert calls == [2, 3, 4]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"), calls=[])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_changed_byte_is_noticed(prepared, data):
    path = data.draw(st.sampled_from(sorted(prepared.glob("*.npy"))), label="file")
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1), label="position")
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255), label="flipped bits")
    try:
        path.write_bytes(changed)
        with pytest.raises(DataError, match=f"{path.name} is missing or damaged; delete"):
            verify(prepared)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 0}', '{"format": 1, "splits": {}}']
)
def test_a_damaged_manifest_is_noticed(tmp_path, text):
    folder = prepare(tmp_path, calls=[])
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json is missing or damaged"):
        prepare(tmp_path, calls=[])


def test_the_manifest_is_the_last_thing_written(tmp_path):
    seen = []
    chunk = Chunk(np.zeros(2, np.uint8), np.ones(2, int), np.array([0, 1]))

    def look() -> None:
        [partial_folder] = tmp_path.glob("*.partial")
        seen.extend(path.name for path in partial_folder.iterdir())

    folder = prepare_once(
        tmp_path,
        variant="test",
        parameters={},
        contents=lambda: Contents([Split(s, 2, [lambda: [chunk]]) for s in SPLITS], confirm=look),
        num_classes=2,
        paired=False,
        num_bytes=0,
    )
    arrays = {path.name for path in folder.glob("*.npy")}
    assert set(seen) == arrays | {"progress.json"} and len(arrays) == 12
    assert {path.name for path in folder.iterdir()} == arrays | {"manifest.json"}


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path, monkeypatch
):
    path = tmp_path / "known.json"
    write_json(path, {"old": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "no space")))
        with pytest.raises(OSError, match="no space"):
            write_json(path, {"new": 2})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert [file.name for file in tmp_path.iterdir()] == ["known.json"]
    assert json.loads(path.read_text()) == {"old": 1}


def test_a_vocabulary_that_is_too_small_is_refused(prepared):
    with pytest.raises(DataError, match=r"task\.vocab_size is 103; .* need 104"):
        open_split(prepared, "train", first_id=1, vocab_size=103)
    assert len(open_split(prepared, "train", first_id=1, vocab_size=104)) == 18


@pytest.mark.parametrize("shape", [(), (2,)], ids=["numbers", "pairs"])
def test_an_array_grows_and_goes_on(tmp_path, shape):
    path = tmp_path / "array.npy"
    items = np.arange(7 * 2).reshape(7, 2) if shape else np.arange(7)
    with GrowingArray(path, dtype=items.dtype, shape=shape, num_items=0) as array:
        array.append(items[:3])
        array.flush()
        array.append(items[:2])
    with GrowingArray(path, dtype=items.dtype, shape=shape, num_items=3) as array:
        array.append(items[3:])
        array.flush()
    np.testing.assert_array_equal(np.load(path), items)
