"""Attention through random Maclaurin features that are never stored."""

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention


class MaclaurinFeatures(NamedTuple):
    r"""An estimate of a dot-product kernel by products of Rademacher projections.

    .. math::
        \hat K(q, k) = \text{constant} + \text{linear} \cdot q^\top k
            + \sum_f \text{weights}_f \prod_{j \le n_f} (s_{jf}^\top q) (s_{jf}^\top k)

    Features are sorted by falling degree n_f, so that level j of the product multiplies the first
    ``widths[j - 1]`` of them.

    Attributes:
        signs: Columns of -1 and 1, those of level 1 first; one set for all heads, or one for each.
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
        offsets = accumulate(features.widths)
        for start, stop in pairwise(offsets):
            alive = stop - start
            head = product[..., :alive] * projections[..., start:stop]
            product = torch.cat([head, product[..., alive:]], dim=-1)
        ones = torch.ones_like(x[..., :1])
        return torch.cat([product * weights, x * linear, ones * constant], dim=-1)

    phi_q = phi(query.to(dtype), features.weights.to(dtype), features.linear, features.constant)
    phi_k = phi(key.to(dtype), 1.0, 1.0, 1.0)
    out = linear_attention(
        phi_q, phi_k, value.to(dtype), key_padding_mask=key_padding_mask, eps=eps
    )
    return out.to(value.dtype)


def maclaurin_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    features: MaclaurinFeatures,
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend in time linear in S with an estimated dot-product kernel (Macformer, RMFA).

    .. math:: o_l = \frac{\sum_s \hat K(q_l, k_s) v_s}{\sum_s \hat K(q_l, k_s)}

    Args:
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero, with its sign: the estimate may be negative.
    """
    return maclaurin_attention_reference(
        query, key, value, features, key_padding_mask=key_padding_mask, eps=eps
    )
