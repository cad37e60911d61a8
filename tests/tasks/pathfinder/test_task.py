"""Pathfinder from its generator, part by part, and from the released form."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.pathfinder import task as pathfinder
from tasks.pathfinder.task import _generated_splits
from tasks.store.manifest import SPLITS, read_manifest

pytestmark = pytest.mark.usefixtures("few_images_per_chunk")

RELEASED = {"train": 8, "validation": 3, "test": 2}
OPTIONS = {
    "source": "generate",
    "source_dir": None,
    "size": 32,
    "num_examples": {"train": 10, "validation": 4, "test": 2},
    "seed": 0,
    "generator_version": 2,
    "num_workers": 1,
}


def images_of(folder, split: str) -> tuple[np.ndarray, list[int]]:
    rows = pathfinder.load(folder, split, vocab_size=257, append_eos=False, zero_is_padding=False)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=1024, padded_len=1024)
    assert not batch["key_padding_mask"].any()
    return batch["inputs"].numpy().reshape(-1, 32, 32) - 1, batch["labels"].tolist()


@pytest.fixture
def prepare(tmp_path):
    return partial(pathfinder.prepare, tmp_path / "data", **OPTIONS)


@pytest.fixture
def prepare_release(prepare, pathfinder_release):
    return partial(
        prepare,
        source="lra_release",
        source_dir=str(pathfinder_release),
        num_examples=RELEASED,
    )


def test_generated_splits_are_balanced_and_disjoint(prepare, monkeypatch):
    monkeypatch.setattr(pathfinder, "_ROWS_PER_PART", 4)
    folder = prepare()
    images = {image.tobytes() for split in SPLITS for image in images_of(folder, split)[0]}
    assert len(images) == 16
    assert [images_of(folder, split)[1].count(1) for split in SPLITS] == [5, 2, 1]


def test_the_seed_decides_the_bytes(prepare, tmp_path):
    again = pathfinder.prepare(tmp_path / "again", **OPTIONS)
    assert read_manifest(again) == read_manifest(prepare())
    assert read_manifest(prepare(seed=1))["splits"] != read_manifest(again)["splits"]


def test_in_what_order_the_splits_are_named_changes_nothing(prepare_release, tmp_path):
    """Neither which pictures are drawn for each, nor which released ones it has."""
    drawn, digests = [], []
    for place, order in enumerate((list, reversed)):
        named = dict(order(RELEASED.items()))
        splits = _generated_splits(num_examples=named, size=32, seed=0, num_workers=1)
        drawn.append({s.name: [(p.args, p.keywords) for p in s.parts] for s in splits})
        options = prepare_release.keywords | {"num_examples": named}
        folder = pathfinder.prepare(tmp_path / str(place), **options)
        digests.append(read_manifest(folder)["digest"])
    assert drawn[0] == drawn[1] and digests[0] == digests[1]


def test_released_images_are_all_read(prepare_release, pathfinder_release):
    folder = pathfinder_release / "pathfinder32" / "curv_contour_length_14"
    expected = {
        np.asarray(Image.open(folder / f"imgs/{i % 2}/sample_{i}.png")).tobytes(): i % 2
        for i in range(13)
    }
    prepared = prepare_release()
    found = {}
    for split, num_rows in RELEASED.items():
        images, labels = images_of(prepared, split)
        assert len(labels) == num_rows
        found |= zip([i.astype(np.uint8).tobytes() for i in images], labels, strict=True)
    assert found == expected


def test_an_empty_image_is_counted_and_left_out(prepare_release, pathfinder_release, caplog):
    folder = pathfinder_release / "pathfinder32" / "curv_contour_length_14"
    (folder / "imgs/0/sample_4.png").write_bytes(b"")
    splits = read_manifest(prepare_release())["splits"]
    assert sum(split["rows"] for split in splits.values()) == 12
    assert sum(split["left_out"] for split in splits.values()) == 1
    assert "1 empty pictures are left out" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"imgs/0 sample_0.png 0", "line 2 is not a folder, a file", id="columns"),
        pytest.param(b"imgs/0 sample_0.png 0 2 0", "line 2 is not a folder, a file", id="label"),
        pytest.param(b"imgs/9 sample_0.png 0 1", r"sample_0\.png, listed in 1\.npy, is", id="file"),
        pytest.param(b"../../x sample_0.png 0 1", "line 2 leads out of", id="parent"),
        pytest.param(b"imgs /etc/passwd 0 1", "line 2 leads out of", id="absolute"),
        pytest.param(b"\x93NUMPY\xff", r"1\.npy is not text", id="binary"),
    ],
)
def test_metadata_that_are_none_are_named(prepare_release, pathfinder_release, line, message):
    path = pathfinder_release / "pathfinder32/curv_contour_length_14/metadata/1.npy"
    path.write_bytes(b"imgs/1 sample_1.png 1 1\n" + line + b"\n")
    with pytest.raises(DataError, match=message):
        prepare_release()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\x89PNG\r\n", "is not a picture", id="truncated"),
        pytest.param(None, "is 31 x 32, not 32 x 32", id="size"),
    ],
)
def test_an_image_that_is_none_is_named(prepare_release, pathfinder_release, content, message):
    path = pathfinder_release / "pathfinder32/curv_contour_length_14/imgs/1/sample_3.png"
    if content is None:
        Image.new("L", (31, 32)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"sample_3.png {message}"):
        prepare_release()


def test_an_incomplete_release_is_noticed(prepare_release):
    with pytest.raises(DataError, match=r"lists 13 pictures, task\.num_examples says 14"):
        prepare_release(num_examples=RELEASED | {"train": 9})
