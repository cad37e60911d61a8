"""Maclaurin features of one tile, and the way back through them."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from macformer.ops.tiled import Features, Pull
from macformer.ops.tiling import HeadMatrices, Memory, Tile


class Products:
    """Products of projections, and maybe the entries of a row as they are (a FeatureMap).

    The first two levels are multiplied into the memory of features, and each further one multiplies
    those at the front that are still alive. On the way back, the gradient of features multiplies
    either of the first two where it lies, which gives the gradient of the other. So neither is
    copied, and their signs change places.

    Args:
        signs: As in :class:`~macformer.ops.MaclaurinFeatures`, like all other arguments.
    """

    def __init__(
        self,
        signs: Tensor,
        widths: Sequence[int],
        has_entries: bool,
        weights: Tensor,
        constant: Tensor,
    ):
        self.weights, self.constant = weights, constant
        self.num_features, *levels = widths or (0,)
        self.num_columns = sum(widths)
        num_entries = signs.shape[-2] if has_entries else 0
        pairs, *further = levels or (0,)
        single = self.num_features - num_entries - pairs  # features of one projection
        parts = signs.split_with_sizes([pairs, single, num_entries, pairs, *further], -1)
        self._signs_of = *parts[:2], *parts[3:]
        self._signs = HeadMatrices(torch.cat(self._signs_of, -1))
        sizes = [pairs, single, num_entries]
        self._features = Memory(partial(_cut_features, sizes=sizes, widths=further))
        sizes = [pairs, single, pairs, *further, *further]
        self._row = 16 * math.ceil(sum(sizes) / 16)  # begins with a cache line
        sizes = [*sizes, self._row - sum(sizes)]
        self._projections = Memory(partial(_cut_projections, sizes=sizes))

    @cached_property
    def _signs_back(self) -> HeadMatrices:
        first, single, second, *further = self._signs_of
        return HeadMatrices(torch.cat([second, single, first, *further], -1))

    def features(self, x: Tensor, tile: Tile) -> Features:
        phi, projections = self._project(x, tile)
        for alive, (level, _) in zip(phi.alive, projections.further, strict=True):
            alive.mul_(level)
        return (phi.whole,)

    def pullback(self, x: Tensor, tile: Tile) -> tuple[Features, Pull]:
        phi, projections = self._project(x, tile)
        steps = list(zip(phi.alive, projections.further, strict=True))
        for alive, (level, before) in steps:
            before.copy_(alive)  # dividing the product out again would fail at zeros
            alive.mul_(level)

        def pull(y: Tensor, state: Tensor) -> Tensor:
            torch.bmm(y, state, out=phi.whole)
            for grad, (level, before) in reversed(steps):
                before.mul_(grad)
                grad.mul_(level)
                level.copy_(before)
            projections.first.mul_(phi.pairs)
            projections.second.mul_(phi.pairs)
            if phi.single.shape[-1]:
                projections.single.copy_(phi.single)
            signs = self._signs_back.of(x, tile).mT
            if phi.entries.shape[-1]:
                return torch.baddbmm(phi.entries, projections.whole, signs)
            return torch.bmm(projections.whole, signs)

        return (phi.whole,), pull

    def _project(self, x: Tensor, tile: Tile) -> tuple["_Features", "_Projections"]:
        """Return a tile's features to the end of the second level, and all its projections."""
        phi = self._features.take(x, *x.shape[:2], self.num_features)
        projections = self._projections.take(x, *x.shape[:2], self._row)
        self._signs.multiply(x, tile, out=projections.whole)
        torch.mul(projections.first, projections.second, out=phi.pairs)
        if phi.single.shape[-1]:
            phi.single.copy_(projections.single)
        if phi.entries.shape[-1]:
            phi.entries.copy_(x)
        return phi, projections


class _Features(NamedTuple):
    """Memory of a tile's features, and then of the gradients at them; [heads, tokens, X] each.

    Attributes:
        whole: Of all.
        pairs: Of those that begin with a product of two projections.
        single: Of those that are one projection.
        entries: Of those that are an entry of the row.
        alive: Of those that each further level multiplies.
    """

    whole: Tensor
    pairs: Tensor
    single: Tensor
    entries: Tensor
    alive: list[Tensor]


class _Projections(NamedTuple):
    """Memory of a tile's projections, and then of the gradients at them; [heads, tokens, X] each.

    Attributes:
        whole: Of all.
        first: Of those that pairs begin with.
        single: Of those that are features as they are.
        second: Of those of the second level.
        further: Of those of each further level, and what the features are before it.
    """

    whole: Tensor
    first: Tensor
    single: Tensor
    second: Tensor
    further: list[tuple[Tensor, Tensor]]


def _cut_features(memory: Tensor, sizes: list[int], widths: list[int]) -> _Features:
    pairs, single, entries = memory.split_with_sizes(sizes, -1)
    return _Features(memory, pairs, single, entries, [pairs[..., :width] for width in widths])


def _cut_projections(memory: Tensor, sizes: list[int]) -> _Projections:
    first, single, second, *others, _ = memory.split_with_sizes(sizes, -1)
    num_further = len(others) // 2
    whole = memory[..., : sum(sizes[: 3 + num_further])]
    further = list(zip(others[:num_further], others[num_further:], strict=True))
    return _Projections(whole, first, single, second, further)
