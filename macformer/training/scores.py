"""What a validation or a test says, summed over its batches and over ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Accuracy(Metric):
    """The share of right predictions among those scored."""

    correct: Tensor
    scored: Tensor

    def __init__(self):
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("scored", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, num_correct: Tensor, num_scored: Tensor) -> None:
        self.correct += num_correct
        self.scored += num_scored

    def compute(self) -> Tensor:
        """Return the share in float64, as floors are: a row at a floor is not above it."""
        return self.correct.to("cpu", torch.float64) / self.scored.cpu()


def at_least_float32(x: Tensor) -> Tensor:
    """Return a number of 16 bits in 32, and any other as it is: sums lose what they cannot hold."""
    is_half = x.is_floating_point() and x.element_size() < torch.float32.itemsize
    return x.float() if is_half else x


class MeanLoss(Metric):
    """The mean loss over all that is scored; not finite where that of one batch is not."""

    total: Tensor
    scored: Tensor

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("scored", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, num_scored: Tensor) -> None:
        # a precision of 16 bits makes the total one, too, which would soon stand still or overflow
        self.total = at_least_float32(self.total) + at_least_float32(loss) * num_scored
        self.scored += num_scored

    def compute(self) -> Tensor:
        return self.total / self.scored
