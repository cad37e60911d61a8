"""What is summed over the batches of a validation."""

import math

import pytest
import torch

from macformer.training.scores import Accuracy, MeanLoss, at_least_float32


def test_losses_weigh_by_what_they_are_means_of():
    loss = MeanLoss()
    loss.update(torch.tensor(1.0), torch.tensor(6))
    loss.update(torch.tensor(4.0), torch.tensor(2))
    assert float(loss.compute()) == (6 * 1 + 2 * 4) / 8


def test_one_loss_that_is_no_number_is_not_left_out():
    loss = MeanLoss()
    for value in (1.0, float("nan"), 2.0):
        loss.update(torch.tensor(value), torch.tensor(4))
    assert math.isnan(loss.compute())


def test_accuracy_counts_answers_and_not_batches_to_every_digit():
    """A row that always answers the most frequent class is not above its share."""
    accuracy = Accuracy()
    accuracy.update(torch.tensor(4), torch.tensor(8))
    accuracy.update(torch.tensor(1), torch.tensor(1))
    assert float(accuracy.compute()) == 5 / 9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_of_a_run_do_not_round_the_sum_of_its_losses(dtype):
    """As Lightning casts a module for trainer.precision=bf16-true: 300 batches of 32."""
    loss = MeanLoss().to(dtype)
    for _ in range(2):
        for _ in range(300):
            loss.update(torch.tensor(2.3, dtype=dtype), torch.tensor(32))
        assert float(loss.compute()) == pytest.approx(float(torch.tensor(2.3, dtype=dtype)))
        loss.reset()


def test_only_halves_are_widened():
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8):
        assert at_least_float32(torch.zeros((), dtype=dtype)).dtype == dtype
