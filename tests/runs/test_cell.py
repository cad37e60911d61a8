"""One cell from its configuration to metrics.json, and what happens when it stops on the way."""

import csv
import json
import math
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Timer

from macformer.evaluate import evaluate
from macformer.evaluate import main as evaluate_main
from macformer.record import read_predictions
from macformer.runs import cell
from macformer.runs.stop import Stopped, stop_signals_raise
from macformer.training.lightning_module import ClassificationModule


def read_metrics(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())


def last_weights(run_dir):
    path = run_dir / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def test_metrics_hold_all_that_a_table_needs(make_run):
    cfg, run_dir = make_run("attention=rmfa_exp", "ppsbn=with")
    assert cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "finished" and metrics["reason"] is None
    names = ("task", "attention", "ppsbn", "recipe", "seed")
    assert [metrics[name] for name in names] == ["listops_short", "rmfa_exp", "with", "smoke", 0]
    assert metrics["identity"] == cfg.identity
    assert metrics["num_examples"] == {"train": 64, "validation": 20, "test": 27}
    assert metrics["train"]["steps"] == metrics["accuracy"]["last"]["step"] == 8
    assert metrics["accuracy"]["best"]["step"] in (4, 8)
    assert metrics["accuracy"]["best"]["val"] >= metrics["accuracy"]["last"]["val"]
    assert torch.__version__.startswith(metrics["versions"]["torch"])  # may add its build
    assert metrics["config"]["max_steps"] == 8
    for phase in ("train", "inference"):
        rates = metrics[phase]
        # every row has 24 positions, of which some are padding
        assert rates["positions_per_second"] == pytest.approx(24 * rates["examples_per_second"])
        assert 0 < rates["tokens_per_second"] < rates["positions_per_second"]
        assert rates["peak_memory_gib"] >= 0


def test_accuracy_counts_every_test_row(make_run):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    correct = 27 * read_metrics(run_dir)["accuracy"]["last"]["test"]
    assert correct == pytest.approx(round(correct), abs=1e-4)


def test_each_question_of_a_row_is_answered(make_run):
    tiny = ("task=mqar_small", "recipe=smoke", "logger=curve", "task.max_len=24", "max_steps=2")
    num_examples = "task.num_examples={train: 64, validation: 20, test: 27}"
    _, run_dir = make_run("task.num_pairs=4", num_examples, tiny=tiny)
    assert cell.run(run_dir)
    metrics, predictions = read_metrics(run_dir), read_predictions(run_dir)
    assert predictions is not None
    right = predictions["best_prediction"] == predictions["label"]
    assert right.shape == (27, 4)
    assert metrics["accuracy"]["best"]["test"] == pytest.approx(right.mean())
    assert ((predictions["best_margin"] > 0) == right).all()
    assert metrics["floors"]["values"]["accuracy"] == 1 / 4


def test_majority_rate_is_that_of_the_test_labels(make_run):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    (labels,) = run_dir.parent.glob("data/listops/*/test.labels.npy")
    counts = np.bincount(np.load(labels))
    assert read_metrics(run_dir)["majority_rate"] == pytest.approx(counts.max() / 27)


def test_curve_has_training_and_validation(make_run):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows if r["train/loss"]] == [2, 4, 6, 8]
    assert [int(r["step"]) for r in rows if r["val/accuracy"]] == [4, 8]


def test_finished_run_is_not_trained_again(make_run):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    before = (run_dir / "metrics.json").read_text()
    assert cell.run(run_dir)
    assert (run_dir / "metrics.json").read_text() == before


@pytest.mark.parametrize(
    "attention", ["softmax", "rfa", pytest.param("rmfa_exp", marks=pytest.mark.slow)]
)
def test_resumed_run_ends_with_the_same_bits(make_run, power_cut, attention):
    features = () if attention == "softmax" else ("attention.num_features=16",)
    options = (f"attention={attention}", *features, "ppsbn=with")
    _, whole = make_run(*options, folder="whole")
    assert cell.run(whole)

    _, parted = make_run(*options, folder="parted")
    with power_cut(before_step=6):  # two steps after the checkpoint
        assert not cell.run(parted)
    assert read_metrics(parted)["status"] == "failed"
    assert cell.run(parted)

    for name, value in last_weights(whole).items():
        assert torch.equal(value, last_weights(parted)[name]), name
    assert read_metrics(whole)["accuracy"] == read_metrics(parted)["accuracy"]
    assert read_metrics(parted)["reason"] is None


@pytest.mark.parametrize(
    "max_steps", [pytest.param(8, marks=pytest.mark.slow), 10]
)  # with and without a validation at the end
def test_a_run_stopped_in_its_test_is_tested_alone(make_run, monkeypatch, max_steps):
    _, run_dir = make_run(f"max_steps={max_steps}", "seed=3")
    assert cell.run(run_dir)
    whole = read_metrics(run_dir)

    make_run(f"max_steps={max_steps}", "seed=3", "overwrite=true")
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "test_step", lambda *args: 1 / 0)
        assert not cell.run(run_dir)
    make_run(f"max_steps={max_steps}", "seed=3")
    monkeypatch.setattr(ClassificationModule, "training_step", lambda *args: 1 / 0)
    assert cell.run(run_dir)
    parted = read_metrics(run_dir)
    assert parted["accuracy"] == whole["accuracy"]
    assert parted["train"]["loss"] == whole["train"]["loss"]
    assert set(parted["train"]) == set(whole["train"])
    assert None not in parted["train"].values() and parted["train"]["seconds"] > 0


def test_the_last_checkpoint_holds_the_last_weights(make_run):
    """Where training does not end on a validation, too."""
    _, run_dir = make_run("max_steps=10")
    assert cell.run(run_dir)
    path = run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 10
    accuracy = read_metrics(run_dir)["accuracy"]["last"]
    assert evaluate(run_dir, checkpoint="last", split="validation") == accuracy["val"]


def test_overwrite_starts_from_nothing(make_run, monkeypatch):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    first = last_weights(run_dir)
    make_run("overwrite=true")
    starts = []
    step = ClassificationModule.training_step

    def record(self, dataloader_iter):
        starts.append(self.global_step)
        return step(self, dataloader_iter)

    monkeypatch.setattr(ClassificationModule, "training_step", record)
    assert cell.run(run_dir)
    assert starts == list(range(8))
    assert all(torch.equal(v, first[k]) for k, v in last_weights(run_dir).items())


def test_other_seeds_give_other_weights(make_run):
    _, one = make_run("seed=0", "max_steps=4", folder="one")
    _, two = make_run("seed=1", "max_steps=4", folder="two")
    assert cell.run(one) and cell.run(two)
    assert not torch.equal(
        last_weights(one)["model.encoder.embedding.table.weight"],
        last_weights(two)["model.encoder.embedding.table.weight"],
    )


def test_divergence_is_a_failure_with_a_reason(make_run, capsys):
    _, run_dir = make_run("learning_rate=1e30", "clip=null")
    assert not cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "failed"
    assert "the training loss is nan" in metrics["reason"]
    assert len(capsys.readouterr().err.strip().splitlines()) <= 4
    assert "DivergedError" in (run_dir / "error.log").read_text()


def test_weights_and_biases_hears_of_a_failure(make_run, monkeypatch):
    codes = []
    wandb = SimpleNamespace(run=object(), finish=lambda *, exit_code: codes.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    _, run_dir = make_run()
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationModule, "training_step", lambda *args: 1 / 0)
        assert not cell.run(run_dir)
    assert cell.run(run_dir)
    assert codes == [1, 0]


def test_want_of_memory_is_named(make_run, monkeypatch):
    _, run_dir = make_run()
    monkeypatch.setattr(ClassificationModule, "training_step", lambda *_: torch.empty(1 << 50))
    assert not cell.run(run_dir)
    assert read_metrics(run_dir)["reason"].startswith("out of memory: ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("attention=rmfa_exp", "attention.num_features=0"), "num_features is 0; at least 1"),
        (("attention=rmfa_inv", "attention.guard=1.5"), "bounded by 1.5; guard and"),
        (("mixer.num_heads=3",), "qkv_dim 64 is not a multiple of num_heads 3"),
        (("task.source=moon",), "'moon'"),
    ],
)
def test_bad_option_is_one_line(make_run, overrides, message):
    _, run_dir = make_run(*overrides)
    assert not cell.run(run_dir)
    reason = read_metrics(run_dir)["reason"]
    assert message in reason and "\n" not in reason


def test_evaluate_repeats_the_test_accuracy(make_run, capsys):
    _, run_dir = make_run("attention=rmfa_exp", "ppsbn=with")
    assert cell.run(run_dir)
    accuracy = read_metrics(run_dir)["accuracy"]
    assert evaluate(run_dir, checkpoint="best", split="test") == accuracy["best"]["test"]
    assert evaluate(run_dir, checkpoint="last", split="test") == accuracy["last"]["test"]
    assert evaluate_main([str(run_dir.parent)]) == 2
    assert "does not exist" in capsys.readouterr().err
    (run_dir / "checkpoints" / "best.ckpt").write_text("half a file")
    assert evaluate_main([str(run_dir)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_learnable_problem_is_learnt(make_run):
    """With only digits between MIN brackets of depth 1, the answer is among few tokens."""
    _, run_dir = make_run(
        "task.num_examples={train: 2000, validation: 50, test: 200}",
        "task.max_depth=2",
        "task.max_args=3",
        "task.min_len=3",
        "task.max_len=12",
        "batch_size=32",
        "max_steps=150",
        "eval_interval=150",
        "model.encoder.dropout=0.0",
        "attention=softmax",
    )
    assert cell.run(run_dir)
    metrics = read_metrics(run_dir)
    error = math.sqrt(metrics["majority_rate"] * (1 - metrics["majority_rate"]) / 200)
    assert metrics["accuracy"]["last"]["test"] > metrics["majority_rate"] + 5 * error


@pytest.mark.parametrize(
    ("overrides", "key"),
    [(("~callbacks",), "best"), (("~callbacks.random_states",), "random_states")],
)
def test_callbacks_that_decide_are_asked_for_before_training(make_run, overrides, key):
    _, run_dir = make_run(*overrides)
    assert not cell.run(run_dir)
    assert f"callbacks.{key} is missing" in read_metrics(run_dir)["reason"]
    assert not (run_dir / "checkpoints").exists()


def test_what_nothing_watches_is_blank_and_the_best_may_be_that_of_the_loss(make_run):
    watchers = ("device_use", "throughput", "peak_memory", "progress")
    selection = ("callbacks.best.monitor=val/loss", "callbacks.best.mode=min")
    _, run_dir = make_run(*(f"~callbacks.{name}" for name in watchers), *selection)
    assert cell.run(run_dir)
    metrics = read_metrics(run_dir)
    of_watchers = ("seconds", "joules", "energy_source")
    assert [metrics["use"][name] for name in of_watchers] == [None] * 3
    assert metrics["use"]["num_devices"] == 1
    assert metrics["inference"] == {"peak_memory_gib": None}
    with (run_dir / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    found = metrics["accuracy"]["best"]
    assert found["step"] == int(best["step"])
    assert found["val"] == pytest.approx(float(best["val/accuracy"]))

    predictions = read_predictions(run_dir)
    assert predictions is not None and predictions["row"].tolist() == list(range(27))
    for weights in ("best", "last"):
        right = predictions[f"{weights}_prediction"] == predictions["label"]
        assert right.mean() == pytest.approx(metrics["accuracy"][weights]["test"])
        assert (right == (predictions[f"{weights}_margin"] > 0)).all()


def test_a_moved_and_damaged_run_ends_as_if_nothing_had_happened(make_run, power_cut, caplog):
    """Its folder is moved, metrics.json empty and last.ckpt cut off; best.ckpt is whole."""
    _, whole = make_run(folder="whole")
    assert cell.run(whole)
    _, before = make_run(folder="before")
    with power_cut(before_step=6):
        assert not cell.run(before)
    moved = before.rename(before.with_name("moved"))
    (moved / "metrics.json").write_text("")
    last = moved / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert cell.run(moved)
    assert f"{moved / 'metrics.json'} is damaged" in caplog.text
    assert f"{last} cannot be read" in caplog.text
    assert read_metrics(moved)["accuracy"] == read_metrics(whole)["accuracy"]
    assert all(torch.equal(v, last_weights(whole)[k]) for k, v in last_weights(moved).items())
    assert not before.exists()


def test_a_time_limit_interrupts_and_the_same_command_goes_on(make_run, monkeypatch):
    _, whole = make_run(folder="whole")
    assert cell.run(whole)
    _, run_dir = make_run("+trainer.max_time='00:00:00:05'", folder="limited")
    readings = iter(range(100))  # the clock is read once before training, then after each step
    with monkeypatch.context() as patch:
        patch.setattr(Timer, "time_elapsed", lambda *_: 10.0 * (next(readings) >= 3))
        with pytest.raises(Stopped, match=r"trainer\.max_time was up at step 3 of 8") as stop:
            cell.run(run_dir)
    assert stop.value.exit_code == 124
    assert read_metrics(run_dir)["status"] == "interrupted"
    assert "max_time" in read_metrics(run_dir)["reason"]
    make_run(folder="limited")
    assert cell.run(run_dir)
    assert read_metrics(run_dir)["accuracy"] == read_metrics(whole)["accuracy"]
    assert all(torch.equal(v, last_weights(whole)[k]) for k, v in last_weights(run_dir).items())


def test_a_signal_interrupts(make_run, monkeypatch):
    def step(self, dataloader_iter):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    _, run_dir = make_run()
    monkeypatch.setattr(ClassificationModule, "training_step", step)
    with pytest.raises(Stopped), stop_signals_raise(over=(signal.SIG_DFL,)):
        cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert (metrics["status"], metrics["reason"]) == ("interrupted", "stopped by SIGTERM")
    assert not (run_dir / "error.log").exists()


def test_other_data_are_named_before_the_run_goes_on(make_run, power_cut):
    _, run_dir = make_run()
    with power_cut(before_step=6):
        assert not cell.run(run_dir)
    metrics = read_metrics(run_dir)
    (run_dir / "metrics.json").write_text(json.dumps({**metrics, "data_digest": "of others"}))
    assert not cell.run(run_dir)
    assert "the data are not those that this run began with" in read_metrics(run_dir)["reason"]


def curve_of_csv(run_dir):
    (path,) = run_dir.glob("lightning_logs/version_0/metrics.csv")
    return curve_of(path)


def curve_of(path):
    with path.open() as file:
        return {
            int(r["step"]): float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]
        }


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
