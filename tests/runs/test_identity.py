"""What decides a result decides a run's identity, and nothing else does."""

import re
import sys
from functools import cache

import pytest
from omegaconf import OmegaConf

from macformer.runs import config, identity
from macformer.train import main


@cache
def identity_of(*overrides: str) -> str:
    return config.compose("task=listops_short", "recipe=smoke", *overrides).identity


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1",),
        ("attention=rmfa_exp",),
        ("ppsbn=with",),
        ("ppsbn=with_batch",),
        ("learning_rate=0.5",),
        ("batch_size=4",),
        ("trainer.devices=2",),  # each with a batch of its own
        ("trainer.precision=bf16-mixed",),
        ("task.brackets=drop",),
        ("task.source=lra_release",),
        ("task.generator_seed=1",),
        ("task.generator_version=0",),  # as one that is raised
        ("model.encoder.dropout=0.0",),
        ("recipe.default.dropout=0.0",),
        ("callbacks.best.monitor=val/loss", "callbacks.best.mode=min"),
        ("+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping}",),
    ],
)
def test_what_decides_a_result_decides_the_identity(overrides):
    assert identity_of(*overrides) != identity_of()


@pytest.mark.parametrize(
    "overrides",
    [
        ("logger=wandb",),
        ("logger=null",),
        ("sweep=elsewhere",),
        ("exclusive=false",),
        ("retry=failed",),
        ("paths.data_dir=/elsewhere",),
        ("paths.output_dir=/elsewhere",),
        ("task.source_dir=/elsewhere",),
        ("task.num_workers=2",),
        ("task.device_resident=true",),
        ("num_threads=1",),
        ("log_interval=1",),
        ("step.fused=false",),
        ("step.steps_per_call=5",),
        ("step.gradients._target_=macformer.training.CapturedGradients",),
        ("trainer.accelerator=cpu",),
        ("+trainer.max_time=00:00:10:00",),
        ("+recipe.text.max_steps=1",),
        ("callbacks.progress.refresh_interval=1",),
        ("~callbacks.device_use",),
        ("+callbacks.mine={_target_: a.B}", "+nuisance.mine=[callbacks.mine]"),
    ],
)
def test_what_cannot_change_a_result_does_not(overrides):
    assert identity_of(*overrides) == identity_of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.encoder.dropout=0", "model.encoder.dropout=0.0"),
        ("learning_rate=1", "learning_rate=1.0"),
        ("recipe.default.weight_decay=0", "recipe.default.weight_decay=0.0"),
        ("recipe.adamw.eps=1", "recipe.adamw.eps=1.0"),
    ],
)
def test_a_fraction_that_is_whole_may_be_written_as_a_whole_number(one, other):
    assert identity_of(one) == identity_of(other)


def test_a_score_decides_the_identity_where_it_chooses_the_weights():
    macro, micro = (
        f"+task.metrics={{f1: {{_target_: torchmetrics.F1Score, average: {average}}}}}"
        for average in ("macro", "micro")
    )
    chooses = "callbacks.best.monitor=val/f1"
    assert identity_of(macro, chooses) != identity_of(micro, chooses)
    assert identity_of(macro) == identity_of(micro) == identity_of()


def test_a_callback_may_write_into_the_folder_that_the_identity_names():
    callback = "+callbacks.mine={_target_: a.B, path: '${paths.run_dir}/mine'}"
    here, there = (identity_of(callback, f"paths.output_dir=/{name}") for name in "ab")
    assert here == there != identity_of()


def test_every_entry_of_the_list_leaves_something_out():
    cfg = config.compose("task=listops", "+trainer.profiler=simple", "+trainer.max_time=1")
    table = config.compose("task=_table", "task.name=own", "task.num_classes=2", "task.max_len=9")
    begun = config.compose("task=listops", "pretrain=mlm")
    keys = [
        key for c in (cfg, table, begun) for key, _ in identity._leaves(OmegaConf.to_container(c))
    ]
    for group in cfg.nuisance.values():
        for pattern in group:
            assert any(identity._matches(key, [pattern]) for key in keys), pattern


def test_the_identity_of_a_cell_is_computed_once(monkeypatch):
    computed = []
    once = identity.run_identity
    monkeypatch.setattr(identity, "run_identity", lambda cfg: computed.append(1) or once(cfg))
    cfg = config.compose("attention=rmfa_exp")
    assert cfg.cell.endswith(cfg.identity) and cfg.cell in cfg.paths.run_dir
    OmegaConf.to_container(cfg, resolve=True)
    assert len(computed) == 1


def test_a_resolved_configuration_is_printed_with_the_identity_of_its_run(monkeypatch, capsys):
    options = ["task=listops_short", "recipe=smoke"]
    monkeypatch.setattr(sys, "argv", ["macformer-train", *options, "--cfg", "job", "--resolve"])
    main()
    (printed,) = re.findall(r"^identity: (.*)", capsys.readouterr().out, re.MULTILINE)
    assert printed == identity_of()
