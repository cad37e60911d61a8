"""What training minimises, as a function of a model and a batch.

An objective leaves everything on the device, reads nothing back from it and branches on no value,
so that a CUDA graph can hold it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = Mapping[str, Tensor]


class Loss(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
        loss: The mean over what is scored, of which the gradients are taken.
        num_correct: How many predictions are right.
        num_scored: How many there are: examples, or tokens, but not those left out.
    """

    loss: Float[Tensor, ""]
    num_correct: Int[Tensor, ""]
    num_scored: Int[Tensor, ""]


Objective = Callable[[nn.Module, Batch], Loss]


def classify(model: nn.Module, batch: Batch) -> Loss:
    """Take the mean cross entropy of the labels, of which a sequence may have several."""
    logits, labels = predict(model, batch), batch["labels"]
    return with_counts(cross_entropy(logits.flatten(0, -2), labels.flatten()), logits, labels)


class BalancedClassification:
    r"""Take the cross entropy of the labels, weighted so that all classes weigh alike.

    .. math:: \frac{1}{B} \sum_i w_{y_i} \ell_i, \qquad w_c = \frac{n}{C n_c}

    with :math:`n_c` of n training rows in class c of C: the mean weight of a training row is 1.

    Args:
        class_counts: Training rows of each class.

    Raises:
        ValueError: If they are not known, or a class has none.
    """

    def __init__(self, *, class_counts: Sequence[int] | None):
        if not class_counts or min(class_counts) < 1:
            raise ValueError(
                f"task.class_counts is {class_counts}; to weigh classes alike, it must say how "
                "many training rows each has (macformer-describe writes it)"
            )
        counts = torch.tensor(list(class_counts), dtype=torch.float64)
        self._weights = (counts.sum() / (len(counts) * counts)).float()

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Score a batch; right predictions count alike whatever their class."""
        logits, labels = predict(model, batch), batch["labels"]
        if self._weights.device != labels.device:  # once, before any graph is recorded
            self._weights = self._weights.to(labels.device)
        losses = cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        return with_counts((losses * self._weights[labels.flatten()]).mean(), logits, labels)


def with_counts(
    loss: Float[Tensor, ""], logits: Float[Tensor, "*answers C"], labels: Int[Tensor, "*answers"]
) -> Loss:
    """Say beside a loss how many predictions there are, and how many of them are right."""
    num_correct = (logits.detach().argmax(-1) == labels).sum()
    return Loss(loss, num_correct, num_correct.new_full((), labels.numel()))


def to_device(batch: Batch, device: torch.device | str) -> dict[str, Tensor]:
    """Put a batch on a device; from pinned memory without waiting for the copy."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def predict(
    model: nn.Module, batch: Batch
) -> Float[Tensor, "B C"] | Float[Tensor, "B questions C"]:
    """Give a model what a batch holds beside its labels; return the logits."""
    return model(*inputs_of(batch))


def inputs_of(batch: Batch) -> list[Tensor | None]:
    """Return what a model is called with: inputs, their mask or None, and places where asked."""
    asked = [batch["places"]] if "places" in batch else []
    return [batch["inputs"], batch.get("key_padding_mask"), *asked]


def judge(
    logits: Float[Tensor, "*answers C"], labels: Int[Tensor, "*answers"]
) -> tuple[Int[Tensor, "*answers"], Float[Tensor, "*answers"]]:
    """Return the answered classes, and how far the true one stands above the largest other."""
    logits, chosen = logits.float(), labels[..., None]
    others = logits.scatter(-1, chosen, float("-inf"))
    margin = logits.gather(-1, chosen) - others.amax(-1, keepdim=True)
    return logits.argmax(-1), margin.squeeze(-1)
