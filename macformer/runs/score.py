"""Score a run at the end of its training, by the last weights and by the best in validation."""

from pathlib import Path
from typing import Any

import torch

from macformer.runs.build import Run


def score_run(built: Run, *, eval_interval: int) -> dict[str, dict[str, Any]]:
    """Test the weights best in validation, then the last ones, whose speed is reported.

    Args:
        built: A run that has trained; its module keeps the last weights.
        eval_interval: Optimiser steps between validations.

    Returns:
        ``best`` and ``last``, each with ``step``, ``val`` and ``test``; the accuracies are of one.
    """
    step = built.trainer.global_step
    val = _validate_last(built, ended_on_validation=step % eval_interval == 0)
    best = _score_best(built, last_step=step, last_val=val)
    last = {"step": step, "val": val, "test": _test(built)}
    return {"last": last, "best": best or last}


def _validate_last(built: Run, *, ended_on_validation: bool) -> float:
    """Return the validation accuracy of the last weights, which are in the last checkpoint."""
    trainer = built.trainer
    if not ended_on_validation:
        _save(built, "last")
    elif "val/accuracy" in trainer.callback_metrics:  # not where training had ended before
        return float(trainer.callback_metrics["val/accuracy"])
    return trainer.validate(built.module, built.data, verbose=False)[0]["val/accuracy"]


def _save(built: Run, name: str) -> None:
    checkpoint: Any = built.callbacks[name]
    built.trainer.save_checkpoint(Path(checkpoint.dirpath) / f"{name}.ckpt")


def _score_best(built: Run, *, last_step: int, last_val: float) -> dict[str, Any] | None:
    """Test the best checkpoint, unless it is the last; the module keeps the last weights."""
    checkpoint: Any = built.callbacks["best"]
    score = checkpoint.best_model_score
    if score is None or float(score) < last_val:
        _save(built, "best")
        return None
    state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
    if state["global_step"] == last_step:
        return None
    last_weights = {name: value.clone() for name, value in built.module.state_dict().items()}
    built.module.load_state_dict(state["state_dict"])
    best = {"step": state["global_step"], "val": float(score), "test": _test(built)}
    built.module.load_state_dict(last_weights)
    return best


def _test(built: Run) -> float:
    return built.trainer.test(built.module, built.data, verbose=False)[0]["test/accuracy"]
