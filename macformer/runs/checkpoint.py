"""Write, choose and load the checkpoints of a run."""

import logging
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from macformer.whole_file import whole_file

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read."""


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints of which each is the old one or the new one, and say where that failed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        try:
            with whole_file(Path(path)) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps what the file system says
            cause = error if isinstance(error, OSError) else error.__context__ or error
            reason = getattr(cause, "strerror", None) or cause
            before = "; the checkpoint before it is whole" if Path(path).is_file() else ""
            raise CheckpointError(f"{path} cannot be written: {reason}{before}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give the folder of a run that has trained")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not state.keys() >= {"state_dict", "global_step", "callbacks"}:
            raise KeyError("state_dict")
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise CheckpointError(f"{path} cannot be read as a checkpoint") from error
    return state


def load_weights(model: nn.Module, path: Path, *, part: str = "") -> int:
    """Load the model's part of a checkpoint, and return the step that it was saved at.

    Args:
        part: A submodule of the model, which alone is loaded; empty for all of it.

    Raises:
        CheckpointError: If it is missing, damaged, or another model's.
    """
    state = load_checkpoint(path)
    prefix = f"model.{part}." if part else "model."
    weights = state["state_dict"].items()
    own = {name.removeprefix(prefix): x for name, x in weights if name.startswith(prefix)}
    try:
        model.get_submodule(part).load_state_dict(own)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is of another model: {reason}") from error
    return state["global_step"]


def find_start(checkpoints: Path) -> Path | None:
    """Return the checkpoint from which a run goes on; None to begin anew.

    That is the last one, if it is whole and the best weights that it speaks of are there; else the
    best one. A run that was killed between the two files of one validation goes on from that
    validation. What is damaged is named.
    """
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    state, best_state = _load_or_name(last), _load_or_name(best)
    if state is None:
        return None if best_state is None else best
    expected = state["callbacks"].get("BestCheckpoint", {}).get("step")
    found = None if best_state is None else best_state["global_step"]
    if found == expected:
        return last
    if found is not None and found >= state["global_step"]:  # written after the last one
        _copy(best, last)
        return last
    if expected == state["global_step"]:
        _copy(last, best)
        return last
    log.warning("%s is gone, and no other file has its weights; training begins anew", best)
    return None


def _copy(source: Path, target: Path) -> None:
    """Let a checkpoint stand for another one, too; each rank of a run may do so."""
    with source.open("rb") as old, whole_file(target, writer=f".{uuid4().hex}") as new:
        shutil.copyfileobj(old, new)


def _load_or_name(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        log.warning("%s; the run goes on from what is whole", error)
        return None
