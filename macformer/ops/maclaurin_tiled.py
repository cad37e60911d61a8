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

    Raises:
        ValueError: If a second level multiplies entries.
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
        self.num_columns = sum(
            widths
        )  # what is held is half as much again, at which tiles are fast
        num_entries = signs.shape[-2] if has_entries else 0
        pairs, *further = levels or (0,)
        single = self.num_features - num_entries - pairs  # features of one projection
        if single < 0:
            raise ValueError(f"widths {tuple(widths)} leave no {num_entries} features of degree 1")
        parts = signs.split_with_sizes([pairs, single, num_entries, pairs, *further], -1)
        self._signs_of = *parts[:2], *parts[3:]
        first, alone, second, *others = self._signs_of
        self._signs = HeadMatrices(torch.cat([*others, first, alone, second], -1))
        sizes = [pairs, single, num_entries]
        self._features = Memory(partial(_cut_features, sizes=sizes, widths=further))
        sizes = [*further, pairs, single, pairs, *further]
        self._row = 16 * math.ceil(sum(sizes) / 16)  # begins with a cache line
        sizes = [*sizes, self._row - sum(sizes)]
        self._projections = Memory(partial(_cut_projections, sizes=sizes))

    @cached_property
    def _signs_back(self) -> HeadMatrices:
        first, alone, second, *further = self._signs_of
        return HeadMatrices(torch.cat([second, alone, first, *further], -1))

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
            projections.first.mul_(phi.pairs)
            projections.second.mul_(phi.pairs)
            if phi.single.shape[-1]:
                projections.single.copy_(phi.single)
            signs = self._signs_back.of(x, tile).mT
            if phi.entries.shape[-1]:
                return torch.baddbmm(phi.entries, projections.gradients, signs)
            return torch.bmm(projections.gradients, signs)

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
        whole: Of all projections.
        gradients: Of the gradients at all of them.
        first: Of those that pairs begin with, and then of the gradients at the second level.
        single: Of those that are features as they are.
        second: Of those of the second level, and then of the gradients at the first.
        further: Of those of each further level, and of what the features are before it, which
            becomes its gradient.
    """

    whole: Tensor
    gradients: Tensor
    first: Tensor
    single: Tensor
    second: Tensor
    further: list[tuple[Tensor, Tensor]]


def _cut_features(memory: Tensor, sizes: list[int], widths: list[int]) -> _Features:
    pairs, single, entries = memory.split_with_sizes(sizes, -1)
    return _Features(memory, pairs, single, entries, [pairs[..., :width] for width in widths])


def _cut_projections(memory: Tensor, sizes: list[int]) -> _Projections:
    """Cut rows so that projections lie at the front, and their gradients behind each other."""
    num_further = (len(sizes) - 4) // 2
    parts = memory.split_with_sizes(sizes, -1)
    further, (first, single, second), befores = (
        parts[:num_further],
        parts[num_further : num_further + 3],
        parts[num_further + 3 : -1],
    )
    num_befores, num_unused = sum(sizes[:num_further]), sizes[-1]
    return _Projections(
        whole=memory[..., : memory.shape[-1] - num_unused - num_befores],
        gradients=memory[..., num_befores : memory.shape[-1] - num_unused],
        first=first,
        single=single,
        second=second,
        further=list(zip(further, befores, strict=True)),
    )
