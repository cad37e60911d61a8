"""Maclaurin features of one tile, and the way back through them."""

import math
from collections.abc import Sequence
from functools import partial

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
        self.num_columns, self._num_further = _whole_lines(widths), _whole_lines(widths[1:])
        self._projected = Memory(partial(_cut, widths=widths))
        self._gradients = Memory(partial(_split, widths=widths[1:]))

    def features(self, x: Tensor, tile: Tile) -> Features:
        first, steps = self._project(x, self._signs.of(x, tile))
        for alive, level in steps:
            alive.mul_(level)
        return (first,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        signs = self._signs.of(x, tile)
        first, steps = self._project(x, signs)
        of_levels, *befores = self._gradients.take(x, *x.shape[:2], self._num_further)
        for (alive, level), before in zip(steps, befores, strict=True):
            before.copy_(alive)  # dividing the product out again would fail at zeros
            alive.mul_(level)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            torch.bmm(y, state, out=first)
            for (grad, level), before in zip(reversed(steps), reversed(befores), strict=True):
                before.mul_(grad)
                grad.mul_(level)
            grad_x = torch.bmm(first, signs[..., : self.num_features].mT)
            if steps:
                grad_x.baddbmm_(of_levels, signs[..., self.num_features :].mT)
            return grad_x

        return (first,), pull

    def _project(self, x: Tensor, signs: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        whole, first, steps = self._projected.take(x, *x.shape[:2], self.num_columns)
        torch.bmm(x, signs, out=whole)
        return first, steps


def _whole_lines(widths: Sequence[int]) -> int:
    """Return the numbers of a row that begins with a cache line: it is read a fifth faster."""
    return 16 * math.ceil(sum(widths) / 16)


def _split(memory: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Return what rows hold of all levels, and of each."""
    whole = memory[..., : sum(widths)]
    return whole, *whole.split_with_sizes(list(widths), -1)


def _cut(
    memory: Tensor, widths: Sequence[int]
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Return what rows hold of all levels, of the first, and of each other one.

    Beside the latter stand the features of the first that it multiplies.
    """
    whole, *levels = _split(memory, widths)
    if not levels:
        return whole, whole, []
    first, *others = levels
    return whole, first, [(first[..., : level.shape[-1]], level) for level in others]
