"""Cells in processes of their own, whatever ends them."""

import json
import os
import signal
import subprocess

import pytest

from macformer.runs import process


@pytest.fixture
def exit_with(monkeypatch):
    """Replace the process of a cell by one that ends at once with a given code."""
    commands = []
    call = subprocess.run

    def replace(returncode):
        def run(command, **options):
            if "macformer.runs.cell" not in command:
                return call(command, **options)
            commands.append(command)
            return subprocess.CompletedProcess(command, returncode)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return replace


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


def write_status(run_dir, status):
    (run_dir / "metrics.json").write_text(json.dumps({"status": status, "task": "listops"}))


@pytest.mark.parametrize(
    ("returncode", "reason"),
    [(-signal.SIGKILL, "signal 9"), (-signal.SIGSEGV, "signal 11"), (3, "exit code 3")],
)
def test_the_parent_records_a_cell_that_could_not(tmp_path, exit_with, returncode, reason):
    write_status(tmp_path, "running")
    exit_with(returncode)
    assert not process.run_in_process(tmp_path, overwrite=False)
    metrics = read_metrics(tmp_path)
    assert metrics["status"] == "failed" and metrics["task"] == "listops"
    assert reason in metrics["reason"]


def test_a_cell_that_dies_before_it_writes_still_has_a_row(make_run, exit_with):
    cfg, run_dir = make_run("attention=rfa")
    exit_with(-signal.SIGKILL)
    assert not process.run_in_process(run_dir, overwrite=False)
    metrics = read_metrics(run_dir)
    assert (metrics["status"], metrics["attention"]) == ("failed", "rfa")
    assert metrics["identity"] == cfg.identity


@pytest.mark.parametrize("returncode", [-signal.SIGINT, -signal.SIGTERM, os.EX_TEMPFAIL])
def test_a_cell_that_was_asked_to_stop_has_not_failed(tmp_path, exit_with, returncode):
    write_status(tmp_path, "running")
    exit_with(returncode)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["status"] == "running"


def test_an_interruption_by_the_user_is_one_line_and_no_failure(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(process.subprocess, "run", interrupt)
    with pytest.raises(SystemExit) as exit_:
        process.run_in_process(tmp_path, overwrite=False)
    assert exit_.value.code == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "metrics.json").exists()


def test_a_cell_that_recorded_its_failure_keeps_its_reason(tmp_path, exit_with):
    (tmp_path / "metrics.json").write_text(json.dumps({"status": "failed", "reason": "no data"}))
    exit_with(1)
    assert not process.run_in_process(tmp_path, overwrite=False)
    assert read_metrics(tmp_path)["reason"] == "no data"


def test_a_finished_cell_starts_no_process(tmp_path, exit_with):
    write_status(tmp_path, "finished")
    commands = exit_with(0)
    assert process.run_in_process(tmp_path, overwrite=False)
    assert commands == []
    process.run_in_process(tmp_path, overwrite=True)
    assert len(commands) == 1


def test_a_running_cell_starts_no_second_process(tmp_path, exit_with):
    commands = exit_with(0)
    with process.run_lock(tmp_path):
        assert process.is_running(tmp_path)
        assert not process.run_in_process(tmp_path, overwrite=False)
    assert commands == [] and not process.is_running(tmp_path)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("0,1", ["0", "1", "0"]), ("GPU-a", ["GPU-a"] * 3), ("", [None] * 3), (None, ["0", "1", "0"])],
)
def test_jobs_take_turns_on_the_gpus(tmp_path, monkeypatch, visible, expected):
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(process, "NVIDIA_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [process.gpu_of_job(job) for job in range(3)] == expected


def test_a_cell_sees_the_gpu_that_it_is_given(tmp_path, monkeypatch):
    environments = []

    def run(command, *, env):
        environments.append(env["CUDA_VISIBLE_DEVICES"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    process.run_in_process(tmp_path, overwrite=False, gpu="2")
    process.run_in_process(tmp_path, overwrite=False)
    assert environments == ["2", "0,1,2"]
