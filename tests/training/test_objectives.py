"""Objectives against hand-computed and independent values."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from macformer.training import BalancedClassification, classify
from macformer.training.objectives import inputs_of


class Fixed(nn.Module):
    """Answers with its own logits, whatever it is asked."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, inputs: torch.Tensor, key_padding_mask: torch.Tensor) -> torch.Tensor:
        return self.logits


def batch(labels: list[int]) -> dict[str, torch.Tensor]:
    shape = (len(labels), 1)
    return {
        "inputs": torch.zeros(shape, dtype=torch.int64),
        "key_padding_mask": torch.zeros(shape, dtype=torch.bool),
        "labels": torch.tensor(labels),
    }


def test_a_model_is_told_of_padding_and_places_if_there_are_any():
    full = {name: torch.tensor([n]) for n, name in enumerate(("inputs", "key_padding_mask"))}
    places = {"places": torch.tensor([2])}
    assert inputs_of({"labels": torch.tensor([3]), **full}) == [0, 1]
    assert inputs_of({**places, **full}) == [0, 1, 2]
    bare = {"inputs": full["inputs"]}
    assert inputs_of(bare) == [0, None]
    assert inputs_of({**places, **bare}) == [0, None, 2]


def test_classes_weigh_as_scikit_learn_balances_them():
    labels = np.repeat([0, 1, 2], [7, 2, 11])
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    losses = -torch.log_softmax(logits.double(), 1)[torch.arange(20), torch.tensor(labels)]
    expected = (losses * torch.tensor(weights)[torch.tensor(labels)]).mean()

    objective = BalancedClassification(class_counts=[7, 2, 11])
    loss, num_correct, num_scored = objective(Fixed(logits), batch(labels.tolist()))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)  # float32
    assert num_scored == 20
    assert num_correct == (logits.argmax(1) == torch.tensor(labels)).sum()


def test_equal_classes_weigh_as_without_weights():
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    labels = [0, 1, 1, 0, 1, 1]  # of a batch, which is not what counts
    balanced = BalancedClassification(class_counts=[5, 5])(Fixed(logits), batch(labels))
    torch.testing.assert_close(balanced, classify(Fixed(logits), batch(labels)))


@pytest.mark.parametrize("counts", [None, [], [3, 0]])
def test_unknown_or_empty_classes_cannot_be_balanced(counts):
    with pytest.raises(ValueError, match=r"task\.class_counts is .*\(macformer-describe writes it"):
        BalancedClassification(class_counts=counts)
