"""Compose the run that comes before a run: its encoder, on the task's own rows without labels.

It is a run like any other, with an identity of its own, which is part of that of each run that
begins with it.
"""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from macformer.runs.allowed import OptionError, check, number
from macformer.runs.options import ALLOWED, VALIDATED, check_options

SWEEP = "pretraining"  # the folder below outputs/, which all sweeps share
OPTIONS = (  # of that run, each an option of this one as pretrain.<name>
    *("seed", "max_steps", "batch_size", "learning_rate", "warmup_steps"),
    *("eval_interval", "eval_batches"),
)
KINDS = {f"pretrain.{name}": ALLOWED[name] for name in OPTIONS} | {
    "pretrain.hidden_share": number(lambda value: 0 < value < 1, "between 0 and 1")
}


def fix_pretraining(cfg: DictConfig, fix_identity: Callable[[DictConfig], str]) -> None:
    """Compose the run that comes before a configuration's own, and write it into that, whole.

    Raises:
        OptionError: If an option of it has a value that it cannot have, or the task has no tokens
            to ask for, or the model no encoder that can be asked.
    """
    if cfg.get("pretrain") is None:
        return
    check(cfg, KINDS)
    _check_tokens(cfg)
    before = _composed(cfg)
    check_options(before)
    identity = fix_identity(before)
    with read_write(cfg), open_dict(cfg):
        cfg.pretrain.identity = identity
        cfg.pretrain.run = OmegaConf.to_container(before, resolve=True)


def _check_tokens(cfg: DictConfig) -> None:
    """Refuse a pretraining that would end at its first batch, or with an encoder of another kind.

    Raises:
        OptionError: With what would be asked for tokens and cannot be.
    """
    name = cfg.choices.pretrain
    if cfg.task.vocab_size is None:
        raise OptionError(
            f"pretrain={name} hides tokens, and rows of {cfg.task.name} hold numbers "
            "(task.vocab_size is null); leave pretrain=none"
        )
    if "encoder" not in cfg.model:
        raise OptionError(
            f"pretrain={name} trains a model's own encoder, model.encoder, with hidden tokens as "
            f"id 0, and {cfg.model._target_} has none; use model=transformer, or leave "
            "pretrain=none"
        )


def _composed(cfg: DictConfig) -> DictConfig:
    before = cfg.copy()
    with read_write(before), open_dict(before):
        changes = OmegaConf.to_container(before.pretrain.changes, resolve=True)
        row = cfg.choices.attention.removesuffix(f"+{cfg.choices.pretrain}")
        own = {
            "pretrain": None,
            "choices": {"attention": row, "pretrain": "none"},
            "sweep": SWEEP,
            "paths": {"run_dir": "${path:${paths.output_dir}}/${sweep}/${cell}"},
            "overwrite": False,
            "retry": None,
            "cost": None,  # of answers about hidden tokens, which nobody will ask for
        }
        merged = OmegaConf.merge(before, changes, own)
        merged.objective = {"_target_": "macformer.training.classify", "_partial_": True}
        merged.module.metrics = None  # of the task's classes, none of which can choose
        monitor = OmegaConf.select(merged, "callbacks.best.monitor", default=VALIDATED[0])
        if monitor not in VALIDATED:
            merged.callbacks.best.update(monitor=VALIDATED[0], mode="max")
        merged.identity = "${identity:}"  # a merge may resolve it, of what is merged by then
    assert isinstance(merged, DictConfig)
    return merged
