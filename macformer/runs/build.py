"""From a resolved configuration to objects: the one place that instantiates."""

import logging
import warnings
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from macformer.attention.contract import build
from macformer.models.pooling import counts_padding
from macformer.runs.config import ConfigError
from macformer.runs.hydra_messages import one_line
from macformer.runs.importing import make_importable
from macformer.training.lightning_module import ClassificationModule
from macformer.training.objectives import Batch

CallbackT = TypeVar("CallbackT", bound=pl.Callback)


@dataclass
class Run:
    """The objects of one run."""

    module: ClassificationModule
    data: pl.LightningDataModule
    trainer: pl.Trainer
    callbacks: dict[str, pl.Callback]

    def callback(self, kind: type[CallbackT]) -> CallbackT | None:
        """Return the callback of a kind, whatever the configuration calls it; None without one."""
        return next((c for c in self.callbacks.values() if isinstance(c, kind)), None)


def build_model(cfg: DictConfig) -> nn.Module:
    """Build the classifier.

    Raises:
        ConfigError: If a part cannot be built.
    """
    return _instantiate(cfg, cfg.model)


def without_start(cfg: DictConfig) -> DictConfig:
    """Leave out the weights that a model starts from, where a checkpoint takes their place.

    The run that they come from may be gone.
    """
    cfg = cfg.copy()
    if "start" in cfg.model:
        cfg.model.start = None
    return cfg


def build_attention(
    cfg: DictConfig, *, num_heads: int, head_dim: int, max_seq_len: int
) -> nn.Module:
    """Build the attention of one layer, with or without ppSBN.

    Raises:
        ConfigError: If it cannot be built.
    """
    return build(
        _instantiate(cfg, cfg.ppsbn),
        num_heads=num_heads,
        head_dim=head_dim,
        max_seq_len=max_seq_len,
    )


def build_mixer(cfg: DictConfig, *, embed_dim: int, max_seq_len: int) -> nn.Module:
    """Build the mixer of one layer.

    Raises:
        ConfigError: If it cannot be built.
    """
    return build(_instantiate(cfg, cfg.mixer), embed_dim=embed_dim, max_seq_len=max_seq_len)


def build_data(cfg: DictConfig) -> pl.LightningDataModule:
    """Build the data module; its folder and files are not touched yet."""
    return _instantiate(cfg, cfg.data)


def first_validation_batches(
    cfg: DictConfig, *, num_batches: int, batch_size: int
) -> tuple[list[Batch], Any]:
    """Prepare a task's data; return its first batches of validation, and the data module."""
    cfg = OmegaConf.merge(cfg, {"data": {"batch_size": batch_size}})  # pyright: ignore
    data: Any = build_data(cfg)
    data.prepare_data()
    data.setup("validate")
    return list(islice(data.val_dataloader(), num_batches)), data


def build_run(cfg: DictConfig) -> Run:
    """Build everything that one run needs, weights drawn from its seed.

    Raises:
        ConfigError: If a part cannot be built.
    """
    _quieten()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build_model(cfg)
    _check_padding(cfg, model)
    module = _instantiate(cfg, cfg.module, model=model)
    callbacks = {
        name: _instantiate(cfg, node) for name, node in (cfg.get("callbacks") or {}).items() if node
    }
    loggers = [_instantiate(cfg, node) for node in (cfg.get("logger") or {}).values() if node]
    trainer = _instantiate(
        cfg,
        cfg.trainer,
        callbacks=list(callbacks.values()),
        logger=loggers,
        default_root_dir=cfg.paths.run_dir,
    )
    return Run(module=module, data=build_data(cfg), trainer=trainer, callbacks=callbacks)


def _quieten() -> None:
    """Keep Lightning's tips, and its advice that does not apply, off the terminal."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric).*")


def _check_padding(cfg: DictConfig, model: Any) -> None:
    if cfg.data.trim_batches and counts_padding(model):
        pooling = type(model.pooling).__name__
        raise ConfigError(
            f"task.trim_batches=true cuts padding off, and {pooling} counts it: "
            "the result would depend on the batch; use task.trim_batches=false"
        )


def _instantiate(cfg: DictConfig, node: Any, **kwargs: Any) -> Any:
    make_importable(cfg.paths.config_dirs)
    try:
        if OmegaConf.is_config(node):  # Hydra would name what refers to a missing value, not that
            OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        return instantiate(node, **kwargs)
    except InstantiationException as error:
        raise ConfigError(_innermost(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error


_HYDRAS = (InstantiationException, ImportError)  # the latter of a target that cannot be loaded


def _innermost(error: InstantiationException) -> str:
    """Say what went wrong within Hydra's own errors, and which key of the configuration led there.

    Where a part says why something failed, its words count, not those of what failed.
    """
    cause: BaseException = error
    while isinstance(cause, _HYDRAS) and cause.__cause__ is not None:
        cause = cause.__cause__
    key = str(error).partition("full_key: ")[2].strip()
    message = " ".join(str(cause).split("\n")[0].split())
    return f"{message} (in {key})" if key else message
