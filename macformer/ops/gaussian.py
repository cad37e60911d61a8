"""Attention with the Gaussian kernel, through torch's fused softmax attention."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from macformer.ops.linear import without_autocast
from macformer.ops.present import mark_present

NEVER = -1e30  # a logit whose weight is zero, and whose products are finite
ALIGNMENT = 4  # of vectors of float32 in the fused kernels of CUDA


@without_autocast
def gaussian_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H L Ev"]:
    r"""Sum the values with Gaussian weights, without a denominator.

    .. math:: o_l = \sum_s \exp\left(-\frac{\|q_l - k_s\|^2}{2 \sqrt E}\right) v_s

    Softmax attention computes it in linear memory: two more entries in queries and keys make the
    logits :math:`-\|q - k\|^2 / 2`, and one more key, the null key with the logit :math:`\ln n` for
    n present keys, gets the weight :math:`w = n / (n + Z)`, where Z is the sum of the Gaussian
    weights. So what softmax returns is o / (n + Z) = o w / n, and one more entry of the values, 1
    at the null key and 0 elsewhere, returns w, which lies between 1/2 and 1. Computed in float32 at
    least: norms of vectors do not fit into half precision.

    Args:
        dropout: Share of the weights dropped.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    q, k, v = (x.to(dtype) for x in (query, key, value))
    present = mark_present(key, key_padding_mask)
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, :, None]
        k, v = k.masked_fill(padding, 0), v.masked_fill(padding, 0)
    count = present.sum(1).clamp(min=1).to(dtype)[:, None, None, None]

    scale = q.shape[-1] ** -0.5
    bias = torch.where(present[:, None, :, None], _half_square(k), NEVER)
    null = (count.log() / scale).expand(-1, k.shape[1], -1, -1)
    is_null = (torch.arange(k.shape[2] + 1, device=k.device) == k.shape[2]).to(dtype)[:, None]
    width = -(-max(q.shape[-1] + 2, v.shape[-1] + 1) // ALIGNMENT) * ALIGNMENT
    q = _widen(q, _half_square(q), torch.ones_like(q[..., :1]), width=width)
    k = _widen(pad(k, (0, 0, 0, 1)), 1 - is_null, torch.cat([bias, null], dim=2), width=width)
    v = _widen(pad(v, (0, 0, 0, 1)), is_null, width=width)

    out = scaled_dot_product_attention(q, k, v, scale=scale)
    parts = [value.shape[-1], 1, width - value.shape[-1] - 1]
    o, w, _ = out.split(parts, dim=-1)
    if dropout:
        out = scaled_dot_product_attention(q, k, v, scale=scale, dropout_p=dropout)
        o, _, _ = out.split(parts, dim=-1)
    return (o * (count / w)).to(value.dtype)


def gaussian_kernel(
    x: Float[Tensor, "*batch L E"], y: Float[Tensor, "*batch S E"]
) -> Float[Tensor, "*batch L S"]:
    """Return the weights as a matrix."""
    logits = x @ y.mT + _half_square(x) + _half_square(y).mT
    return torch.exp(logits / x.shape[-1] ** 0.5)


def _half_square(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True) / -2


def _widen(x: Tensor, *columns: Tensor, width: int) -> Tensor:
    """Append columns, and zeros up to a width."""
    filler = x.new_zeros(1).expand(*x.shape[:-1], width - x.shape[-1] - len(columns))
    return torch.cat([x, *(c.expand(*x.shape[:-1], 1) for c in columns), filler], dim=-1)
