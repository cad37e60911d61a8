"""Cells in processes of their own, and identities that keep them apart."""

import json
import subprocess

import pytest

from macformer import sweep


def test_cell_killed_by_the_system_is_recorded(tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text(json.dumps({"status": "running", "task": "listops"}))

    def kill(command, **kwargs):
        return subprocess.CompletedProcess(command, returncode=-9)

    monkeypatch.setattr(subprocess, "run", kill)
    sweep.run_in_process(tmp_path, overwrite=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["status"] == "failed" and metrics["task"] == "listops"
    assert "signal 9" in metrics["reason"]


def test_cell_runs_in_a_process_of_its_own(make_run):
    cfg, run_dir = make_run("max_steps=2", "eval_interval=2")
    sweep.run_in_process(run_dir, overwrite=False)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["status"] == "finished" and metrics["identity"] == cfg.identity


def test_finished_cell_starts_no_process(tmp_path, monkeypatch):
    (tmp_path / "metrics.json").write_text(json.dumps({"status": "finished"}))
    commands = []

    def record(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(subprocess, "run", record)
    sweep.run_in_process(tmp_path, overwrite=False)
    assert commands == []
    sweep.run_in_process(tmp_path, overwrite=True)
    assert len(commands) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1",),
        ("attention=rmfa_exp",),
        ("ppsbn=with",),
        ("ppsbn=with_batch",),
        ("learning_rate=0.5",),
        ("batch_size=4",),
        ("task.brackets=drop",),
        ("model.dropout=0.0",),
    ],
)
def test_what_decides_a_result_decides_the_identity(make_run, overrides):
    base, _ = make_run(folder="base")
    other, _ = make_run(*overrides, folder="other")
    assert base.identity != other.identity


@pytest.mark.parametrize(
    "overrides",
    [
        ("logger=wandb",),
        ("sweep=elsewhere",),
        ("exclusive=false",),
        ("task.num_workers=2",),
        ("+recipe.text.max_steps=1",),
        ("callbacks.progress.refresh_interval=1",),
    ],
)
def test_what_cannot_change_a_result_does_not(make_run, overrides):
    base, _ = make_run(folder="base")
    other, _ = make_run(*overrides, folder="other")
    assert base.identity == other.identity
