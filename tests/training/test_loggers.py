"""Where a run's curves go."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from macformer.runs import cell
from macformer.training.loggers import CurveLogger, wandb_logger


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_curve_merges_what_one_step_logs(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path=str(path))
    logger.log_metrics({"a": 1.0, "epoch": 0}, step=3)
    logger.log_metrics({"b": 2.0}, step=3)
    logger.log_metrics({"a": 4.0}, step=1)
    logger.save()
    assert read_rows(path) == [
        {"step": "1", "a": "4.0", "b": ""},
        {"step": "3", "a": "1.0", "b": "2.0"},
    ]


def test_resumed_curve_keeps_what_came_before(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CurveLogger(path=str(path))
    for step in (1, 2, 3):
        first.log_metrics({"a": float(step)}, step=step)
    first.save()
    second = CurveLogger(path=str(path))
    second.log_metrics({"a": 30.0, "b": 1.0}, step=3)
    second.save()
    assert [(r["step"], r["a"], r["b"]) for r in read_rows(path)] == [
        ("1", "1.0", ""),
        ("2", "2.0", ""),
        ("3", "30.0", "1.0"),
    ]


def test_offline_run_holds_config_metrics_and_names(make_run, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    cfg, run_dir = make_run("logger=default", "attention=rmfa_exp", "ppsbn=with")
    assert cell.run(run_dir)
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    text = json.dumps(records)
    for expected in (
        cfg.cell,
        "listops_short/smoke",
        "rmfa_exp-with",
        "train/loss",
        "val/accuracy",
        "test/accuracy",
        "perf/train_examples_per_second",
        "perf/train_peak_memory_gib",
        "max_steps",
    ):
        assert expected in text, expected


def test_key_without_network_goes_offline_quickly(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: refused
    logger = wandb_logger(
        project="p", save_dir=str(tmp_path), name="n", group="g", job_type="j", tags=["t"]
    )
    assert logger._wandb_init["mode"] == "offline"
