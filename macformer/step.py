"""One optimisation step, and nothing else: it can be timed bare, captured or replayed."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = Mapping[str, Tensor]


def classification_loss(
    model: nn.Module, batch: Batch
) -> tuple[Float[Tensor, ""], Float[Tensor, "B C"]]:
    """Run the model on a batch; return the mean cross entropy and the logits."""
    logits = model(batch["input_ids"], batch["key_padding_mask"])
    return cross_entropy(logits, batch["labels"]), logits


def optimisation_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    *,
    clip: Callable[[list[nn.Parameter]], object] | None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Take one step of the optimiser and of the schedule.

    Args:
        clip: Clips the gradients in place.
        backward: Lightning's ``manual_backward``, where it runs the step.

    Returns:
        The loss before the step and the number of correct predictions, on the device.
    """
    loss, logits = classification_loss(model, batch)
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    if clip is not None:
        clip([p for p in model.parameters() if p.grad is not None])
    optimizer.step()
    scheduler.step()
    return loss.detach(), (logits.detach().argmax(-1) == batch["labels"]).sum()
