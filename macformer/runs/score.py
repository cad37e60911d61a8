"""Score a run at the end of its training, by the last weights and by the best in validation."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from macformer.callbacks import BestCheckpoint, LastCheckpoint, RandomStates
from macformer.runs.build import Run
from macformer.runs.checkpoint import load_weights

Answers = dict[str, np.ndarray]
DECIDING: dict[type[pl.Callback], str] = {  # a run without one of them has another result, or none
    BestCheckpoint: "best",
    LastCheckpoint: "last",
    RandomStates: "random_states",
}


def score_run(
    built: Run, *, eval_interval: int
) -> tuple[dict[str, dict[str, Any]], Answers | None]:
    """Test the weights best in validation, then the last ones, whose speed is reported.

    Args:
        built: A run that has trained; its module keeps the last weights.
        eval_interval: Optimiser steps between validations.

    Returns:
        ``accuracy`` with ``best`` and ``last``, each with ``step``, ``val`` and ``test``; where the
        run has further metrics, ``scores`` with each one's under the same names; and the arrays of
        :func:`macformer.record.read_predictions`, or None where hidden tokens are asked for, whose
        answers nothing compares.
    """
    data: Any = built.data
    built.module.keeps_answers = data.hidden_share is None
    best = built.callback(BestCheckpoint)
    assert best is not None
    step = built.trainer.global_step
    val = _validate_last(built, best, ended_on_validation=step % eval_interval == 0)
    best_test = None if best.step == step else _test_best(built, best)
    test, last_answers = _test(built)
    tests_of_best, best_answers = best_test or (test, last_answers)
    found = {"last": (step, val, test), "best": (best.step, best.metrics, tests_of_best)}
    results: dict[str, Any] = {
        "accuracy": {
            rule: {"step": at, "val": vals["val/accuracy"], "test": tests["test/accuracy"]}
            for rule, (at, vals, tests) in found.items()
        }
    }
    names = [name.removeprefix("test/") for name in test if name != "test/accuracy"]
    if names:
        results["scores"] = {
            rule: {
                "val": {name: vals.get(f"val/{name}") for name in names},  # None: a later metric
                "test": {name: tests[f"test/{name}"] for name in names},
            }
            for rule, (_, vals, tests) in found.items()
        }
    if best_answers is None or last_answers is None:
        return results, None
    return results, _join(best_answers, last_answers)


def _validate_last(
    built: Run, best: BestCheckpoint, *, ended_on_validation: bool
) -> dict[str, float]:
    """Return what validation says of the last weights, which may be the best, too."""
    trainer = built.trainer
    if ended_on_validation and "val/accuracy" in trainer.callback_metrics:
        return {name: float(value) for name, value in trainer.callback_metrics.items()}
    # Training had ended before, or ended between two validations.
    (val,) = trainer.validate(built.module, built.data, verbose=False)
    if not ended_on_validation:
        best.consider(trainer, val)
    return dict(val)


def _test_best(built: Run, best: BestCheckpoint) -> tuple[dict[str, float], Answers | None]:
    """Test the best checkpoint; the module keeps the last weights."""
    model = built.module.model
    last_weights = {name: value.clone() for name, value in model.state_dict().items()}
    step = load_weights(model, best.path)
    assert step == best.step, f"{best.path} is of step {step}, not {best.step}"
    result = _test(built)
    model.load_state_dict(last_weights)
    return result


def _test(built: Run) -> tuple[dict[str, float], Answers | None]:
    (result,) = built.trainer.test(built.module, built.data, verbose=False)
    return dict(result), _answers(built) if built.module.keeps_answers else None


def _answers(built: Run) -> Answers:
    """Return the rows of the last test with their labels, predictions and margins, of all ranks."""
    data: Any = built.data
    answers = [answer.cpu() for answer in built.module.test_answers()]
    rows = data.test_rows()[: len(answers[0])].cpu()
    parts: list[Any] = [(rows, *answers)]
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        own, parts = parts[0], [None] * dist.get_world_size()
        dist.all_gather_object(parts, own)
    row, label, prediction, margin = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    order = row.argsort()
    return {
        "row": row[order].astype(np.int32),
        "label": label[order].astype(np.int32),
        "prediction": prediction[order].astype(np.int32),
        "margin": margin[order].astype(np.float32),
    }


def _join(best: Answers, last: Answers) -> Answers:
    assert (best["row"] == last["row"]).all()
    joined = {"row": last["row"], "label": last["label"]}
    for name, answers in (("best", best), ("last", last)):
        joined |= {f"{name}_{kind}": answers[kind] for kind in ("prediction", "margin")}
    return joined
