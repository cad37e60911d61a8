"""One optimisation step, and nothing else: it can be timed bare, captured or replayed."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = Mapping[str, Tensor]
Clip = Callable[[list[nn.Parameter]], object]


def classification_loss(
    model: nn.Module, batch: Batch
) -> tuple[Float[Tensor, ""], Float[Tensor, "B C"]]:
    """Run the model on a batch; return the mean cross entropy and the logits."""
    logits = model(batch["inputs"], batch["key_padding_mask"])
    return cross_entropy(logits, batch["labels"]), logits


class Gradients:
    """Leave the clipped gradients of a batch in the parameters of a model.

    Under autocast the forward pass alone is cast: the backward pass follows its dtypes by itself.

    Args:
        clip: Clips the gradients in place; None leaves them.
        compile: Compiles the model and its loss into one function, as ``torch.compile`` does; None
            leaves them to the interpreter.
        backward: Lightning's ``manual_backward``, where it runs the step.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        clip: Clip | None,
        compile: Callable[..., Callable[..., tuple[Tensor, Tensor]]] | None,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ):
        self.model = model
        self.clip = clip
        self.backward = backward
        self._loss = classification_loss if compile is None else compile(classification_loss)

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """Return the loss and the number of correct predictions, both on the device."""
        loss, logits = self._loss(self.model, batch)
        with torch.autocast(loss.device.type, enabled=False):
            self.model.zero_grad(set_to_none=True)
            self.backward(loss)
            if self.clip is not None:
                self.clip([p for p in self.model.parameters() if p.grad is not None])
        return loss.detach(), (logits.detach().argmax(-1) == batch["labels"]).sum()


def optimisation_step(
    gradients: Callable[[Batch], tuple[Tensor, Tensor]],
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Take one step of the optimiser and of the schedule.

    Args:
        gradients: :class:`Gradients`, or those of :mod:`macformer.training.capture`.

    Returns:
        The loss before the step and the number of correct predictions, on the device.
    """
    loss, num_correct = gradients(batch)
    optimizer.step()
    scheduler.step()
    return loss, num_correct
