"""Maclaurin features of one tile, and the way back through them."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from macformer.ops.tiled import Pull
from macformer.ops.tiling import Tile, of_heads


class Products:
    """Each level multiplies the prefix of features that are still alive (a FeatureMap)."""

    def __init__(self, signs: Tensor, widths: Sequence[int], weights: Tensor, constant: Tensor):
        self.signs = signs
        self.weights, self.constant = weights, constant
        self.num_features = widths[0] if widths else 0
        self.buffer: Tensor | None = None
        self.num_columns = sum(widths)
        self.levels = [slice(start, stop) for start, stop in pairwise(accumulate(widths))]

    def features(self, x: Tensor, tile: Tile) -> Tensor:
        projections = self._project(x, of_heads(self.signs, x, tile))
        phi = projections[..., : self.num_features]
        for level in self.levels:
            phi[..., : _width(level)].mul_(projections[..., level])
        return phi

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Tensor, Pull]:
        columns = of_heads(self.signs, x, tile)
        projections = self._project(x, columns)
        phi = projections[..., : self.num_features]
        prefixes = []  # the product before each level; dividing it out would fail at zeros
        for level in self.levels:
            alive = phi[..., : _width(level)]
            prefixes.append(alive.clone())
            alive.mul_(projections[..., level])

        def pull(y: Tensor, state: Tensor) -> Tensor:
            grad_phi = torch.bmm(y, state)
            for level, prefix in zip(reversed(self.levels), reversed(prefixes), strict=True):
                alive = grad_phi[..., : _width(level)]
                prefix.mul_(alive)
                alive.mul_(projections[..., level])
            grad_x = torch.bmm(grad_phi, columns[..., : self.num_features].mT)
            for level, grad_level in zip(self.levels, prefixes, strict=True):
                grad_x.baddbmm_(grad_level, columns[..., level].mT)
            return grad_x

        return phi, pull

    def _project(self, x: Tensor, columns: Tensor) -> Tensor:
        """Multiply into a buffer kept from tile to tile, whose rows start at whole cache lines."""
        row = -(-self.num_columns // 16) * 16
        size = x.shape[0] * x.shape[1] * row
        if self.buffer is None or self.buffer.numel() < size:
            self.buffer = x.new_empty(size)
        out = self.buffer[:size].view(x.shape[0], x.shape[1], row)[..., : self.num_columns]
        return torch.bmm(x, columns, out=out)


def _width(level: slice) -> int:
    return level.stop - level.start
