"""Attention transfer: each attention that was put in learns to answer as softmax does.

As the first of the two steps of LoLCATs (Zhang et al. 2024, arXiv 2410.10254), here for encoders,
with padding, and with the error over the signal as the measure, so that layers weigh alike.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from macformer.attention import SoftmaxAttention, UniformAttention
from macformer.dropin.observe import Call, answered
from macformer.dropin.sites import DropinError
from macformer.training.objectives import Batch, Loss, inputs_of, predict, with_counts

_SIZES = {"num_heads": 1, "head_dim": 1}  # which neither of the two has any use for


def transfer_attention(model: nn.Module, batch: Batch) -> Loss:
    r"""Take the sum over layers of how far each new attention is from softmax.

    .. math::
        \ell = \sum_l \frac{\sum \| \hat o_l - o_l \|^2}{\sum \| o_l - \bar v_l \|^2}

    over heads and present queries, with softmax's output :math:`o` and the mean of the values
    :math:`\bar v`: 1 for a layer is no better than averaging. Every layer is asked about what the
    model has with softmax, which answers in its place: all are learnt at once, in one pass.
    Gradients reach what was put in and nothing else, and the optimiser leaves the rest alone.

    In training the predictions that are counted are those of the model with softmax; in evaluation,
    which takes a second pass, those with the new attention.

    Raises:
        DropinError: If no attention was put in, or it has nothing to learn.
    """
    errors: list[Tensor] = []
    learns = torch.is_grad_enabled()

    def answer(call: Call) -> Tensor:
        with torch.set_grad_enabled(learns):
            error, softmax = compare_with_softmax(call)
        errors.append(error)
        return softmax

    with torch.no_grad(), answered(answer):
        # No call, whose hooks would take it for a prediction.
        logits = model.forward(*inputs_of(batch))
    if not errors:
        raise DropinError("the model has no attention of this project; use model=encoder")
    loss = torch.stack(errors).sum()
    if learns and not loss.requires_grad:
        raise DropinError(
            "the new attention has nothing to learn; rows with a scale have, as rmfa_exp_scaled, "
            "and any row under ppsbn=with"
        )
    if not model.training:
        logits = predict(model, batch)
    return with_counts(loss, logits, batch["labels"])


def compare_with_softmax(call: Call) -> tuple[Float[Tensor, ""], Tensor]:
    """Return the squared error over the signal of an attention, and softmax's answer."""
    with torch.no_grad():
        softmax = call.by(SoftmaxAttention(**_SIZES, dropout=0.0))
        signal = _sum_of_squares(softmax - call.by(UniformAttention(**_SIZES)), call)
    error = _sum_of_squares(call.by(call.attention) - softmax, call)
    return error / signal.clamp(min=torch.finfo(signal.dtype).tiny), softmax


def _sum_of_squares(x: Tensor, call: Call) -> Tensor:
    x = x.float()
    if call.key_padding_mask is not None:
        x = x.masked_fill(call.key_padding_mask[:, None, :, None], 0)
    return x.square().sum()
