"""Checkpoints are whole or named, and what was best survives whatever happens to the folder."""

import logging
import shutil
from unittest.mock import create_autospec

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from macformer.callbacks import BestCheckpoint, LastCheckpoint
from macformer.runs.checkpoint import (
    CheckpointError,
    WholeCheckpoints,
    find_start,
    load_checkpoint,
    load_weights,
)


def save(path, *, step: int, best_step: int | None, value: float = 0.0) -> None:
    path.parent.mkdir(exist_ok=True)
    state = {
        "state_dict": {"model.weight": torch.full((1, 2), value), "val_accuracy": torch.ones(1)},
        "global_step": step,
        "callbacks": {"BestCheckpoint": {"step": best_step, "metrics": {}}},
    }
    torch.save(state, path)


def damage(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def folder(tmp_path):
    """The checkpoints of a run that was best at step 4 and is at step 8."""
    save(tmp_path / "best.ckpt", step=4, best_step=4, value=4.0)
    save(tmp_path / "last.ckpt", step=8, best_step=4, value=8.0)
    return tmp_path


def test_a_run_goes_on_from_its_last_checkpoint(folder):
    assert find_start(folder) == folder / "last.ckpt"
    assert find_start(folder / "empty") is None


def test_a_damaged_last_checkpoint_is_named_and_the_best_one_taken(folder, caplog):
    damage(folder / "last.ckpt")
    with caplog.at_level(logging.WARNING):
        assert find_start(folder) == folder / "best.ckpt"
    assert str(folder / "last.ckpt") in caplog.text


def test_where_the_best_weights_are_lost_training_begins_anew(folder, caplog):
    damage(folder / "best.ckpt")
    with caplog.at_level(logging.WARNING):
        assert find_start(folder) is None
    assert str(folder / "best.ckpt") in caplog.text


def test_where_the_last_weights_are_the_best_they_stand_for_them(folder):
    save(folder / "last.ckpt", step=4, best_step=4)
    (folder / "best.ckpt").unlink()
    assert find_start(folder) == folder / "last.ckpt"
    assert load_checkpoint(folder / "best.ckpt")["global_step"] == 4


@pytest.mark.parametrize(
    ("last_step", "best_of_last"), [(4, 2), (4, None), (8, 4)], ids=["later", "first", "at the end"]
)
def test_a_kill_between_the_two_files_of_a_validation_loses_none_of_it(
    folder, last_step, best_of_last
):
    save(folder / "best.ckpt", step=8, best_step=8, value=8.0)
    save(folder / "last.ckpt", step=last_step, best_step=best_of_last)
    assert find_start(folder) == folder / "last.ckpt"
    state = load_checkpoint(folder / "last.ckpt")
    assert (state["global_step"], state["callbacks"]["BestCheckpoint"]["step"]) == (8, 8)


def test_the_best_weights_of_another_training_are_not_those_of_this_one(folder, caplog):
    save(folder / "best.ckpt", step=2, best_step=2)
    assert find_start(folder) is None
    assert "training begins anew" in caplog.text


def test_a_copy_of_weights_is_whole_or_not_there(folder, monkeypatch):
    """A full disk leaves no half of the best weights, which the next call would distrust."""

    def copy_half(source, target):
        target.write(source.read(100))
        raise OSError(28, "No space left on device")

    save(folder / "last.ckpt", step=4, best_step=4)
    (folder / "best.ckpt").unlink()
    monkeypatch.setattr(shutil, "copyfileobj", copy_half)
    with pytest.raises(OSError, match="No space left"):
        find_start(folder)
    assert [file.name for file in folder.iterdir()] == ["last.ckpt"]


def test_weights_come_from_whole_checkpoints_of_this_model(folder):
    model = nn.Linear(2, 1, bias=False)
    assert load_weights(model, folder / "last.ckpt") == 8
    assert model.weight.tolist() == [[8.0, 8.0]]
    with pytest.raises(CheckpointError, match=r"last\.ckpt is of another model: .*size mismatch"):
        load_weights(nn.Linear(3, 1, bias=False), folder / "last.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_weights(model, folder / "none.ckpt")
    damage(folder / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read as a checkpoint"):
        load_weights(model, folder / "last.ckpt")


def test_a_full_disk_leaves_the_checkpoint_before(folder):
    path = folder / "last.ckpt"
    before = path.read_bytes()
    (folder / "last.ckpt.tmp").symlink_to("/dev/full")
    full = (
        r"last\.ckpt cannot be written: No space left on device; the checkpoint before it is whole$"
    )
    with pytest.raises(CheckpointError, match=full) as e:
        WholeCheckpoints().save_checkpoint({"weights": torch.ones(1000)}, path)
    assert "\n" not in str(e.value)
    assert path.read_bytes() == before and not (folder / "last.ckpt.tmp").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot be written: [\w ]+$"):
        WholeCheckpoints().save_checkpoint({}, tmp_path / "checkpoints" / "last.ckpt")


def validate(best: BestCheckpoint, trainer, step: int, **metrics: float) -> None:
    trainer.global_step = step
    best.consider(trainer, {f"val/{name}": value for name, value in metrics.items()})


@pytest.fixture
def trainer():
    saved = []
    stand_in = create_autospec(pl.Trainer, instance=True)
    stand_in.save_checkpoint, stand_in.saved = saved.append, saved
    return stand_in


@pytest.mark.parametrize(
    ("monitor", "mode", "step"), [("val/accuracy", "max", 2), ("val/loss", "min", 3)]
)
def test_what_is_best_is_decided_by_the_metric_that_is_monitored(
    trainer, tmp_path, monitor, mode, step
):
    best = BestCheckpoint(dirpath=str(tmp_path), monitor=monitor, mode=mode)
    validate(best, trainer, 1, accuracy=0.3, loss=2.0)
    validate(best, trainer, 2, accuracy=0.9, loss=1.5)
    validate(best, trainer, 3, accuracy=0.8, loss=0.2)
    validate(best, trainer, 4, accuracy=0.1, loss=float("nan"))
    assert best.step == step
    assert best.metrics["val/accuracy"] == {2: 0.9, 3: 0.8}[step]
    assert len(trainer.saved) == step


def test_the_best_is_remembered_in_another_folder(trainer, tmp_path):
    before = BestCheckpoint(dirpath=str(tmp_path / "a"), monitor="val/accuracy", mode="max")
    validate(before, trainer, 5, accuracy=0.359)
    after = BestCheckpoint(dirpath=str(tmp_path / "b"), monitor="val/accuracy", mode="max")
    after.load_state_dict(before.state_dict())
    validate(after, trainer, 6, accuracy=0.344)
    assert (after.step, after.metrics) == (5, {"val/accuracy": 0.359})
    assert trainer.saved == [tmp_path / "a" / "best.ckpt"]


def test_a_bad_selection_is_one_line(trainer, tmp_path):
    with pytest.raises(ValueError, match="mode is most; allowed are max, min"):
        BestCheckpoint(dirpath=str(tmp_path), monitor="val/accuracy", mode="most")
    best = BestCheckpoint(dirpath=str(tmp_path), monitor="val/acc", mode="max")
    with pytest.raises(ValueError, match="monitor is val/acc; a validation gives val/accuracy"):
        validate(best, trainer, 1, accuracy=0.5)


def test_a_time_limit_is_that_of_one_call(tmp_path):
    checkpoint = {"callbacks": {"Timer": {"time_elapsed": {"train": 20.0}}, "Other": {}}}
    last = LastCheckpoint(dirpath=str(tmp_path))
    arguments = (create_autospec(kind, instance=True) for kind in (pl.Trainer, pl.LightningModule))
    last.on_save_checkpoint(*arguments, checkpoint)
    assert checkpoint["callbacks"] == {"Other": {}}
    assert isinstance(last, pl.callbacks.Checkpoint)  # Lightning adds none of its own


def test_moving_a_folder_keeps_its_checkpoints(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "checkpoints"
    shutil.move(folder, moved)
    assert find_start(moved) == moved / "last.ckpt"
