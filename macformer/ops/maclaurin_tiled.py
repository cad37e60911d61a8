"""Maclaurin features of one tile, and the way back through them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from macformer.ops.tiled import Features, Pull
from macformer.ops.tiling import HeadMatrices, Memory, Tile


class Products:
    """Each level multiplies the prefix of features that are still alive (a FeatureMap)."""

    def __init__(self, signs: Tensor, widths: Sequence[int], weights: Tensor, constant: Tensor):
        self._signs = HeadMatrices(signs)
        self.weights, self.constant = weights, constant
        self.num_features = widths[0] if widths else 0
        num_signs = sum(widths)
        # A row begins with a cache line: it is multiplied a fifth faster.
        self.num_columns = num_signs + -num_signs % 16
        cut = partial(_cut, widths=widths)
        self._projected, self._gradients = Memory(cut), Memory(cut)

    def features(self, x: Tensor, tile: Tile) -> Features:
        projected = self._project(x, self._signs.of(x, tile))
        for alive, level in zip(projected.alive, projected.levels, strict=True):
            alive.mul_(level)
        return (projected.first,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        signs = self._signs.of(x, tile)
        projected = self._project(x, signs)
        gradients = self._columns(x, self._gradients)
        steps = list(zip(projected.alive, projected.levels, gradients.levels, strict=True))
        for alive, level, before in steps:
            before.copy_(alive)  # dividing the product out again would fail at zeros
            alive.mul_(level)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            torch.bmm(y, state, out=gradients.first)
            for grad, (_, level, before) in zip(
                reversed(gradients.alive), reversed(steps), strict=True
            ):
                before.mul_(grad)
                grad.mul_(level)
            return torch.bmm(gradients.whole, signs.mT)

        return (projected.first,), pull

    def _project(self, x: Tensor, signs: Tensor) -> "_Columns":
        projected = self._columns(x, self._projected)
        torch.bmm(x, signs, out=projected.whole)
        return projected

    def _columns(self, x: Tensor, memory: "Memory[_Columns]") -> "_Columns":
        """Return memory for a number of each token and column."""
        return memory.take(x, *x.shape[:2], self.num_columns)


class _Columns(NamedTuple):
    """Views of the numbers that each token has one of for every column.

    Attributes:
        whole: All of them.
        first: Those of the first level, one for each feature.
        levels: Those of every further level.
        alive: The features that each of these levels multiplies.
    """

    whole: Tensor
    first: Tensor
    levels: list[Tensor]
    alive: list[Tensor]


def _cut(memory: Tensor, widths: Sequence[int]) -> _Columns:
    whole = memory[..., : sum(widths)]
    first, *levels = whole.split(list(widths), dim=-1) if widths else (whole,)
    alive = [first[..., : level.shape[-1]] for level in levels]
    return _Columns(whole, first, levels, alive)
