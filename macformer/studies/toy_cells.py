"""Train a cell of the tables for a few hundred steps, in this process."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from macformer.runs.build import build_data, build_model
from macformer.studies.compose import compose_cell
from macformer.studies.toy_training import Outcome, train


def train_cell(
    options: Mapping[str, Any], cfg: DictConfig, *, num_steps: int
) -> tuple[Outcome, nn.Module]:
    """Train and test the cell that some options of ``configs/train.yaml`` describe.

    It is tested on as many batches as its recipe says.

    Args:
        cfg: Of the study, whose settings hold ``learning_rate``, and ``options`` that all its cells
            share.
    """
    shared: Any = OmegaConf.to_container(cfg.study.settings.options, resolve=True)
    everything = {**shared, "paths.data_dir": cfg.paths.data_dir, **options}
    composed = compose_cell(cfg, everything)
    data: Any = build_data(composed)
    data.prepare_data()
    data.setup("fit")
    model = build_model(composed)
    outcome = train(
        model,
        iter(data.train_dataloader()),
        list(islice(data.test_dataloader(), composed.test_batches)),
        num_steps=num_steps,
        warmup_steps=num_steps // 10,
        learning_rate=cfg.study.settings.learning_rate,
        device=cfg.device,
    )
    return outcome, model
