"""Attention through learnt features that compete with each other, tile by tile on a CPU.

On a GPU, where so many small products would wait for each other, features are stored.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention
from macformer.ops.passes import Grads, through_maps
from macformer.ops.precision import accumulation_dtype, without_autocast
from macformer.ops.registration import Size, register_attention
from macformer.ops.tiled import FeatureMap, Features, Pull
from macformer.ops.tiling import HeadMatrices, Tile, add_of_heads


@without_autocast
def hedgehog_features(
    x: Float[Tensor, "B H N E"], weight: Float[Tensor, "H E E"]
) -> Float[Tensor, "B H N twoE"]:
    r"""Map to :math:`\mathrm{softmax}([W x, -W x])` (Zhang et al. 2024)."""
    x = x.to(accumulation_dtype(x))
    projected = x @ weight.to(x.dtype).mT
    return torch.cat([projected, -projected], dim=-1).softmax(-1)


class _Competing:
    """:func:`hedgehog_features` (a FeatureMap)."""

    weights, constant = 1.0, 0.0

    def __init__(self, weight: Tensor, grad_weight: Tensor | None = None):
        self.grad_weight = grad_weight
        self._matrices = HeadMatrices(weight)
        self.num_features = self.num_columns = 2 * weight.shape[-1]

    def features(self, x: Tensor, tile: Tile) -> Features:
        projected = torch.bmm(x, self._matrices.of(x, tile).mT)
        return (torch.cat([projected, -projected], dim=-1).softmax(-1),)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        (phi,) = self.features(x, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad = torch.ops.aten._softmax_backward_data(torch.bmm(y, state), phi, -1, phi.dtype)
            positive, negative = grad.chunk(2, dim=-1)
            grad_projected = positive - negative
            if self.grad_weight is not None:
                add_of_heads(self.grad_weight, torch.bmm(grad_projected.mT, x), tile)
            return torch.bmm(grad_projected, self._matrices.of(x, tile))

        return (phi,), pull


def _maps(
    _query: Tensor, _key: Tensor, weights: Sequence[Any], grads: Grads
) -> tuple[FeatureMap, FeatureMap]:
    queries, keys = (_Competing(*pair) for pair in zip(weights, grads, strict=True))
    return queries, keys


def _size(query: torch.Size, *weights: torch.Size) -> Size:
    return Size(features=2 * query[-1], columns=query[-1])


_forward, _backward = through_maps("hedgehog_attention", _maps, num_learnt=2)
_attend = register_attention(
    "hedgehog_attention",
    "Tensor weight_query, Tensor weight_key",
    forward=_forward,
    backward=_backward,
    size=_size,
    num_learnt=2,
)


def hedgehog_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    weight_query: Float[Tensor, "H E E"],
    weight_key: Float[Tensor, "H E E"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through :func:`hedgehog_features`, with a matrix for each head.

    Args:
        weight_query: W of the queries; it receives a gradient.
        weight_key: W of the keys, likewise.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    if query.is_cuda:
        phi_q, phi_k = hedgehog_features(query, weight_query), hedgehog_features(key, weight_key)
        return linear_attention(phi_q, phi_k, value, key_padding_mask=key_padding_mask, eps=eps)
    out, _, _ = _attend(query, key, value, weight_query, weight_key, key_padding_mask, eps)
    return out.to(value.dtype)
