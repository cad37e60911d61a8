"""Which values the options of a run may have.

``ALLOWED`` has every option of ``configs/train.yaml``, and those below it that decide how a run
goes. What one part alone knows, as the features of an attention, it refuses when it is built.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from macformer.record import CHECKPOINTS_NAME
from macformer.runs.allowed import (
    ABSENT,
    COUNT,
    FLAG,
    FOLDER,
    NAME,
    NAMES,
    NULL,
    PART,
    POSITIVE,
    SEED,
    OptionError,
    either,
    fault,
    faults,
    number,
    one_of,
    whole,
)

PRECISIONS = one_of(  # Lightning's, each by one name; 16-mixed would be bf16-mixed on a CPU, unsaid
    *("32-true", "bf16-mixed", "64-true", "bf16-true", "16-true"),
    *("transformer-engine", "transformer-engine-float16"),
)

ALLOWED = {
    "seed": SEED,
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
    "clip.clip_value": POSITIVE,  # of a negative one torch would make gradients of its own
    "clip.max_norm": POSITIVE,
    "log_interval": COUNT,
    "warmup_batches": whole(0),
    "cost.latency_examples": COUNT,
    "cost.trimmed_batches": whole(0),
    "cost.trimmed_passes": COUNT,
    "num_threads": either(NULL, COUNT),
    "task.num_classes": COUNT,
    "task.vocab_size": either(NULL, COUNT),
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
    "trainer.devices": replace(COUNT, instead="CUDA_VISIBLE_DEVICES to choose which"),
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
VALIDATED = ("val/accuracy", "val/loss")  # whatever the task
# What is the value of another option, and is changed there.
FOLLOWS = {
    "module.log_interval": "log_interval",
    "module.steps_per_call": "step.steps_per_call",
    "trainer.max_steps": "max_steps",
    "trainer.val_check_interval": "eval_interval",
    "trainer.limit_val_batches": "eval_batches",
    "trainer.limit_test_batches": "test_batches",
}
PLACE = one_of(f"${{paths.run_dir}}/{CHECKPOINTS_NAME}")  # where a run looks for what it left
PLACED = ("best", "last")  # callbacks


def check_options(cfg: DictConfig) -> None:
    """Refuse a configuration of ``train.yaml`` with options that no run can have.

    Raises:
        OptionError: With one line for all of them.
    """
    known = {**ALLOWED, "callbacks.best.monitor": one_of(*_validated(cfg))}
    found = list(faults(cfg, known))
    for key, other in FOLLOWS.items():
        value, its = OmegaConf.select(cfg, key, default=ABSENT), OmegaConf.select(cfg, other)
        if value is not ABSENT and value != its:
            found.append(fault(key, value, one_of(its, instead=other)))
    found += _misplaced(cfg)
    found += [*_accumulated(cfg), *_misread_pixels(cfg)]
    if not found and cfg.padded_len < cfg.max_seq_len:
        found = [
            f"padded_len is {cfg.padded_len}; "
            f"it must be at least max_seq_len, which is {cfg.max_seq_len}"
        ]
    if found:
        raise OptionError("; ".join(found))


def _misplaced(cfg: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the folders of checkpoints, as they are written.

    What they come to is known when the identity is, which is computed after all checks.
    """
    for name in PLACED:
        part = OmegaConf.select(cfg, f"callbacks.{name}")
        plain: Any = OmegaConf.to_container(part, resolve=False) if OmegaConf.is_dict(part) else {}
        if "dirpath" in plain and not PLACE.accepts(plain["dirpath"]):
            yield fault(f"callbacks.{name}.dirpath", plain["dirpath"], PLACE)


def _accumulated(cfg: DictConfig) -> Iterator[str]:
    """Refuse parts of a batch to an objective that is no mean over what it scores."""
    target = OmegaConf.select(cfg, "objective._target_", default="")
    if cfg.accumulate > 1 and target.endswith(".transfer_attention"):
        yield fault("accumulate", cfg.accumulate, one_of(1)) + " under objective=transfer"


def _misread_pixels(cfg: DictConfig) -> Iterator[str]:
    """Refuse ids that PixelEmbedding would take for other grey values."""
    target = OmegaConf.select(cfg, "model.encoder.embedding._target_", default="")
    if target.endswith(".PixelEmbedding"):
        for key in ("task.zero_is_padding", "task.append_eos"):
            value = OmegaConf.select(cfg, key, default=False)
            if value is not False:
                yield fault(key, value, one_of(False)) + f" under {target}"


def _validated(cfg: DictConfig) -> list[str]:
    """List what a validation of the task gives."""
    metrics = OmegaConf.select(cfg, "task.metrics")
    names = metrics if OmegaConf.is_dict(metrics) else ()
    return [*VALIDATED, *(f"val/{name}" for name in names)]


def check_option(key: str, value: Any) -> None:
    """Refuse a value that no run can have.

    Raises:
        OptionError: If it is not allowed.
    """
    if not ALLOWED[key].accepts(value):
        raise OptionError(fault(key, value, ALLOWED[key]))
