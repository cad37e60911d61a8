"""IMDb from small copies of its sources."""

from functools import partial

import datasets
import numpy as np
import pytest
import torch

from tasks import text
from tasks.errors import DataError
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import SPLITS, read_manifest

OPTIONS = {
    "source": "local",
    "hub_name": "stanfordnlp/imdb",
    "source_rows": {"train": 20, "test": 6},
    "tokens": "bytes",
    "min_frequency": 5,
    "validation": "holdout",
    "validation_fraction": 0.2,
    "seed": 0,
}


@pytest.fixture
def prepare(tmp_path, aclimdb):
    return partial(text.prepare, tmp_path / "data", **OPTIONS | {"source_dir": str(aclimdb)})


def reviews_of(folder, split: str) -> list[tuple[str, int]]:
    rows = text.load(folder, split, vocab_size=257, append_eos=False)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=10_000, padded_len=None)
    texts = [bytes((ids[ids > 0] - 1).tolist()).decode() for ids in batch["inputs"]]
    return list(zip(texts, batch["labels"].tolist(), strict=True))


def test_reviews_are_kept_byte_by_byte(prepare, aclimdb):
    folder = prepare()
    expected = {
        ((aclimdb / split / name / f"{i}_7.txt").read_text(encoding="utf-8"), label)
        for split in ("train", "test")
        for label, name in enumerate(("neg", "pos"))
        for i in range(10 if split == "train" else 3)
    }
    reviews = [review for split in SPLITS for review in reviews_of(folder, split)]
    assert len(reviews) == 26
    assert set(reviews) == expected


def test_validation_is_a_stratified_part_of_training(prepare):
    splits = read_manifest(prepare())["splits"]
    assert splits["train"]["class_counts"] == [8, 8]
    assert splits["validation"]["class_counts"] == [2, 2]
    assert splits["test"]["class_counts"] == [3, 3]


def test_another_seed_holds_others_out(prepare):
    first, second = (set(reviews_of(prepare(seed=seed), "validation")) for seed in (0, 1))
    assert first != second


def test_validation_can_be_the_test_split(prepare):
    folder = prepare(validation="test")
    assert reviews_of(folder, "validation") == reviews_of(folder, "test")
    assert len(reviews_of(folder, "train")) == 20


def hub_copy(aclimdb):
    def load_dataset(name: str):
        assert name == "stanfordnlp/imdb"
        splits = {}
        for split in ("train", "test"):
            rows = [
                {"text": path.read_text(encoding="utf-8"), "label": label}
                for label, name in enumerate(("neg", "pos"))
                # Another order than that of the folder.
                for path in sorted((aclimdb / split / name).iterdir(), reverse=True)
            ]
            splits[split] = datasets.Dataset.from_list(rows)
        return datasets.DatasetDict(splits)

    return load_dataset


def test_the_hub_gives_the_same_bytes_as_the_folder(prepare, tmp_path, aclimdb, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", hub_copy(aclimdb))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    from_hub = text.prepare(tmp_path / "other", **OPTIONS | {"source": "hub", "source_dir": None})
    assert read_manifest(from_hub) == read_manifest(prepare())


def test_offline_with_an_empty_cache_says_what_would_help(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"task\.source=local task\.source_dir=") as caught:
        text.prepare(tmp_path, **OPTIONS | {"source": "hub", "source_dir": None})
    assert "\n" not in str(caught.value)
    # The second request must not wait for the network that the first one missed.
    assert datasets.config.HF_HUB_OFFLINE


def test_characters_are_numbered_by_frequency(prepare):
    folder = prepare(tokens="characters", min_frequency=5)
    manifest = read_manifest(folder)
    vocabulary = manifest["vocabulary"]
    training = "".join(review for review, _ in reviews_of(prepare(), "train"))
    counts = [training.count(character) for character in vocabulary[1:]]
    assert vocabulary[0] == "<unk>"
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 5
    assert all(training.count(c) < 5 for c in set(training) - set(vocabulary))

    rows = text.load(folder, "train", vocab_size=len(vocabulary) + 1, append_eos=False)
    batch = gather_batch(rows, torch.tensor([0]), max_len=10_000, padded_len=None)
    expected = reviews_of(prepare(), "train")[0][0]
    decoded = [vocabulary[i - 1] for i in batch["inputs"][0].tolist()]
    assert decoded == [c if c in vocabulary else "<unk>" for c in expected]
    # ï is one character of two bytes.
    assert np.diff(np.load(folder / "train.offsets.npy"))[0] == len(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"caf\xe9", "is not UTF-8 at byte 3", id="latin-1"),
    ],
)
def test_a_file_that_is_no_review_is_named(prepare, aclimdb, tmp_path, content, message):
    (aclimdb / "test" / "pos" / "2_7.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"2_7.txt {message}"):
        prepare()
    assert not list((tmp_path / "data").glob("**/manifest.json"))


def test_an_incomplete_folder_is_noticed(prepare, aclimdb):
    (aclimdb / "train" / "neg" / "3_7.txt").unlink()
    with pytest.raises(
        DataError, match=r"19 train reviews found, task\.source_rows\.train says 20"
    ):
        prepare()


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("source", "lra_release", "hub, local"),
        ("tokens", "words", "bytes, characters"),
        ("validation", "none", "holdout, test"),
    ],
)
def test_an_unknown_option_is_refused(prepare, option, value, allowed):
    with pytest.raises(DataError, match=f"task.{option} is '{value}'; .* one of {allowed}"):
        prepare(**{option: value})


def test_pickles_of_skyformer_are_refused(prepare):
    with pytest.raises(DataError, match="refused because loading a pickle runs the code in it"):
        prepare(source="skyformer_pickle")
