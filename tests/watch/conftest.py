"""A sweep's folder, written by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WriteCell = Callable[..., Path]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep"
    folder.mkdir()
    return folder


@pytest.fixture
def write_cell(sweep: Path) -> WriteCell:
    """Write a cell; keywords replace keys of its record, ``curve`` its validation accuracies."""

    def write(
        attention: str = "softmax",
        *,
        status: str = "running",
        identity: str = "a1",
        task: str = "listops",
        curve=(),
        test: float = 0.4,
        seconds: float = 100.0,
        **keys,
    ) -> Path:
        run_dir = sweep / f"{task}-{attention}-ppsbn_without-smoke-seed0-{identity}"
        run_dir.mkdir()
        record = {"schema": 1, "status": status, "reason": None, "task": task, "seed": 0}
        record |= {"attention": attention, "ppsbn": "without", "recipe": "smoke"}
        record |= {"config": {"max_steps": 200}}
        if status == "finished":
            score = {"step": 200, "val": test, "test": test}
            record |= {"accuracy": {"best": score, "last": score}, "use": {"seconds": seconds}}
        (run_dir / "metrics.json").write_text(json.dumps(record | keys))
        if curve:
            lines = [f"{step},1.5,{value}" for step, value in curve]
            text = "\n".join(["step,train/loss,val/accuracy", "10,2.0,", *lines, ""])
            (run_dir / "metrics.csv").write_text(text)
        return run_dir

    return write
