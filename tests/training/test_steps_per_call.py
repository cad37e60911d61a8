"""Several optimiser steps per Lightning call change no result and no count."""

import csv
import json
import weakref

import pytest
import torch

from macformer.callbacks import Throughput
from macformer.measuring import Counts
from macformer.runs import cell
from macformer.runs.build import build_run
from macformer.training import lightning_module
from macformer.training.lightning_module import ClassificationModule

# pauses at 3 and 9 (curve), 4 and 8 (validation), 6, 11 (end): no two equally far apart
OPTIONS = (
    "attention=rfa",
    "ppsbn=with",
    "max_steps=11",
    "eval_interval=4",
    "log_interval=3",
)
EARLY_STOPPING = (
    "+callbacks.early_stopping={_target_: pytorch_lightning.callbacks.EarlyStopping, "
    "monitor: val/loss, stopping_threshold: 100.0}"
)


def count_calls(monkeypatch) -> list[int]:
    """Record the optimiser steps taken before each call."""
    calls = []
    step = ClassificationModule.training_step

    def record(self, dataloader_iter):
        calls.append(self.global_step)
        return step(self, dataloader_iter)

    monkeypatch.setattr(ClassificationModule, "training_step", record)
    return calls


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def curve(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        rows = csv.DictReader(file)
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def assert_same_run(run_dir, expected_dir):
    saved, expected = checkpoint(run_dir), checkpoint(expected_dir)
    assert saved["global_step"] == expected["global_step"]
    assert saved["lr_schedulers"] == expected["lr_schedulers"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(saved["state_dict"][name], value), name
    assert curve(run_dir) == curve(expected_dir)
    results, expected_results = (
        json.loads((folder / "metrics.json").read_text()) for folder in (run_dir, expected_dir)
    )
    assert results["accuracy"] == expected_results["accuracy"]
    assert results["train"]["steps"] == expected_results["train"]["steps"] == 11
    assert results["train"]["loss"] == expected_results["train"]["loss"]


@pytest.mark.parametrize(
    "precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)]
)
def test_results_are_those_of_single_steps(make_run, monkeypatch, precision):
    options = (*OPTIONS, f"trainer.precision={precision}")
    cfg, single = make_run(*options, folder="single")
    assert cell.run(single)
    # the rate of the last step, not the schedule's next one: torch's cycle ends at peak / 25 / 1e4
    assert float(curve(single)[-1]["learning_rate"]) == pytest.approx(cfg.learning_rate / 25e4)
    calls = count_calls(monkeypatch)
    _, several = make_run(*options, "step.steps_per_call=100", folder="several")
    assert cell.run(several)
    assert calls == [0, 3, 4, 6, 8, 9]
    assert_same_run(several, single)


def test_an_interrupted_run_goes_on_as_single_steps_would(make_run, monkeypatch, power_cut):
    _, single = make_run(*OPTIONS, folder="single")
    assert cell.run(single)
    _, parted = make_run(*OPTIONS, "step.steps_per_call=2", folder="parted")
    with power_cut(before_step=6):  # two steps after the checkpoint
        assert not cell.run(parted)
    calls = count_calls(monkeypatch)
    assert cell.run(parted)
    assert calls == [4, 6, 8, 9]
    assert_same_run(parted, single)


def test_early_stopping_ends_at_its_validation(make_run):
    cfg, _ = make_run(*OPTIONS, "step.steps_per_call=100", EARLY_STOPPING)
    built = build_run(cfg)
    built.trainer.fit(built.module, built.data)
    assert built.trainer.global_step == 4


def test_a_call_keeps_no_batch_behind_its_step(make_run, monkeypatch):
    """Or the memory of a captured training would grow with the steps of a call."""
    cfg, _ = make_run(*OPTIONS, "step.steps_per_call=100", "log_interval=11", "eval_interval=11")
    seen, alive = [], []
    step = lightning_module.optimisation_step

    def look(gradients, batch, *rest, **options):
        alive.append(sum(reference() is not None for reference in seen))
        seen.append(weakref.ref(batch["inputs"]))
        return step(gradients, batch, *rest, **options)

    monkeypatch.setattr(lightning_module, "optimisation_step", look)
    monkeypatch.setattr(lightning_module, "to_device", lambda batch, device: {
        name: value.clone() for name, value in batch.items()
    })  # fmt: skip
    built = build_run(cfg)
    built.trainer.fit(built.module, built.data)
    assert len(seen) == 11 and max(alive) <= 1


def test_throughput_counts_the_examples_of_every_step(make_run):
    cfg, _ = make_run("max_steps=11")
    built = build_run(cfg)
    trainer, module = built.trainer, built.module
    counts = Counts(examples=5, tokens=10, positions=10)
    throughput = Throughput(warmup_batches=4, interval=3)
    throughput.on_train_start(trainer, module)
    for num_steps in (3, 3, 3, 2):  # the first two calls warm up
        throughput.on_train_batch_start(trainer, module, None, 0)
        throughput.on_train_batch_end(trainer, module, {"counts": [counts] * num_steps}, None, 0)
    throughput.on_train_end(trainer, module)
    assert throughput.train["examples"] == 5 * (3 + 2)
