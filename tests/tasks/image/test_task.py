"""CIFAR-10 from small copies of its sources; no pickle is executed."""

import os
import pickle
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.image import task as image
from tasks.image.cifar import read_cifar_batch
from tasks.store.manifest import read_manifest

OPTIONS = {
    "source": "local",
    "hub_name": "uoft-cs/cifar10",
    "source_rows": {"train": 30, "test": 7},
    "validation_fraction": 0.1,
}


@pytest.fixture
def prepare(tmp_path, cifar):
    return partial(image.prepare, tmp_path / "data", **OPTIONS | {"source_dir": str(cifar.parent)})


def pictures_of(cifar, name: str) -> tuple[np.ndarray, list[int]]:
    content = pickle.loads((cifar / name).read_bytes(), encoding="bytes")
    return content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), content[b"labels"]


def test_grey_is_that_of_pillow():
    rgb = np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in rgb])
    np.testing.assert_array_equal(image.to_grey(rgb), expected)


def test_a_pixel_is_its_grey_value_plus_one(prepare, cifar):
    rows = image.load(prepare(), "test", vocab_size=257, append_eos=False, zero_is_padding=False)
    batch = gather_batch(rows, torch.arange(7), max_len=1024, padded_len=1024)
    pictures, labels = pictures_of(cifar, "test_batch")
    grey = np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in pictures])
    np.testing.assert_array_equal(batch["inputs"].numpy(), grey.reshape(7, 1024) + 1)
    assert batch["labels"].tolist() == labels
    assert not batch["key_padding_mask"].any()


def test_validation_is_drawn_from_training_by_content(prepare, cifar):
    """The labels of all are kept, and which are held out has nothing to do with their places."""
    splits = read_manifest(prepare())["splits"]
    assert [splits[name]["rows"] for name in ("train", "validation", "test")] == [27, 3, 7]
    rows = image.load(
        prepare(), "validation", vocab_size=257, append_eos=False, zero_is_padding=False
    )
    every = [pictures_of(cifar, f"data_batch_{i}") for i in range(1, 6)]
    pictures, labels = (np.concatenate(part) for part in zip(*every, strict=True))
    expected = image.by_content(pictures, labels)[1].tolist()
    assert rows.labels.tolist() == expected[-3:]
    assert sorted(expected) == sorted(labels.tolist()) and expected != labels.tolist()
    mixed = np.random.default_rng(0).permutation(len(labels))
    assert image.by_content(pictures[mixed], labels[mixed])[1].tolist() == expected


def test_black_pixels_can_be_padding(prepare):
    folder = prepare()
    plain = image.load(folder, "train", vocab_size=257, append_eos=False, zero_is_padding=False)
    legacy = image.load(folder, "train", vocab_size=256, append_eos=False, zero_is_padding=True)
    plain, legacy = (
        gather_batch(rows, torch.arange(27), max_len=1024, padded_len=1024)
        for rows in (plain, legacy)
    )
    assert torch.equal(legacy["inputs"], plain["inputs"] - 1)
    assert torch.equal(legacy["key_padding_mask"], plain["inputs"] == 1)
    assert legacy["key_padding_mask"].any()


def test_the_hub_gives_the_same_bytes_as_the_folder_in_whatever_order(
    prepare, tmp_path, cifar, monkeypatch
):
    def load_dataset(name: str):
        assert name == "uoft-cs/cifar10"
        splits = {}
        for split, names in (
            ("train", [f"data_batch_{i}" for i in (4, 3, 2, 5, 1)]),  # as an archive may list them
            ("test", ["test_batch"]),
        ):
            rows = [
                {"img": Image.fromarray(picture), "label": label}
                for name in names
                for picture, label in zip(*pictures_of(cifar, name), strict=True)
            ]
            features = datasets.Features(
                {"img": datasets.Image(), "label": datasets.Value("int64")}
            )
            splits[split] = datasets.Dataset.from_list(rows, features=features)
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    from_hub = image.prepare(tmp_path / "other", **OPTIONS | {"source": "hub", "source_dir": None})
    assert read_manifest(from_hub)["digest"] == read_manifest(prepare())["digest"]


@pytest.mark.parametrize(
    ("mode", "size", "label", "message"),
    [
        (
            "RGB",
            28,
            3,
            r"row 0 of train is of shape \(28, 28, 3\) and type uint8; it must be a pict",
        ),
        ("L", 32, 3, r"row 0 of train is of shape \(32, 32\) and type uint8; it must be a picture"),
        ("RGB", 32, "cat", "has labels as .*'cat'.* in train; they must be whole numbers"),
        ("RGB", 32, -1, r"labels range over -1\.\.-1, not 0\.\.9"),
    ],
)
def test_a_set_of_the_hub_that_is_of_another_kind_is_named(
    tmp_path, monkeypatch, mode, size, label, message
):
    kinds = {
        "img": datasets.Image(),
        "label": datasets.Value("string" if label == "cat" else "int8"),
    }
    rows = [{"img": Image.new(mode, (size, size)), "label": label}]
    made = {"train": datasets.Dataset.from_list(rows, features=datasets.Features(kinds))}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(made))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    with pytest.raises(DataError, match=message):
        hub = {"source": "hub", "source_dir": None, "source_rows": {"train": 1, "test": 1}}
        image.prepare(tmp_path, **OPTIONS | hub)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path, cifar, dump_as_python2):
    trap = tmp_path / "sprung"
    content = {b"data": Trap(str(trap)), b"labels": []}
    dump_as_python2(cifar / "test_batch", content)
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.mkdir, which CIFAR-10 has no use"):
        read_cifar_batch(cifar / "test_batch")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({}, "is not a batch of CIFAR-10", id="no keys"),
        pytest.param(
            {b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]},
            "an array of 'f4', not of bytes",
            id="dtype",
        ),
        pytest.param(
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
            r"pixels of shape \(2, 3072\) and 1 labels",
            id="rows",
        ),
        pytest.param(
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]},
            r"labels outside 0\.\.9",
            id="label",
        ),
    ],
)
def test_a_file_that_is_no_batch_is_named(tmp_path, dump_as_python2, content, message):
    path = tmp_path / "data_batch_1"
    dump_as_python2(path, content)
    with pytest.raises(DataError, match=message):
        read_cifar_batch(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_corrupted_batch_is_read_or_refused(cifar, data):
    original = (cifar / "test_batch").read_bytes()
    if data.draw(st.booleans(), label="truncate"):
        corrupted = original[: data.draw(st.integers(0, len(original) - 1), label="length")]
    else:
        # The structure of a pickle is at its ends; pixels lie between.
        place = st.integers(0, 250) | st.integers(len(original) - 250, len(original) - 1)
        corrupted = bytearray(original)
        for _ in range(data.draw(st.integers(1, 3), label="flips")):
            corrupted[data.draw(place)] = data.draw(st.integers(0, 255))
    path = cifar / "corrupted"
    path.write_bytes(corrupted)
    try:
        pixels, labels = read_cifar_batch(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.shape == (len(labels), 3072)
        assert set(labels.tolist()) <= set(range(10))


def test_a_missing_file_is_named(prepare, cifar):
    (cifar / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4"):
        prepare()


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, 1.5])
def test_a_share_that_leaves_a_split_without_rows_is_refused(prepare, share):
    with pytest.raises(DataError, match=f"task.validation_fraction is {share}; .* above 0"):
        prepare(validation_fraction=share)
