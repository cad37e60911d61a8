"""One cell from its configuration to metrics.json."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from macformer.evaluate import evaluate
from macformer.evaluate import main as evaluate_main
from macformer.heartbeat import write_progress
from macformer.record import read_metrics, read_predictions, read_rank_error
from macformer.runs import cell
from macformer.training.lightning_module import ClassificationModule


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


def test_a_mixer_without_attention_is_measured_to_the_end(make_run):
    """Its parts may have attributes of any name: S4D's `kernels` is a method."""
    _, run_dir = make_run("mixer=s4d", "max_steps=4")
    assert cell.run(run_dir)
    metrics = read_metrics(run_dir)
    assert metrics["status"] == "finished"
    assert metrics["softmax_kernel"] == {"train": None, "inference": None}


def test_a_score_of_the_task_may_choose_the_checkpoint(make_run):
    f1 = "_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 10, average: macro"
    scores = f"+task.metrics={{macro_f1: {{{f1}, validate_args: false}}}}"
    _, run_dir = make_run(scores, "callbacks.best.monitor=val/macro_f1")
    assert cell.run(run_dir)
    with (run_dir / "metrics.csv").open() as file:
        reached = {int(r["step"]): r["val/macro_f1"] for r in csv.DictReader(file)}
    scored = {step: float(score) for step, score in reached.items() if score}
    best = read_metrics(run_dir)["accuracy"]["best"]["step"]
    assert set(scored) == {4, 8} and scored[best] == max(scored.values())


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


def test_the_last_checkpoint_holds_the_last_weights(make_run, last_weights):
    """Where training does not end on a validation, too."""
    _, run_dir = make_run("max_steps=10")
    assert cell.run(run_dir)
    path = run_dir / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 10
    accuracy = read_metrics(run_dir)["accuracy"]["last"]
    assert evaluate(run_dir, checkpoint="last", split="validation") == accuracy["val"]


def test_overwrite_starts_from_nothing(make_run, monkeypatch, last_weights):
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


def test_other_seeds_give_other_weights(make_run, last_weights):
    _, one = make_run("seed=0", "max_steps=4", folder="one")
    _, two = make_run("seed=1", "max_steps=4", folder="two")
    assert cell.run(one) and cell.run(two)
    assert not torch.equal(
        last_weights(one)["model.encoder.embedding.table.weight"],
        last_weights(two)["model.encoder.embedding.table.weight"],
    )


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


def test_evaluate_leaves_the_signs_of_a_run_at_work_alone(make_run):
    _, run_dir = make_run()
    assert cell.run(run_dir)
    write_progress(run_dir, phase="training", step=3)
    before = (run_dir / "progress.json").read_text()
    evaluate(run_dir, checkpoint="last", split="validation")
    assert (run_dir / "progress.json").read_text() == before


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


def test_every_rank_begins_with_the_pretrained_encoder(make_run, monkeypatch):
    """Its features' widths are drawn: ranks that differ in them would mix each other's buffers."""
    cfg, run_dir = make_run("pretrain=mlm")
    begun = []
    monkeypatch.setattr(cell.rank_zero_only, "rank", 1)
    monkeypatch.setattr(cell, "train_and_test", lambda *args, **options: begun.append(options))
    assert cell.run(run_dir)
    assert begun == [{"pretrained": Path(cfg.pretrain.run.paths.run_dir)}]


def test_a_rank_that_fails_leaves_its_reason_behind(make_run, monkeypatch):
    _, run_dir = make_run()

    def fail(*args, **options):
        raise torch.OutOfMemoryError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell.rank_zero_only, "rank", 1)
        patch.setattr(cell, "train_and_test", fail)
        with pytest.raises(torch.OutOfMemoryError):
            cell.run(run_dir)
    assert read_rank_error(run_dir) == "rank 1: out of memory: no room"
    assert cell.run(run_dir) and read_rank_error(run_dir) is None  # of an earlier call
