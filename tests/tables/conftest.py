"""Hand-written runs: every number is chosen so that means and ratios come out by hand."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

FINISHED = {
    "schema": 1,
    "status": "finished",
    "reason": None,
    "identity": "a1b2c3d4e5",
    "name": "listops/softmax/without/smoke/0",
    "task": "listops",
    "attention": "softmax",
    "ppsbn": "without",
    "recipe": "smoke",
    "seed": 0,
    "commit": "abc1234",
    "device": "laptop",
    "exclusive": True,
    "num_parameters": 1000,
    "majority_rate": 0.2,
    "accuracy": {"last": {"step": 9, "val": 0.3, "test": 0.3}, "best": {"val": 0.4, "test": 0.4}},
    "train": {
        "examples_per_second": 100.0,
        "tokens_per_second": 7000.0,
        "positions_per_second": 11000.0,
        "peak_memory_gib": 0.5,
    },
    "inference": {
        "examples_per_second": 300.0,
        "tokens_per_second": 21000.0,
        "positions_per_second": 33000.0,
        "peak_memory_gib": 0.25,
    },
    "config": {"seed": 0, "max_steps": 300},
}
KNOWN_BEFORE_START = ["schema", "task", "attention", "ppsbn", "recipe", "seed"]

WriteRun = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture
def write_run(sweep: Path) -> WriteRun:
    """Write one finished run; keywords replace its keys, `test` its best test accuracy."""

    def write(*, test: float | None = 0.4, speed: float = 100.0, **keys) -> Path:
        record = deepcopy(FINISHED) | keys
        record["accuracy"]["best"]["test"] = test
        record["train"]["examples_per_second"] = speed
        return _store(sweep, record)

    return write


@pytest.fixture
def write_stopped(sweep: Path) -> WriteRun:
    """Write a run that stopped before it measured anything."""

    def write(*, status: str = "failed", reason: str | None = "out of memory", **keys) -> Path:
        record = {key: FINISHED[key] for key in KNOWN_BEFORE_START} | keys
        return _store(sweep, record | {"status": status, "reason": reason})

    return write


def _store(sweep: Path, record: dict) -> Path:
    parts = ("task", "attention", "ppsbn", "recipe", "device", "seed", "name")
    folder = sweep.joinpath(*(str(record.get(part, "none")).replace("/", "-") for part in parts))
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    (folder / "train.log").write_text("trained\n", encoding="utf-8")
    return folder
