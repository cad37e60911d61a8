"""Where a run's curves go."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from macformer.runs import cell
from macformer.training import loggers
from macformer.training.loggers import CurveLogger, wandb_id, wandb_logger


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_curve_merges_what_one_step_logs(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path=str(path))
    logger.log_metrics({"a": 1.0, "epoch": 0}, step=3)
    logger.log_metrics({"b": 2.0}, step=3)
    logger.log_metrics({"a": 4.0}, step=1)
    logger.write()
    assert read_rows(path) == [
        {"step": "1", "a": "4.0", "b": ""},
        {"step": "3", "a": "1.0", "b": "2.0"},
    ]


def test_resumed_curve_keeps_what_came_before(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CurveLogger(path=str(path))
    for step in (1, 2, 3):
        first.log_metrics({"a": float(step)}, step=step)
    first.write()
    second = CurveLogger(path=str(path))
    second.log_metrics({"a": 30.0, "b": 1.0}, step=3)
    second.write()
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


def offline_logger(folder: Path, **names):
    options = {"name": "n", "group": "g", "job_type": "j", "tags": ["t"], **names}
    return wandb_logger(project="p", save_dir=str(folder), **options)


def read_history(folder: Path) -> list[dict]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_an_offline_run_that_was_killed_and_resumed_keeps_all_steps(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps, finished in (((10, 20, 30), False), ((30, 40), True)):
        logger = offline_logger(tmp_path)
        for step in steps:
            logger.log_metrics({"train/loss": step + 0.5, "val/accuracy": 0.25}, step=step)
            logger.save()
        if finished:
            logger.finalize("success")
        wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    text = json.dumps(read_history(folder))
    for loss in ("10.5", "20.5", "30.5", "40.5"):
        assert loss in text, text


def test_a_run_killed_before_it_logs_again_keeps_what_it_had_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = []
    monkeypatch.setattr(
        loggers.WandbLogger, "log_metrics", lambda self, metrics, step: told.append((step, metrics))
    )
    first = offline_logger(tmp_path)
    for step in (10, 20):
        first.log_metrics({"train/loss": step + 0.5, "val/accuracy": 0.25}, step=step)
        first.save()
    (tmp_path / "wandb" / "offline-run-1-n").mkdir()  # as W&B makes it, once it starts
    offline_logger(tmp_path)  # and the process ends
    told.clear()
    offline_logger(tmp_path).log_metrics({"train/loss": 30.5}, step=30)
    assert [(step, metrics["train/loss"]) for step, metrics in told] == [
        (10, 10.5),
        (20, 20.5),
        (30, 30.5),
    ]
    assert not list((tmp_path / "wandb").glob("offline-run-*"))  # replaced by the new one


@pytest.mark.parametrize("what", ["log_metrics", "log_hyperparams", "finalize"])
def test_a_run_goes_on_where_weights_and_biases_fails(tmp_path, monkeypatch, caplog, what):
    def fail(*args, **options):
        raise ConnectionResetError("the service has died\nand more")

    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("log_metrics", "log_hyperparams", "finalize"):
        quiet = fail if name == what else lambda *args, **options: None
        monkeypatch.setattr(loggers.WandbLogger, name, quiet)
    logger = offline_logger(tmp_path)
    with caplog.at_level("WARNING"):
        logger.log_hyperparams({})
        for step in (10, 20):
            logger.log_metrics({"val/accuracy": 0.5}, step=step)
        logger.finalize("success")
    assert "Weights & Biases: the service has died; the run goes on without it" in caplog.text
    assert len(caplog.text.splitlines()) == 1
    assert len(read_rows(tmp_path / "wandb" / "logged.csv")) == 2  # for the next call


def test_a_run_is_finished_where_weights_and_biases_cannot_start(make_run, monkeypatch, caplog):
    import wandb

    def refuse(**options):
        raise wandb.errors.UsageError("no such mode")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", refuse)
    _, run_dir = make_run("logger=default", "max_steps=2")
    assert cell.run(run_dir)
    assert caplog.text.count("Weights & Biases: no such mode; the run goes on without it") == 1
    assert list(curve_of(run_dir / "metrics.csv")) == [2]


@pytest.mark.parametrize("name", ["a/b", "100%:c#d?", "mine\\elu"])
def test_ids_are_what_weights_and_biases_accepts(name):
    assert not set(wandb_id(name)) & set("/\\#?%:")
    assert wandb_id("plain-name_1.0") == "plain-name_1.0"


def test_long_names_stay_apart():
    one, two = (wandb_id("x" * 200 + identity) for identity in ("-0123456789", "-9876543210"))
    assert one != two and len(one) == len(two) == 128


def test_a_proxy_is_asked_where_there_is_one(monkeypatch):
    asked = []

    def connect(address, timeout):
        asked.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(loggers.socket, "create_connection", connect)
    for name in ("https_proxy", "no_proxy", "NO_PROXY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert loggers._can_reach_wandb()
    monkeypatch.setenv("NO_PROXY", "api.wandb.ai")
    assert loggers._can_reach_wandb()
    assert asked == [("proxy.example", 3128), ("api.wandb.ai", 443)]


def test_a_key_that_is_refused_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    import wandb

    def refuse(**options):
        raise wandb.errors.AuthenticationError("the API key is not valid\nand more")

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level("WARNING"):
        logger = offline_logger(tmp_path)
    assert logger._wandb_init["mode"] == "offline" and "anonymous" not in logger._wandb_init
    (line,) = caplog.text.splitlines()
    assert "the API key is not valid; the run is logged offline" in line


def test_a_curve_is_written_with_validations_and_in_the_end(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path=str(path))
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.save()  # as Lightning does after every row
    assert not path.exists()
    logger.log_metrics({"val/accuracy": 0.5}, step=2)
    logger.save()
    assert [row["step"] for row in read_rows(path)] == ["1", "2"]
    logger.log_metrics({"train/loss": 0.5}, step=3)
    logger.finalize("success")
    assert len(read_rows(path)) == 3


def test_key_without_network_goes_offline_quickly(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: refused
    logger = wandb_logger(
        project="p", save_dir=str(tmp_path), name="n", group="g", job_type="j", tags=["t"]
    )
    assert logger._wandb_init["mode"] == "offline"


def curve_of(path):
    return {int(r["step"]): float(r["train/loss"]) for r in read_rows(path) if r["train/loss"]}


def curve_of_csv(run_dir):
    (path,) = run_dir.glob("lightning_logs/version_0/metrics.csv")
    return curve_of(path)


def curve_of_tensorboard(run_dir):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder,) = run_dir.glob("lightning_logs/version_0")
    events = reader.EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    return {event.step: event.value for event in events}


@pytest.mark.parametrize(
    ("logger", "package", "theirs"),
    [
        ("CSVLogger", "csv", curve_of_csv),
        ("TensorBoardLogger", "tensorboard", curve_of_tensorboard),
    ],
)
def test_another_logger_of_lightning_works_beside_ours(make_run, logger, package, theirs):
    pytest.importorskip(package)
    target = f"_target_: pytorch_lightning.loggers.{logger}"
    _, run_dir = make_run(f"+logger.other={{{target}, save_dir: ${{paths.run_dir}}}}")
    assert cell.run(run_dir)
    ours = curve_of(run_dir / "metrics.csv")
    assert list(ours) == [2, 4, 6, 8]
    assert theirs(run_dir) == pytest.approx(ours)
