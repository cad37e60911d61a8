r"""Division by the norm: of whole tensors, and of a tile before a feature map."""

import torch
from jaxtyping import Float
from torch import Tensor

from macformer.ops.precision import accumulation_dtype
from macformer.ops.tiled import FeatureMap, Features, Pull
from macformer.ops.tiling import Tile

# Keeps zero at zero; gradients grow by at most its root's inverse, which float16 can hold.
EPS = 1e-8


def to_sphere(x: Float[Tensor, "*batch E"]) -> Float[Tensor, "*batch E"]:
    r"""Divide by the norm, :math:`x / \sqrt{\|x\|^2 + \epsilon}`, in float32 at least."""
    wide = x.to(accumulation_dtype(x))
    return (wide * _inverse_norm(wide)).to(x.dtype)


def _inverse_norm(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)


class OnSphere:
    """A feature map of what :func:`to_sphere` makes of a tile (a FeatureMap)."""

    def __init__(self, inner: FeatureMap):
        self.inner = inner
        self.num_features, self.num_columns = inner.num_features, inner.num_columns
        self.weights, self.constant = inner.weights, inner.constant

    def features(self, x: Tensor, tile: Tile) -> Features:
        return self.inner.features(x * _inverse_norm(x), tile)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        inverse = _inverse_norm(x)
        unit = x * inverse
        phi, pull_inner = self.inner.pullback(unit, tile)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad = pull_inner(y, state)
            radial = (grad * unit).sum(-1, keepdim=True)
            return grad.addcmul_(unit, radial, value=-1).mul_(inverse)

        return phi, pull


def placed(feature_map: FeatureMap, *, on_sphere: bool) -> FeatureMap:
    """Return a feature map, of unit vectors if asked."""
    return OnSphere(feature_map) if on_sphere else feature_map
