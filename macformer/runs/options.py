"""Which values the options of a run may have.

``ALLOWED`` has every option of ``configs/train.yaml``, and those below it that decide how a run
goes. What one part alone knows, as the features of an attention, it refuses when it is built.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

ABSENT = object()


class OptionError(ValueError):
    """A value that an option cannot have; one line says which it can."""


@dataclass(frozen=True)
class Allowed:
    """What accepts the values that an option may have, and how a message puts them.

    ``instead`` names the option to use in place of one that has a fixed value.
    """

    accepts: Callable[[Any], bool]
    words: str
    instead: str | None = None


def written(value: Any) -> str:
    """Write a value as the command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def whole(least: int, most: int | None = None) -> Allowed:
    """Allow whole numbers; neither 1e3, which is read as a float, nor true is one."""
    words = f"a whole number of at least {least}" + (f" and at most {most}" if most else "")
    top = math.inf if most is None else most
    return Allowed(lambda value: type(value) is int and least <= value <= top, words)


def number(accepts: Callable[[float], bool], words: str) -> Allowed:
    """Allow finite numbers that pass a test."""

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and accepts(value)

    return Allowed(is_number, f"a number {words}")


def one_of(*values: Any, instead: str | None = None) -> Allowed:
    """Allow the values listed; true is not 1."""

    def is_listed(value: Any) -> bool:
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)

    return Allowed(is_listed, " or ".join(map(written, values)), instead)


def either(*kinds: Allowed) -> Allowed:
    """Allow what one of several kinds does."""
    words = " or ".join(kind.words for kind in kinds)
    return Allowed(lambda value: any(kind.accepts(value) for kind in kinds), words)


NULL, COUNT = one_of(None), whole(1)
FLAG = one_of(True, False)
POSITIVE = number(lambda value: value > 0, "above 0")
PART = Allowed(lambda value: OmegaConf.is_dict(value) and "_target_" in value, "a part (_target_)")
NAME = Allowed(
    lambda value: type(value) in (str, int) and bool(str(value).strip("./ ")),
    "the name of a folder",
)
NAMES = Allowed(
    lambda value: OmegaConf.is_list(value) and all(isinstance(name, str) for name in value),
    "a list of options",
)
FOLDER = Allowed(lambda value: type(value) in (str, int) and bool(str(value)), "a folder")
PRECISIONS = one_of(  # Lightning's
    *("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"),
    *("transformer-engine", "transformer-engine-float16", 64, 32, 16, "bf16"),
)
DEVICES = Allowed(lambda value: isinstance(value, str) or OmegaConf.is_list(value), "a list, auto")

ALLOWED = {
    "seed": whole(0, 2**32 - 1),  # numpy's
    "sweep": NAME,
    "overwrite": FLAG,
    "retry": one_of(None, "failed"),
    "best_of": NAMES,
    "exclusive": FLAG,
    "max_steps": COUNT,
    "batch_size": COUNT,
    "accumulate": COUNT,
    "learning_rate": POSITIVE,
    "warmup_steps": whole(0),  # more than max_steps are a choice: LRA's Retrieval only warms up
    "max_seq_len": COUNT,
    "padded_len": COUNT,
    "data.pad_to_multiple_of": COUNT,
    "data.hidden_share": either(NULL, number(lambda value: 0 < value < 1, "between 0 and 1")),
    "eval_interval": COUNT,  # a run that ends before is validated at its end
    "eval_batches": either(NULL, COUNT),
    "test_batches": either(NULL, COUNT),
    "optimizer": PART,
    "scheduler": PART,
    "clip": either(NULL, PART),
    "log_interval": COUNT,
    "warmup_batches": whole(0),
    "num_threads": either(NULL, COUNT),
    "optimizer.weight_decay": number(lambda value: value >= 0, "of at least 0"),
    "model.embed_dim": COUNT,
    "model.encoder.num_layers": COUNT,
    "model.encoder.ffn_dim": COUNT,
    "model.encoder.dropout": number(lambda value: 0 <= value < 1, "of at least 0 and below 1"),
    "mixer.num_heads": COUNT,
    "callbacks.best.mode": one_of("max", "min"),
    "step.steps_per_call": COUNT,
    "paths.data_dir": FOLDER,
    "paths.output_dir": FOLDER,
    # Lightning's Trainer: what would count, cut, clip or keep otherwise than a run does
    "trainer.accelerator": either(one_of("auto", "cpu", "gpu", "cuda", "mps", "tpu"), PART),
    "trainer.accumulate_grad_batches": one_of(1, instead="accumulate"),
    "trainer.barebones": one_of(False, instead="logger=null"),
    "trainer.callbacks": one_of(None, instead="callbacks"),
    "trainer.check_val_every_n_epoch": one_of(None, instead="eval_interval"),
    "trainer.default_root_dir": one_of(None, instead="paths.run_dir"),
    "trainer.devices": either(COUNT, one_of(-1), DEVICES),
    "trainer.enable_checkpointing": one_of(None, True, instead="callbacks"),
    "trainer.fast_dev_run": one_of(False, instead="+debug=fast"),
    "trainer.gradient_clip_algorithm": one_of(None, instead="clip"),
    "trainer.gradient_clip_val": one_of(None, instead="clip"),
    "trainer.limit_train_batches": one_of(None, 1.0, instead="max_steps"),
    "trainer.log_every_n_steps": one_of(1, instead="log_interval"),
    "trainer.logger": one_of(None, instead="logger"),
    "trainer.max_epochs": one_of(-1, instead="max_steps"),
    "trainer.min_epochs": one_of(None, instead="max_steps"),
    "trainer.min_steps": one_of(None, instead="max_steps"),
    "trainer.num_nodes": COUNT,
    "trainer.num_sanity_val_steps": one_of(0, instead="+debug=fast"),
    "trainer.overfit_batches": one_of(0, instead="+debug=fast"),
    "trainer.precision": PRECISIONS,
    "trainer.reload_dataloaders_every_n_epochs": one_of(0),
    "trainer.use_distributed_sampler": one_of(False),
}
# What is the value of another option, and is changed there.
FOLLOWS = {
    "trainer.max_steps": "max_steps",
    "trainer.val_check_interval": "eval_interval",
    "trainer.limit_val_batches": "eval_batches",
    "trainer.limit_test_batches": "test_batches",
}


def check_options(cfg: DictConfig) -> None:
    """Refuse a configuration of ``train.yaml`` with options that no run can have.

    Raises:
        OptionError: With one line for all of them.
    """
    known = {**ALLOWED, "callbacks.best.monitor": one_of(*_validated(cfg))}
    values = {key: OmegaConf.select(cfg, key, default=ABSENT) for key in (*known, *FOLLOWS)}
    faults = [
        _fault(key, values[key], allowed)
        for key, allowed in known.items()
        if values[key] is not ABSENT and not allowed.accepts(values[key])
    ]
    faults += [
        _fault(key, values[key], one_of(values[other], instead=other))
        for key, other in FOLLOWS.items()
        if values[key] is not ABSENT and values[key] != values[other]
    ]
    if not faults and values["padded_len"] < values["max_seq_len"]:
        faults = [
            f"padded_len is {values['padded_len']}; "
            f"it must be at least max_seq_len, which is {values['max_seq_len']}"
        ]
    if faults:
        raise OptionError("; ".join(faults))


def _validated(cfg: DictConfig) -> list[str]:
    """List what a validation of the task gives."""
    metrics = OmegaConf.select(cfg, "task.metrics")
    names = metrics if OmegaConf.is_dict(metrics) else ()
    return [f"val/{name}" for name in ("accuracy", "loss", *names)]


def check_option(key: str, value: Any) -> None:
    """Refuse a value that no run can have.

    Raises:
        OptionError: If it is not allowed.
    """
    if not ALLOWED[key].accepts(value):
        raise OptionError(_fault(key, value, ALLOWED[key]))


def _fault(key: str, value: Any, allowed: Allowed) -> str:
    words = allowed.words
    if type(value) is float and value.is_integer() and allowed.accepts(int(value)):
        words += f", as {int(value)}"
    hint = f" (use {allowed.instead})" if allowed.instead else ""
    return f"{key} is {written(value)}; it must be {words}{hint}"
