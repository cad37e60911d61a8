"""Softmax attention with its normaliser, forward and backward apart, for ops that combine several.

On CPUs through torch's flash kernel, which stores no weights; elsewhere through plain torch, which
stores those of one call. Nothing here is recorded for differentiation.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from macformer.ops.precision import accumulation_dtype
from macformer.ops.tiling import contiguous_rows

_aten = torch.ops.aten
_flash = _aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = _aten._scaled_dot_product_flash_attention_for_cpu_backward.default

UNIT = 16  # numbers of keys that are multiples of it take a tenth less of the kernel's time


def round_up(num_keys: int) -> int:
    """Return the least number from this one on that suits the kernel."""
    return -(-num_keys // UNIT) * UNIT


def to_one_width(*tensors: Tensor) -> list[Tensor]:
    """Put zeros behind shorter vectors, since the kernel knows one width."""
    width = max(x.shape[-1] for x in tensors)
    return [pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in tensors]


def lowest(dtype: torch.dtype) -> float:
    """Return what a mask adds to the logit of a key that does not count.

    It is finite, so that a query without any key has a normaliser, of next to nothing.
    """
    return -3e4 if dtype == torch.float16 else -1e30


def heads_as_examples(
    *tensors: Float[Tensor, "B H _ _"],
) -> tuple[Float[Tensor, "BH 1 _ _"], ...]:
    """Give each head an example of its own, which is worth it where a mask is the same for all.

    The kernel writes the heads of an example side by side, which is slow to add up.
    """
    return tuple(x.flatten(0, 1)[:, None] for x in tensors)


def attend(
    query: Float[Tensor, "N G L E"],
    key: Float[Tensor, "N G S E"],
    value: Float[Tensor, "N G S E"],
    mask: Tensor | None,
    *,
    scale: float,
) -> tuple[Float[Tensor, "N G L E"], Float[Tensor, "N G L 1"]]:
    r"""Return softmax attention, and the normaliser :math:`\log \sum_s e^{\sigma q \cdot k_s}`.

    Args:
        mask: Added to the logits, with an axis of one wherever it is the same.
        scale: :math:`\sigma`.

    Returns:
        Without any key, zeros and :func:`lowest`.
    """
    if query.device.type != "cpu":
        return attend_reference(query, key, value, mask, scale=scale)
    if not query.numel() or not key.numel():  # the kernel would divide by their number
        return _attend_nothing(query, value)
    tensors = map(contiguous_rows, (query, key, value))
    out, normaliser = _flash(*tensors, 0.0, False, attn_mask=mask, scale=scale)
    return out, normaliser[..., None]


def attend_backward(
    grad: Float[Tensor, "N G L E"],
    query: Float[Tensor, "N G L E"],
    key: Float[Tensor, "N G S E"],
    value: Float[Tensor, "N G S E"],
    out: Float[Tensor, "N G L E"],
    normaliser: Float[Tensor, "N G L 1"],
    mask: Tensor | None,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the gradients of query, key and value.

    With :math:`p_s = e^{\sigma q \cdot k_s - z}`, that of a logit is
    :math:`p_s (\dot o \cdot v_s - \dot o \cdot o)`. Where o and z are those of a softmax over more
    keys than these, the gradients are these keys' share.
    """
    if query.device.type != "cpu":
        return attend_backward_reference(
            grad, query, key, value, out, normaliser, mask, scale=scale
        )
    if not query.numel() or not key.numel():
        return query.new_zeros(query.shape), key.new_zeros(key.shape), value.new_zeros(value.shape)
    tensors = map(contiguous_rows, (grad, query, key, value, out))
    z = normaliser.squeeze(-1)
    return _flash_backward(*tensors, z, 0.0, False, attn_mask=mask, scale=scale)


def attend_reference(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Store the weights."""
    if not key.shape[2]:
        return _attend_nothing(query, value)
    logits = _logits(query, key, mask, scale=scale)
    normaliser = logits.logsumexp(-1, keepdim=True)
    return ((logits - normaliser).exp().to(value.dtype) @ value), normaliser


def attend_backward_reference(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    normaliser: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the weights again, and store them."""
    weights = (_logits(query, key, mask, scale=scale) - normaliser).exp()
    grad_weights = grad @ value.mT - (grad * out).sum(-1, keepdim=True)
    grad_logits = (scale * weights * grad_weights).to(query.dtype)
    return grad_logits @ key, grad_logits.mT @ query, weights.to(grad.dtype).mT @ grad


def _attend_nothing(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    shape, dtype = query.shape[:-1], accumulation_dtype(query)
    out = value.new_zeros(*shape, value.shape[-1])
    return out, query.new_full((*shape, 1), lowest(dtype), dtype=dtype)


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    logits = scale * (query @ key.mT).to(accumulation_dtype(query))
    return logits if mask is None else logits + mask
