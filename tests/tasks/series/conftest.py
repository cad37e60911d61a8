"""Machines that tell of themselves at each step, and what their series become."""

from functools import partial

import pandas as pd
import pytest
import torch

from tasks import series
from tasks.feeding.collate import gather_batch
from tasks.store.manifest import read_manifest

NUM_SERIES, NUM_STEPS = 30, 12
CLASSES = ["bad", "good"]
OPTIONS = {
    "name": "machines",
    "series": "machine",
    "time": "step",
    "channels": ["temp", "vibration"],
    "label": "state",
    "max_len": 100,
    "classes": CLASSES,
    "num_classes": 2,
    "channel_mean": [0.0, 0.0],
    "channel_std": [1.0, 1.0],
    "validation_fraction": 0.2,
    "test_fraction": 0.2,
}


@pytest.fixture
def frame() -> pd.DataFrame:
    """Machines whose values name them: 100 times their number and the step, and minus a half."""
    rows = [
        {
            "machine": f"m{i}",
            "step": 10.0 * i + step,
            "temp": 100.0 * i + step,
            "vibration": -0.5 * step,
            "state": CLASSES[i % 2],
            "site": f"site{i % 5}",
        }
        for i in range(NUM_SERIES)
        for step in range(NUM_STEPS)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def prepare_checked(tmp_path, prepare_own, frame):
    path = tmp_path / "machines.csv"
    frame.sample(frac=1, random_state=0).to_csv(path, index=False)  # out of order
    return partial(prepare_own, "_series", tmp_path / "data", **OPTIONS | {"path": str(path)})


@pytest.fixture
def prepare(prepare_checked, monkeypatch):
    """Prepare with statistics that are not looked at."""
    monkeypatch.setattr("tasks.series.task._check_statistics", lambda folder, given: None)
    return prepare_checked


def rows_of(folder, split: str, *, patch: int = 1, channels: int = 2) -> list[tuple]:
    rows = series.load(folder, split, channel_mean=[0.0] * channels, patch=patch)
    batch = gather_batch(rows, torch.arange(len(rows)), max_len=10_000, padded_len=None)
    values = [
        row[~mask].numpy()
        for row, mask in zip(batch["inputs"], batch["key_padding_mask"], strict=True)
    ]
    names = read_manifest(folder)["classes"]
    return list(zip(values, [names[i] for i in batch["labels"].tolist()], strict=True))


@pytest.fixture(name="rows_of")
def _rows_of():
    return rows_of
