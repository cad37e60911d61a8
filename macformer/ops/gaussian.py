"""Attention with the Gaussian kernel, through torch's fused softmax attention."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention

from macformer.ops.flash import attend, attend_backward, lowest, to_one_width
from macformer.ops.precision import accumulation_dtype, without_autocast
from macformer.ops.present import mark_present

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

    Softmax attention computes it in linear memory; see :class:`_Rescaled`, which runs on CPUs, and
    :func:`_by_null_key`. Computed in float32 at least: norms of vectors do not fit into half
    precision.

    Args:
        dropout: Share of the weights dropped.
    """
    dtype = accumulation_dtype(value)
    q, k, v = (x.to(dtype) for x in (query, key, value))
    present = mark_present(key, key_padding_mask)
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, :, None]
        k, v = k.masked_fill(padding, 0), v.masked_fill(padding, 0)
    if dropout or q.device.type != "cpu":
        return _by_null_key(q, k, v, present, dropout=dropout).to(value.dtype)
    out = _Rescaled.apply(*to_one_width(q, k, v), present, query.shape[-1] ** -0.5)
    return out[..., : value.shape[-1]].to(value.dtype)


class _Rescaled(torch.autograd.Function):
    r"""Multiply softmax attention by the denominator that it has divided by.

    With the logits :math:`\sigma (q \cdot k - \|k\|^2 / 2)`, whose second term is a mask,
    :math:`o = \text{softmax attention} \cdot e^{z - \sigma \|q\|^2 / 2}`, where z is the
    logarithm of the denominator. The factor is a sum of Gaussian weights, at most n.

    The gradient of a logit is :math:`w \, \dot o \cdot v` with the Gaussian weight w. That is
    softmax attention's for the output zero and the normaliser :math:`\sigma \|q\|^2 / 2`. Summed
    over keys it is :math:`\dot o \cdot o`, over queries :math:`v \cdot \dot v`, which the
    gradients of the norms need.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, present: Tensor, scale: float):
        norms = scale * _minus_half_square(key)
        mask = torch.where(present[:, None, :, None], norms, lowest(norms.dtype)).mT
        out, normaliser = attend(query, key, value, mask, scale=scale)
        out *= (normaliser + scale * _minus_half_square(query)).exp()
        ctx.scale = scale
        ctx.save_for_backward(query, key, value, mask, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        query, key, value, mask, out = ctx.saved_tensors
        nothing = grad.new_zeros(grad.shape[-1]).expand_as(grad)
        normaliser = -ctx.scale * _minus_half_square(query)
        tensors = (grad, query, key, value, nothing, normaliser, mask)
        grad_query, grad_key, grad_value = attend_backward(*tensors, scale=ctx.scale)
        of_queries = (grad * out).sum(-1, keepdim=True)
        of_keys = (value * grad_value).sum(-1, keepdim=True)
        grad_query.addcmul_(query, of_queries, value=-ctx.scale)
        grad_key.addcmul_(key, of_keys, value=-ctx.scale)
        return grad_query, grad_key, grad_value, None, None


def _by_null_key(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor, *, dropout: float
) -> Float[Tensor, "B H L Ev"]:
    r"""Compute it by one more key.

    Two more entries in queries and keys make the logits :math:`-\|q - k\|^2 / 2`, and one more key,
    the null key with the logit :math:`\ln n` for n present keys, gets the weight
    :math:`w = n / (n + Z)`, where Z is the sum of the Gaussian weights. So what softmax returns is
    o / (n + Z) = o w / n, and one more entry of the values, 1 at the null key and 0 elsewhere,
    returns w, which lies between 1/2 and 1.
    """
    count = present.sum(1).clamp(min=1).to(q.dtype)[:, None, None, None]
    value_dim, scale = v.shape[-1], q.shape[-1] ** -0.5
    bias = torch.where(present[:, None, :, None], _minus_half_square(k), lowest(k.dtype))
    null = (count.log() / scale).expand(-1, k.shape[1], -1, -1)
    is_null = (torch.arange(k.shape[2] + 1, device=k.device) == k.shape[2]).to(q.dtype)[:, None]
    width = -(-max(q.shape[-1] + 2, value_dim + 1) // ALIGNMENT) * ALIGNMENT
    q = _widen(q, _minus_half_square(q), torch.ones_like(q[..., :1]), width=width)
    k = _widen(pad(k, (0, 0, 0, 1)), 1 - is_null, torch.cat([bias, null], dim=2), width=width)
    v = _widen(pad(v, (0, 0, 0, 1)), is_null, width=width)

    out = scaled_dot_product_attention(q, k, v, scale=scale)
    parts = [value_dim, 1, width - value_dim - 1]
    o, w, _ = out.split(parts, dim=-1)
    if dropout:
        out = scaled_dot_product_attention(q, k, v, scale=scale, dropout_p=dropout)
        o, _, _ = out.split(parts, dim=-1)
    return o * (count / w)


def gaussian_kernel(
    x: Float[Tensor, "*batch L E"], y: Float[Tensor, "*batch S E"]
) -> Float[Tensor, "*batch L S"]:
    """Return the weights as a matrix."""
    logits = x @ y.mT + _minus_half_square(x) + _minus_half_square(y).mT
    return torch.exp(logits / x.shape[-1] ** 0.5)


def _minus_half_square(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True) / -2


def _widen(x: Tensor, *columns: Tensor, width: int) -> Tensor:
    """Append columns, and zeros up to a width."""
    filler = x.new_zeros(1).expand(*x.shape[:-1], width - x.shape[-1] - len(columns))
    return torch.cat([x, *(c.expand(*x.shape[:-1], 1) for c in columns), filler], dim=-1)
