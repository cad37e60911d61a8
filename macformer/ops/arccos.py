"""Attention through random arc-cosine features."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention


def arccos_features(
    x: Float[Tensor, "B H N E"], omega: Float[Tensor, "heads E F"]
) -> Float[Tensor, "B H N F"]:
    r"""Map to :math:`\phi(x) = \sqrt{2 / F} \max(\Omega^\top x, 0)` (Cho and Saul 2009)."""
    dtype = torch.promote_types(x.dtype, omega.dtype)
    return (x.to(dtype) @ omega.to(dtype)).relu() * math.sqrt(2 / omega.shape[-1])


def arccos_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through random arc-cosine features (Peng et al. 2021, RFA-arccos).

    .. math:: \phi(x) = \sqrt{2 / F} \max(\Omega^\top x, 0)

    Args:
        omega: One set of directions for all heads, or one for each; it receives a gradient.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    return linear_attention(
        arccos_features(query, omega),
        arccos_features(key, omega),
        value,
        key_padding_mask=key_padding_mask,
        eps=eps,
    )
