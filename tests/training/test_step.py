"""The optimisation step alone, and the schedules it steps."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from macformer.training.objectives import classify
from macformer.training.schedules import constant, cosine, one_cycle, rsqrt
from macformer.training.step import Gradients, optimisation_step

PLAIN = {"objective": classify, "accumulate": 1, "clip": None, "compile": None}


class Linear(nn.Module):
    """Classify by one linear layer over two input numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, inputs, key_padding_mask):
        return self.layer(inputs.float())


BATCH = {
    "inputs": torch.tensor([[1, 0], [0, 2]]),
    "key_padding_mask": torch.zeros(2, 2, dtype=torch.bool),
    "labels": torch.tensor([0, 1]),
}


def step_once(clip):
    model = Linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    gradients = Gradients(model, **PLAIN | {"clip": clip})
    loss, num_correct, _ = optimisation_step(gradients, BATCH, optimizer, schedule)
    return model.layer.weight.detach(), loss, num_correct, optimizer.param_groups[0]["lr"]


def test_step_follows_the_gradient_by_hand():
    weight, loss, num_correct, lr = step_once(clip=None)
    # at zero weights p = 1/2: dL/dW = mean_i (p - y_i) x_i
    gradient = torch.tensor([[-0.25, 0.5], [0.25, -0.5]])
    torch.testing.assert_close(weight, -0.1 * gradient)
    assert loss.item() == pytest.approx(math.log(2))
    assert num_correct.item() == 1  # ties go to class 0
    assert lr == pytest.approx(0.05)


def test_gradients_are_clipped_by_value_or_norm():
    weight, *_ = step_once(partial(nn.utils.clip_grad_value_, clip_value=0.3))
    torch.testing.assert_close(weight, torch.tensor([[0.025, -0.03], [-0.025, 0.03]]))
    weight, *_ = step_once(partial(nn.utils.clip_grad_norm_, max_norm=0.1))
    assert weight.norm().item() == pytest.approx(0.01, rel=1e-4)


def rates(make, steps, lr=1.0):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_one_cycle_rises_and_falls_linearly():
    seen = rates(partial(one_cycle, max_steps=101, warmup_steps=21), 101, lr=2.0)
    assert seen[0] == pytest.approx(2.0 / 25)
    assert seen[20] == pytest.approx(2.0)
    assert seen[10] == pytest.approx((2.0 / 25 + 2.0) / 2)
    assert seen[60] == pytest.approx(1.0, rel=1e-4)
    assert seen[100] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 10])
def test_one_cycle_survives_runs_shorter_than_its_warmup(max_steps):
    seen = rates(partial(one_cycle, max_steps=max_steps, warmup_steps=1000), max_steps)
    assert all(0 < rate <= 1 for rate in seen)


def test_rsqrt_is_the_published_schedule():
    seen = rates(partial(rsqrt, warmup_steps=100), 401, lr=0.05)
    assert seen[50] == pytest.approx(0.05 * 0.5 / 10)
    assert seen[100] == pytest.approx(0.05 / 10)  # the peak
    assert seen[400] == pytest.approx(0.05 / 20)


def test_a_constant_rate_is_reached_by_its_warmup():
    assert rates(partial(constant, warmup_steps=4), 7, lr=2.0) == [0, 0.5, 1, 1.5, 2, 2, 2]


def test_cosine_reaches_zero():
    seen = rates(partial(cosine, max_steps=110, warmup_steps=10), 111)
    assert seen[5] == pytest.approx(0.5)
    assert seen[10] == pytest.approx(1.0)
    assert seen[60] == pytest.approx(0.5)
    assert seen[110] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "schedule", [partial(one_cycle, max_steps=5), constant, rsqrt, partial(cosine, max_steps=5)]
)
def test_every_schedule_does_without_a_warmup(schedule):
    seen = rates(partial(schedule, warmup_steps=0), 5)
    assert max(seen) == pytest.approx(1.0) and seen[1:] == sorted(seen[1:], reverse=True)
