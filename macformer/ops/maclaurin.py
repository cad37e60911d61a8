"""Attention through random Maclaurin features that are never stored."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention
from macformer.ops.maclaurin_tiled import Products
from macformer.ops.passes import Grads, through_maps
from macformer.ops.precision import accumulation_dtype, without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiled import FeatureMap


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
            :func:`lay_out` makes features of it.
        widths: Number of features alive at each level, never growing; empty without features.
        has_entries: A promise that the last E features of level 1 are of degree 1 and their signs
            unit vectors, as :func:`lay_out` makes them of the linear part. Tiles copy them on the
            way back, and do not read these signs there.
    """

    signs: Float[Tensor, "heads E C"]
    weights: Float[Tensor, " F"]
    constant: Float[Tensor, ""]
    linear: float
    widths: tuple[int, ...]
    has_entries: bool = False


@without_autocast
def maclaurin_features(
    query: Float[Tensor, "B H L E"], key: Float[Tensor, "B H S E"], features: MaclaurinFeatures
) -> tuple[Float[Tensor, "B H L F"], Float[Tensor, "B H S F"]]:
    """Store the features whose inner products estimate the kernel; those of queries carry weights.

    The constant and the exact part of degree 1 are features, too.
    """

    def phi(x: Tensor, weights: Tensor | float, linear: float, constant: Tensor | float) -> Tensor:
        projections = x @ features.signs.to(x.dtype)
        product = projections[..., : len(features.weights)]
        for start, stop in pairwise(accumulate(features.widths)):
            alive = stop - start
            head = product[..., :alive] * projections[..., start:stop]
            product = torch.cat([head, product[..., alive:]], dim=-1)
        ones = torch.ones_like(x[..., :1])
        return torch.cat([product * weights, x * linear, ones * constant], dim=-1)

    weights, constant = features.weights, features.constant
    return phi(query, weights, features.linear, constant), phi(key, 1.0, 1.0, 1.0)


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
    dtype = accumulation_dtype(query)
    phi_q, phi_k = maclaurin_features(query.to(dtype), key.to(dtype), features)
    out = linear_attention(
        phi_q, phi_k, value.to(dtype), key_padding_mask=key_padding_mask, eps=eps
    )
    return out.to(value.dtype)


def _maps(
    _query: Tensor, _key: Tensor, parameters: Sequence[Any], _grads: Grads
) -> tuple[FeatureMap, FeatureMap]:
    signs, weights, constant, widths, has_entries = parameters
    both = Products(signs, widths, has_entries, weights, constant)
    return both, both


def _kernels(
    _query: Tensor, _key: Tensor, parameters: Sequence[Any], _grads: Grads
) -> tuple[Any, Any] | None:
    from macformer.ops import maclaurin_triton

    signs, weights, constant, widths, _ = parameters
    if not widths:
        return None
    both = maclaurin_triton.products(signs, widths, weights, constant)
    return both, both


def _size(query: torch.Size, signs: torch.Size, weights: torch.Size, *_: object) -> Size:
    return Size(features=weights[0], columns=signs[-1])


_forward, _backward = through_maps("maclaurin_attention", _maps, make_kernels=_kernels)
_attend = register_attention(
    "maclaurin_attention",
    "Tensor signs, Tensor weights, Tensor constant, SymInt[] widths, bool has_entries",
    forward=_forward,
    backward=_backward,
    size=_size,
)


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
    laid_out = lay_out(features)
    out, _, _ = _attend(
        query,
        key,
        value,
        laid_out.signs,
        laid_out.weights.to(accumulation_dtype(query)),
        laid_out.constant,
        laid_out.widths,
        laid_out.has_entries,
        key_padding_mask,
        eps,
    )
    return out.to(value.dtype if out_dtype is None else out_dtype)


def lay_out(features: MaclaurinFeatures) -> MaclaurinFeatures:
    """Append the exact part of degree 1 as E features, whose signs are unit vectors.

    :func:`maclaurin_attention` does so for itself at every call; features laid out once, which have
    no such part left, spare it that.
    """
    signs, weights, widths = features.signs, features.weights, features.widths
    if not features.linear:
        return features
    heads, head_dim, _ = signs.shape
    first = widths[0] if widths else 0
    unit = torch.eye(head_dim, dtype=signs.dtype, device=signs.device).expand(heads, -1, -1)
    return MaclaurinFeatures(
        signs=torch.cat([signs[..., :first], unit, signs[..., first:]], dim=-1),
        weights=torch.cat([weights, weights.new_full((head_dim,), features.linear)]),
        constant=features.constant,
        linear=0.0,
        widths=(first + head_dim, *widths[1:]),
        has_entries=True,
    )
