"""A run may begin with the encoder of another, which all that would begin with it share."""

import json
from pathlib import Path

import pytest
import torch

from macformer.record import (
    CHECKPOINTS_NAME,
    read_metrics,
    read_predictions,
    read_status,
    write_end,
    write_metrics,
)
from macformer.runs import begin, cell, process, train_and_test
from macformer.runs.build import build_model
from macformer.runs.config import ConfigError, compose
from macformer.runs.stop import Stopped

CHOSEN = ("attention=rmfa_exp", "ppsbn=with", "pretrain=mlm")


def identities(*overrides):
    cfg = compose("task=listops_short", "recipe=smoke", *CHOSEN, *overrides)
    return cfg.identity, cfg.pretrain.identity


def test_seeds_and_sweeps_share_a_pretraining_and_its_options_are_part_of_a_run():
    own, before = identities("seed=0")
    assert identities("seed=1", "sweep=other", "overwrite=true")[1] == before
    for change in ("pretrain.max_steps=7", "attention.num_features=64"):
        changed_own, changed_before = identities(change)
        assert changed_own != own and changed_before != before


@pytest.mark.parametrize("option", ["objective=balanced", "callbacks.best.monitor=val/f1"])
def test_how_classes_are_learnt_and_scored_is_no_part_of_a_pretraining(option):
    classes = (
        f"+task.class_counts={[9] + 9 * [1]}",
        "+task.metrics={f1: {_target_: torchmetrics.F1Score, average: macro}}",
    )
    own, before = identities(*classes)
    changed_own, changed_before = identities(*classes, option)
    assert changed_own != own and changed_before == before


def test_a_value_that_names_the_folder_of_the_run_changes_no_run():
    assert identities("callbacks.heartbeat.run_dir=${paths.run_dir}") == identities()


def test_the_run_before_differs_in_its_changes_alone():
    cfg = compose("task=listops_short", "recipe=smoke", *CHOSEN, "seed=5", "pretrain.max_steps=7")
    before = cfg.pretrain.run
    assert (before.seed, before.data.seed, before.pretrain) == (0, 0, None)
    assert before.max_steps == before.trainer.max_steps == before.module.scheduler.max_steps == 7
    assert before.model.head.num_classes == cfg.task.vocab_size and before.data.hidden_share == 0.5
    assert before.model.encoder == cfg.model.encoder and cfg.data.hidden_share is None
    assert Path(before.paths.run_dir).parent == Path("outputs", "pretraining").absolute()
    assert cfg.choices.attention == "rmfa_exp+mlm" and before.choices.attention == "rmfa_exp"


def test_a_score_of_the_classes_does_not_choose_among_weights_that_predict_tokens():
    score = "+task.metrics={f1: {_target_: torchmetrics.F1Score, average: macro}}"
    options = (*CHOSEN, score, "callbacks.best.monitor=val/f1")
    cfg = compose("task=listops_short", "recipe=smoke", *options)
    assert cfg.callbacks.best.monitor == "val/f1"
    assert cfg.pretrain.run.callbacks.best.monitor == "val/accuracy"
    by_loss = ("callbacks.best.monitor=val/loss", "callbacks.best.mode=min")
    cfg = compose("task=listops_short", "recipe=smoke", *CHOSEN, *by_loss)
    assert cfg.pretrain.run.callbacks.best.monitor == "val/loss"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("pretrain.hidden_share=1.5", r"^pretrain\.hidden_share is 1\.5;.*between 0 and 1"),
        ("pretrain.hidden_share=null", r"^pretrain\.hidden_share is null;.*between 0 and 1"),
        ("pretrain.max_steps=abc", r"^pretrain\.max_steps is abc"),
        ("pretrain.max_steps=-1", r"^pretrain\.max_steps is -1; it must be a whole number"),
        ("pretrain.seed=-1", r"^pretrain\.seed is -1; it must be a whole number"),
        ("pretrain=mlmm", "mlmm"),
    ],
)
def test_wrong_options_of_a_pretraining_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        compose("task=listops_short", "recipe=smoke", *CHOSEN, option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("task.vocab_size=null",),
            r"rows of listops_short hold numbers \(task\.vocab_size is null",
        ),
        (
            ("model=encoder", "model.path=nowhere"),
            r"encoder_classifier has none; use model=transformer",
        ),
    ],
    ids=["numbers", "existing model"],
)
def test_what_cannot_be_asked_for_tokens_is_refused_when_composing(options, message):
    with pytest.raises(ConfigError, match=message) as refused:
        compose("task=listops_short", "recipe=smoke", *CHOSEN, *options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("task", "mixer"),
    [("text", "attention"), ("retrieval", "s4d"), ("image", "attention"), ("mqar", "s4d")],
)
def test_tokens_of_every_kind_of_task_can_be_asked_for(task, mixer):
    rows = CHOSEN[:2] if mixer == "attention" else ()
    cfg = compose(f"task={task}", "recipe=smoke", f"mixer={mixer}", *rows, "pretrain=mlm")
    model = build_model(cfg.pretrain.run).eval()
    inputs, places = torch.randint(1, cfg.task.vocab_size, (2, 7)), torch.tensor([[1, 5, 5]] * 2)
    logits = model(inputs.scatter(1, places, 0), None, places)
    assert logits.shape[-1] == cfg.task.vocab_size and logits.numel() == 6 * cfg.task.vocab_size


@pytest.fixture
def make_pretrained(make_run, tmp_path, monkeypatch):
    """Run cells that come before in this process, and count them."""
    started = []

    def run_here(run_dir, *, overwrite):
        started.append(run_dir.name)
        return cell.run(run_dir)

    monkeypatch.setattr(begin, "run_in_process", run_here)

    def make(*overrides, folder):
        short = ("max_steps=2", "pretrain.max_steps=2")
        return make_run(*CHOSEN, f"paths.output_dir={tmp_path}", *short, *overrides, folder=folder)

    return make, started


def test_an_encoder_begins_where_pretraining_has_ended(make_pretrained, monkeypatch):
    make, started = make_pretrained
    begun = {}

    def remember(model, run_dir):
        torch.manual_seed(1)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        load(model, run_dir)
        begun.update(before=before, after=model.state_dict(), run_dir=run_dir)
        begun["after"] = {name: value.clone() for name, value in model.state_dict().items()}

    load = begin.load_encoder
    monkeypatch.setattr(train_and_test, "load_encoder", remember)
    cfg, first = make("seed=0", folder="first")
    _, second = make("seed=1", folder="second")
    assert cell.run(first) and cell.run(second)
    assert len(started) == 1  # of which the second seed has found the end

    path = begun["run_dir"] / CHECKPOINTS_NAME / "best.ckpt"
    weights = torch.load(path, weights_only=True)["state_dict"]
    signs = [name for name in begun["after"] if "signs" in name]
    assert signs
    for name, value in begun["after"].items():
        source = weights[f"model.{name}"] if name.startswith("encoder.") else begun["before"][name]
        assert torch.equal(value, source), name
    metrics = read_metrics(second)
    record = metrics["pretraining"]
    assert record["name"] == started[0] and record["seconds"] > 0 and record["steps"] == 2
    assert record["examples"] == metrics["use"]["examples"] == 2 * cfg.batch_size
    assert metrics["attention"] == "rmfa_exp+mlm"
    json.dumps(metrics)


def test_a_pretraining_on_batches_of_several_widths_ends_like_any_other(make_pretrained):
    make, started = make_pretrained
    cfg, run_dir = make("task.trim_batches=true", "batch_size=4", folder="trimmed")
    assert cell.run(run_dir)
    before = Path(cfg.pretrain.run.paths.run_dir)
    metrics = read_metrics(before)
    assert before.name == started[0] and metrics["status"] == "finished"
    assert "cost" not in metrics and read_predictions(before) is None


def test_a_failed_pretraining_is_the_reason_of_a_failed_run(make_pretrained, monkeypatch):
    make, _ = make_pretrained
    _, run_dir = make("pretrain.learning_rate=1e30", folder="run")
    assert not cell.run(run_dir)
    assert read_status(run_dir) == "failed"
    reason = read_metrics(run_dir)["reason"]
    assert "pretraining failed" in reason and "training loss" in reason


def test_a_pretraining_that_failed_begins_again_only_when_the_user_asks(
    make_pretrained, monkeypatch
):
    make, started = make_pretrained
    _, first = make("pretrain.learning_rate=1e30", "seed=0", folder="first")
    cfg, second = make("pretrain.learning_rate=1e30", "seed=1", folder="second")
    assert not cell.run(first) and not cell.run(second)
    assert len(started) == 1  # the second cell of the sweep has not paid for it once more
    reason = read_metrics(second)["reason"]
    before = Path(cfg.pretrain.run.paths.run_dir)
    assert reason.startswith(f"pretraining failed before ({before}): ")
    assert "training loss" in reason and "retry=failed" in reason

    monkeypatch.setattr(process, "check_once", lambda cfg: None)
    monkeypatch.setattr(process, "output_folder", lambda: second)
    monkeypatch.setattr(process, "calling_folder", lambda: second)
    monkeypatch.setattr(process, "run_in_process", lambda run_dir, **_: cell.run(run_dir))
    for multirun, attempts in ((True, 1), (False, 2)):
        monkeypatch.setattr(process, "is_multirun", lambda multirun=multirun: multirun)
        assert not process.run_composed(cfg)
        assert len(started) == attempts


def test_who_comes_second_waits(make_pretrained, monkeypatch, capsys):
    make, started = make_pretrained
    cfg, run_dir = make(folder="run")
    looks = iter([True, True, False, False])
    monkeypatch.setattr(begin, "is_running", lambda folder: next(looks))
    monkeypatch.setattr(begin, "_SECONDS", 0.0)
    assert cell.run(run_dir)
    assert capsys.readouterr().out.count("waiting for") == 1
    assert started == [cfg.pretrain.run.cell]


def test_who_comes_too_late_to_wait_takes_what_is_there(make_pretrained, monkeypatch):
    """Another process only looks, then one begins it, and ends it, since this one has looked."""
    make, _ = make_pretrained
    _, run_dir = make(folder="run")
    looks = iter([False, True])

    def finish_elsewhere(folder, *, overwrite):
        if next(looks):
            assert cell.run(folder)
        return False

    monkeypatch.setattr(begin, "run_in_process", finish_elsewhere)
    assert cell.run(run_dir)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_tasks_of_slurm_do_not_begin_a_pretraining_that_would_wait_for_them(
    make_pretrained, monkeypatch, capsys, rank
):
    """No rank does, nor is anything recorded: after the pretraining the same command works."""
    make, _ = make_pretrained
    cfg, run_dir = make(folder="run")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", rank)
    monkeypatch.setattr(process, "check_once", lambda cfg: None)
    monkeypatch.setattr(process, "output_folder", lambda: run_dir)
    monkeypatch.setattr(process, "calling_folder", lambda: run_dir)
    monkeypatch.setattr(process, "_wait", lambda *_, **__: pytest.fail("begun"))
    assert not process.run_composed(cfg)
    message = "comes first and is not finished"
    assert (message in capsys.readouterr().err) == (rank == "0")
    assert read_metrics(run_dir) is None


def test_a_run_whose_pretraining_is_interrupted_is_interrupted(make_pretrained, monkeypatch):
    """A sweep goes on with it; what has failed it leaves alone."""
    make, _ = make_pretrained
    _, run_dir = make(folder="run")

    def interrupt(folder, *, overwrite):
        write_end(folder, "interrupted", "trainer.max_time was up at step 1 of 2")
        return False

    monkeypatch.setattr(begin, "run_in_process", interrupt)
    with pytest.raises(Stopped, match=r"pretraining: trainer\.max_time was up"):
        cell.run(run_dir)
    assert read_status(run_dir) == "interrupted"


def test_an_encoder_pretrained_on_other_data_is_refused(make_pretrained, monkeypatch):
    make, _ = make_pretrained
    cfg, first = make("seed=0", folder="first")
    assert cell.run(first)
    before = Path(cfg.pretrain.run.paths.run_dir)
    record = read_metrics(before)
    write_metrics(before, {**record, "data_digest": "that of other rows"})
    _, second = make("seed=1", folder="second")
    assert not cell.run(second)
    reason = read_metrics(second)["reason"]
    assert "on other data (digest that of other rows" in reason and str(before) in reason
