"""IMDb from small copies of its sources."""

from functools import partial
from unittest.mock import Mock

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError

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
    local = read_manifest(prepare())
    assert read_manifest(from_hub)["splits"] == local["splits"]
    assert read_manifest(from_hub)["digest"] == local["digest"]


GOOD = {"text": "good", "label": 1}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [GOOD]}, "has no split 'test'; it has 'train'"),
        (
            {"train": [{"review": "a", "label": 0}]},
            "has no column 'text' in train; it has 'review'",
        ),
        (
            {"train": [GOOD, GOOD | {"text": None}]},
            "row 1 of train is None, labelled 1; it must be",
        ),
        ({"train": [GOOD | {"text": ""}]}, "row 0 of train is '', labelled 1; it must be a text"),
        ({"train": [GOOD | {"label": "pos"}]}, "row 0 of train is 'good', labelled 'pos'; it must"),
        (
            {"train": [GOOD | {"label": 4}]},
            "row 0 of train is 'good', labelled 4; it must be a text with a label from 0",
        ),
    ],
)
def test_a_set_of_the_hub_that_is_of_another_kind_is_named(tmp_path, monkeypatch, splits, message):
    made = {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(made))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    options = {"source": "hub", "source_dir": None, "source_rows": {"train": 1, "test": 1}}
    with pytest.raises(DataError, match=rf"stanfordnlp/imdb(,|) {message}"):
        text.prepare(tmp_path, **OPTIONS | options)
    assert not list(tmp_path.glob("text/*[!k]"))


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


class HttpError(Exception):
    """Of no class that Python has, as the HTTP clients have them."""


@pytest.mark.parametrize("error", [datasets.exceptions.DatasetGenerationError, HttpError])
def test_whatever_keeps_the_hub_from_loading_is_one_line(tmp_path, monkeypatch, error):
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=error("cut\noff")))
    with pytest.raises(DataError, match=r"cannot be loaded from .* \(cut off\); put the folder"):
        text.prepare(tmp_path, **OPTIONS | {"source": "hub", "source_dir": None})


def test_the_second_request_does_not_wait_for_the_network_and_later_ones_may(tmp_path, monkeypatch):
    seen = []

    def refuse(*args, **kwargs):
        seen.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for _ in range(2):
        with pytest.raises(DataError, match="out of reach"):
            text.prepare(tmp_path, **OPTIONS | {"source": "hub", "source_dir": None})
    assert seen == [(False, False), (True, True)] * 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("stanfordnlp/imbd", RepositoryNotFoundError("404 Client Error", response=Mock())),
        ("stanfordnlp imdb", None),
    ],
)
def test_a_mistyped_hub_name_is_called_that(tmp_path, monkeypatch, name, error):
    if error:
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", Mock(side_effect=error))
    with pytest.raises(DataError, match=f"task.hub_name is '{name}'.* no data set of that name"):
        text.prepare(tmp_path, **OPTIONS | {"source": "hub", "source_dir": None, "hub_name": name})


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


def test_leftovers_of_tools_are_no_reviews(prepare, aclimdb):
    digest = read_manifest(prepare())["digest"]
    for name in ("._0_7.txt", ".0_7.txt", "~$0_7.txt", "#0_7.txt", "0_7.txt~", "Thumbs.db"):
        (aclimdb / "train" / "pos" / name).write_bytes(b"\x00\xff")
    assert read_manifest(prepare())["digest"] == digest


def test_other_reviews_of_the_same_names_and_sizes_are_other_data(prepare, aclimdb):
    first = prepare()
    path = aclimdb / "train" / "pos" / "3_7.txt"
    original = path.read_bytes()
    path.write_bytes(original.replace(b"train", b"TRAIN"))
    second = prepare()
    assert read_manifest(first)["digest"] != read_manifest(second)["digest"]
    path.write_bytes(original)
    assert prepare() == first


def test_reviews_that_are_gone_have_the_content_they_had(prepare, aclimdb, tmp_path):
    folder = prepare()
    aclimdb.rename(tmp_path / "elsewhere")
    assert prepare() == folder
    # Without a word on where they are, what was prepared from them is taken...
    assert prepare(source_dir=None) == folder
    # ... unless there are two.
    (tmp_path / "elsewhere" / "train" / "pos" / "3_7.txt").write_text("quite another review")
    prepare(source_dir=str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"were prepared from different files; say which"):
        prepare(source_dir=None)
    with pytest.raises(DataError, match=r"no train/pos in .*nowhere; give the folder"):
        prepare(source_dir=str(tmp_path / "nowhere"))


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


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, 1.5])
def test_a_share_that_leaves_a_split_without_rows_is_refused(prepare, share):
    with pytest.raises(DataError, match=f"task.validation_fraction is {share}; .* above 0"):
        prepare(validation_fraction=share)


def test_a_share_of_less_than_a_row_is_refused(prepare):
    with pytest.raises(
        DataError, match="the validation split has no rows; its share of them is too"
    ):
        prepare(validation_fraction=0.01)


def test_pickles_of_skyformer_are_refused(prepare):
    with pytest.raises(DataError, match="refused because loading a pickle runs the code in it"):
        prepare(source="skyformer_pickle")
