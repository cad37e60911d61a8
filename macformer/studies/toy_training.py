"""Train tiny models by the hundred, in this process, and say how each training went."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from macformer.training.objectives import Batch, classify, judge, predict, to_device
from macformer.training.schedules import one_cycle
from macformer.training.step import Gradients, optimisation_step

DIVERGED_ABOVE = 1.1  # times chance: an untrained model's loss is within a few percent of it


@dataclass(frozen=True)
class Outcome:
    """How a training went.

    Args:
        accuracy: On the test batches, after the last step.
        error: Its standard error over test rows, each of which counts once.
        loss: Likewise, the mean cross entropy.
        chance: The entropy of the labels of the test batches: the loss of a model that knows their
            frequencies and nothing else.
        gradient_norm: Median over the steps, before any clipping.
        largest_gradient_norm: Over the steps.
    """

    accuracy: float
    error: float
    loss: float
    chance: float
    gradient_norm: float
    largest_gradient_norm: float

    @property
    def diverged(self) -> bool:
        """Whether loss or gradients are not finite, or the final loss is well above chance."""
        finite = math.isfinite(self.loss) and math.isfinite(self.largest_gradient_norm)
        return not finite or self.loss > DIVERGED_ABOVE * self.chance


def train(
    model: nn.Module,
    batches: Iterator[Batch],
    test: Sequence[Batch],
    *,
    num_steps: int,
    warmup_steps: int,
    learning_rate: float,
    device: str,
) -> Outcome:
    """Train by AdamW under one cycle of the learning rate, gradients left as they are."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    scheduler = one_cycle(optimizer, max_steps=num_steps, warmup_steps=warmup_steps)
    norms: list[Tensor] = []

    def record(parameters: list[nn.Parameter]) -> None:
        norms.append(get_total_norm([p.grad for p in parameters if p.grad is not None]))

    gradients = Gradients(model, objective=classify, accumulate=1, clip=record, compile=None)
    for _ in range(num_steps):
        optimisation_step(gradients, to_device(next(batches), device), optimizer, scheduler)
    loss, right = evaluate(model, [to_device(batch, device) for batch in test])
    norm = torch.stack(norms)
    return Outcome(
        accuracy=float(right.mean()),
        error=float(right.std() / len(right) ** 0.5),
        loss=loss,
        chance=label_entropy(torch.cat([batch["labels"].flatten() for batch in test])),
        gradient_norm=float(norm.median()),
        largest_gradient_norm=float(norm.max()),
    )


def count_diverged(rows: pd.DataFrame) -> str:
    """Say of how many rows the training has diverged; each has the values of its outcome."""
    outcomes = rows[[field.name for field in fields(Outcome)]].itertuples(index=False)
    return f"{sum(Outcome(*values).diverged for values in outcomes)} of {len(rows)}"


@torch.no_grad()
def evaluate(model: nn.Module, batches: Sequence[Batch]) -> tuple[float, Float[Tensor, "rows"]]:
    """Return the mean cross entropy, and the share of each row's answers that are right."""
    model.eval()
    loss, total = 0.0, 0
    right: list[Tensor] = []
    for batch in batches:
        logits, labels = predict(model, batch), batch["labels"]
        loss += float(cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum"))
        total += labels.numel()
        answers, _ = judge(logits, labels)
        right.append((answers == labels).double().view(len(labels), -1).mean(1))
    return loss / total, torch.cat(right)


def label_entropy(labels: Tensor) -> float:
    """Return the entropy of the labels' frequencies, in nats."""
    shares = torch.bincount(labels).double() / len(labels)
    return float(-torch.special.xlogy(shares, shares).sum())
