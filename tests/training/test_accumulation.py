"""A step in parts is the step of the whole batch."""

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from macformer.runs import cell
from macformer.runs.build import build_run
from macformer.training import Gradients, Loss, classify


def gradients_of(model, batch, *, objective=classify, accumulate):
    step = Gradients(model, objective=objective, accumulate=accumulate, clip=None, compile=None)
    return step(batch), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("accumulate", [2, 3, 8])
def test_gradients_are_those_of_the_whole_batch(make_run, padded, accumulate):
    """Three does not divide eight: parts of three, three and two count by their size."""
    cfg, _ = make_run("attention=rmfa_exp", "ppsbn=with", "model.encoder.dropout=0.0")
    built = build_run(cfg)
    built.data.prepare_data()
    built.data.setup()
    batch = next(iter(built.data.train_dataloader()))
    assert batch["key_padding_mask"].any()
    if not padded:
        del batch["key_padding_mask"]
    model = built.module.model
    whole = gradients_of(model, batch, accumulate=1)
    parts = gradients_of(model, batch, accumulate=accumulate)
    # one sum of float32 in another order
    assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_parts_count_by_what_they_score():
    """Rows 0, 1 | 2, 3 with one and two rows scored: the mean of three, not of two means."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)

    def squares_above_zero(model, batch):
        scored = batch["inputs"] > 0
        squares = torch.where(scored, model(batch["inputs"]) ** 2, 0)
        return Loss(squares.sum() / scored.sum(), scored.sum() * 0, scored.sum())

    batch = {"inputs": torch.tensor([[1.0], [-7.0], [2.0], [3.0]])}
    result, grads = gradients_of(model, batch, objective=squares_above_zero, accumulate=2)
    assert result.loss.item() == pytest.approx((1 + 4 + 9) / 3)
    assert grads["weight"].item() == pytest.approx(2 * (1 + 4 + 9) / 3)
    assert result.num_scored == 3


def test_a_run_is_that_of_the_larger_batch(make_run):
    """Over an epoch's end, and with several steps to a call; steps are the optimiser's."""
    options = ("model.encoder.dropout=0.0", "max_steps=10", "eval_interval=5")
    runs = {
        "whole": ("batch_size=8",),
        "parts": ("batch_size=2", "accumulate=4"),
        "together": ("batch_size=2", "accumulate=4", "step.steps_per_call=5"),
    }
    weights, results = {}, {}
    for name, chosen in runs.items():
        _, run_dir = make_run(*options, *chosen, folder=name)
        assert cell.run(run_dir)
        saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        weights[name] = saved["state_dict"]
        results[name] = json.loads((run_dir / "metrics.json").read_text())["train"]
    assert {result["steps"] for result in results.values()} == {10}
    # ten steps of 1e-3 by Adam, which divides rounding by itself where a gradient is nearly zero
    assert_close(weights["parts"], weights["whole"], rtol=1e-3, atol=1e-4)
    assert_close(weights["together"], weights["parts"], rtol=0, atol=0)
    assert results["parts"]["loss"] == pytest.approx(results["whole"]["loss"], rel=1e-5)
