"""What Lightning does not promise is still as this project knows it."""

from itertools import repeat

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from macformer.training.lightning_counters import (
    TESTED,
    count_steps,
    scales_loss,
    steps_to_validation,
)
from tasks.feeding.lightning_counters import num_batches_processed

UPGRADED = (
    f"Lightning is {pl.__version__}, and what is known holds for {TESTED}: mend "
    "macformer/training/lightning_counters.py and tasks/feeding/lightning_counters.py"
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice


class ThreeSteps(pl.LightningModule):
    """Take three batches and steps in each call."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, dataloader_iter):
        self.seen.append((self.global_step, steps_to_validation(self.trainer)))
        for _ in range(3):
            next(dataloader_iter)
        count_steps(self.trainer, 3)

    def validation_step(self, batch, batch_idx):
        self.seen.append(f"validation at {self.global_step}")


class Endless:
    """Batches without a length, as the data module's."""

    def __iter__(self):
        return repeat(torch.zeros(1))


def fit(tmp_path, *, max_steps, **options):
    module = ThreeSteps()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(module, Endless(), DataLoader(torch.zeros(1, 1)))
    return trainer, module


def test_lightning_counts_what_it_is_told(tmp_path):
    trainer, module = fit(tmp_path, max_steps=12, val_check_interval=6, enable_checkpointing=False)
    expected = [(0, 6), (3, 3), "validation at 6", (6, 6), (9, 3), "validation at 12"]
    assert module.seen == expected, UPGRADED
    assert trainer.global_step == 12, UPGRADED
    assert num_batches_processed(trainer) == 12, UPGRADED
    assert not scales_loss(trainer), UPGRADED


def test_a_checkpoint_holds_what_lightning_was_told(tmp_path):
    trainer, _ = fit(tmp_path, max_steps=6, val_check_interval=6)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert saved["global_step"] == 6 and progress["processed"] == 6, UPGRADED


def test_there_is_no_next_validation_without_one(tmp_path):
    _, module = fit(tmp_path, max_steps=3, limit_val_batches=0, enable_checkpointing=False)
    assert module.seen == [(0, None)], UPGRADED


def test_a_loss_scale_is_seen():
    scaled = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    scaled.strategy.precision_plugin.scaler = object()
    assert scales_loss(scaled), UPGRADED
