"""One optimisation step, and nothing else: it can be timed bare, captured or replayed."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from macformer.partials import without_hydra
from macformer.training.objectives import Batch, Loss, Objective

Clip = Callable[[list[nn.Parameter]], object]


class Gradients:
    r"""Leave the clipped gradients of a batch in the parameters of a model.

    Under autocast the forward pass alone is cast: the backward pass follows its dtypes by itself.

    Accumulation takes a batch in equal parts, one after the other, whose activations never exist
    together. With :math:`n_i` predictions scored in part i the gradient is that of the whole batch,

    .. math:: \nabla \frac{\sum_i n_i \ell_i}{\sum_i n_i}

    up to rounding; only random numbers, and statistics that a layer takes over the batch, are those
    of parts.

    Args:
        objective: What is minimised; see :mod:`macformer.training.objectives`.
        accumulate: Into how many parts a batch is split.
        clip: Clips the gradients in place; None leaves them.
        compile: Makes one function of the model and its loss, as :func:`compile_whole` does; None
            leaves them to the interpreter.
        backward: Lightning's ``manual_backward``, where it runs the step.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        objective: Objective,
        accumulate: int,
        clip: Clip | None,
        compile: Callable[[Objective], Objective] | None,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ):
        self.model = model
        self.accumulate = accumulate
        self.clip = None if clip is None else without_hydra(clip)
        self.backward = backward
        objective = without_hydra(objective)
        self._objective = objective if compile is None else compile(objective)

    def __call__(self, batch: Batch) -> Loss:
        """Return the loss before the step and the counts, all on the device."""
        torch.clear_autocast_cache()  # it may hold weights as they were before the last step
        self.model.zero_grad(set_to_none=True)
        result = self._of_whole(batch) if self.accumulate == 1 else self._of_parts(batch)
        if self.clip is not None:
            self.clip(self._with_gradients())
        return result

    def _of_whole(self, batch: Batch) -> Loss:
        loss, num_correct, num_scored = self._objective(self.model, batch)
        self._backward(loss)
        return Loss(loss.detach(), num_correct, num_scored)

    def _of_parts(self, batch: Batch) -> Loss:
        parts = {name: value.tensor_split(self.accumulate) for name, value in batch.items()}
        sums = []
        for values in zip(*parts.values(), strict=True):
            part = dict(zip(parts, values, strict=True))
            loss, num_correct, num_scored = self._objective(self.model, part)
            loss = loss * num_scored
            self._backward(loss)
            sums.append((loss.detach(), num_correct, num_scored))
        loss, num_correct, num_scored = (torch.stack(x).sum(0) for x in zip(*sums, strict=True))
        share = 1 / _mean_over_ranks(num_scored).clamp(min=1)
        for parameter in self._with_gradients():
            assert parameter.grad is not None
            parameter.grad.mul_(share)
        return Loss(loss / num_scored.clamp(min=1), num_correct, num_scored)

    def _backward(self, loss: Tensor) -> None:
        with torch.autocast(loss.device.type, enabled=False):
            self.backward(loss)

    def _with_gradients(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.grad is not None]


def optimisation_step(
    gradients: Callable[[Batch], Loss],
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> Loss:
    """Take one step of the optimiser and of the schedule.

    Args:
        gradients: :class:`Gradients`, or those of :mod:`macformer.training.capture`.

    Returns:
        The loss before the step and the counts, on the device.
    """
    result = gradients(batch)
    optimizer.step()
    scheduler.step()
    return result


def compile_whole(objective: Objective, *, combo_kernels: bool) -> Objective:
    """Compile a model and its loss into one program each way, or raise.

    Args:
        combo_kernels: Whether kernels that do not wait for one another are launched as one, on a
            GPU: casts of single weights, sums of a few numbers.
    """
    return torch.compile(objective, fullgraph=True, options={"combo_kernels": combo_kernels})


def _mean_over_ranks(count: Tensor) -> Tensor:
    """Average what each rank's gradients, which are averaged, will be divided by."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    total = count.double()
    dist.all_reduce(total)
    return total / dist.get_world_size()
