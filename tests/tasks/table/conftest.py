"""A table of three classes, from six machines, and what it becomes."""

import csv
from functools import partial

import pytest
import torch

from tasks import table
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import SPLITS, read_manifest

LABELS = ["ERROR", "INFO", "NA"]
OPTIONS = {
    "name": "logs",
    "text": ["message"],
    "label": "severity",
    "classes": LABELS,
    "num_classes": 3,
    "min_frequency": 1,
    "max_len": 100,
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
}


def records(number: int = 60) -> list[dict[str, str]]:
    """Rows of three classes, a third each, from six machines."""
    return [
        {
            "time": f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00",
            "host": f"node{i % 6}",
            "message": f"naïve message no. {i}",
            "severity": LABELS[i % 3],
        }
        for i in range(number)
    ]


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def rows_of(folder, split: str) -> list[tuple]:
    rows = table.load(folder, split, vocab_size=257, append_eos=False)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=10_000, padded_len=None)
    inputs = batch["inputs"].reshape(len(rows), -1, batch["inputs"].shape[-1])
    texts = [tuple(bytes((ids[ids > 0] - 1).tolist()).decode() for ids in row) for row in inputs]
    names = read_manifest(folder)["classes"]
    return [(*text, names[i]) for text, i in zip(texts, batch["labels"].tolist(), strict=True)]


@pytest.fixture(name="records")
def _records():
    return records


@pytest.fixture(name="write_csv")
def _write_csv():
    return write_csv


@pytest.fixture(name="rows_of")
def _rows_of():
    return rows_of


@pytest.fixture
def all_rows():
    return lambda folder: [row for split in SPLITS for row in rows_of(folder, split)]


@pytest.fixture
def prepare(tmp_path, prepare_own):
    path = write_csv(tmp_path / "logs.csv", records())
    return partial(prepare_own, "_table", tmp_path / "data", **OPTIONS | {"path": path})
