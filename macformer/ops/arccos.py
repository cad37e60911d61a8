"""Attention through random arc-cosine features, tile by tile on a CPU.

On a GPU, where so many small products would wait for each other, features are stored.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from macformer.ops.linear import linear_attention
from macformer.ops.passes import Grads, through_maps
from macformer.ops.registration import Size, register_attention
from macformer.ops.sphere import placed, to_sphere
from macformer.ops.tiled import FeatureMap, Features, Pull, where_positive
from macformer.ops.tiling import HeadMatrices, Tile, add_of_heads


def arccos_features(
    x: Float[Tensor, "B H N E"], omega: Float[Tensor, "heads E F"]
) -> Float[Tensor, "B H N F"]:
    r"""Map to :math:`\phi(x) = \sqrt{2 / F} \max(\Omega^\top x, 0)` (Cho and Saul 2009)."""
    dtype = torch.promote_types(x.dtype, omega.dtype)
    return (x.to(dtype) @ omega.to(dtype)).relu() * math.sqrt(2 / omega.shape[-1])


def arccos_attention_reference(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    """Define :func:`arccos_attention`: the features are stored, autograd does the rest."""
    return linear_attention(
        arccos_features(query, omega),
        arccos_features(key, omega),
        value,
        key_padding_mask=key_padding_mask,
        eps=eps,
    )


class _Rectified:
    r"""Projections above zero, without the factor :math:`\sqrt{2 / F}` (a FeatureMap)."""

    constant = 0.0

    def __init__(self, omega: Tensor, grad_omega: Tensor | None = None):
        self.grad_omega = grad_omega
        self._matrices = HeadMatrices(omega)
        self.num_features = self.num_columns = omega.shape[-1]
        self.weights = 2 / omega.shape[-1]

    def features(self, x: Tensor, tile: Tile) -> Features:
        return (self._matrices.multiply(x, tile).relu_(),)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        (phi,) = self.features(x, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad = where_positive(torch.bmm(y, state), phi)
            if self.grad_omega is not None:
                add_of_heads(self.grad_omega, torch.bmm(x.mT, grad), tile)
            return torch.bmm(grad, self._matrices.of(x, tile).mT)

        return (phi,), pull


def _maps(
    _query: Tensor, _key: Tensor, parameters: Sequence[Any], grads: Grads
) -> tuple[FeatureMap, FeatureMap]:
    omega, on_sphere = parameters
    both = placed(_Rectified(omega, *grads), on_sphere=on_sphere)
    return both, both


def _size(query: torch.Size, omega: torch.Size, on_sphere: bool) -> Size:
    return Size(features=omega[-1], columns=omega[-1])


_forward, _backward = through_maps("arccos_attention", _maps, num_learnt=1)
_attend = register_attention(
    "arccos_attention",
    "Tensor omega, bool on_sphere",
    forward=_forward,
    backward=_backward,
    size=_size,
    num_learnt=1,
)


def arccos_attention(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S Ev"],
    omega: Float[Tensor, "heads E F"],
    *,
    on_sphere: bool = False,
    key_padding_mask: Bool[Tensor, "B S"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, "B H L Ev"]:
    r"""Attend through random arc-cosine features (Peng et al. 2021, RFA-arccos).

    .. math:: \phi(x) = \sqrt{2 / F} \max(\Omega^\top x, 0)

    Args:
        omega: One set of directions for all heads, or one for each; it receives a gradient.
        on_sphere: Divide queries and keys by their norms first.
        key_padding_mask: True at padding; such keys leave both sums.
        eps: Keeps the denominator away from zero.
    """
    if query.is_cuda:
        if on_sphere:
            query, key = to_sphere(query), to_sphere(key)
        options = {"key_padding_mask": key_padding_mask, "eps": eps}
        return arccos_attention_reference(query, key, value, omega, **options)
    return _attend(query, key, value, omega, on_sphere, key_padding_mask, eps)[0].to(value.dtype)
