"""Attention through random Maclaurin features that are never stored."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from macformer.ops.linear import linear_attention
from macformer.ops.maclaurin_tiled import Products
from macformer.ops.tiled import (
    accumulation_dtype,
    fits_kernels,
    fold,
    fold_mask,
    folds,
    tiled_backward,
    tiled_flops,
    tiled_forward,
    tiled_shapes,
    unfold,
)


class MaclaurinFeatures(NamedTuple):
    r"""An estimate of a dot-product kernel by products of Rademacher projections.

    .. math::
        \hat K(q, k) = \text{constant} + \text{linear} \cdot q^\top k
            + \sum_f \text{weights}_f \prod_{j \le n_f} (s_{jf}^\top q) (s_{jf}^\top k)

    Features are sorted by falling degree n_f, so that level j of the product multiplies the first
    ``widths[j - 1]`` of them.

    Attributes:
        signs: Columns of signs, which may carry a scale, those of level 1 first; one set for all
            heads, or one for each.
        weights: Squared scale of each feature, not negative.
        constant: Part of degree 0.
        linear: Weight of the exact part of degree 1; nothing is computed for it when it is 0.
        widths: Number of features alive at each level, never growing; empty without features.
    """

    signs: Float[Tensor, "heads E C"]
    weights: Float[Tensor, " F"]
    constant: Float[Tensor, ""]
    linear: float
    widths: tuple[int, ...]


def maclaurin_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    features: MaclaurinFeatures,
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`maclaurin_attention`: every feature is stored, autograd does the rest."""
    dtype = torch.promote_types(query.dtype, torch.float32)

    def phi(x: Tensor, weights: Tensor | float, linear: float, constant: Tensor | float) -> Tensor:
        projections = x @ features.signs.to(dtype)
        product = projections[..., : len(features.weights)]
        for start, stop in pairwise(accumulate(features.widths)):
            alive = stop - start
            head = product[..., :alive] * projections[..., start:stop]
            product = torch.cat([head, product[..., alive:]], dim=-1)
        ones = torch.ones_like(x[..., :1])
        return torch.cat([product * weights, x * linear, ones * constant], dim=-1)

    phi_q = phi(query.to(dtype), features.weights, features.linear, features.constant)
    phi_k = phi(key.to(dtype), 1.0, 1.0, 1.0)
    out = linear_attention(
        phi_q, phi_k, value.to(dtype), key_padding_mask=key_padding_mask, eps=eps
    )
    return out.to(value.dtype)


@torch.library.custom_op("macformer::maclaurin_attention", mutates_args=())
def _maclaurin(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    signs: Tensor,
    weights: Tensor,
    constant: Tensor,
    widths: Sequence[int],
    key_padding_mask: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    options = {
        "weights": weights,
        "constant": constant,
        "key_padding_mask": key_padding_mask,
        "eps": eps,
    }
    if widths and fits_kernels(query, key, value):
        from macformer.ops import fused, maclaurin_triton

        products = maclaurin_triton.products(signs, widths)
        return fused.fused_forward(query, key, value, products, **options)
    return _on_folded(tiled_forward, (query, key, value), signs, widths, **options)


@torch.library.custom_op("macformer::maclaurin_attention_backward", mutates_args=())
def _maclaurin_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    signs: Tensor,
    weights: Tensor,
    constant: Tensor,
    widths: Sequence[int],
    key_padding_mask: Tensor | None,
    eps: float,
    grad_out: Tensor,
    out: Tensor,
    denominator: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    grads = grad_out, out, denominator, state
    options = {
        "weights": weights,
        "constant": constant,
        "key_padding_mask": key_padding_mask,
        "eps": eps,
    }
    if widths and fits_kernels(query, key, value):
        from macformer.ops import fused, maclaurin_triton

        products = maclaurin_triton.products(signs, widths)
        return fused.fused_backward(query, key, value, products, *grads, **options)
    tensors = query, key, value, *grads
    return _on_folded(tiled_backward, tensors, signs, widths, **options)


def _on_folded(
    op: Callable[..., tuple[Tensor, Tensor, Tensor]],
    tensors: Sequence[Tensor],
    signs: Tensor,
    widths: Sequence[int],
    *,
    key_padding_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Call a tiled op, on many short examples at once where heads share their features."""
    heads = tensors[0].shape[1]
    folded = len(signs) == 1 and folds(*tensors[:2])
    if folded:
        tensors = [fold(x) for x in tensors]
        key_padding_mask = fold_mask(key_padding_mask, heads=heads)
    features = Products(signs, widths)
    first, second, third = op(
        *tensors[:3], features, *tensors[3:], key_padding_mask=key_padding_mask, **options
    )
    if not folded:
        return first, second, third
    return unfold(first, heads=heads), unfold(second, heads=heads), unfold(third, heads=heads)


@_maclaurin.register_fake
def _(query, key, value, signs, weights, constant, widths, key_padding_mask, eps):
    return tiled_shapes(query, value, num_features=weights.shape[0])


@_maclaurin_backward.register_fake
def _(query, key, value, *_):
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )


def _setup_context(ctx, inputs, output):
    *tensors, ctx.widths, mask, ctx.eps = inputs
    ctx.save_for_backward(*tensors, mask, *output)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, grad_out, *_):
    *tensors, mask, out, denominator, state = ctx.saved_tensors
    grads = _maclaurin_backward(
        *tensors, ctx.widths, mask, ctx.eps, grad_out, out, denominator, state
    )
    return *grads, *[None] * 6


_maclaurin.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.macformer.maclaurin_attention)
def _flops(query, key, value, signs, weights, *_, out_shape=None, **kwargs) -> int:
    return tiled_flops(query, key, value, columns=signs[-1], num_features=weights[0])


@register_flop_formula(torch.ops.macformer.maclaurin_attention_backward)
def _backward_flops(query, key, value, signs, weights, *_, out_shape=None, **kwargs) -> int:
    return 2 * tiled_flops(query, key, value, columns=signs[-1], num_features=weights[0])


def maclaurin_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    features: MaclaurinFeatures,
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend in time linear in S with an estimated dot-product kernel (Macformer, RMFA).

    .. math:: o_l = \frac{\sum_s \hat K(q_l, k_s) v_s}{\sum_s \hat K(q_l, k_s)}

    On CUDA, Triton kernels take query, key and value of one dtype below float64 and dims to 128.
    Everything else falls back to tiles of plain torch in float32 or float64.
    The output is rounded once.

    Args:
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator from zero, with its sign: the estimate may be negative.
        out_dtype: Of the output, that of value unless given. What attention adds to the mean of the
            values may be a twentieth of the output, so that bfloat16 rounds it by percents.
    """
    signs, weights, widths = _with_linear(features, dtype=accumulation_dtype(query))
    out, _, _ = _maclaurin(
        query, key, value, signs, weights, features.constant, widths, key_padding_mask, eps
    )
    return out.to(value.dtype if out_dtype is None else out_dtype)


def _with_linear(
    features: MaclaurinFeatures, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[int]]:
    """Append the exact part of degree 1 as E features, whose signs are unit vectors."""
    signs, weights, widths = features.signs, features.weights.to(dtype), list(features.widths)
    if not features.linear:
        return signs, weights, widths
    heads, head_dim, _ = signs.shape
    first = widths[0] if widths else 0
    unit = torch.eye(head_dim, dtype=signs.dtype, device=signs.device).expand(heads, -1, -1)
    signs = torch.cat([signs[..., :first], unit, signs[..., first:]], dim=-1)
    weights = torch.cat([weights, weights.new_full((head_dim,), features.linear)])
    return signs, weights, [first + head_dim, *widths[1:]]
