"""A run says how far it is while it is at work, and leaves nothing behind."""

import json
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl

from macformer.callbacks import Heartbeat, heartbeat
from macformer.runs.cell import run


@pytest.fixture
def clock(monkeypatch):
    times = [0.0]
    monkeypatch.setattr(heartbeat, "perf_counter", lambda: times[0])
    return times


MODULE = Mock(spec=pl.LightningModule)


def trainer(step: int, *, first: bool = True) -> Any:
    return Mock(spec=pl.Trainer, global_step=step, max_steps=100, is_global_zero=first)


def sign(folder):
    path = folder / "progress.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_a_sign_is_due_every_few_seconds_and_tells_the_pace(tmp_path, clock):
    beat = Heartbeat(run_dir=str(tmp_path), interval=3.0)
    beat.on_train_start(trainer(40), MODULE)
    assert sign(tmp_path)["step"] == 40
    clock[0] = 2.9
    beat.on_train_batch_end(trainer(50))
    assert sign(tmp_path)["step"] == 40
    clock[0] = 5.0
    beat.on_train_batch_end(trainer(60))
    found = sign(tmp_path)
    assert (found["step"], found["max_steps"], found["phase"]) == (60, 100, "training")
    assert (found["first_step"], found["seconds"]) == (40, 5.0)
    clock[0] = 9.0
    beat.on_validation_batch_end(trainer(60))
    assert sign(tmp_path)["phase"] == "validating"
    beat.teardown(trainer(60), MODULE, "fit")
    assert sign(tmp_path) is None


def test_one_process_of_several_writes(tmp_path, clock):
    beat = Heartbeat(run_dir=str(tmp_path), interval=3.0)
    beat.on_train_start(trainer(0, first=False), MODULE)
    assert sign(tmp_path) is None


def test_a_run_has_a_heartbeat_and_leaves_none(make_run, monkeypatch):
    seen = []
    write = heartbeat.write_progress
    monkeypatch.setattr(
        heartbeat, "write_progress", lambda *a, **k: seen.append(k["phase"]) or write(*a, **k)
    )
    _, run_dir = make_run("callbacks.heartbeat.interval=0.0")
    assert run(run_dir)
    assert {"training", "validating", "testing"} <= set(seen)
    assert sign(run_dir) is None
