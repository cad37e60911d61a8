"""What decides a result decides a run's identity, and nothing else does."""

from functools import cache

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig

from macformer.runs.identity import register_resolver


@cache
def identity(*overrides: str) -> str:
    register_resolver()
    with initialize_config_module("configs", version_base="1.3"):
        options = ["task=listops_short", "recipe=smoke", *overrides]
        cfg = compose("train", options, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg.identity


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1",),
        ("attention=rmfa_exp",),
        ("ppsbn=with",),
        ("ppsbn=with_batch",),
        ("learning_rate=0.5",),
        ("batch_size=4",),
        ("task.brackets=drop",),
        ("model.encoder.dropout=0.0",),
        ("callbacks.best.monitor=val/loss", "callbacks.best.mode=min"),
        ("+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping}",),
    ],
)
def test_what_decides_a_result_decides_the_identity(overrides):
    assert identity(*overrides) != identity()


@pytest.mark.parametrize(
    "overrides",
    [
        ("logger=wandb",),
        ("sweep=elsewhere",),
        ("exclusive=false",),
        ("retry=failed",),
        ("task.num_workers=2",),
        ("+recipe.text.max_steps=1",),
        ("callbacks.progress.refresh_interval=1",),
    ],
)
def test_what_cannot_change_a_result_does_not(overrides):
    assert identity(*overrides) == identity()
