"""Every option of a run is typed, and a value that it cannot have is refused before anything."""

import inspect
import json
import sys
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_module
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

import configs
from macformer import train
from macformer.runs import plan, process, sweep
from macformer.runs.allowed import OptionError
from macformer.runs.config import ConfigError, compose
from macformer.runs.options import ALLOWED, FOLLOWS, check_option, check_options

COMPUTED = {"identity", "cell", "protocol"}
WHOLE = ("max_steps", "batch_size", "accumulate", "max_seq_len", "eval_interval", "log_interval")
OPTIONAL = ("eval_batches", "test_batches", "num_threads")


@pytest.fixture
def option(composed):
    """Return the function that sets one option of a good configuration and checks them all."""
    good = composed("task=listops_short", "recipe=smoke")

    def check(key, value):
        cfg = good.copy()
        OmegaConf.set_readonly(cfg, False)
        OmegaConf.update(cfg, key, value, force_add=True)
        check_options(cfg)

    return check


def test_every_option_of_train_yaml_has_its_values(composed):
    written = yaml.safe_load(Path(configs.__path__[0], "train.yaml").read_text())
    cfg = composed()
    parts = {key for key, value in written.items() if isinstance(value, dict | list)}
    options = set(written) - parts - COMPUTED
    assert {"seed", "retry", "max_steps", "clip", "num_threads"} <= options
    assert options <= set(ALLOWED)
    assert {key.partition(".")[0] for key in (*ALLOWED, *FOLLOWS)} <= set(cfg)


def test_every_key_below_an_option_is_one(composed):
    trainer = set(inspect.signature(Trainer.__init__).parameters)
    clipped = (composed(), composed("recipe=finetune"))  # by value, and by norm
    nested = {key for key in (*ALLOWED, *FOLLOWS) if "." in key}
    of_trainer = {key for key in nested if key.startswith("trainer.")}
    assert {key.partition(".")[2] for key in of_trainer} <= trainer
    for key in nested - of_trainer:
        assert any(OmegaConf.select(c, key, default="?") != "?" for c in clipped), key


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("value", [0, -1, 1e3, 0.5, True, "abc", None])
def test_what_is_counted_is_a_whole_number(key, value):
    with pytest.raises(OptionError, match=rf"^{key} is .*; it must be a whole number of at least"):
        check_option(key, value)


@pytest.mark.parametrize("key", OPTIONAL)
@pytest.mark.parametrize("value", [0, -1, 1.0, 0.5, "all"])
def test_what_may_be_left_open_is_null_or_a_whole_number(key, value):
    check_option(key, None)
    check_option(key, 1)
    with pytest.raises(OptionError, match=rf"^{key} is .*; it must be null or a whole number"):
        check_option(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**32),
        ("sweep", None),
        ("sweep", ".."),
        ("overwrite", 1),
        ("exclusive", "yes"),
        ("retry", "all"),
        ("retry", True),
        ("learning_rate", "abc"),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("warmup_steps", -1),
        ("warmup_batches", 1.5),
        ("clip", 1.0),
        ("cost.latency_examples", 0),
        ("cost.trimmed_batches", -1),
        ("cost.trimmed_passes", 0),
        ("module.log_interval", 0),
        ("module.steps_per_call", 0),
        ("optimizer", "sgd"),
        ("scheduler", None),
        ("padded_len", 1),
        ("task.num_classes", "x"),
        ("task.num_classes", None),
        ("task.vocab_size", 0),
        ("task.vocab_size", "x"),
        ("model.encoder.dropout", 1.0),
        ("model.embed_dim", 0),
        ("step.steps_per_call", 0),
        ("trainer.devices", 0),
        ("trainer.devices", 1.5),
        ("trainer.devices", -1),
        ("trainer.devices", "auto"),
        ("trainer.devices", [0, 1]),
        ("trainer.precision", 7),
        ("trainer.precision", 32),
        ("trainer.precision", "bf16"),
        ("trainer.precision", "16-mixed"),
        ("trainer.precision", "float32"),
        ("trainer.accelerator", "abacus"),
        ("trainer.accumulate_grad_batches", 4),
        ("trainer.barebones", True),
        ("trainer.callbacks", []),
        ("trainer.check_val_every_n_epoch", 1),
        ("trainer.default_root_dir", "here"),
        ("trainer.enable_checkpointing", False),
        ("trainer.fast_dev_run", True),
        ("trainer.fast_dev_run", 1),
        ("trainer.gradient_clip_algorithm", "norm"),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.limit_train_batches", 4),
        ("trainer.limit_train_batches", 0.5),
        ("trainer.limit_val_batches", 4),
        ("trainer.limit_test_batches", 4),
        ("trainer.log_every_n_steps", 50),
        ("trainer.logger", False),
        ("trainer.max_epochs", 3),
        ("trainer.max_steps", 7),
        ("trainer.min_epochs", 1),
        ("trainer.min_steps", 1),
        ("trainer.num_sanity_val_steps", 2),
        ("trainer.overfit_batches", 1),
        ("trainer.reload_dataloaders_every_n_epochs", 1),
        ("trainer.use_distributed_sampler", True),
        ("trainer.val_check_interval", 7),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(option, key, value):
    with pytest.raises(OptionError) as caught:
        option(key, value)
    message = str(caught.value)
    assert message.startswith(f"{key} is ") and "; it must be " in message
    assert "\n" not in message and message.count(" is ") <= 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("sweep", 2024),
        ("retry", "failed"),
        ("learning_rate", 1),
        ("warmup_steps", 10**6),
        ("eval_interval", 10**6),
        ("clip", None),
        ("trainer.devices", 2),
        ("trainer.limit_train_batches", 1.0),
        ("trainer.max_time", "00:00:10:00"),
        ("trainer.precision", "bf16-mixed"),
    ],
)
def test_a_right_value_is_taken(option, key, value):
    option(key, value)


def test_a_float_that_is_whole_is_refused_with_the_number_to_write():
    with pytest.raises(ConfigError, match=r"max_steps is 1000\.0; .* of at least 1, as 1000$"):
        compose("max_steps=1e3")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            ("recipe.default.weight_decay=-1",),
            r"optimizer\.weight_decay is -1\.0; .* of at least 0",
        ),
        (("recipe.default.clip.clip_value=-1",), r"clip\.clip_value is -1\.0; .* a number above 0"),
        (("recipe=finetune", "recipe.norm.max_norm=0"), r"clip\.max_norm is 0\.0; .* above 0"),
    ],
)
def test_what_a_recipe_gives_is_checked_too(options, fault):
    with pytest.raises(ConfigError, match=f"^{fault}$"):
        compose(*options)


def test_all_that_is_wrong_stands_in_one_line():
    with pytest.raises(ConfigError, match=r"^batch_size is 0; .*; learning_rate is abc; [^;]*$"):
        compose("learning_rate=abc", "batch_size=0")


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("trainer.accumulate_grad_batches", "accumulate"),
        ("trainer.gradient_clip_val", "clip"),
        ("trainer.limit_train_batches", "max_steps"),
        ("+trainer.min_steps", "max_steps"),
    ],
)
def test_another_option_is_named_where_there_is_one(option, other):
    with pytest.raises(ConfigError, match=rf"is 4; it must be .* \(use {other}\)$"):
        compose(f"{option}=4")


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize("place", ["/elsewhere", "${paths.run_dir}/best", "null"])
def test_checkpoints_lie_where_a_run_looks_for_them(name, place):
    option = f"callbacks.{name}.dirpath"
    with pytest.raises(ConfigError) as caught:
        compose(f"{option}={place}")
    assert str(caught.value) == f"{option} is {place}; it must be ${{paths.run_dir}}/checkpoints"


def test_the_place_of_checkpoints_may_be_said_and_changes_no_run():
    place = "callbacks.last.dirpath=${paths.run_dir}/checkpoints"
    assert compose(place).identity == compose().identity
    assert "callbacks" not in compose("~callbacks")


def test_a_run_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    place = f"paths.output_dir={tmp_path / 'outputs'}"
    arguments = ["max_steps=-1", "--config-dir", str(tmp_path), place]  # as people mix them
    monkeypatch.setattr(sys, "argv", ["macformer-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    expected = "macformer-train: max_steps is -1; it must be a whole number of at least 1\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "outputs").exists()


def test_an_interruption_while_a_run_is_composed_is_one_line(tmp_path, monkeypatch, capsys):
    def press(cfg):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run_composed", press)
    monkeypatch.setattr(sys, "argv", ["macformer-train", f"paths.output_dir={tmp_path}"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "macformer-train: interrupted\n"


def test_processes_of_torchrun_are_told_how_a_run_takes_several_devices(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as torchrun sets it
    monkeypatch.setattr(sys, "argv", ["macformer-train", "task=listops_short"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trainer.devices=2 trainer.strategy=ddp" in line


def test_a_sweep_goes_on_without_the_cells_that_no_run_can_be(
    tmp_path, monkeypatch, capsys, compose_multirun
):
    launched = []

    def run(run_dir, **_):
        launched.append(run_dir)
        (run_dir / "metrics.json").write_text(json.dumps({"status": "finished"}))
        return True

    monkeypatch.setattr(process, "run_in_process", run)
    monkeypatch.setattr(sweep, "show_tables", lambda folder: None)
    options = ["task=listops_short", "recipe=smoke", "seed=0,abc", "batch_size=8,0,-1"]
    options.append(f"paths.output_dir={tmp_path}")
    with initialize_config_module("configs", version_base="1.3"):
        assert not sweep.run_sweep(compose_multirun(*options))
    assert len(launched) == 1
    assert "5 without a valid configuration; 1 to run" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/uncomposed-*/*.json")]
    reasons = {record["seed"]: record["reason"] for record in records}
    assert reasons.keys() == {0, plan.NO_SEED}
    for value in (0, -1):
        assert f"batch_size is {value}; it must be a whole number of at least 1" in reasons[0]
    assert "seed is abc; it must be a whole number" in reasons[plan.NO_SEED]


def test_an_objective_that_is_no_mean_takes_no_batch_in_parts():
    """The error over the signal is a ratio of sums, of which parts give another gradient."""
    chosen = ("task=listops_short", "recipe=smoke", "objective=transfer")
    with pytest.raises(ConfigError, match=r"accumulate is 2; it must be 1 under objective=tran"):
        compose(*chosen, "accumulate=2")
    compose(*chosen)


@pytest.mark.parametrize("option", ["zero_is_padding", "append_eos"])
def test_ids_that_are_no_grey_values_are_refused_where_pixels_are_read_by_them(option):
    with pytest.raises(ConfigError, match=rf"task\.{option} is true; it must be false under macfo"):
        compose("recipe=laptop", "task=image", f"task.{option}=true")
    compose("recipe=skyformer", "task=image", f"task.{option}=true")  # which looks ids up
